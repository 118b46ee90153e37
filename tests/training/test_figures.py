"""Metrics and calibration against naive twins and known answers."""

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")
from sklearn.metrics import roc_auc_score

from model_store.scoring import FrameMap
from training.calibrate import (
    Alone,
    Judged,
    ece_floor,
    expected_calibration_error,
    fit_frame_map,
    fit_patient_map,
    kind_weights,
    operating_points,
)
from training.metrics import auroc, auroc_interval, paired_interval, stratified_auroc, wilson

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


def test_weighted_auroc_counts_an_item_as_often_as_its_weight() -> None:
    y = RNG.random(50) < 0.4
    score = np.round(RNG.normal(size=50) + y, 1)
    times = RNG.integers(0, 4, 50)
    naive = auroc(np.repeat(y, times), np.repeat(score, times))
    assert auroc(y, score, times.astype(float)) == pytest.approx(naive)
    assert np.isnan(auroc(y, score, y.astype(float)))


def test_patient_intervals_draw_every_group_that_a_patient_is_made_of() -> None:
    y = RNG.random(40) < 0.5
    score = RNG.normal(size=40) + y
    names = [str(i) for i in range(12)]
    units = [tuple(RNG.choice(names, int(RNG.integers(1, 4)), replace=False)) for _ in y]
    rng, values = np.random.default_rng([0, 95]), []
    used = sorted({name for unit in units for name in unit})
    for _ in range(200):
        drawn = [used[i] for i in rng.integers(len(used), size=len(used))]
        rows = []
        for i, unit in enumerate(units):
            times = 1
            for name in unit:
                times *= drawn.count(name)
            rows += [i] * times
        values.append(auroc(y[rows], score[rows]))
    naive = np.nanquantile(values, [0.025, 0.975])
    assert auroc_interval(y, score, units, count=200) == pytest.approx(tuple(naive))
    first = auroc_interval(y, score, [unit[0] for unit in units], count=200)
    assert first != pytest.approx(tuple(naive))


def test_wilson_interval_of_a_known_case() -> None:
    # Brown, Cai, DasGupta 2001: 0.1910 to 0.4375.
    assert wilson(15, 50) == (pytest.approx(0.1910, abs=5e-4), pytest.approx(0.4375, abs=5e-4))
    low, high = wilson(8, 10)
    assert (low, high) == (pytest.approx(0.490, abs=1e-3), pytest.approx(0.943, abs=1e-3))
    assert wilson(0, 0) == (0.0, 1.0)


def test_the_frame_map_recovers_the_curve_that_made_the_data() -> None:
    z = RNG.normal(size=20000) * 2
    y = RNG.random(20000) < 1 / (1 + np.exp(-(1.5 * z - 0.5)))
    line = fit_frame_map(z, y)
    assert line.slope == pytest.approx(1.5, abs=0.1)
    assert line.intercept == pytest.approx(-0.5, abs=0.1)


def _shrunk(z: np.ndarray) -> Alone:
    """What unify makes of a frame alone, as it was measured: a smaller, shifted margin."""
    return Alone(z, 0.8 * z - 0.3)


@pytest.mark.parametrize("prior", [0.0, -1.5])
def test_the_patient_map_continues_the_frames_and_pays_for_the_choice(prior: float) -> None:
    frame, z = FrameMap(1.5, 1.0), RNG.normal(size=40000) * 2
    n = np.exp(RNG.uniform(np.log(2), np.log(200), 40000)).astype(int)
    # The share of positives is another among patients than among frames: log_n must not pay for it.
    logit = 1.2 * (z - 0.4 * np.log(n)) + prior
    y = RNG.random(40000) < 1 / (1 + np.exp(-logit))
    patient = fit_patient_map(frame, _shrunk(np.linspace(-3, 3, 50)), z, n, y)
    for one in (-2.0, 0.0, 1.5):
        alone = patient.probability(0.8 * one - 0.3, 1)
        assert alone == pytest.approx(float(frame.probability(np.array([one]))[0]), abs=1e-9)
    assert patient.log_n / patient.slope == pytest.approx(-0.4, abs=0.04)


@pytest.mark.parametrize("prior", [-1.5, 1.5])
def test_a_shift_pays_for_patients_that_are_less_often_positive(prior: float) -> None:
    frame, z = FrameMap(1.0, 0.0), RNG.normal(size=8000) * 2
    n = np.exp(RNG.uniform(np.log(2), np.log(200), 8000)).astype(int)
    y = RNG.random(8000) < 1 / (1 + np.exp(-(z - 0.4 * np.log(n) + prior)))
    patient = fit_patient_map(frame, Alone(z, z), z, n, y)
    if prior > 0:  # more frames, and be they many, are no evidence
        assert patient.shift == pytest.approx(0.0, abs=1e-3)
    else:
        p = np.array([patient.probability(*row) for row in zip(z, n, strict=True)])
        assert p.mean() == pytest.approx(y.mean(), abs=0.02)
        assert patient.shift < -1.0
    rise = [patient.probability(1.0, frames) for frames in range(1, 300)]
    assert all(after <= before for before, after in pairwise(rise))


