"""ROC and precision-recall curves, and bands around them over resampled source groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import group_weights, wilson

__all__ = ["Curve", "average_precision", "precision_recall", "roc", "share_interval"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Units = Sequence[str] | Sequence[tuple[str, ...]]

_GRID = np.linspace(0, 1, 101)
_DRAWS = 300


@dataclass(frozen=True)
class Curve:
    """A curve on a grid of 101 places, with its 95 % band.

    Attributes:
        x: (101,) false-positive rate, or recall.
        y: (101,) true-positive rate, or precision.
        low: (101,) lower ends.
        high: (101,) upper ends.
    """

    x: Floats
    y: Floats
    low: Floats
    high: Floats


def roc(y: Bools, score: Floats, units: Units, seed: int = 0) -> Curve:
    """Sensitivity by false-positive rate.

    Args:
        y: (n,) truth, both classes present.
        score: (n,).
        units: Groups to resample.
        seed: Of the resamples.
    """
    return _banded(y, score, units, seed, _roc_on_grid)


def precision_recall(y: Bools, score: Floats, units: Units, seed: int = 0) -> Curve:
    """Precision by recall; arguments as of ``roc``."""
    return _banded(y, score, units, seed, _precision_on_grid)


def average_precision(
    y: Bools, score: Floats, units: Units, seed: int = 0
) -> tuple[float, float, float]:
    """Average precision (sum of precision times gain in recall) with its 95 % interval."""
    order, ends = _order(score)

    def value(w: Floats) -> float:
        positive, negative = _counts(y[order], w[order], ends)
        recall, precision = _recall_precision(positive, negative)
        return float((np.diff(recall, prepend=0.0) * precision).sum())

    drawn = [value(w) for w in _draws(y, units, seed)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return value(np.ones(len(y))), float(low), float(high)


def share_interval(hits: Bools, units: Units, seed: int = 0) -> tuple[float, float, float]:
    """Share of hits with a 95 % interval over resampled groups; NaN of nothing.

    Of all, of none and of one group no resample differs; Wilson's interval of as many groups as
    there are stands in then: 55 frames of one clip tell of one clip.
    """
    if not len(hits):
        return float("nan"), float("nan"), float("nan")
    share, groups = float(hits.mean()), len(set(units))
    if hits.all() or not hits.any() or groups == 1:
        return share, *wilson(groups * share, groups)
    drawn = [
        float((hits * w).sum() / w.sum()) for w in group_weights(units, _DRAWS, seed) if w.sum() > 0
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return share, float(low), float(high)


def _banded(
    y: Bools,
    score: Floats,
    units: Units,
    seed: int,
    on_grid: Callable[[Floats, Floats], Floats],
) -> Curve:
    order, ends = _order(score)
    rows = [on_grid(*_counts(y[order], w[order], ends)) for w in _draws(y, units, seed)]
    low, high = np.quantile(np.stack(rows), [0.025, 0.975], axis=0)
    middle = on_grid(*_counts(y[order], np.ones(len(y)), ends))
    return Curve(_GRID, middle, low, high)


def _draws(y: Bools, units: Units, seed: int) -> list[Floats]:
    """Draws that hold both classes."""
    drawn = group_weights(units, _DRAWS, seed)
    usable = [w for w in drawn if w[y].sum() > 0 and w[~y].sum() > 0]
    return usable or [np.ones(len(y))]


def _order(score: Floats) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows from the largest score on, and the last row of every run of equal scores."""
    order = np.argsort(-score, kind="stable")
    ordered = score[order]
    ends = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    return order, ends


def _counts(y: Bools, w: Floats, ends: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Weight of positives and of negatives called positive at every threshold."""
    return np.cumsum(w * y)[ends], np.cumsum(w * ~y)[ends]


def _roc_on_grid(positive: Floats, negative: Floats) -> Floats:
    tpr = np.concatenate([[0.0], positive / positive[-1]])
    fpr = np.concatenate([[0.0], negative / negative[-1]])
    # Of thresholds with one false-positive rate the best counts, as on a drawn staircase.
    return np.interp(_GRID, fpr, tpr)


def _precision_on_grid(positive: Floats, negative: Floats) -> Floats:
    recall, precision = _recall_precision(positive, negative)
    at = np.searchsorted(recall, _GRID - 1e-12)
    return np.asarray(precision[np.minimum(at, len(precision) - 1)])


def _recall_precision(positive: Floats, negative: Floats) -> tuple[Floats, Floats]:
    called = positive + negative
    precision = np.divide(positive, called, out=np.ones_like(called), where=called > 0)
    return positive / positive[-1], precision
