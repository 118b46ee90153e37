"""What operators look at: health, readiness, metrics, models, devices, documentation."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from model_store.bundle import pack
from model_store.errors import BundleCorrupt
from service.answers import (
    Devices,
    Embeddings,
    Limits,
    ModelDetail,
    Models,
    NamedTaskAnswer,
    Problem,
    ZeroShotAnswer,
)
from service.app import create_app
from service.settings import Settings
from tests import tiny_bundle
from tests.service.conftest import BLACK, Running, Serve, edited, image, patient, problem_of
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}


def figures(client: httpx.Client) -> dict[tuple[str, ...], float]:
    """Sample name and label values → value."""
    text = client.get("/metrics").text
    return {
        (sample.name, *(sample.labels[key] for key in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


def test_healthy_service_is_alive_and_ready(client: httpx.Client) -> None:
    assert client.get("/healthz").json() == {"status": "alive"}
    assert client.get("/readyz").json() == {"status": "ready"}


@pytest.mark.parametrize(
    "path",
    [
        *("/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"),
        *("/v1/models", "/v1/models/tiny", "/v1/devices", "/v1/limits"),
    ],
)
def test_head_is_get_without_the_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"]
    if path != "/metrics":  # a scrape later the process has other figures
        assert head.headers["content-length"] == got.headers["content-length"]
    refused = client.post(path)
    problem_of(refused, 404, "not_found")
    assert set(refused.headers["allow"].split(", ")) == {"GET", "HEAD"}


def test_head_of_what_is_not_there_is_not_found(client: httpx.Client) -> None:
    for path in ("/v1/nothing", "/v1/malignancy", "/v1/models/other"):
        answer = client.head(path)
        assert (answer.status_code, answer.content) == (404, b"")
        assert answer.headers["content-type"] == "application/problem+json"


def test_canary_that_scores_otherwise_leaves_the_service_up_but_not_ready(
    bundle: Path, serve: Serve, tmp_path: Path
) -> None:
    def shift(document: dict[str, Any]) -> None:
        document["frames"][0]["probability"]["malignancy"] += 0.01

    with serve(bundle=edited(bundle, tmp_path / "b", "canaries.json", shift)) as up:
        assert up.client.get("/healthz").status_code == 200
        for answer in (
            up.client.get("/readyz"),
            up.client.post("/v1/malignancy", content=image(), headers=PNG),
        ):
            problem = problem_of(answer, 503, "not_ready")
            assert "0.01" in problem["detail"]
            assert int(answer.headers["retry-after"]) > 0
        assert figures(up.client)[("endoclip_ready",)] == 0
        assert up.client.get("/v1/models").status_code == 200


def test_text_tower_that_fails_leaves_the_service_not_ready(tmp_path: Path, serve: Serve) -> None:
    path = tiny_bundle.build_tiny_bundle(tmp_path / "whole")
    files: dict[str, bytes | Path] = {p.name: p for p in path.iterdir() if p.is_file()}
    files |= {f"canaries/{p.name}": p for p in (path / "canaries").iterdir()}
    del files["manifest.json"]
    pack(tmp_path / "b", tiny_bundle.manifest(), files | {"text_tower.onnx": path / "unify.onnx"})
    with serve(bundle=tmp_path / "b") as up:
        problem_of(up.client.get("/readyz"), 503, "not_ready")
        answer = up.client.post("/v1/embeddings", json={"texts": ["red"]})
        problem_of(answer, 503, "not_ready")


@pytest.mark.parametrize("name", ["balanced", "sensitivity_first", "specificity_first"])
def test_bundle_without_one_of_the_three_operating_points_is_not_served(
    bundle: Path, tmp_path: Path, name: str
) -> None:
    def drop(document: dict[str, Any]) -> None:
        del document["malignancy"]["operating_points"][name]

    path = edited(bundle, tmp_path / "b", "calibration.json", drop)
    with pytest.raises(BundleCorrupt, match="balanced, sensitivity_first, specificity_first"):
        create_app(Settings(bundle=path))


def test_dead_worker_is_not_ready(serve: Serve) -> None:
    with serve() as up:
        assert up.client.get("/readyz").status_code == 200
        up.app.state.engine._batcher.stop()
        problem = problem_of(up.client.get("/readyz"), 503, "not_ready")
        assert "worker" in problem["detail"]


def test_stopped_engine_is_shutting_down(serve: Serve) -> None:
    with serve() as up:
        assert up.client.get("/readyz").status_code == 200
        up.app.state.engine.stop()
        for answer in (
            up.client.get("/readyz"),
            up.client.post("/v1/malignancy", content=image(), headers=PNG),
        ):
            problem_of(answer, 503, "shutting_down")
            assert int(answer.headers["retry-after"]) > 0
        assert figures(up.client)[("endoclip_ready",)] == 0


def test_start_that_fails_in_an_unforeseen_way_is_not_ready(bundle: Path, tmp_path: Path) -> None:
    app = create_app(Settings(bundle=Path(shutil.copytree(bundle, tmp_path / "b"))))
    # The self-test reads the folder again, after it was verified.
    (tmp_path / "b" / "canaries" / "near.png").unlink()
    with TestClient(app) as client:
        problem = problem_of(client.get("/readyz"), 503, "not_ready")
    assert problem["detail"] == "The self-test failed: FileNotFoundError"


def test_metrics_count_requests_by_outcome(serve: Serve) -> None:
    with serve() as up:
        document = {"patients": [patient(image(), b"broken", image(BLACK))]}
        assert up.client.post("/v1/malignancy", json=document).status_code == 200
        up.client.post("/v1/malignancy", json={"patients": [patient(b"broken")]})
        up.client.post("/v1/malignancy", json=[])
        up.client.post("/v1/zero-shot", content=b"", headers={"Content-Type": "text/html"})
        up.client.get("/v1/nothing")
        found = figures(up.client)
    requests = {key[1:]: value for key, value in found.items() if "requests_total" in key[0]}
    assert {key: value for key, value in requests.items() if value} == {
        ("ok", "malignancy"): 1,
        ("all_frames_rejected", "malignancy"): 1,
        ("invalid_request", "malignancy"): 1,
        ("unsupported_media_type", "zero_shot"): 1,
    }
    tasks = {"polyp_detection", "malignancy", "zero_shot", "embeddings"}
    tasks |= {"exam_frames", "exam_report"}
    for outcome in ("ok", "client_gone", "internal", "not_ready", "payload_too_large"):
        assert {task for one, task in requests if one == outcome} == tasks
    assert found[("endoclip_ready",)] == 1


def test_two_apps_in_one_process_count_apart(serve: Serve) -> None:
    with serve() as one, serve() as two:
        one.client.post("/v1/malignancy", content=image(), headers=PNG)
        key = ("endoclip_requests_total", "ok", "malignancy")
        assert figures(one.client)[key] == 1
        assert figures(two.client)[key] == 0


def test_client_that_leaves_is_counted_and_its_work_dropped(serve: Serve) -> None:
    frames = [image((200, 30, 30 + n % 100), size=(1500, 1500)) for n in range(40)]
    text = json.dumps({"patients": [patient(*frames)]}).encode()
    head = (
        "POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(text)}\r\n\r\n"
    )
    with serve(decode_threads=1) as up:
        with socket.create_connection(("127.0.0.1", up.port), timeout=60) as wire:
            wire.sendall(head.encode() + text)
        key = ("endoclip_requests_total", "client_gone", "malignancy")
        wait_until(lambda: figures(up.client)[key])
        found = figures(up.client)
        assert found[key] == 1
        assert found[("endoclip_frames_total", "", "scored")] == 0
        assert up.client.post("/v1/malignancy", content=image(), headers=PNG).status_code == 200


def test_model_is_described_in_full(server: Running, client: httpx.Client) -> None:
    listed = client.get("/v1/models").json()
    Models.model_validate(listed)
    one = client.get(f"/v1/models/{listed['models'][0]['name']}").json()
    ModelDetail.model_validate(one)
    assert one["digest"] == server.app.state.engine.bundle.digest
    assert one["card"].startswith("# Tiny")
    assert one["manifest"]["format_version"] == 1
    malignancy = one["label_sets"]["malignancy"]
    assert malignancy["positive"] == "malignant"
    assert [label["label"] for label in malignancy["labels"]] == ["malignant", "benign"]
    point = one["operating_points"]["malignancy"]["balanced"]
    assert point["measured"] == {"sensitivity": 1.0, "specificity": 1.0}


@pytest.mark.parametrize("name", ["other", "TINY", "tiny.", "%2e%2e", "a%00b", "%ff"])
def test_unknown_model_is_not_found(client: httpx.Client, name: str) -> None:
    problem_of(client.get(f"/v1/models/{name}"), 404, "unknown_model")


def test_devices_begin_with_the_default(client: httpx.Client) -> None:
    answer = client.get("/v1/devices").json()
    Devices.model_validate_json(json.dumps(answer))
    assert answer["devices"] == [
        {"name": "full_frame", "crop": [0.0, 0.0, 1.0, 1.0]},
        {"name": "left-half", "crop": [0.0, 0.0, 0.5, 1.0]},
    ]


def test_limits_are_as_documented_by_default(client: httpx.Client) -> None:
    answer = client.get("/v1/limits").json()
    Limits.model_validate(answer)
    assert (answer["max_frames"], answer["max_patients"]) == (512, 64)
    assert answer["max_body_bytes"] == 256 * 1024 * 1024
    assert (answer["max_frame_bytes"], answer["max_frame_pixels"]) == (32 * 1024 * 1024, 64_000_000)
    assert answer["formats"] == ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "DICOM"]


def test_openapi_describes_every_route_form_and_error(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/v1/polyp-detection",
        "/v1/malignancy",
        "/v1/zero-shot",
        "/v1/embeddings",
        "/v1/exams",
        "/v1/exams/{exam_id}",
        "/v1/exams/{exam_id}/frames",
        "/v1/exams/{exam_id}/close",
        "/v1/exams/{exam_id}/report",
        "/v1/exams/{exam_id}/report/{task}",
        "/v1/models",
        "/v1/models/{name}",
        "/v1/devices",
        "/v1/limits",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/admin/models",
        "/v1/admin/models/load",
        "/v1/admin/models/rollback",
        "/v1/admin/models/shadow",
    }
    for task in ("polyp-detection", "malignancy", "zero-shot", "embeddings"):
        operation = document["paths"][f"/v1/{task}"]["post"]
        forms = set(operation["requestBody"]["content"])
        assert {"multipart/form-data", "application/json", "image/jpeg"} <= forms
        responses = operation["responses"]
        assert {"200", "400", "404", "413", "415", "422", "500", "503"} <= set(responses)
        assert "Retry-After" in responses["503"]["headers"]
        assert "Allow" in responses["404"]["headers"]
    frames = document["paths"]["/v1/exams/{exam_id}/frames"]["post"]
    assert {"multipart/form-data", "image/png"} <= set(frames["requestBody"]["content"])
    assert "409" in frames["responses"]
    report = document["paths"]["/v1/exams/{exam_id}/report/{task}"]["post"]
    assert set(report["responses"]["200"]["content"]) == {"application/dicom"}
    assert [one["name"] for one in report["parameters"] if one["in"] == "path"] == [
        *("exam_id", "task")
    ]
    assert "Retry-After" in document["paths"]["/readyz"]["get"]["responses"]["503"]["headers"]
    assert not any("head" in operations for operations in document["paths"].values())


def test_every_reference_in_openapi_resolves(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [ref for value in node.values() for ref in references(value)]
        if isinstance(node, list):
            return [ref for value in node for ref in references(value)]
        return []

    found = references(document)
    assert found
    for reference in found:
        node = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


@pytest.mark.parametrize("model", [NamedTaskAnswer, ZeroShotAnswer, Embeddings, Problem])
def test_examples_in_the_documentation_are_valid_answers(model: type[BaseModel]) -> None:
    (example,) = model.model_json_schema()["examples"]
    model.model_validate_json(json.dumps(example))


def test_docs_page_needs_nothing_from_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert "http://" not in answer.text
    assert "https://" not in answer.text
    assert "openapi.json" in answer.text
