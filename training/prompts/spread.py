"""How far a task's AUROC moves when its labels are worded otherwise.

A pair of sentences is one zero-shot request: the score of a frame is its cosine with the positive
sentence minus its cosine with the other. A single paraphrase stands against the ensemble of the
bundle's prompts for the other label. Sentences pass the text graph that ships, as a caller's do.
Frames that the quality gate sets aside are left out: no wording changes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.label_sets import MAX_PROMPTS
from model_store.scoring import unit_rows
from training.evaluate import truth
from training.items import Embedded
from training.metrics import auroc, auroc_interval, paired_interval
from training.prompts.wordings import Pair

__all__ = ["best_pairs", "spread_figures", "summary"]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
_WORST = 3


@dataclass(frozen=True)
class _Told:
    """Frames of one kind with the task's truth.

    Attributes:
        y: (n,) truth.
        rows: (n, d) unit embeddings.
        groups: (n,) source groups.
    """

    y: Bools
    rows: Floats
    groups: list[str]

    def score(self, positive: Floats, other: Floats) -> npt.NDArray[np.float64]:
        """Margins (n,) of class embeddings (d,)."""
        return np.asarray(self.rows @ (positive - other), np.float64)

    def auroc(self, positive: Floats, other: Floats) -> float:
        """AUROC of class embeddings (d,)."""
        return auroc(self.y, self.score(positive, other))


def spread_figures(
    encoder: Encoder,
    task: str,
    found: Embedded,
    paraphrases: Mapping[str, Sequence[Pair]],
    chosen: Sequence[Pair],
) -> dict[str, Any]:
    """Measure all paraphrases of a task.

    Args:
        encoder: Of the bundle.
        task: A task.
        found: Frames of a part.
        paraphrases: Language → pairs.
        chosen: Pairs of an ensemble that was chosen by ``best_pairs``.

    Returns:
        By kind of frame that holds both classes: ``positives``, ``negatives``; ``ensembles`` (the
        ``bundle``'s prompts, the ``chosen`` pairs, all pairs of each language; AUROC with its
        interval and the lead over the bundle's); ``languages`` (``summary`` of pairs and of single
        sentences); ``spelling``, the largest difference between the British and the American
        spelling of a pair; and every pair with its AUROCs.
    """
    pairs = [(name, pair) for name, told in paraphrases.items() for pair in told]
    rows = _encode_pairs(encoder, [pair for _, pair in pairs])
    ensembles = {
        "bundle": encoder.class_embeddings(encoder.bundle.label_set(task)),
        "chosen": _mean(_encode_pairs(encoder, chosen)),
    }
    for name in paraphrases:
        ensembles[name] = _mean(rows[np.array([language == name for language, _ in pairs])])
    figures: dict[str, Any] = {}
    for kind, told in _by_kind(task, found).items():
        own = ensembles["bundle"]
        measured = [
            {
                "language": name,
                "positive": pair[0],
                "other": pair[1],
                "auroc": told.auroc(*row),
                "auroc_positive_alone": told.auroc(row[0], own[1]),
                "auroc_other_alone": told.auroc(own[0], row[1]),
            }
            for (name, pair), row in zip(pairs, rows, strict=True)
        ]
        figures[kind] = {
            "positives": int(told.y.sum()),
            "negatives": int((~told.y).sum()),
            "ensembles": {name: _ensemble(told, own, ends) for name, ends in ensembles.items()},
            "languages": {name: _language(measured, name) for name in paraphrases},
            "spelling": _spelling(measured),
            "pairs": measured,
        }
    return figures


def best_pairs(encoder: Encoder, task: str, found: Embedded, pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs of the highest mean AUROC over the kinds of frames, as many as a label may have.

    Args:
        encoder: Of the bundle.
        task: A task.
        found: Frames of the part ``select``: what is chosen here is flattered there.
        pairs: To choose from.
    """
    rows = _encode_pairs(encoder, pairs)
    told = list(_by_kind(task, found).values())
    value = [float(np.mean([kind.auroc(*row) for kind in told])) for row in rows] if told else []
    order = np.argsort(-np.array(value), kind="stable")[:MAX_PROMPTS]
    return [pairs[i] for i in order]


def summary(values: Mapping[str, float]) -> dict[str, Any]:
    """Median, 5 and 95 % quantile of AUROCs, how many lie below 0.5, and the lowest by name."""
    low, median, high = np.quantile(list(values.values()), [0.05, 0.5, 0.95])
    order = sorted(values, key=lambda name: values[name])
    return {
        "count": len(values),
        "median": float(median),
        "p5": float(low),
        "p95": float(high),
        "below_half": sum(value < 0.5 for value in values.values()),
        "worst": [{"text": name, "auroc": values[name]} for name in order[:_WORST]],
    }


def _language(measured: Sequence[Mapping[str, Any]], language: str) -> dict[str, Any]:
    mine = [row for row in measured if row["language"] == language]
    return {
        "pairs": summary({f"{row['positive']} | {row['other']}": row["auroc"] for row in mine}),
        "positive_alone": summary({row["positive"]: row["auroc_positive_alone"] for row in mine}),
        "other_alone": summary({row["other"]: row["auroc_other_alone"] for row in mine}),
    }


def _ensemble(told: _Told, own: Floats, ends: Floats) -> dict[str, float]:
    score, reference = told.score(*ends), told.score(*own)
    low, high = auroc_interval(told.y, score, told.groups)
    lead_low, lead_high = paired_interval(told.y, score, reference, told.groups)
    return {
        "auroc": auroc(told.y, score),
        "auroc_low": low,
        "auroc_high": high,
        "lead": auroc(told.y, score) - auroc(told.y, reference),
        "lead_low": lead_low,
        "lead_high": lead_high,
    }


def _by_kind(task: str, found: Embedded) -> dict[str, _Told]:
    y, known = truth(task, found.items)
    usable = known & found.scored
    kinds = np.array([item.kind for item in found.items])
    told = {}
    for kind in sorted(set(kinds.tolist())):
        here = usable & (kinds == kind)
        if 0 < y[here].sum() < here.sum():
            part = found.where(here)
            told[kind] = _Told(y[here], part.embeddings, [item.group for item in part.items])
    return told


def _spelling(measured: Sequence[Mapping[str, Any]]) -> float:
    """Largest difference of AUROC between the same pairs in two spellings; 0 without any."""
    british, american = (
        [row["auroc"] for row in measured if row["language"] == name] for name in ("en-GB", "en-US")
    )
    return max((abs(a - b) for a, b in zip(british, american, strict=True)), default=0.0)


def _encode_pairs(encoder: Encoder, pairs: Sequence[Pair]) -> Floats:
    """Embeddings (p, 2, d) of pairs."""
    rows = encoder.encode_texts([text for pair in pairs for text in pair])
    return rows.reshape(len(pairs), 2, -1)


def _mean(rows: Floats) -> Floats:
    """Class embeddings (2, d) of an ensemble of pairs (p, 2, d), as a label set's are made."""
    return np.asarray(unit_rows(rows.mean(axis=0)), np.float32)
