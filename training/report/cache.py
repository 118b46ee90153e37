"""Embeddings kept beside the report, by the digest of everything they depend on.

A cache that cannot be read or written costs the time to encode again and nothing else.
"""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from model_store.encoder import Encoder
from training.items import Embedded, Item, embed

__all__ = ["Cache"]

log = logging.getLogger(__name__)

_CHUNK = 128
Arrays = dict[str, npt.NDArray[Any]]


class Cache:
    """Arrays by key.

    Args:
        folder: Made when something is first kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arrays(self, key: Sequence[str], make: Callable[[], Arrays]) -> Arrays:
        """What was kept under the key, or what ``make`` gives.

        Args:
            key: Digests and names that the arrays depend on.
            make: Computes them.
        """
        name = hashlib.sha256("\n".join(key).encode()).hexdigest()[:32]
        path = self.folder / f"{name}.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, zipfile.BadZipFile, EOFError):
            pass  # not there, or half of it
        found = make()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".tmp")
            with temporary.open("wb") as file:
                np.savez(file, allow_pickle=False, **found)
            temporary.replace(path)
        except OSError as error:
            log.warning("embeddings are not kept: %s", error.strerror)
        return found

    def embedded(
        self, key: Sequence[str], items: Sequence[Item], make: Callable[[], Embedded]
    ) -> Embedded:
        """Items with what was kept of them: embeddings and the gate's reasons.

        Args:
            key: Digests of model and data.
            items: Part of the key.
            make: Encodes them.
        """

        def plain() -> Arrays:
            found = make()
            reasons = np.array([reason or "" for reason in found.reasons], dtype=str)
            return {"embeddings": found.embeddings, "reasons": reasons}

        stored = self.arrays(["items", *key, *map(repr, items)], plain)
        reasons = [str(reason) or None for reason in stored["reasons"]]
        return Embedded(list(items), stored["embeddings"], reasons)

    def frames(
        self,
        encoder: Encoder,
        items: Sequence[Item],
        digests: Sequence[str],
        progress: Progress | None = None,
    ) -> Embedded:
        """Frames through a bundle's own path, or as they were kept.

        Args:
            encoder: Of the bundle.
            items: The frames.
            digests: Of what the frames are taken from.
            progress: Where encoding shows how far it is; None shows nothing.
        """

        def encode() -> Embedded:
            starts: Iterable[int] = range(0, len(items), _CHUNK)
            if progress:
                starts = progress.track(starts, description="frames")
            parts = [embed(encoder, items[start : start + _CHUNK]) for start in starts]
            return Embedded(
                list(items),
                np.concatenate([p.embeddings for p in parts] or [embed(encoder, []).embeddings]),
                [reason for part in parts for reason in part.reasons],
            )

        return self.embedded([encoder.bundle.digest, *digests], items, encode)
