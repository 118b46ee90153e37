"""Scores agree with plain loops, stay finite, and follow the labels wherever they stand."""

import json
import math

import numpy as np
import pytest

from model_store.scoring import (
    Calibration,
    Decision,
    FrameMap,
    OperatingPoint,
    PatientMap,
    cosines,
    decide,
    margin,
    probability_scores,
    read_calibrations,
    sigmoid,
    softmax,
    unit_rows,
    write_calibrations,
)

RNG = np.random.default_rng(7)
ROWS = unit_rows(RNG.normal(size=(5, 8)).astype(np.float32))
CLASSES = unit_rows(RNG.normal(size=(4, 8)).astype(np.float32))


def test_cosines_agree_with_a_naive_loop() -> None:
    found = cosines(ROWS, CLASSES)
    for i, row in enumerate(ROWS):
        for j, one in enumerate(CLASSES):
            naive = sum(a * b for a, b in zip(row, one, strict=True))
            assert found[i, j] == pytest.approx(naive, abs=1e-6)
    assert found.shape == (5, 4)


def test_cosine_never_leaves_its_range() -> None:
    found = cosines(np.full((1, 3), 0.5774, np.float32), np.full((1, 3), 0.5774, np.float32))
    assert found.max() <= 1.0


def test_softmax_agrees_with_a_naive_loop() -> None:
    logits = 50.0 * cosines(ROWS, CLASSES).astype(np.float64)
    for row, found in zip(logits, softmax(logits), strict=True):
        total = sum(math.exp(x) for x in row)
        assert found == pytest.approx([math.exp(x) / total for x in row], abs=1e-12)


def test_softmax_follows_a_permutation_of_the_labels() -> None:
    order = [2, 0, 3, 1]
    assert np.allclose(
        softmax(cosines(ROWS, CLASSES[order])), softmax(cosines(ROWS, CLASSES))[:, order]
    )


def test_softmax_of_one_label_is_one_and_of_equal_labels_even() -> None:
    assert softmax(np.array([[3.0]])).tolist() == [[1.0]]
    assert softmax(np.array([[3.0, 3.0]])).tolist() == [[0.5, 0.5]]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 100.0, 1e6, 1e300])
def test_extreme_logit_scales_stay_finite(scale: float) -> None:
    found = softmax(scale * cosines(ROWS, CLASSES).astype(np.float64))
    assert np.isfinite(found).all()
    assert np.allclose(found.sum(axis=1), 1.0)


def test_sigmoid_is_exact_in_the_middle_and_finite_at_the_ends() -> None:
    found = sigmoid(np.array([-1e308, -800.0, 0.0, 2.0, 800.0, 1e308]))
    assert found.tolist() == pytest.approx([0, 0, 0.5, 1 / (1 + math.exp(-2)), 1, 1])


def test_margin_of_two_labels_is_their_scaled_difference() -> None:
    assert margin(np.array([[0.3, 0.1]]), 0, 10.0) == pytest.approx(2.0)
    assert margin(np.array([[0.3, 0.1]]), 1, 10.0) == pytest.approx(-2.0)


def test_margin_of_more_labels_is_taken_from_the_mean_of_the_others() -> None:
    assert margin(np.array([[0.5, 0.1, 0.3]]), 0, 10.0) == pytest.approx(3.0)


@pytest.mark.parametrize("positive", [0, 1, 2, 3])
def test_probability_scores_hold_the_probability_and_sum_to_one(positive: int) -> None:
    cosine, probability = cosines(ROWS, CLASSES), np.linspace(0, 1, 5)
    scores = probability_scores(probability, cosine, positive, 10.0)
    others = [index for index in range(4) if index != positive]
    assert np.allclose(scores.sum(axis=1), 1.0)
    assert np.array_equal(scores[:, positive], probability)
    assert np.allclose(
        scores[:, others],
        (1 - probability)[:, None] * softmax(10.0 * cosine.astype(np.float64)[:, others]),
    )


def test_frame_map_is_the_logistic_of_its_line() -> None:
    found = FrameMap(2.0, -1.0).probability(np.array([0.0, 0.5, 3.0]))
    assert found == pytest.approx([1 / (1 + math.exp(1 - 2 * z)) for z in (0.0, 0.5, 3.0)])


def test_patient_map_takes_logarithm_and_inverse_of_the_frame_count() -> None:
    for frames in (1, 2, 70):
        logit = 2.0 * 0.5 - 1.0 - 0.3 * math.log(frames) - 0.8 * (1 - 1 / frames)
        assert PatientMap(2.0, -1.0, -0.3, -0.8).probability(0.5, frames) == pytest.approx(
            1 / (1 + math.exp(-logit))
        )


def test_a_patient_map_without_shift_is_read_as_one_of_zero() -> None:
    wanted = Calibration(FrameMap(1.0, 0.0), PatientMap(1.0, 0.0, -0.1, 0.0), {})
    table = json.loads(write_calibrations({"malignancy": wanted}))
    del table["malignancy"]["patient"]["shift"]
    assert read_calibrations(json.dumps(table).encode()) == {"malignancy": wanted}


@pytest.mark.parametrize(
    ("probability", "decision"),
    [
        (0.29, Decision.NEGATIVE),
        (0.3, Decision.ABSTAINED),
        (0.4, Decision.ABSTAINED),
        (0.5, Decision.POSITIVE),
        (1.0, Decision.POSITIVE),
    ],
)
def test_decision_abstains_inside_its_band_only(probability: float, decision: Decision) -> None:
    assert decide(probability, 0.4, (0.3, 0.5)) is decision


def test_threshold_itself_is_positive() -> None:
    assert decide(0.4, 0.4, None) is Decision.POSITIVE
    assert decide(math.nextafter(0.4, 0), 0.4, None) is Decision.NEGATIVE


def test_patient_of_one_frame_is_decided_as_the_frame() -> None:
    point = OperatingPoint("balanced", 0.2, 0.8, (0.3, 0.4), None)
    assert point.decide_patient(0.5, 1) is point.decide_frame(0.5) is Decision.POSITIVE
    assert point.decide_patient(0.35, 1) is Decision.ABSTAINED
    assert point.decide_patient(0.5, 2) is Decision.NEGATIVE


def test_unit_rows_leaves_zeros_zero() -> None:
    assert not unit_rows(np.zeros((2, 3), np.float32)).any()