def test_more_frames_are_never_evidence_by_their_number() -> None:
    z = RNG.normal(size=5000)
    n = RNG.integers(2, 200, 5000)
    y = RNG.random(5000) < 1 / (1 + np.exp(-(z + 0.8 * np.log(n) - 3)))
    patient = fit_patient_map(FrameMap(1.0, 0.0), _shrunk(z), z, n, y)
    assert patient.log_n == 0.0
    reverse = fit_patient_map(FrameMap(1.0, 0.0), _shrunk(z), -z, n, y)
    assert reverse.log_n == 0.0


def test_every_kind_of_item_counts_alike() -> None:
    weights = kind_weights(["view"] * 90 + ["frame"] * 10)
    assert weights.mean() == pytest.approx(1.0)
    assert weights[:90].sum() == pytest.approx(weights[90:].sum())
    z = np.concatenate([RNG.normal(size=9000), RNG.normal(size=1000)])
    y = RNG.random(10000) < 1 / (1 + np.exp(-np.where(np.arange(10000) < 9000, z - 2, z + 2)))
    plain = fit_frame_map(z, y)
    equal = fit_frame_map(z, y, kind_weights(["view"] * 9000 + ["frame"] * 1000))
    assert plain.intercept < -1.2
    assert abs(equal.intercept) < 0.2


def test_a_score_without_skill_still_gets_an_increasing_map() -> None:
    z = RNG.normal(size=500)
    line = fit_frame_map(z, z < 0)
    assert line.slope > 0
    assert fit_patient_map(line, _shrunk(z), z, np.full(500, 2), z < 0).slope > 0


def _told(n: int = 2000) -> Judged:
    y = RNG.random(n) < 0.3
    return Judged(1 / (1 + np.exp(-(RNG.normal(size=n) + 2 * y - 1))), y)


def test_operating_points_measure_what_they_promise() -> None:
    told = _told()
    p, y = told.p, told.y
    points = operating_points(told, told)
    assert set(points) == {"balanced", "sensitivity_first", "specificity_first"}
    assert points["sensitivity_first"].measured["frame_sensitivity"] >= 0.95
    assert points["specificity_first"].measured["frame_specificity"] >= 0.95
    balanced = points["balanced"]
    at = balanced.frame_threshold
    naive = max((p[y] >= t).mean() + (p[~y] < t).mean() for t in np.linspace(0, 1, 501))
    assert (p[y] >= at).mean() + (p[~y] < at).mean() >= naive - 1e-9
    assert balanced.frame_abstain is not None
    assert balanced.frame_abstain[0] < at < balanced.frame_abstain[1]


def test_an_abstained_decision_is_neither_detection_nor_rejection() -> None:
    told = _told()
    p, y = told.p, told.y
    point = operating_points(told, told)["balanced"]
    assert point.patient_abstain is not None
    low, high = point.patient_abstain
    inside = (p >= low) & (p < high)
    measured = point.measured
    assert 0 < measured["patient_abstained"] == pytest.approx(inside.mean())
    assert measured["patient_abstained"] <= 0.05 + 1e-9
    assert measured["patient_sensitivity"] == pytest.approx((p[y] >= high).mean())
    assert measured["patient_specificity"] == pytest.approx((p[~y] < low).mean())


def test_the_band_shrinks_on_a_narrow_scale_of_probabilities() -> None:
    told = _told()
    narrow = Judged(0.5 + (told.p - 0.5) / 20, told.y)
    point = operating_points(narrow, told)["balanced"]
    assert point.frame_abstain is not None
    assert point.measured["frame_abstained"] <= 0.05 + 1e-9
    assert point.frame_abstain[1] - point.frame_abstain[0] < 0.01


def test_items_without_a_lesion_are_measured_and_never_choose() -> None:
    told = _told()
    none = Judged(told.p, told.y, no_lesion=np.array([0.0, 0.0, 0.0, 1.0]))
    with_none, without = operating_points(none, told), operating_points(told, told)
    for name, point in with_none.items():
        assert point.frame_threshold == without[name].frame_threshold
        assert point.measured["frame_no_lesion_specificity"] == 0.75
        assert "patient_no_lesion_specificity" not in point.measured


def test_calibration_error_of_a_calibrated_model_is_its_floor() -> None:
    p = RNG.random(4000)
    y = RNG.random(4000) < p
    floor = ece_floor(p)
    assert expected_calibration_error(p, y) == pytest.approx(floor, abs=0.015)
    assert expected_calibration_error(np.full(4000, 0.9), y) > 0.3
