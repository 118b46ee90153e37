"""The self-test holds on the machine that packed, and fails when any number on the way moves."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_store.bundle import Bundle, pack
from model_store.canaries import read_canaries
from model_store.encoder import Encoder
from model_store.errors import BundleCorrupt, EncodeFailed, SelfTestFailed
from model_store.selftest import self_test
from tests import tiny_bundle


def repacked(tiny: Bundle, out: Path, **changed: bytes) -> Encoder:
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    files |= {name.replace("__", "."): data for name, data in changed.items()}
    return Encoder(pack(out, tiny_bundle.manifest(), files), threads=1)


def edited(tiny: Bundle, change: Callable[[Any], None]) -> bytes:
    table = json.loads((tiny.path / "canaries.json").read_text())
    change(table)
    return json.dumps(table).encode()


def test_untouched_bundle_passes(encoder: Encoder) -> None:
    report = self_test(encoder)
    assert report.max_difference <= report.tolerance == 1e-3
    assert report.provider == encoder.provider
    # Three frames of two probabilities and four numbers, the patient's two probabilities, and the
    # sentence's four numbers.
    assert report.compared == 3 * (2 + 4) + 2 + 4


def test_one_canary_lies_near_a_threshold(tiny: Bundle) -> None:
    probabilities = [frame.probability["malignancy"] for frame in tiny.canaries.frames]
    assert min(probabilities) < 0.05
    assert max(probabilities) > 0.95
    assert any(0.2 < probability < 0.8 for probability in probabilities)


def test_edited_mean_in_the_image_tower_is_noticed(tiny: Bundle, tmp_path: Path) -> None:
    moved = repacked(
        tiny, tmp_path / "b", **{"image_tower__onnx": tiny_bundle.image_tower(mean_shift=0.01)}
    )
    with pytest.raises(SelfTestFailed) as caught:
        self_test(moved)
    assert caught.value.difference > caught.value.tolerance


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["frames"][0]["probability"].update(malignancy=0.5), "malignancy"),
        (lambda c: c["frames"][1]["embedding_head"].__setitem__(2, 0.9), "embedding 2"),
        (lambda c: c["text"]["embedding_head"].__setitem__(0, 0.9), "text embedding 0"),
        (lambda c: c["text"].update(sentence="blue"), "text embedding"),
        (lambda c: c["patient"].update(polyp_detection=0.5), "patient polyp_detection"),
        (lambda c: c["patient"].update(more=0.5), "patient more"),
        (lambda c: c["frames"][0].update(probability={}), "malignancy"),
    ],
)
def test_moved_canary_record_fails_naming_the_number(
    tiny: Bundle, tmp_path: Path, change: Callable[[Any], None], named: str
) -> None:
    moved = repacked(tiny, tmp_path / "b", canaries__json=edited(tiny, change))
    with pytest.raises(SelfTestFailed, match=named):
        self_test(moved)


@pytest.mark.parametrize("with_record", [True, False])
def test_text_tower_that_is_another_graph_is_noticed(
    tiny: Bundle, tmp_path: Path, *, with_record: bool
) -> None:
    changed = {"text_tower__onnx": (tiny.path / "unify.onnx").read_bytes()}
    if not with_record:
        changed["canaries__json"] = edited(tiny, lambda c: c.pop("text"))
    with pytest.raises(EncodeFailed):
        self_test(repacked(tiny, tmp_path / "b", **changed))


def test_older_bundle_without_a_sentence_passes(tiny: Bundle, tmp_path: Path) -> None:
    encoder = repacked(tiny, tmp_path / "b", canaries__json=edited(tiny, lambda c: c.pop("text")))
    assert encoder.bundle.canaries.text is None
    assert self_test(encoder).compared == 3 * (2 + 4) + 2


def test_canary_that_the_gate_sets_aside_is_noticed(tiny: Bundle, tmp_path: Path) -> None:
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in tiny.manifest.files}
    gate = tiny.manifest.quality_gate | {"min_detail": 0.3}
    bundle = pack(tmp_path / "b", replace(tiny_bundle.manifest(), quality_gate=gate), files)
    with pytest.raises(SelfTestFailed, match=r"normal\.png is set aside as blurred"):
        self_test(Encoder(bundle, threads=1))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["frames"].append(c["frames"][0]), "each file once"),
        (lambda c: c["frames"][0].update(embedding_head=[]), "4 numbers; found 0"),
        (lambda c: c["text"].update(embedding_head=[0.0] * 5), "4 numbers; found 5"),
        (lambda c: c["text"].update(more=1), "unknown more"),
        (lambda c: c.pop("patient"), "without patient"),
    ],
)
def test_senseless_canary_record_is_refused(
    tiny: Bundle, tmp_path: Path, change: Callable[[Any], None], named: str
) -> None:
    with pytest.raises(BundleCorrupt, match=named):
        repacked(tiny, tmp_path / "b", canaries__json=edited(tiny, change))


def test_bundle_without_canaries_does_not_pass(tiny: Bundle, tmp_path: Path) -> None:
    names = [name for name in tiny.manifest.files if not name.startswith("canaries/")]
    files: dict[str, bytes | Path] = {name: tiny.path / name for name in names}
    files["canaries.json"] = b'{"tolerance": 0.001, "frames": [], "patient": {}}'
    bundle = pack(tmp_path / "b", tiny_bundle.manifest(), files)
    with pytest.raises(SelfTestFailed, match="no canary frame"):
        self_test(Encoder(bundle, threads=1))


@pytest.mark.parametrize("tolerance", [0, -1, 0.1, 5])
def test_tolerance_that_would_let_anything_pass_is_refused(tolerance: float) -> None:
    data = json.dumps({"tolerance": tolerance, "frames": [], "patient": {}}).encode()
    with pytest.raises(BundleCorrupt, match="tolerance"):
        read_canaries(data)


def test_the_text_tower_is_proven_and_not_kept(tiny: Bundle) -> None:
    encoder = Encoder(tiny, threads=1)
    self_test(encoder)
    assert not encoder.text_loaded
    before = encoder.encode_texts(["red"])
    assert encoder.text_loaded
    self_test(encoder)  # one that is in use stays
    assert encoder.text_loaded
    assert (encoder.encode_texts(["red"]) == before).all()
