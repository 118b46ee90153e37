"""AUROC with intervals that resample source groups, its within-stratum form, and shares.

Frames of one source group (a sequence, a cluster of alike frames) are not independent: resampling
frames would make every interval too narrow. Resampling is by weights: an item counts as often as
its group was drawn, a patient as often as the product of its lesions' groups, which is what the
draw would hold if patients were composed anew of the drawn groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "auroc",
    "auroc_interval",
    "group_weights",
    "paired_interval",
    "stratified_auroc",
    "wilson",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Units = Sequence[str] | Sequence[tuple[str, ...]]


def auroc(y: Bools, score: Floats, weights: Floats | None = None) -> float:
    """Area under the ROC curve, ties as a half; NaN when a class is missing or weighs nothing.

    Equal to scikit-learn's and twenty times faster, which the bootstrap needs.

    Args:
        y: (n,) truth.
        score: (n,), larger where positive is more likely.
        weights: (n,) at least 0; None weighs all alike.
    """
    w = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
    order = np.argsort(score, kind="stable")
    return _ordered_auroc(y[order], _runs(score[order]), w[order])


def _runs(ordered: Floats) -> npt.NDArray[np.int64]:
    """First index of every run of equal scores."""
    return np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))[: len(ordered)]


def _ordered_auroc(y: Bools, runs: npt.NDArray[np.int64], w: Floats) -> float:
    if not len(y):
        return float("nan")
    positive = np.add.reduceat(w * y, runs)
    negative = np.add.reduceat(w * ~y, runs)
    pairs = float(positive.sum() * negative.sum())
    if not pairs > 0:
        return float("nan")
    below = np.cumsum(negative) - negative / 2
    return float((positive * below).sum()) / pairs


def stratified_auroc(y: Bools, score: Floats, strata: Sequence[str]) -> float:
    """AUROC within strata, weighted by the number of (positive, negative) pairs of each.

    A score that only tells the strata apart gets 0.5; NaN when no stratum holds both classes.
    """
    names = np.array(strata)
    total, pairs = 0.0, 0
    for name in np.unique(names):
        inside = names == name
        weight = int(y[inside].sum()) * int((~y[inside]).sum())
        if weight:
            total += weight * auroc(y[inside], score[inside])
            pairs += weight
    return total / pairs if pairs else float("nan")


def group_weights(units: Units, count: int, seed: int) -> Iterator[Floats]:
    """Weights (n,) of ``count`` bootstrap draws of whole groups.

    Args:
        units: Per item its group, or all groups that it is made of.
        count: Draws.
        seed: Of the draws.
    """
    told = [(unit,) if isinstance(unit, str) else unit for unit in units]
    names = sorted({name for unit in told for name in unit})
    place = {name: i for i, name in enumerate(names)}
    # A last group that is always drawn once fills the rows of items with fewer groups.
    rows = np.full((len(told), max(map(len, told), default=1)), len(names))
    for i, unit in enumerate(told):
        rows[i, : len(unit)] = [place[name] for name in unit]
    rng = np.random.default_rng([seed, 95])
    for _ in range(count):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        yield np.append(drawn, 1).astype(np.float64)[rows].prod(axis=1)


def auroc_interval(
    y: Bools, score: Floats, units: Units, count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the AUROC over resampled groups.

    Args:
        y: (n,) truth.
        score: (n,).
        units: Per item its group, or for a patient the groups of all its lesions.
        count: Resamples.
        seed: Of the resamples.
    """
    order = np.argsort(score, kind="stable")
    runs = _runs(score[order])
    return _quantiles(
        [_ordered_auroc(y[order], runs, w[order]) for w in group_weights(units, count, seed)]
    )


def paired_interval(
    y: Bools, first: Floats, second: Floats, units: Units, count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of AUROC(first) - AUROC(second) on the same resamples; see auroc_interval."""
    orders = [np.argsort(score, kind="stable") for score in (first, second)]
    runs = [_runs(score[order]) for score, order in zip((first, second), orders, strict=True)]
    values = []
    for w in group_weights(units, count, seed):
        a, b = (_ordered_auroc(y[o], r, w[o]) for o, r in zip(orders, runs, strict=True))
        values.append(a - b)
    return _quantiles(values)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927); 0 to 1 where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def _quantiles(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
