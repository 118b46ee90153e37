"""The bundle that ships answers the questions that a caller asks first, and says where it is from.

Slow failures here are the model's or its calibration's, never this file's to loosen: a bundle that
does not pass is not shipped.
"""

import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.images import decode
from model_store.patient import score_patient
from model_store.quality import QualityLimits, assess
from model_store.scoring import Decision
from model_store.selftest import self_test

ROOT = Path(__file__).parents[1]
TASKS = ("polyp_detection", "malignancy")
POLYPS = ("polyp_1", "polyp_2", "polyp_3")
NORMALS = ("normal_1", "normal_2", "normal_3")
MOST_BYTES = 45_000_000


def newest() -> Path:
    """The newest version in model_store/bundles."""
    folders = [p for p in (ROOT / "model_store" / "bundles").iterdir() if p.is_dir()]
    return max(folders, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name.split("-")[-1])])


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(Bundle.open(newest()))


@cache
def _embeddings(folder: Path) -> dict[str, np.ndarray]:
    encoder = Encoder(Bundle.open(folder))
    contract = encoder.bundle.manifest.input
    pixels = [decode((ROOT / "examples" / f"{n}.jpg").read_bytes(), contract) for n in _names()]
    return dict(zip(_names(), encoder.encode_images(np.stack(pixels)), strict=True))


def _names() -> tuple[str, ...]:
    return (*POLYPS, *NORMALS)


def served(encoder: Encoder, task: str, names: list[str]) -> tuple[float, Decision]:
    """Probability and balanced decision of a patient made of examples."""
    found = _embeddings(encoder.bundle.path)
    label_set = encoder.bundle.label_set(task)
    calibration = encoder.bundle.calibrations[task]
    rows = np.stack([found[name] for name in names])
    classes = encoder.class_embeddings(label_set)
    score = score_patient(encoder, label_set, classes, calibration, rows)
    assert score.probability is not None
    point = calibration.operating_point("balanced")
    return score.probability, point.decide_patient(score.probability, len(names))


def test_it_passes_its_self_test_and_fits_the_repository(encoder: Encoder) -> None:
    report = self_test(encoder)
    assert report.max_difference <= report.tolerance
    files = [p for p in encoder.bundle.path.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) < MOST_BYTES


def test_one_canary_lies_at_the_balanced_threshold_and_some_at_both_ends(encoder: Encoder) -> None:
    p = [frame.probability["polyp_detection"] for frame in encoder.bundle.canaries.frames]
    point = encoder.bundle.calibrations["polyp_detection"].operating_point("balanced")
    assert min(abs(value - point.frame_threshold) for value in p) < 0.1
    assert min(p) < point.frame_threshold - 0.1
    assert max(p) > point.frame_threshold + 0.1


def test_it_was_made_from_a_clean_commit_and_says_what_of(encoder: Encoder) -> None:
    provenance = encoder.bundle.manifest.provenance
    assert re.fullmatch(r"[0-9a-f]{40}", provenance.commit)
    assert {"archive_digest", "impression", "model"} <= set(provenance.extra)
    assert provenance.split_digest.startswith("sha256:")
    assert max(v for k, v in provenance.parity.items() if "auroc_loss" in k) <= 0.002


def test_the_card_shows_the_figures_of_the_manifest(encoder: Encoder) -> None:
    metrics = encoder.bundle.manifest.metrics
    assert metrics["part"] == "report"
    auroc = metrics["patients"]["malignancy"]["unify"]["auroc"]
    assert f"{auroc:.3f}" in encoder.bundle.card
    assert metrics["test_sources"]["normal"]["all"]["polyp_detection"]["items"] > 0
    json.dumps(metrics, allow_nan=False)


@pytest.mark.parametrize("name", _names())
def test_every_drawn_example_is_on_its_side_and_passes_the_gate(
    encoder: Encoder, name: str
) -> None:
    p, _ = served(encoder, "polyp_detection", [name])
    threshold = encoder.bundle.calibrations["polyp_detection"].operating_point("balanced")
    assert (p >= threshold.frame_threshold) is name.startswith("polyp")
    contract = encoder.bundle.manifest.input
    pixels = decode((ROOT / "examples" / f"{name}.jpg").read_bytes(), contract)
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    assert assess(pixels, limits) is None


@pytest.mark.parametrize("task", TASKS)
def test_more_frames_never_count_for_a_lesion_by_their_number(encoder: Encoder, task: str) -> None:
    assert encoder.bundle.calibrations[task].patient.log_n <= 0


@pytest.mark.parametrize("times", [1, 2, 3, 6, 12])
def test_a_polyp_stays_a_polyp_when_it_is_sent_again(encoder: Encoder, times: int) -> None:
    assert served(encoder, "polyp_detection", ["polyp_1"] * times)[1] is Decision.POSITIVE


@pytest.mark.parametrize("normals", [1, 39])
def test_one_lesion_among_normal_frames_is_found(encoder: Encoder, normals: int) -> None:
    patient = ["polyp_1"] + ["normal_1"] * normals
    assert served(encoder, "polyp_detection", patient)[1] is Decision.POSITIVE


@pytest.mark.parametrize("polyp", POLYPS)
def test_one_lesion_among_199_normal_frames_is_not_no_polyp(encoder: Encoder, polyp: str) -> None:
    patient = [polyp] + ["normal_1"] * 199
    assert served(encoder, "polyp_detection", patient)[1] is not Decision.NEGATIVE


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("times", [2, 40, 512])
def test_normal_frames_stay_normal_however_many(encoder: Encoder, task: str, times: int) -> None:
    assert served(encoder, task, ["normal_1"] * times)[1] is not Decision.POSITIVE


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("polyp", POLYPS)
def test_adding_normal_frames_never_raises_a_patient(
    encoder: Encoder, task: str, polyp: str
) -> None:
    p = [served(encoder, task, [polyp] + ["normal_1"] * n)[0] for n in (1, 3, 9, 39, 199)]
    assert all(after <= before + 1e-4 for before, after in pairwise(p))


@pytest.mark.parametrize("task", TASKS)
def test_a_frame_sent_twice_is_about_what_it_is_alone(encoder: Encoder, task: str) -> None:
    for name in ("polyp_1", "polyp_2", "normal_1", "normal_3"):
        alone, _ = served(encoder, task, [name])
        twice, _ = served(encoder, task, [name] * 2)
        assert twice == pytest.approx(alone, abs=0.15)


def test_a_mixed_patient_is_not_benign(encoder: Encoder) -> None:
    """The clearest malignant example beside the clearest benign one (DESIGN 4.3)."""
    alone = {name: served(encoder, "malignancy", [name]) for name in POLYPS}
    name, (_, decision) = max(alone.items(), key=lambda item: item[1][0])
    other = min(alone, key=lambda n: alone[n][0])
    assert decision is Decision.POSITIVE
    assert served(encoder, "malignancy", [name, other])[1] is not Decision.NEGATIVE
    assert served(encoder, "malignancy", [name, other, "normal_1"])[1] is not Decision.NEGATIVE
