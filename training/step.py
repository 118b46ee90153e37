"""One step of any stage: encode, contrast the whole batch, take the gradient back to the towers.

The losses are contrasts over all rows of a step, so they are computed on all embeddings at once,
whoever encoded them: every rank encodes its share, gathers the others' embeddings, computes the
whole loss and takes its gradient with respect to the embeddings back through its own rows. The sum
over ranks is the gradient that one process would have found. Where memory is short a share is
encoded in pieces, first without a graph, then again piece by piece with the gradient of the
embeddings at hand (feature cache: Gao, Zhang, Han and Callan, "Scaling Deep Contrastive Learning
Batch Size under Memory Limited Setup", RepL4NLP 2021); only one piece's activations exist at a
time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.batches import Augmentation, FrameStore
from training.compute import Machine
from training.model import EndoClip

__all__ = ["Bench", "Encoded", "Squares", "Step", "Task", "gradients", "own_frames"]

DROPOUT_ROWS = 8
"""Rows that share a dropout stream, and are neither torn apart by ranks nor by pieces: few enough
to deal out, and enough to fill a transformer."""
DROPPED = {"Dropout": "p", "Dropout1d": "p", "Dropout2d": "p", "DropPath": "drop_prob"}
DROPPED |= {"PatchDropout": "prob"}
"""Layers of torch, timm and open_clip that drop at random, and the attribute with the share."""


@dataclass(frozen=True)
class Step:
    """What one step encodes; the same on every rank.

    Attributes:
        frames: Paths of the frames that are trained on.
        look: How each of them is augmented.
        texts: Sentences that are trained on.
        told: What the task's losses need to know of the rows; on the CPU.
        still: Paths of frames that are encoded without gradients.
        still_look: How each of those is augmented.
    """

    frames: Sequence[Path]
    look: Augmentation
    texts: Sequence[str]
    told: Any
    still: Sequence[Path] = ()
    still_look: Augmentation | None = None


@dataclass(frozen=True)
class Encoded:
    """Embeddings of a step's rows: unit rows, float32, on the machine's device.

    Attributes:
        images: (n, d) of the frames.
        texts: (m, d).
        still: (k, d), without gradient.
    """

    images: Tensor
    texts: Tensor
    still: Tensor


class Task(Protocol):
    """What a stage trains for. Pickled to the other ranks, so it holds no tower and no file."""

    @property
    def name(self) -> str:
        """For files, bar and random streams."""

    @property
    def px(self) -> int:
        """Side of the training pixels."""

    def draw(self, rng: np.random.Generator) -> Step:
        """Draw a step; everything random comes from ``rng``."""

    def losses(self, model: EndoClip, encoded: Encoded, told: Any) -> Mapping[str, Tensor]:
        """Named scalars of a step; those ending in ``_loss`` are summed and trained on."""


@dataclass(frozen=True)
class Bench:
    """What every stage trains with.

    Attributes:
        model: On the machine's device; trained in place.
        tokenize: Texts -> (m, t) int64 ids.
        store: Frames.
        machine: Device, precision, ranks.
    """

    model: EndoClip
    tokenize: Callable[[list[str]], Tensor]
    store: FrameStore
    machine: Machine


@dataclass(frozen=True)
class Squares:
    """This rank's decoded frames of a step: (b, s, s, 3) uint8 on the CPU, trained on and still."""

    frames: Tensor
    still: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.uint8))


def own_frames(bench: Bench, step: Step) -> tuple[Sequence[Path], Sequence[Path]]:
    """Paths of this rank's share of a step: trained on, and still."""
    unit = _unit(bench.model.clip.visual)
    shares = [bench.machine.ranks.share(len(paths), unit) for paths in (step.frames, step.still)]
    frames, still = shares
    return step.frames[frames.start : frames.stop], step.still[still.start : still.stop]


