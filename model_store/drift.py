"""Whether recent exams are like earlier ones: three questions, one permutation test.

*Image*: do frames on which the same was decided look alike, whatever their number? *Prevalence*:
is as large a share of an exam's frames positive, and are its scores as high? A clinic that sees
more polyps answers no to the second alone. *Optics*: are frames as red, bright and sharp? A model
that was trained not to mind a wrong white balance says nothing of it; the pixels do.

The exam is the unit, never the frame: frames of one patient resemble each other, and 200 of them
are one observation. Each statistic is a sum of squared Welch statistics of exam means. Its null is
the same statistic after the exams were dealt anew to the two sides, so a p-value is exact where
exams are exchangeable; studentised, it also holds when the two sides vary differently (Chung and
Romano 2013).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from model_store.reference import Exams

__all__ = ["PERMUTATIONS", "Shift", "Verdict", "compare"]

PERMUTATIONS = 1999
"""The least p-value is 1 over one more than this; 30 ms of one core for 300 exams."""
_HOLDING = 6  # exams with such frames that a mean and its deviation need, on each side
_SMALLEST = 1e-6  # squared standard error: exams without any spread are compared, not divided by 0
_LEAST_SPREAD = 1e-4  # of shares and ratios of exams: what is under it is rounding

Floats = npt.NDArray[np.float32]


class Shift(StrEnum):
    """What may have shifted."""

    IMAGE = "image"
    """What frames look like, given what is decided of them."""
    PREVALENCE = "prevalence"
    """How often frames are positive, and how high they score."""
    OPTICS = "optics"
    """How red, blue, bright, rich in contrast and sharp frames are: `quality.OPTICS`."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison.

    Attributes:
        p_value: share of deals at least as far apart, above 0 and at most 1.
        distance: root mean square difference of the two means, in standard deviations of single
            frames (image) or of the earlier exams (prevalence, optics).
    """

    p_value: float
    distance: float


def compare(
    earlier: Exams, recent: Exams, seed: int = 0, permutations: int = PERMUTATIONS
) -> Mapping[Shift, Verdict]:
    """Compare recent exams with earlier ones.

    Args:
        earlier: the reference's, or a device's own; at least 2.
        recent: at least 2, none of them among `earlier`.
        seed: of the deals.
        permutations: deals beside the true one.

    Returns:
        The verdict on each shift; none on optics where too few exams of a side have them.
    """
    e, w = len(earlier), len(recent)
    frames = np.concatenate([earlier.frames, recent.frames]).astype(np.float32)
    image = np.concatenate([earlier.image, recent.image])
    share = frames[:, 1] / frames.sum(axis=1)
    scores = np.column_stack([share, np.concatenate([earlier.margin, recent.margin])])
    holds = np.repeat(frames > 0, image.shape[2], axis=1)
    recents = _deals(e, w, permutations, np.random.default_rng(seed))
    found = {
        Shift.IMAGE: _verdict(image.reshape(e + w, -1), holds, recents),
        Shift.PREVALENCE: _spread_verdict(scores, np.ones(e + w, bool), recents),
    }
    if earlier.optics is not None and recent.optics is not None:
        optics = np.concatenate([earlier.optics, recent.optics])
        known = np.isfinite(optics).all(axis=1)
        if min(known[:e].sum(), known[e:].sum()) >= _HOLDING:
            found[Shift.OPTICS] = _spread_verdict(optics, known, recents)
    return found


def _deals(e: int, w: int, permutations: int, rng: np.random.Generator) -> Floats:
    """Who is recent: (1 + permutations, e + w) of 0 and 1, the truth first."""
    places = rng.random((permutations, e + w)).argsort(axis=1)
    return np.concatenate([np.arange(e + w)[None] >= e, places < w]).astype(np.float32)


def _spread_verdict(
    values: npt.NDArray[np.floating], known: npt.NDArray[np.bool_], recents: Floats
) -> Verdict:
    """As `_verdict`, in deviations of the earlier exams; (n, f) of which whole rows are known."""
    values = np.where(known[:, None], values, 0.0)
    spread = values[known & (recents[0] == 0)].std(axis=0)
    scaled = (values - values[known].mean(axis=0)) / np.where(spread > _LEAST_SPREAD, spread, 1.0)
    holds = np.repeat(known[:, None], values.shape[1], axis=1)
    return _verdict(scaled, holds, recents)


def _verdict(
    values: npt.NDArray[np.floating], holds: npt.NDArray[np.bool_], recents: Floats
) -> Verdict:
    """Compare means of values (n, f), of the exams that hold them, under every deal."""
    weight = holds.astype(np.float32)
    centre = (values * weight).sum(axis=0) / np.maximum(weight.sum(axis=0), 1)
    values = ((values - centre) * weight).astype(np.float32)  # sums of squares keep their digits
    (n1, mean1, error1), (n0, mean0, error0) = (
        _moments(side, values, weight) for side in (recents, 1 - recents)
    )
    enough = np.minimum(n1, n0) >= _HOLDING
    gap = np.where(enough, mean1 - mean0, 0.0)
    statistic = (gap**2 / np.maximum(error1 + error0, _SMALLEST)).sum(axis=1)
    # Equal deals must count as equal whatever their order of summing.
    reached = statistic[1:] >= statistic[0] * (1 - 1e-5)
    distance = float(np.sqrt((gap[0] ** 2).sum() / max(int(enough[0].sum()), 1)))
    return Verdict((1 + int(reached.sum())) / len(statistic), distance)


def _moments(side: Floats, values: Floats, weight: Floats) -> tuple[Floats, Floats, Floats]:
    """Count, mean and squared standard error by deal and value: (deals, f) each."""
    count = side @ weight
    mean = side @ values / np.maximum(count, 1)
    variance = (side @ values**2 - count * mean**2) / np.maximum(count - 1, 1)
    return count, mean, np.maximum(variance, 0) / np.maximum(count, 1)
