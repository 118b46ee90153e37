"""Comparing exams: the null holds, for correlated frames too, and the three shifts stay apart."""

import statistics
from dataclasses import replace

import numpy as np
import pytest

from model_store.drift import Shift, compare
from model_store.reference import Exams

K = 4


def exams(
    count: int,
    rng: np.random.Generator,
    *,
    frames: int = 40,
    image: float = 0.0,
    share: float = 0.2,
    spread: float = 1.0,
    optics: float = 0.0,
) -> Exams:
    """Exams with an own look: `image` moves it, in deviations between exams; frames hardly vary.

    `optics` moves the first of those in the same way.
    """
    positive = rng.binomial(frames, np.clip(rng.normal(share, 0.08, count), 0.02, 0.98))
    counts = np.column_stack([frames - positive, positive]).astype(np.int32)
    own = rng.normal(image, spread, (count, 1, K))
    look = own + rng.normal(0, 0.1, (count, 2, K))
    look[counts == 0] = 0.0
    margin = rng.normal(0, 0.3, count) + 4 * positive / frames
    light = np.array([1.8, 0.7, 0.4, 0.15, 0.5, 0.8]) + rng.normal(0, 0.05 * spread, (count, 6))
    light[:, 0] += 0.05 * optics
    return Exams(
        look.astype(np.float32), margin.astype(np.float32), counts, light.astype(np.float32)
    )


def rate(
    shift: Shift, level: float, *, earlier: dict[str, float], recent: dict[str, float]
) -> float:
    hits = []
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = compare(exams(80, rng, **earlier), exams(20, rng, **recent), seed, 199)
        hits.append(found[shift].p_value <= level)
    return float(np.mean(hits))


@pytest.mark.parametrize("shift", [*Shift])
def test_the_null_holds_though_frames_of_an_exam_resemble_each_other(shift: Shift):
    # Of 200, at a rate of 0.05: more than 22 happen once in 1,000 series.
    assert rate(shift, 0.05, earlier={}, recent={}) <= 0.11


@pytest.mark.parametrize("shift", [*Shift])
def test_the_null_holds_when_exams_vary_less_or_are_longer_than_before(shift: Shift):
    assert rate(shift, 0.05, earlier={}, recent={"spread": 0.5, "frames": 200}) <= 0.11
    assert rate(shift, 0.05, earlier={"frames": 200}, recent={"spread": 1.5}) <= 0.13


def test_treating_frames_as_the_unit_would_raise_false_alarms():
    """The guard can fail: ten copies of each exam are no more exams."""
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        few, many = exams(4, rng), exams(40, rng)
        copies = Exams(
            *(np.repeat(part, 10, axis=0) for part in (few.image, few.margin, few.frames))
        )
        alarms += compare(many, copies, seed, 199)[Shift.IMAGE].p_value <= 0.05
    assert alarms > 30


def test_another_look_is_an_image_shift_and_no_other():
    assert rate(Shift.IMAGE, 0.005, earlier={}, recent={"image": 1.2}) > 0.9
    assert rate(Shift.PREVALENCE, 0.05, earlier={}, recent={"image": 1.2}) <= 0.11


def test_more_polyps_are_a_prevalence_shift_and_no_other():
    assert rate(Shift.PREVALENCE, 0.005, earlier={}, recent={"share": 0.5}) > 0.9
    assert rate(Shift.IMAGE, 0.05, earlier={}, recent={"share": 0.5}) <= 0.11


def test_another_white_balance_is_a_shift_of_optics_and_no_other():
    assert rate(Shift.OPTICS, 0.005, earlier={}, recent={"optics": 1.5}) > 0.9
    # The others look at none of it: what they say of the same exams is the same without.
    rng = np.random.default_rng(1)
    earlier, recent = exams(80, rng), exams(20, rng, optics=1.5)
    found = dict(compare(earlier, recent, 0, 99))
    assert found.pop(Shift.OPTICS).p_value == 1 / 100
    assert found == compare(earlier, replace(recent, optics=None), 0, 99)


def test_optics_are_judged_as_in_plain_loops():
    rng = np.random.default_rng(5)
    earlier, recent = exams(30, rng), exams(9, rng, optics=0.8)
    assert earlier.optics is not None
    assert recent.optics is not None
    earlier.optics[3], recent.optics[:2] = np.nan, np.nan
    dealt = np.random.default_rng(7).random((99, 39)).argsort(axis=1) < 9
    deals = np.concatenate([np.arange(39)[None] >= 30, dealt]).tolist()
    rows = [*earlier.optics.tolist(), *recent.optics.tolist()]

    def column(figure: int, deal: list[bool], side: bool) -> list[float]:
        found = [
            row[figure] for row, is_recent in zip(rows, deal, strict=True) if is_recent is side
        ]
        return [value for value in found if value == value]

    def gap(figure: int, deal: list[bool]) -> float:
        return statistics.fmean(column(figure, deal, True)) - statistics.fmean(
            column(figure, deal, False)
        )

    def welch(figure: int, deal: list[bool]) -> float:
        sides = [column(figure, deal, side) for side in (True, False)]
        error = sum(statistics.variance(one) / len(one) for one in sides)
        return gap(figure, deal) ** 2 / error if min(map(len, sides)) >= 6 else 0.0

    sums = [sum(welch(figure, deal) for figure in range(6)) for deal in deals]
    shares = [
        gap(figure, deals[0]) / statistics.pstdev(column(figure, deals[0], False))
        for figure in range(6)
    ]
    found = compare(earlier, recent, 7, 99)[Shift.OPTICS]
    assert found.p_value == sum(one >= sums[0] for one in sums) / 100
    assert 0.01 < found.p_value < 0.9
    distance = statistics.fmean(share**2 for share in shares) ** 0.5
    assert found.distance == pytest.approx(distance, rel=1e-4)


def test_there_is_no_verdict_on_optics_that_too_few_exams_have():
    rng = np.random.default_rng(0)
    earlier, recent = exams(30, rng), exams(12, rng)
    assert Shift.OPTICS in compare(earlier, recent, 0, 9)
    assert recent.optics is not None
    recent.optics[5:] = np.nan
    others = {Shift.IMAGE, Shift.PREVALENCE}
    assert set(compare(earlier, recent, 0, 9)) == others
    of_a_reference = Exams(earlier.image, earlier.margin, earlier.frames)
    assert set(compare(of_a_reference, exams(12, rng), 0, 9)) == others


def test_distance_is_the_size_of_the_shift():
    rng = np.random.default_rng(0)
    found = compare(exams(2000, rng), exams(2000, rng, image=1.5), 0, 99)
    assert found[Shift.IMAGE].distance == pytest.approx(1.5, rel=0.1)
    assert found[Shift.IMAGE].p_value == 1 / 100


def test_exams_without_spread_or_of_one_kind_of_frame_are_compared():
    image = np.zeros((20, 2, K), np.float32)
    frames = np.tile(np.array([[5, 0]], np.int32), (20, 1))
    one = Exams(image, np.ones(20, np.float32), frames, np.ones((20, 6), np.float32))
    for found in compare(one, one).values():
        assert (found.p_value, found.distance) == (1.0, 0.0)


def test_equal_seeds_give_equal_verdicts():
    rng = np.random.default_rng(0)
    earlier, recent = exams(50, rng), exams(12, rng)
    assert compare(earlier, recent, 3) == compare(earlier, recent, 3)
