"""Metrics and calibration against naive twins and known answers."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")
from sklearn.metrics import roc_auc_score

from training.calibrate import (
    ece_floor,
    expected_calibration_error,
    fit_frame_map,
    fit_patient_map,
    operating_points,
)
from training.metrics import auroc, auroc_interval, paired_interval, stratified_auroc

RNG = np.random.default_rng(0)


def test_auroc_equals_the_share_of_ordered_pairs() -> None:
    y = RNG.random(60) < 0.4
    score = np.round(RNG.normal(size=60) + y, 1)
    pairs = [(p > q) + 0.5 * (p == q) for p in score[y] for q in score[~y]]
    assert auroc(y, score) == pytest.approx(float(np.mean(pairs)))
    assert auroc(y, score) == pytest.approx(float(roc_auc_score(y, score)))


def test_a_score_that_only_tells_strata_apart_gets_a_half_within_them() -> None:
    strata = ["a"] * 50 + ["b"] * 50
    y = np.array([i % 5 == 0 for i in range(50)] + [i % 5 != 0 for i in range(50)])
    score = np.array([0.0] * 50 + [1.0] * 50)
    assert auroc(y, score) > 0.75
    assert stratified_auroc(y, score, strata) == pytest.approx(0.5)


def test_group_intervals_are_wider_than_frame_intervals_when_groups_repeat() -> None:
    base_y = RNG.random(40) < 0.5
    base = RNG.normal(size=40) + base_y
    y, score = np.repeat(base_y, 10), np.repeat(base, 10)
    groups = [str(i // 10) for i in range(400)]
    wide = auroc_interval(y, score, groups, count=300)
    narrow = auroc_interval(y, score, [str(i) for i in range(400)], count=300)
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_paired_interval_of_a_score_with_itself_is_zero() -> None:
    y = RNG.random(80) < 0.5
    score = RNG.normal(size=80)
    assert paired_interval(y, score, score, [str(i) for i in range(80)], count=50) == (0.0, 0.0)


def test_calibration_maps_recover_the_curve_that_made_the_data() -> None:
    z = RNG.normal(size=20000) * 2
    y = RNG.random(20000) < 1 / (1 + np.exp(-(1.5 * z - 0.5)))
    line = fit_frame_map(z, y)
    assert line.slope == pytest.approx(1.5, abs=0.1)
    assert line.intercept == pytest.approx(-0.5, abs=0.1)
    n = RNG.integers(1, 200, 20000)
    y = RNG.random(20000) < 1 / (1 + np.exp(-(1.5 * z + 1.0 - 0.8 * np.log(n))))
    patient = fit_patient_map(z, n, y)
    assert patient.log_n == pytest.approx(-0.8, abs=0.1)


def test_a_score_without_skill_still_gets_an_increasing_map() -> None:
    z = RNG.normal(size=500)
    assert fit_frame_map(z, z < 0).slope > 0


def test_operating_points_measure_what_they_promise() -> None:
    y = RNG.random(2000) < 0.3
    p = 1 / (1 + np.exp(-(RNG.normal(size=2000) + 2 * y - 1)))
    points = operating_points((p, y), (p, y))
    assert set(points) == {"balanced", "sensitivity_first", "specificity_first"}
    assert points["sensitivity_first"].measured["frame_sensitivity"] >= 0.95
    assert points["specificity_first"].measured["frame_specificity"] >= 0.95
    balanced = points["balanced"]
    naive = max((p[y] >= t).mean() + (p[~y] < t).mean() for t in np.linspace(0, 1, 501))
    found = balanced.measured["frame_sensitivity"] + balanced.measured["frame_specificity"]
    assert found >= naive - 1e-9
    assert balanced.frame_abstain is not None
    assert balanced.frame_abstain[0] < balanced.frame_threshold < balanced.frame_abstain[1]


def test_calibration_error_of_a_calibrated_model_is_its_floor() -> None:
    p = RNG.random(4000)
    y = RNG.random(4000) < p
    floor = ece_floor(p)
    assert expected_calibration_error(p, y) == pytest.approx(floor, abs=0.015)
    assert expected_calibration_error(np.full(4000, 0.9), y) > 0.3
