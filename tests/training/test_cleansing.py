"""Stage 1: selection, prevalence and the ledger; measured against a naive count."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.cleansing import HARDEST, SET_ASIDE, Fate, hardest, select  # noqa: E402
from training.reading import Exam  # noqa: E402


def test_pooled_selection_keeps_the_top_share_of_all_exams_together() -> None:
    scores = [np.array([0.9, 0.8, 0.7]), np.array([0.1, 0.2, 0.6, 0.3])]
    kept = select(scores, [1, 1], 4 / 7, "pooled")
    assert [k.tolist() for k in kept] == [[True] * 3, [False, False, True, False]]


def test_per_exam_selection_keeps_the_same_share_of_each() -> None:
    scores = [np.array([0.9, 0.8, 0.7, 0.6]), np.array([0.1, 0.2])]
    kept = select(scores, [1, 1], 0.5, "per_exam")
    assert [k.tolist() for k in kept] == [[True, True, False, False], [False, True]]


@pytest.mark.parametrize("selection", ["pooled", "per_exam"])
def test_an_exam_never_keeps_fewer_frames_than_its_report_names_lesions(selection: str) -> None:
    scores = [np.full(10, 0.9), np.array([0.01, 0.03, 0.02, 0.0])]
    kept = select(scores, [1, 3], 0.2, selection)
    assert kept[1].tolist() == [True, True, True, False]


@pytest.mark.parametrize("selection", ["pooled", "per_exam"])
def test_a_frame_that_the_gate_set_aside_is_never_kept(selection: str) -> None:
    scores = [np.array([SET_ASIDE, 0.2, SET_ASIDE]), np.array([SET_ASIDE, SET_ASIDE])]
    kept = select(scores, [2, 1], 0.9, selection)
    assert [k.tolist() for k in kept] == [[False, True, False], [False, False]]


def test_the_hardest_frames_are_those_of_polyp_free_exams_that_look_most_like_lesions() -> None:
    def exam(name: str, positive: bool, count: int) -> Exam:
        frames = tuple(Path(f"{name}_{i}.jpg") for i in range(count))
        return Exam(name, name, frames, positive, (), "", "bkai", frozenset(), "train")

    rng = np.random.default_rng(1)
    exams = [exam("free", False, 30), exam("other", False, 11), exam("lesion", True, 20)]
    fates = {
        e.record_id: [
            Fate(e.record_id, f.name, e.positive, rng.random(), rng.random(), None, False)
            for f in e.frames
        ]
        for e in exams
    }
    # The gate set the highest of all aside.
    fates["free"][3] = replace(fates["free"][3], round2=1.0, reason="blurred")
    free = [f for name in ("free", "other") for f in fates[name] if f.reason is None]
    count = -(-len(free) // round(1 / HARDEST))
    expected = {Path(f.frame) for f in sorted(free, key=lambda f: f.round2)[-count:]}
    assert len(expected) == 4
    assert hardest(fates, exams) == expected
