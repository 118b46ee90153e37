"""Stretches of time in which a label holds: smoothing, its edges, gaps and the abstention band."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.scoring import OperatingPoint
from service.exams.segments import MAX_GAP_S, WINDOW_S, find_segments

SECOND = 1_000_000
POINT = OperatingPoint("p", frame_threshold=0.6, patient_threshold=0.5)
BAND = OperatingPoint("p", frame_threshold=0.6, patient_threshold=0.5, frame_abstain=(0.5, 0.7))


def told(times_s: list[float], values: list[float], point: OperatingPoint = POINT) -> list[str]:
    found = find_segments([round(one * SECOND) for one in times_s], values, point)
    return [f"{'+' if one.positive else '-'}{one.frames}" for one in found]


def test_no_frame_is_no_segment() -> None:
    assert find_segments([], [], POINT) == []


def test_one_wrong_frame_among_others_is_evened_out_and_stills_are_not() -> None:
    values = [0.9, 0.9, 0.1, 0.9, 0.9]
    assert told([0, 0.04, 0.08, 0.12, 0.16], values) == ["+5"]
    assert told([0, 1.0, 2.0, 3.0, 4.0], values) == ["+2", "-1", "+2"]


def test_window_and_gap_hold_their_edges() -> None:
    half = WINDOW_S / 2
    # Half a second away is in the window, a microsecond more is not.
    assert told([0, half], [0.9, 0.4]) == ["+2"]
    assert told([0, half + 1e-6], [0.9, 0.4]) == ["+1", "-1"]
    assert told([0, MAX_GAP_S], [0.9, 0.9]) == ["+2"]
    assert told([0, MAX_GAP_S + 1e-6], [0.9, 0.9]) == ["+1", "+1"]


def test_in_the_band_the_label_before_holds() -> None:
    assert told([0, 1, 2, 3], [0.9, 0.55, 0.65, 0.4], BAND) == ["+3", "-1"]
    assert told([0, 1, 2, 3], [0.1, 0.65, 0.55, 0.8], BAND) == ["-3", "+1"]


def test_after_a_gap_nothing_is_taken_over() -> None:
    """Ten minutes later, what is in the band is what the threshold says it is."""
    assert told([0, 600], [0.9, 0.55], BAND) == ["+1", "-1"]
    assert told([0, 600], [0.1, 0.65], BAND) == ["-1", "+1"]


def test_a_frame_alone_on_its_threshold_is_positive() -> None:
    values = [0.1, 0.7, 0.2, 0.6, 0.3, 0.6, 0.1, 0.6]
    assert told([2.5 * place for place in range(8)], values) == [
        "+1" if value >= 0.6 else "-1" for value in values
    ]


@given(
    st.lists(
        st.tuples(st.integers(0, 20 * SECOND), st.floats(0, 1, allow_nan=False)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([POINT, BAND]),
)
def test_each_frame_is_in_one_segment_and_segments_are_those_of_a_plain_loop(
    frames: list[tuple[int, float]], point: OperatingPoint
) -> None:
    frames = sorted(frames)
    times, values = [one for one, _ in frames], [one for _, one in frames]
    low, high = point.frame_abstain or (point.frame_threshold,) * 2
    expected: list[tuple[bool, list[int]]] = []
    for place, at in enumerate(times):
        near = [v for t, v in frames if abs(t - at) <= WINDOW_S / 2 * SECOND]
        smooth = float(np.mean(near))
        gap = place == 0 or at - times[place - 1] > MAX_GAP_S * SECOND
        before = smooth >= point.frame_threshold if gap else expected[-1][0]
        state = smooth >= high or (before and smooth >= low)
        if gap or state != expected[-1][0]:
            expected.append((state, []))
        expected[-1][1].append(place)
    found = find_segments(times, values, point)
    assert [(one.positive, one.frames) for one in found] == [(s, len(p)) for s, p in expected]
    for one, (_, places) in zip(found, expected, strict=True):
        assert (one.begin_us, one.end_us) == (times[places[0]], times[places[-1]])
        assert one.mean_probability == pytest.approx(np.mean([values[p] for p in places]))
        assert one.max_probability == max(values[p] for p in places)
