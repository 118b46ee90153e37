"""The report shows what ``training evidence`` measured of the run's own bundle, or says why not."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch", reason="needs torch (extra `train`)")

from model_store.bundle import Bundle
from tests.tiny_bundle import build_tiny_bundle
from training.report.blocks import Finding, Missing, Table
from training.report.inputs import Inputs
from training.report.signatures import failure_signatures


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1, "items": 40, "groups": 20}


def told(value: float) -> dict[str, Any]:
    return {"auroc": value, "auroc_low": value - 0.1, "auroc_high": value + 0.1}


def side(before: float, after: float) -> dict[str, Any]:
    rates = [{"positive": {"balanced": share(value)}} for value in (before, after)]
    change = {"value": after - before, "low": -0.1, "high": 0.5}
    return {"before": rates[0], "after": rates[1], "change": change}


SIGNATURES = {
    "disturbed": {
        "glare": {"without": side(0.2, 0.2)},
        "bubbles": {"without": side(0.2, 0.6), "with_polyp": side(0.8, 0.7)},
    },
    "labelled": {},
    "rare": {
        "flat": {"found": share(0.35), "others": share(0.9)},
        "pale": {"found": share(0.9), "others": share(0.8)},
    },
    "mixed": {
        name: {pooling: told(value) for pooling in ("unify", "mean", "max")}
        for name, value in (("mixed", 0.75), ("pure", 0.875))
    },
    "drift": {
        "polyp_detection": {
            "with_lesion": {
                count: {"median": 0.9, "positive": share(value)}
                for count, value in (("1", 0.9), ("30", 0.8), ("300", 0.2))
            }
        }
    },
}


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    build_tiny_bundle(tmp_path / "tiny")
    return Inputs(tmp_path, None, None, "select", tmp_path / "experiments")


def write(inputs: Inputs, text: str) -> None:
    (inputs.run / "evidence-select.json").write_text(text, "utf-8")


def missing(inputs: Inputs) -> str:
    (only,) = failure_signatures(inputs)
    assert isinstance(only, Missing)
    assert only.command.startswith("python -m training evidence")
    return only.reason


def test_every_signature_that_was_measured_is_a_finding(inputs: Inputs) -> None:
    digest = Bundle.open(inputs.run / "tiny").digest
    write(inputs, json.dumps({"digest": digest, "signatures": SIGNATURES}))
    found = {one.key: one for one in failure_signatures(inputs) if isinstance(one, Finding)}
    assert list(found) == [f"signature-{k}" for k in ("disturbed", "rare", "mixed", "drift")]
    assert "Bubbles changes false alarms most: by 0.40." in found["signature-disturbed"].reading
    assert "flat lesions, 0.35" in found["signature-rare"].reading
    assert "0.125 with unify" in found["signature-mixed"].reading
    assert "0.90 at 1 frames and 0.20 at 300 frames" in found["signature-drift"].reading
    (table,) = found["signature-disturbed"].blocks
    assert isinstance(table, Table)
    assert len(table.rows) == 3


def test_what_is_absent_broken_or_of_another_bundle_is_named(inputs: Inputs) -> None:
    assert "holds no evidence-select.json" in missing(inputs)
    for text in ("{", "[]", "{}"):
        write(inputs, text)
        assert "is not what" in missing(inputs)
    write(inputs, json.dumps({"digest": "sha256:0", "signatures": SIGNATURES}))
    assert "another bundle" in missing(inputs)
