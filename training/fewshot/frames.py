"""Labelled frames of one task as a bundle sees them, drawn and divided by patient."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import StratifiedGroupKFold

from model_store.encoder import Encoder
from training.evaluate import truth
from training.frame_files import read_frame
from training.items import Embedded, Item

__all__ = ["Bools", "Floats", "Frames", "data_digest", "draw_shots", "folds", "known_frames"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Frames:
    """Frames of known truth that a service would score.

    Attributes:
        embeddings: (n, d) unit rows.
        y: (n,) truth.
        groups: n names of patients or source groups, the units of drawing and resampling.
        direction: (d,) what a frame's margin is linear in.
    """

    embeddings: Floats
    y: Bools
    groups: npt.NDArray[np.str_]
    direction: Floats

    @property
    def margin(self) -> Floats:
        """(n,) zero-shot margins, those of ``model_store.scoring.margin``."""
        return self.embeddings @ self.direction

    def rows(self, rows: Rows) -> Frames:
        """Some of the frames."""
        return Frames(
            self.embeddings[rows], self.y[rows], np.asarray(self.groups)[rows], self.direction
        )


def known_frames(encoder: Encoder, task: str, found: Embedded) -> Frames:
    """The frames whose truth is known; those that the quality gate sets aside are left out."""
    y, known = truth(task, found.items)
    rows = np.flatnonzero(known & found.scored)
    label_set = encoder.bundle.label_set(task)
    classes = np.asarray(encoder.class_embeddings(label_set), np.float64)
    positive = label_set.positive_index or 0
    others = np.delete(classes, positive, axis=0).mean(axis=0)
    return Frames(
        np.asarray(found.embeddings[rows], np.float64),
        y[rows],
        np.array([found.items[i].group for i in rows], dtype=str),
        encoder.bundle.manifest.logit_scale * (classes[positive] - others),
    )


def draw_shots(frames: Frames, count: int, rng: np.random.Generator) -> Rows:
    """Draw shots of both classes, of as many groups as there are.

    A frame is taken from the group that was drawn from least often so far, whatever the class, so
    no group gives two shots until none is left that gave none. The class with fewer groups is
    drawn first. The first k shots of each class are those of a draw of k.

    Args:
        frames: Both classes among them.
        count: Shots per class at most.
        rng: Of the draw.

    Returns:
        Rows, positives first, up to ``count`` each, in the order of the draw.
    """
    groups = frames.groups.tolist()
    used = dict.fromkeys(groups, 0)
    drawn: dict[bool, list[int]] = {}
    rarest = sorted((True, False), key=lambda c: len(set(frames.groups[frames.y == c])))
    for positive in rarest:
        left = rng.permutation(np.flatnonzero(frames.y == positive)).tolist()
        drawn[positive] = []
        while left and len(drawn[positive]) < count:
            row = min(left, key=lambda i: used[groups[i]])
            left.remove(row)
            drawn[positive].append(row)
            used[groups[row]] += 1
    return np.array(drawn[True] + drawn[False], np.int64)


def folds(frames: Frames, count: int = 5, seed: int = 0) -> Iterator[tuple[Rows, Rows]]:
    """Rows to fit on and rows held out; no group on both sides, both classes to fit on.

    Args:
        frames: Frames.
        count: Folds at most; as many as the rarer class has groups, where those are fewer. Below
            two there is none.
        seed: Of the division.
    """
    of_class = [len(set(frames.groups[frames.y == c])) for c in (True, False)]
    count = min(count, *of_class)
    if count < 2:
        return
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    for fitted, held in splitter.split(frames.embeddings, frames.y, frames.groups):
        if len(set(frames.y[fitted].tolist())) == 2:
            yield fitted, held


def data_digest(items: Sequence[Item]) -> str:
    """Digest of pictures, labels and groups, whatever their order, names and places."""
    lines = sorted(
        f"{hashlib.sha256(read_frame(item.path)).hexdigest()} {item.polyp} {item.neoplastic} "
        f"{item.group}\n"
        for item in items
    )
    return "sha256:" + hashlib.sha256("".join(lines).encode()).hexdigest()