def gradients(
    bench: Bench, task: Task, step: Step, squares: Squares, seed: int, scaler: torch.amp.GradScaler
) -> dict[str, Tensor]:
    """Leave the gradient of a step's summed losses, times the scaler's scale, in ``.grad``.

    Args:
        bench: Its model's gradients are cleared first.
        task: Gives the losses.
        step: Drawn by the task.
        squares: This rank's frames of it.
        seed: Of dropout.
        scaler: Of the loss.

    Returns:
        The task's named scalars, without graph, and ``total``, the sum of the losses.
    """
    model, ranks = bench.model, bench.machine.ranks
    model.zero_grad(set_to_none=True)
    images = _images(bench, task, squares.frames, step.look, seed)
    texts = _Rows(
        bench,
        len(step.texts),
        lambda rows: model.encode_ids(bench.tokenize(list(step.texts[rows.start : rows.stop]))),
        _unit(model.clip.text),
        seed,
    )
    encoded = Encoded(images.trained(), texts.trained(), _still(bench, task, step, squares, seed))
    named = task.losses(model, encoded, step.told)
    total = torch.stack([value for name, value in named.items() if name.endswith("_loss")]).sum()
    scaler.scale(total).backward()
    if not ranks.is_first:
        # Every rank has the whole gradient of what the losses use themselves (logit scale, unify):
        # rank 0's counts. The towers have none yet.
        model.zero_grad(set_to_none=True)
    images.take_back()
    texts.take_back()
    ranks.sum_gradients(model.parameters())
    return {"total": total.detach(), **{name: value.detach() for name, value in named.items()}}


def _images(bench: Bench, task: Task, squares: Tensor, look: Augmentation, seed: int) -> _Rows:
    count, unit = len(look.soft), _unit(bench.model.clip.visual)
    first = bench.machine.ranks.share(count, unit).start
    squares = squares.to(bench.machine.device)

    def encode(rows: range) -> Tensor:
        own = squares[rows.start - first : rows.stop - first]
        pixels = look.rows(rows).apply(own, bench.store.contract, task.px)
        return bench.model.encode_images(pixels)

    return _Rows(bench, count, encode, unit, seed)


def _still(bench: Bench, task: Task, step: Step, squares: Squares, seed: int) -> Tensor:
    if step.still_look is None:
        return torch.empty(0, bench.model.dim, device=bench.machine.device)
    return _images(bench, task, squares.still, step.still_look, seed).without_graph()


class _Rows:
    """One tower's rows of a step: this rank encodes its share, the losses see everyone's.

    Args:
        bench: Model and machine.
        count: Rows of the step.
        encode: Range of rows, all of them this rank's -> (b, d).
        unit: Rows that are encoded together, or 1.
        seed: Of dropout.
    """

    def __init__(
        self, bench: Bench, count: int, encode: Callable[[range], Tensor], unit: int, seed: int
    ) -> None:
        self.machine, self.dim, self.count = bench.machine, bench.model.dim, count
        self.mine = self.machine.ranks.share(count, unit)
        self.pieces = _pieces(self.mine, self.machine.accumulate, unit)
        self._encode, self._seed = encode, seed

    def trained(self) -> Tensor:
        """Everyone's embeddings, (count, d): a leaf whose gradient ``take_back`` will use."""
        self._graph = self._own() if self.machine.accumulate == 1 else None
        self._all = self.without_graph() if self._graph is None else self._gather(self._graph)
        return self._all.requires_grad_()

    def without_graph(self) -> Tensor:
        """Everyone's embeddings, (count, d), with nothing kept to go back by."""
        with torch.no_grad():
            return self._gather(self._own())

    def take_back(self) -> None:
        """Carry the gradient of this rank's embeddings into the tower."""
        grad = self._all.grad
        if grad is None:
            return
        if self._graph is not None:
            self._backward(self._graph, self.mine, grad)
            return
        for piece in self.pieces:
            self._backward(self._piece(piece), piece, grad)

    @staticmethod
    def _backward(embeddings: Tensor, rows: range, grad: Tensor) -> None:
        if embeddings.requires_grad:  # not so where the whole tower is frozen, or no row is ours
            embeddings.backward(grad[rows.start : rows.stop])

    def _own(self) -> Tensor:
        if not self.pieces:
            return torch.empty(0, self.dim, device=self.machine.device)
        return torch.cat([self._piece(piece) for piece in self.pieces])

    def _piece(self, rows: range) -> Tensor:
        torch.manual_seed(self._seed + rows.start)  # both passes drop the same
        with self.machine.autocast():
            return self._encode(rows)

    def _gather(self, own: Tensor) -> Tensor:
        return self.machine.ranks.gather(own, self.mine, self.count)


def _pieces(rows: range, count: int, unit: int) -> list[range]:
    """A share in at most ``count`` pieces of equal size, or, with dropout, in its units."""
    size = unit if unit > 1 else max(1, -(-len(rows) // count))
    return [range(a, min(a + size, rows.stop)) for a in range(rows.start, rows.stop, size)]


def _unit(tower: nn.Module) -> int:
    """Rows of a tower that belong together: all are free where nothing is dropped."""
    for module in tower.modules():
        share = DROPPED.get(type(module).__name__)
        if module.training and share and getattr(module, share):
            return DROPOUT_ROWS
    return 1
