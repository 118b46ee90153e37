"""The end of stage 3: the attention alone, over frames exactly as they will be served.

While the towers still move, the attention lags behind: after 240 steps of both, one drawn polyp
among 199 normal frames held 0.23 of the presence query's attention, and the loss of the class
sentences was 0.45; after 1,200 steps of the attention alone 0.98, and 0.31. Those steps cost next
to nothing, because towers that stand still encode a frame once, when it is first drawn, and a
sentence once.

The paper does not have this phase: its attention is trained with the towers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from training.batches import plain
from training.errors import Diverged, FrameUnreadable
from training.feed import ATTEMPTS, rng_for
from training.loop import Schedule
from training.step import Bench, Encoded, Task

__all__ = ["learn_to_attend"]

log = logging.getLogger(__name__)

SCALE_FACTOR = 10.0
"""Learning rate of the logarithm of the attention scale, relative to the projections'."""
PIECE = 64
"""Frames encoded at a time."""


class _Seen:
    """Embeddings of the frames and sentences that were drawn so far."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._frames: dict[Path, Tensor] = {}
        self._texts: dict[str, Tensor] = {}

    def frames(self, paths: Sequence[Path]) -> Tensor:
        """Unit rows (n, d) at the size of the input contract, not augmented."""
        contract, model = self._bench.store.contract, self._bench.model
        new = [path for path in dict.fromkeys(paths) if path not in self._frames]
        for start in range(0, len(new), PIECE):
            piece = new[start : start + PIECE]
            pixels = self._bench.store.get(piece).to(model.device)
            with self._bench.machine.autocast():
                rows = model.encode_images(plain(pixels, contract, contract.size))
            self._frames |= dict(zip(piece, rows, strict=True))
        return self._stacked([self._frames[path] for path in paths])

    def texts(self, texts: Sequence[str]) -> Tensor:
        """Unit rows (m, d)."""
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        if new:
            rows = self._bench.model.encode_ids(self._bench.tokenize(new))
            self._texts |= dict(zip(new, rows, strict=True))
        return self._stacked([self._texts[text] for text in texts])

    def _stacked(self, rows: Sequence[Tensor]) -> Tensor:
        model = self._bench.model
        return torch.stack(list(rows)) if rows else torch.zeros(0, model.dim, device=model.device)


def learn_to_attend(bench: Bench, task: Task, schedule: Schedule) -> list[float]:
    """Train query, key and scale of ``unify`` for the losses of a task; nothing else moves.

    In this process alone, and begun anew when it was stopped: it takes a few minutes.

    Args:
        bench: Its model's ``unify`` is trained in place.
        task: Draws steps (how frames would be augmented is not looked at) and gives their losses.
        schedule: Steps, peak rate of query and key, seed.

    Returns:
        Total loss of every step.

    Raises:
        Diverged: A loss is not finite.
        FrameUnreadable: A step's frames cannot be read, whatever is drawn.
    """
    model, seen, history = bench.model, _Seen(bench), list[float]()
    model.eval()
    trained = list(model.unify.parameters())
    free = [p for name, p in model.unify.named_parameters() if name != "log_scale"]
    optimiser = torch.optim.Adam([{"params": free}, {"params": [model.unify.log_scale]}])
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]}"), TimeRemainingColumn()) as bar:
        shown = bar.add_task("attention", total=schedule.steps, loss="-")
        for step in range(schedule.steps):
            for group, factor in zip(optimiser.param_groups, (1.0, SCALE_FACTOR), strict=True):
                group["lr"] = schedule.lr * factor * schedule.factor(step)
            named = task.losses(model, *_encoded(seen, task, schedule.seed, step))
            loss = torch.stack([v for name, v in named.items() if name.endswith("_loss")]).sum()
            history.append(float(loss.detach()))
            if not math.isfinite(history[-1]):
                raise Diverged(f"attention: loss is not finite at step {step}; lower attention_lr")
            for parameter, slope in zip(trained, torch.autograd.grad(loss, trained), strict=True):
                parameter.grad = slope
            optimiser.step()
            bar.update(shown, advance=1, loss=f"{history[-1]:.3f}")
    return history


def _encoded(seen: _Seen, task: Task, seed: int, step: int) -> tuple[Encoded, Any]:
    """A step's rows and what the losses are told; drawn again where a frame cannot be read."""
    for attempt in range(ATTEMPTS):
        drawn = task.draw(rng_for(seed, "attention", step, attempt))
        try:
            with torch.no_grad():
                frames, still = seen.frames(drawn.frames), seen.frames(drawn.still)
                return Encoded(frames, seen.texts(drawn.texts), still), drawn.told
        except FrameUnreadable as error:
            lost = error
            log.warning("stage=attention step=%d drawn again: frame %s", step, error)
    raise lost
