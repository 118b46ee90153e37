"""Evaluation items: single frames with known labels, and patients composed of them.

Items come from a data folder's own images (``index.csv`` with the archive's split of its source
groups) and from an archive's views; patients follow the fixed protocol of DESIGN.md section 6.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder, Floats
from model_store.errors import ImageRejected
from model_store.images import decode
from model_store.quality import QualityLimits, assess
from training.frame_files import read_frame

__all__ = ["Embedded", "Item", "embed"]


@dataclass(frozen=True)
class Item:
    """One frame with what is known of it.

    Attributes:
        path: File.
        kind: ``crop`` or ``frame`` as they are in the data folder, ``view`` (a window) or ``scope``
            (a whole frame, with its lesions or with mucosa over them) of an archive.
        polyp: A polyp is visible; None = not known.
        neoplastic: Endoscopists' judgement; None = not known, mixed, or no lesion.
        group: Source group, the unit of resampling.
        source: Data set.
        dims: ``widthxheight`` of the file (of the source frame for views).
        image: Name of the source frame, "" where that is not known.
        view: Name of a view, "" otherwise.
    """

    path: Path
    kind: str
    polyp: bool | None
    neoplastic: bool | None
    group: str
    source: str
    dims: str
    image: str = ""
    view: str = ""


@dataclass(frozen=True)
class Embedded:
    """Items through a bundle's own path.

    Attributes:
        items: n items.
        embeddings: (n, d) unit rows; zeros where a frame was rejected.
        reasons: Why the quality gate abstains, "rejected", or None.
    """

    items: list[Item]
    embeddings: Floats
    reasons: list[str | None]

    @property
    def scored(self) -> npt.NDArray[np.bool_]:
        """(n,) bool, True where the service would score the frame."""
        return np.array([reason is None for reason in self.reasons], dtype=bool)

    def where(self, keep: Sequence[bool] | npt.NDArray[np.bool_]) -> Embedded:
        """The items of a mask."""
        rows = np.flatnonzero(np.asarray(keep))
        return Embedded(
            [self.items[i] for i in rows], self.embeddings[rows], [self.reasons[i] for i in rows]
        )

    def pick(self, items: Sequence[Item]) -> Embedded:
        """Some of the items, in another order: nothing is encoded twice."""
        place = {item: i for i, item in enumerate(self.items)}
        rows = [place[item] for item in items]
        return Embedded(list(items), self.embeddings[rows], [self.reasons[i] for i in rows])


def embed(encoder: Encoder, items: Sequence[Item]) -> Embedded:
    """Decode, gate and encode files as the service does."""
    contract = encoder.bundle.manifest.input
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    embeddings = np.zeros((len(items), encoder.dimension), np.float32)
    reasons: list[str | None] = []
    for start in range(0, len(items), 32):
        part, rows = [], []
        for i, item in enumerate(items[start : start + 32], start):
            try:
                pixels = decode(read_frame(item.path), contract)
            except ImageRejected:
                reasons.append("rejected")
                continue
            reason = assess(pixels, limits)
            reasons.append(None if reason is None else str(reason))
            part.append(pixels)
            rows.append(i)
        if part:
            embeddings[rows] = encoder.encode_images(np.stack(part))
    return Embedded(list(items), embeddings, reasons)
