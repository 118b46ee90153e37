"""The running service keeps to its OpenAPI document: schemathesis asks, `make soak` for longer."""

import json
from pathlib import Path

import httpx

from bench.contract import check
from bench.served import Served


def test_service_keeps_to_its_document(shipped: Served) -> None:
    done = check(f"{shipped.url}/openapi.json", 0)
    assert done.returncode == 0, done.stdout[-6000:]
    assert shipped.failures() == []


def test_document_that_is_not_kept_to_is_found_out(shipped: Served, tmp_path: Path) -> None:
    document = httpx.get(f"{shipped.url}/openapi.json").json()
    limits = document["paths"]["/v1/limits"]
    limits["get"]["responses"] = {"201": {"description": "Never."}}
    (tmp_path / "openapi.json").write_text(json.dumps(document | {"paths": {"/v1/limits": limits}}))
    done = check(str(tmp_path / "openapi.json"), 0, "--url", shipped.url)
    assert done.returncode == 1
    assert "Undocumented" in done.stdout, done.stdout[-3000:]
