"""Stage 1: selection, prevalence and the ledger; measured against a naive count."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.cleansing import SET_ASIDE, select  # noqa: E402


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
