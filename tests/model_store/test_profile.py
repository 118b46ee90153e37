"""A site profile is read strictly, belongs to one bundle, and reaches from frames to patients."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_store.adapters import Adapter, LinearAdapter
from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleCorrupt, ProfileMismatch
from model_store.patient import PatientScore, score_patient
from model_store.profile import (
    BundleRef,
    read_profile,
    write_profile,
)
from model_store.scoring import Calibration, unit_rows
from tests.tiny_profile import CACHE, LINEAR, tiny_profile

RNG = np.random.default_rng(3)


def rows(count: int) -> np.ndarray:
    return unit_rows(RNG.normal(size=(count, 4)).astype(np.float32))


def scored(encoder: Encoder, calibration: Calibration, embeddings: np.ndarray) -> PatientScore:
    label_set = encoder.bundle.label_set("polyp_detection")
    classes = encoder.class_embeddings(label_set)
    return score_patient(encoder, label_set, classes, calibration, embeddings)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def naive_correction(adapter: Adapter, row: np.ndarray) -> float:
    if isinstance(adapter, LinearAdapter):
        return sum(w * float(x) for w, x in zip(adapter.weights, row, strict=True)) + adapter.bias
    sides: dict[bool, list[float]] = {True: [], False: []}
    for key, positive in zip(adapter.keys, adapter.positive, strict=True):
        cosine = sum(k * float(x) for k, x in zip(key, row, strict=True))
        sides[positive].append(math.exp(-adapter.beta * (1 - cosine)))
    near, far = (sum(side) / len(side) for side in (sides[True], sides[False]))
    return adapter.alpha * (near - far)


# ---- what it does --------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [LINEAR, CACHE], ids=["linear", "cache"])
def test_corrections_are_those_of_plain_loops(adapter: Adapter) -> None:
    embeddings = rows(6)
    naive = [naive_correction(adapter, row) for row in embeddings]
    assert adapter.correction(embeddings) == pytest.approx(naive, abs=1e-6)


@pytest.mark.parametrize("adapter", [None, LINEAR, CACHE], ids=["plain", "linear", "cache"])
def test_frames_and_patients_are_scored_as_the_formulas_say(
    encoder: Encoder, tiny: Bundle, adapter: Adapter | None
) -> None:
    base = tiny.calibrations["polyp_detection"]
    local = tiny_profile(tiny, adapter).calibrations(tiny)["polyp_detection"]
    embeddings = rows(7)
    before, after = scored(encoder, base, embeddings), scored(encoder, local, embeddings)
    shift = [0.0 if adapter is None else naive_correction(adapter, row) for row in embeddings]
    for i in range(7):
        z = (logit(before.frame_probability[i]) - base.frame.intercept) / base.frame.slope
        assert logit(after.frame_probability[i]) == pytest.approx(
            0.6 * (z + shift[i]) - 1.5, abs=1e-5
        )
    ratio = 0.6 / base.frame.slope
    attended = sum(float(a) * s for a, s in zip(before.attention, shift, strict=True))
    expected = (
        ratio * logit(before.probability) - 1.5 - ratio * base.frame.intercept + 0.6 * attended
    )
    assert logit(after.probability) == pytest.approx(expected, abs=1e-5)
    assert after.scores.sum() == pytest.approx(1.0)


@pytest.mark.parametrize("adapter", [None, LINEAR, CACHE], ids=["plain", "linear", "cache"])
def test_a_patient_of_one_frame_is_that_frame(
    encoder: Encoder, tiny: Bundle, adapter: Adapter | None
) -> None:
    local = tiny_profile(tiny, adapter).calibrations(tiny)["polyp_detection"]
    one = scored(encoder, local, rows(1))
    assert one.probability == one.frame_probability[0]


@pytest.mark.parametrize("name", ["balanced", "sensitivity_first", "specificity_first"])
def test_patients_of_several_frames_are_decided_as_by_the_bundle(
    encoder: Encoder, tiny: Bundle, name: str
) -> None:
    base = tiny.calibrations["polyp_detection"]
    local = tiny_profile(tiny).calibrations(tiny)["polyp_detection"]
    was, point = base.operating_points[name], local.operating_points[name]
    assert point.frame_threshold == 0.3
    assert point.patient_threshold != was.patient_threshold
    decisions = set()
    for _ in range(40):
        embeddings = rows(int(RNG.integers(2, 6)))
        before = scored(encoder, base, embeddings).probability
        after = scored(encoder, local, embeddings).probability
        assert point.decide_patient(after, 2) is was.decide_patient(before, 2)
        decisions.add(point.decide_patient(after, 2))
    assert len(decisions) > 1
    assert "frame_sensitivity" not in point.measured  # the bundle's figures are not the site's


def test_tasks_that_it_does_not_hold_stay_the_bundles(tiny: Bundle) -> None:
    found = tiny_profile(tiny).calibrations(tiny)
    assert set(found) == set(tiny.calibrations)
    assert found["malignancy"] is tiny.calibrations["malignancy"]


# ---- the file ------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [None, LINEAR, CACHE], ids=["plain", "linear", "cache"])
def test_what_is_written_is_read_back(tiny: Bundle, adapter: Adapter | None) -> None:
    data = write_profile(tiny_profile(tiny, adapter))
    back = read_profile(data)
    assert back.digest.startswith("sha256:")
    assert replace(back, digest="") == tiny_profile(tiny, adapter)
    assert write_profile(back) == data


def test_another_bundle_is_refused_with_both_digests(tiny: Bundle) -> None:
    other = tiny_profile(tiny, bundle=BundleRef("tiny", "1.0.0", "sha256:other"))
    with pytest.raises(ProfileMismatch) as refused:
        other.calibrations(tiny)
    assert "sha256:other" in str(refused.value)
    assert tiny.digest in str(refused.value)


def task_of(value: dict[str, Any]) -> dict[str, Any]:
    return value["tasks"]["polyp_detection"]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda v: v.update(format_version=2), "/format_version: expected 1; found 2"),
        (lambda v: v.update(site="a b"), "/site: expected 1 to 64"),
        (lambda v: v.update(note="x"), "unknown note"),
        (lambda v: v.pop("created"), "without created"),
        (lambda v: v.update(tasks={}), "at least one task"),
        (lambda v: task_of(v)["frame"].update(slope=0.0), "a slope above 0"),
        (lambda v: task_of(v)["frame"].update(slope="1"), "a value of type float"),
        (
            lambda v: task_of(v)["operating_points"]["balanced"].update(frame_threshold=1.5),
            "balanced/frame_threshold: expected 0 to 1; found 1.5",
        ),
        (
            lambda v: task_of(v)["operating_points"]["balanced"].update(frame_abstain=[0.5, 0.4]),
            "0 <= low <= high <= 1",
        ),
        (lambda v: task_of(v).update(linear={"weights": [1.0], "bias": 0.0}), "one adapter"),
        (lambda v: task_of(v)["cache"].update(positive=[True] * 5), "both classes"),
        (lambda v: task_of(v)["cache"]["keys"][0].append(0.0), "keys of one width"),
        (lambda v: task_of(v)["cache"].update(keys=[[1.0, 1.0, 0.0, 0.0]] * 5), "unit rows"),
        (lambda v: task_of(v)["cache"].update(alpha=-1.0), "alpha of at least 0"),
    ],
)
def test_a_spoilt_profile_is_refused_by_place(
    tiny: Bundle, spoil: Callable[[dict[str, Any]], object], said: str
) -> None:
    value = json.loads(write_profile(tiny_profile(tiny, CACHE)))
    spoil(value)
    with pytest.raises(BundleCorrupt) as refused:
        read_profile(json.dumps(value).encode())
    assert said in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"[]", b"null", b"{", b"\xff", b'{"format_version": NaN}'])
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    with pytest.raises(BundleCorrupt):
        read_profile(data)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"linear": LinearAdapter((1.0,), 0.0)}, "an adapter of width 4"),
        ({"operating_points": {}}, "balanced, sensitivity_first, specificity_first; found none"),
    ],
)
def test_a_profile_that_does_not_fit_its_bundle_is_refused(
    tiny: Bundle, change: dict[str, Any], said: str
) -> None:
    task = tiny_profile(tiny).tasks["polyp_detection"]
    with pytest.raises(BundleCorrupt, match=said):
        tiny_profile(tiny, tasks={"polyp_detection": replace(task, **change)}).calibrations(tiny)


def test_a_label_set_that_is_not_calibrated_is_refused(tiny: Bundle) -> None:
    task = tiny_profile(tiny).tasks["polyp_detection"]
    with pytest.raises(BundleCorrupt, match="malignancy, polyp_detection"):
        tiny_profile(tiny, tasks={"colour": task}).calibrations(tiny)
