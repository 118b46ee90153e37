"""How well extracted attributes agree with labelled ones.

Only *mentioned* values count: leaving out what a text does not say earns nothing. A hit needs the
value and its evidence: the same value of the same attribute, and spans that share at least half of
the shorter one (annotators cut "well-defined margin" and "well-defined" differently; a span of
another lesion shares nothing). Lesions are paired one to one so that hits are most, and a value
given to another lesion is a miss and a false alarm. Intervals resample whole texts, since the
mentions of one text stand or fall together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from training.attribute_rules import ATTRIBUTES

__all__ = ["Mention", "agreement", "counts", "is_hit"]

# Percentile bootstrap; the seed fixes the table, not the conclusion.
RESAMPLES, SEED = 2000, 20261124


@dataclass(frozen=True)
class Mention:
    """A value that a text states.

    Attributes:
        value: One of the attribute's values.
        spans: Where its evidence stands, as [start, end) in the text: one span for a reader's
            mention; every place where the words occur for a label that gives the words alone.
    """

    value: str
    spans: tuple[tuple[int, int], ...]


Lesions = Sequence[Mapping[str, Mention]]


def is_hit(found: Mention, label: Mention) -> bool:
    """Say whether a mention has the label's value and shares half of the shorter span with it."""
    return found.value == label.value and any(
        2 * (min(a[1], b[1]) - max(a[0], b[0])) >= min(a[1] - a[0], b[1] - b[0])
        for a in found.spans
        for b in label.spans
    )


def counts(found: Lesions, labels: Lesions) -> np.ndarray:
    """Count one text.

    Args:
        found: Mentions by attribute, per lesion, as read.
        labels: The same, as labelled.

    Returns:
        (9, 3) int64: hits, found, labelled of each attribute in the order of ``ATTRIBUTES``.
    """
    hits = np.zeros((len(found), len(labels), len(ATTRIBUTES)), np.int64)
    for i, lesion in enumerate(found):
        for j, label in enumerate(labels):
            for k, name in enumerate(ATTRIBUTES):
                if name in lesion and name in label:
                    hits[i, j, k] = is_hit(lesion[name], label[name])
    pairs = linear_sum_assignment(hits.sum(axis=2), maximize=True)
    return np.stack([hits[pairs].sum(axis=0), _mentions(found), _mentions(labels)], axis=1)


def agreement(table: np.ndarray) -> dict[str, object]:
    """Precision, recall and F1 with 95 % intervals of F1.

    Args:
        table: (texts, 9, 3) int, one ``counts`` a text.

    Returns:
        ``texts``; ``micro`` and each of ``attributes`` as {mentions, found, precision, recall,
        f1, low, high}; ``macro`` as {f1, low, high}, the mean over attributes that are
        mentioned. A figure that divides nothing by nothing is None.
    """
    draws = np.random.default_rng(SEED).multinomial(
        len(table), np.full(len(table), 1 / max(1, len(table))), RESAMPLES
    )
    total = table.sum(axis=0)
    drawn = np.tensordot(draws, table, axes=1)  # (resamples, 9, 3)
    mentioned = total[:, 2] > 0
    # An attribute that a resample happens not to hold is left out of its mean.
    with np.errstate(invalid="ignore"):
        macro = np.array(
            [np.nanmean(f) if np.isfinite(f).any() else np.nan for f in _f1(drawn[:, mentioned])]
        )
    return {
        "texts": len(table),
        "micro": _figures(total.sum(axis=0), drawn.sum(axis=1)),
        "macro": {"f1": _plain(np.mean(_f1(total[mentioned]))), **_interval(macro)},
        "attributes": {name: _figures(total[k], drawn[:, k]) for k, name in enumerate(ATTRIBUTES)},
    }


def _mentions(lesions: Lesions) -> np.ndarray:
    return np.array([sum(name in lesion for lesion in lesions) for name in ATTRIBUTES], np.int64)


def _figures(total: np.ndarray, drawn: np.ndarray) -> dict[str, float | int | None]:
    hits, found, mentions = (int(n) for n in total)
    return {
        "mentions": mentions,
        "found": found,
        "precision": hits / found if found else None,
        "recall": hits / mentions if mentions else None,
        "f1": _plain(_f1(total)),
        **_interval(_f1(drawn)),
    }


def _f1(table: np.ndarray) -> np.ndarray:
    """2 hits / (found + labelled) over the last axis, nan where both are 0."""
    below = (table[..., 1] + table[..., 2]).astype(float)
    return 2 * table[..., 0] / np.where(below > 0, below, np.nan)


def _interval(values: np.ndarray) -> dict[str, float | None]:
    values = values[np.isfinite(values)]
    if not len(values):
        return {"low": None, "high": None}
    low, high = np.percentile(values, (2.5, 97.5))
    return {"low": float(low), "high": float(high)}


def _plain(value: float | np.ndarray) -> float | None:
    return float(value) if np.isfinite(value) else None
