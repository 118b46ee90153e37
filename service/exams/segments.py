"""From frames' probabilities to stretches of time in which a label holds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.scoring import OperatingPoint

__all__ = ["MAX_GAP_S", "WINDOW_S", "Segment", "find_segments"]

# A lesion is in view for seconds and a single frame is wrong now and then: a second evens out 25
# frames of video, and leaves stills, which come seconds apart, as they are.
WINDOW_S = 1.0
# Where nothing was seen for longer, nothing is claimed.
MAX_GAP_S = 2.0


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time.

    Attributes:
        positive: whether the positive label holds in it.
        begin_us: capture time of its first frame, microseconds since 1970.
        end_us: of its last; the same where it has one frame.
        frames: how many it has.
        mean_probability: of the positive label, over its frames.
        max_probability: the largest.
    """

    positive: bool
    begin_us: int
    end_us: int
    frames: int
    mean_probability: float
    max_probability: float


def find_segments(
    times_us: Sequence[int], probabilities: Sequence[float], point: OperatingPoint
) -> list[Segment]:
    """Cut an exam into segments.

    A frame's smoothed probability is the mean over the frames within half a second of it. The state
    turns positive at the frame threshold and negative below it; where the operating point has a
    band of abstention, only beyond that band. After a gap it begins anew: in the band the threshold
    decides, not what was seen before.

    Args:
        times_us: of n frames, ascending, microseconds.
        probabilities: of the positive label.
        point: holds the frame threshold and its band.

    Returns:
        The segments in order; they do not overlap, and each frame is in one.
    """
    if not times_us:
        return []
    times = np.asarray(times_us, np.int64)
    values = np.asarray(probabilities, np.float64)
    gaps = np.diff(times) > MAX_GAP_S * 1e6
    positive = _states(_smooth(times, values), gaps, point)
    cuts = (np.diff(positive.astype(np.int8)) != 0) | gaps
    parts = np.split(np.arange(len(times)), np.flatnonzero(cuts) + 1)
    return [
        Segment(
            bool(positive[part[0]]),
            int(times[part[0]]),
            int(times[part[-1]]),
            len(part),
            float(values[part].mean()),
            float(values[part].max()),
        )
        for part in parts
    ]


def _smooth(
    times: npt.NDArray[np.int64], values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    half_us = int(WINDOW_S * 1e6 / 2)
    first = np.searchsorted(times, times - half_us, "left")
    after = np.searchsorted(times, times + half_us, "right")
    # One by one: differences of running sums would move a frame alone off its own threshold.
    return np.asarray([values[a:b].mean() for a, b in zip(first, after, strict=True)])


def _states(
    smoothed: npt.NDArray[np.float64], gaps: npt.NDArray[np.bool_], point: OperatingPoint
) -> npt.NDArray[np.bool_]:
    low, high = point.frame_abstain or (point.frame_threshold, point.frame_threshold)
    states = np.empty(len(smoothed), np.bool_)
    state = False
    for place, value in enumerate(smoothed):
        if place == 0 or gaps[place - 1]:
            state = bool(value >= point.frame_threshold)
        state = bool(value >= high or (state and value >= low))
        states[place] = state
    return states
