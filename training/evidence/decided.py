"""Decisions of all operating points on frames that are made for a question, and their shares."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from model_store.encoder import Encoder
from model_store.scoring import Decision
from training.calibrate import POINTS
from training.evaluate import probabilities
from training.items import Embedded, Item
from training.metrics import auroc, auroc_interval
from training.report.cache import Cache
from training.report.operating import share_interval
from training.runs import file_digest

__all__ = ["Scorer", "apart", "decisions", "rates", "share"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


class Scorer:
    """A bundle's encoder that encodes every frame once.

    Args:
        encoder: Of the bundle.
        cache: Where embeddings are kept from run to run.
        work: Folder for frames that are made, written anew each time.
        progress: Shows how far encoding is.
    """

    def __init__(self, encoder: Encoder, cache: Cache, work: Path, progress: Progress) -> None:
        self.encoder = encoder
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self._cache = cache
        self._progress = progress
        self._known: dict[str, tuple[npt.NDArray[np.float32], str | None]] = {}

    def __call__(self, items: Sequence[Item]) -> Embedded:
        """Frames through the bundle's own path; those of equal bytes are encoded once."""
        digests = [file_digest(item.path) for item in items]
        fresh = {d: i for d, i in zip(digests, items, strict=True) if d not in self._known}
        found = self._cache.frames(self.encoder, list(fresh.values()), list(fresh), self._progress)
        rows = zip(found.embeddings, found.reasons, strict=True)
        self._known |= dict(zip(fresh, rows, strict=True))
        known = [self._known[digest] for digest in digests]
        embeddings = np.stack([row for row, _ in known]) if known else found.embeddings
        return Embedded(list(items), embeddings, [reason for _, reason in known])


def decisions(encoder: Encoder, task: str, name: str, found: Embedded) -> npt.NDArray[np.object_]:
    """Decisions (n,) of a named point on single frames; what the gate sets aside is abstained."""
    point = encoder.bundle.calibrations[task].operating_point(name)
    p = probabilities(encoder, task, found)
    return np.array(
        [
            point.decide_frame(float(value)) if scored else Decision.ABSTAINED
            for value, scored in zip(p, found.scored, strict=True)
        ],
        dtype=object,
    )


def share(hits: Bools, units: Sequence[str] | Sequence[tuple[str, ...]]) -> dict[str, Any]:
    """A share of items, its 95 % interval over resampled groups, and how many there are."""
    value, low, high = share_interval(np.asarray(hits, bool), units)
    return {
        "value": value,
        "low": low,
        "high": high,
        "items": len(hits),
        "groups": len(set(units)),
    }


def rates(encoder: Encoder, task: str, found: Embedded) -> dict[str, Any]:
    """How frames of one class are decided.

    Returns:
        ``positive`` and ``negative`` by operating point, as ``share`` gives them, and the share
        ``set_aside`` by the quality gate, which counts as neither.
    """
    groups = [item.group for item in found.items]
    told = {name: decisions(encoder, task, name, found) for name in POINTS}
    return {
        "set_aside": float((~found.scored).mean()) if len(found.items) else None,
        "positive": {n: share(d == Decision.POSITIVE, groups) for n, d in told.items()},
        "negative": {n: share(d == Decision.NEGATIVE, groups) for n, d in told.items()},
    }


def apart(
    y: Bools, score: Floats, groups: Sequence[str] | Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """AUROC with its interval over resampled groups, and how many of both classes there are."""
    low, high = auroc_interval(y, score, groups)
    return {
        "auroc": auroc(y, score),
        "auroc_low": low,
        "auroc_high": high,
        "positives": int(y.sum()),
        "negatives": int((~y).sum()),
        "groups": len(set(groups)),
    }
