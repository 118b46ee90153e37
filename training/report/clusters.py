"""How tightly classes cluster in an embedding space, with intervals over source groups.

Everything is cosine distance in the space itself: distances in a t-SNE plane mean nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.metrics import group_weights

__all__ = ["Tightness", "cosine_distances", "distance_ratio", "silhouette", "tightness"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tightness:
    """Two figures of one space, each with its draws.

    Attributes:
        silhouette: Mean silhouette (Rousseeuw 1987), -1 to 1; larger is tighter.
        ratio: Mean distance within classes over that between them; smaller is tighter.
        silhouettes: (count,) of the resamples; NaN where a draw held one class.
        ratios: (count,).
    """

    silhouette: float
    ratio: float
    silhouettes: Floats
    ratios: Floats


def tightness(
    embeddings: Floats, labels: Ints, units: Sequence[str], count: int = 1000, seed: int = 0
) -> Tightness:
    """Measure a space, and measure it again on resampled source groups.

    The same seed draws the same groups: two spaces of the same items can be compared draw by draw.

    Args:
        embeddings: (n, d) unit rows.
        labels: (n,) classes.
        units: Source group of each item.
        count: Resamples.
        seed: Of the resamples.
    """
    distances = cosine_distances(embeddings)
    ones = np.ones(len(labels))
    drawn = list(group_weights(units, count, seed))
    return Tightness(
        silhouette(distances, labels, ones),
        distance_ratio(distances, labels, ones),
        np.array([silhouette(distances, labels, w) for w in drawn]),
        np.array([distance_ratio(distances, labels, w) for w in drawn]),
    )


def cosine_distances(embeddings: Floats) -> Floats:
    """1 - cosine of unit rows (n, d): (n, n) in 0-2, zeros on the diagonal."""
    wide = np.asarray(embeddings, np.float64)
    distances = 1.0 - np.clip(wide @ wide.T, -1.0, 1.0)
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)


def silhouette(distances: Floats, labels: Ints, weights: Floats) -> float:
    """Mean silhouette of weighted items; an item is never compared with copies of itself.

    Args:
        distances: (n, n).
        labels: (n,).
        weights: (n,) at least 0; all 1 gives scikit-learn's ``silhouette_score``.

    Returns:
        -1 to 1; NaN where fewer than two classes have any weight.
    """
    classes = np.unique(labels)
    member = (labels[:, None] == classes) * weights[:, None]
    total = member.sum(axis=0)
    if (total > 0).sum() < 2:
        return float("nan")
    own = labels[:, None] == classes
    others = total - np.where(own, weights[:, None], 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (distances @ member) / others
    inside = np.where(own, means, 0.0).sum(axis=1, where=own)
    nearest = np.where(own | (total <= 0), np.inf, means).min(axis=1)
    alone = np.where(own, others, 0.0).sum(axis=1) <= 0
    with np.errstate(invalid="ignore", divide="ignore"):
        value = (nearest - inside) / np.maximum(nearest, inside)
    value = np.where(alone | ~np.isfinite(value), 0.0, value)
    return float((value * weights).sum() / weights.sum())


def distance_ratio(distances: Floats, labels: Ints, weights: Floats) -> float:
    """Mean distance of pairs within a class over that of pairs of two classes; NaN without both."""
    pairs = weights[:, None] * weights
    np.fill_diagonal(pairs, 0.0)
    same = labels[:, None] == labels
    inside, between = pairs * same, pairs * ~same
    if not inside.sum() > 0 or not between.sum() > 0:
        return float("nan")
    within = (distances * inside).sum() / inside.sum()
    return float(within / ((distances * between).sum() / between.sum()))
