"""AUROC with intervals that resample source groups, and its within-stratum form.

Frames of one source group (a sequence, a cluster of alike frames) are not independent: resampling
frames would make every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

__all__ = ["auroc", "auroc_interval", "paired_interval", "stratified_auroc"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def auroc(y: Bools, score: Floats) -> float:
    """Area under the ROC curve by mean ranks (Mann-Whitney); NaN when a class is missing.

    Equal to scikit-learn's and twenty times faster, which the bootstrap needs.
    """
    positives, n = int(y.sum()), len(y)
    if not 0 < positives < n:
        return float("nan")
    excess = float(rankdata(score)[y].sum()) - positives * (positives + 1) / 2
    return excess / (positives * (n - positives))


def stratified_auroc(y: Bools, score: Floats, strata: Sequence[str]) -> float:
    """AUROC within strata, weighted by the number of (positive, negative) pairs of each.

    A score that only tells the strata apart gets 0.5.
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


def resamples(groups: Sequence[str], count: int, seed: int) -> list[npt.NDArray[np.int64]]:
    """Row indices of ``count`` bootstrap resamples of whole groups."""
    names, inverse = np.unique(np.array(groups), return_inverse=True)
    members = [np.flatnonzero(inverse == i) for i in range(len(names))]
    rng = np.random.default_rng([seed, 95])
    return [
        np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        for _ in range(count)
    ]


def auroc_interval(
    y: Bools, score: Floats, groups: Sequence[str], count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % percentile interval of the AUROC over resampled groups."""
    values = [auroc(y[rows], score[rows]) for rows in resamples(groups, count, seed)]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def paired_interval(
    y: Bools, first: Floats, second: Floats, groups: Sequence[str], count: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of AUROC(first) - AUROC(second) on the same resamples."""
    values = [
        auroc(y[rows], first[rows]) - auroc(y[rows], second[rows])
        for rows in resamples(groups, count, seed)
    ]
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)
