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
    "auroc_draws",
    "auroc_interval",
    "group_weights",
    "interval",
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


def auroc_draws(y: Bools, score: Floats, units: Units, count: int = 1000, seed: int = 0) -> Floats:
    """AUROC (count,) of every bootstrap draw of whole groups; NaN where a draw lacks a class.

    The same units, count and seed give the same draws, so differences of two scores are paired.

    Args:
        y: (n,) truth.
        score: (n,).
        units: Per item its group, or for a patient the groups of all its lesions.
        count: Draws.
        seed: Of the draws.
    """
    order = np.argsort(score, kind="stable")
    runs, ordered = _runs(score[order]), y[order]
    draws = group_weights(units, count, seed)
    return np.array([_ordered_auroc(ordered, runs, w[order]) for w in draws])


def auroc_interval(
    y: Bools, score: Floats, units: Units, count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the AUROC over resampled groups; see auroc_draws."""
    return interval(auroc_draws(y, score, units, count, seed))


def paired_interval(
    y: Bools, first: Floats, second: Floats, units: Units, count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of AUROC(first) - AUROC(second) on the same draws; see auroc_draws."""
    draws = (auroc_draws(y, score, units, count, seed) for score in (first, second))
    return interval(next(draws) - next(draws))


def wilson(successes: float, n: int) -> tuple[float, float]:
    """95 % Wilson score interval of a share (Wilson 1927); 0 to 1 where nothing was counted."""
    if n == 0:
        return 0.0, 1.0
    z = 1.959964
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return max(0.0, centre - half), min(1.0, centre + half)


def interval(draws: Floats, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap draws, NaN left out; NaN ends where none is left.

    Args:
        draws: (count,) values.
        level: Share of the draws inside.
    """
    known = draws[~np.isnan(draws)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
