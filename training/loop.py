"""The one training loop: seeded, with progress bar, step checkpoints and exact resume.

Everything random in a step derives from (seed, stage, step), so a run that was stopped and
resumed gives the same losses as an uninterrupted one.
"""

from __future__ import annotations

import csv
import logging
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

__all__ = ["Schedule", "rng_for", "train"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Schedule:
    """Steps and learning rate: linear warm-up over a tenth, then cosine to a twentieth.

    Attributes:
        steps: Optimiser steps.
        lr: Peak learning rate.
        seed: Seed of the stage.
        checkpoint_s: Seconds between checkpoints.
    """

    steps: int
    lr: float
    seed: int
    checkpoint_s: float

    def factor(self, step: int) -> float:
        """Learning-rate factor of a step, in 0..1."""
        warm = max(1, self.steps // 10)
        if step < warm:
            return (step + 1) / warm
        return 0.05 + 0.95 * 0.5 * (
            1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm))
        )


def rng_for(seed: int, stage: str, step: int) -> np.random.Generator:
    """The generator of one step, independent of every other step."""
    return np.random.default_rng([seed, *stage.encode(), step])


def train(
    folder: Path,
    stage: str,
    model: nn.Module,
    groups: Sequence[Mapping[str, Any]],
    schedule: Schedule,
    step_losses: Callable[[int, np.random.Generator], Mapping[str, Tensor]],
) -> list[float]:
    """Train, resuming from ``folder/<stage>.ckpt`` where it exists.

    Args:
        folder: Working folder: checkpoint, ``<stage>.csv`` with every step's losses, TensorBoard.
        stage: Name for files, bar and random streams.
        model: Trained in place; all of its state is checkpointed.
        groups: AdamW parameter groups; ``factor`` scales the learning rate of a group.
        schedule: Steps, rate, seed.
        step_losses: (step, rng) -> named scalars; those ending in ``_loss`` are summed.

    Returns:
        Total loss of every step, the resumed ones included.
    """
    from torch.utils.tensorboard import SummaryWriter

    factors = [float(group.get("factor", 1.0)) for group in groups]
    optimiser = torch.optim.AdamW(
        [{"params": list(group["params"])} for group in groups], lr=schedule.lr, weight_decay=0.01
    )
    checkpoint = folder / f"{stage}.ckpt"
    history = _resume(checkpoint, model, optimiser)
    writer = SummaryWriter(str(folder / "tensorboard" / stage), purge_step=len(history))
    saved = time.monotonic()
    with _bar(stage, schedule.steps, len(history)) as advance, _stop_signal() as stopping:
        for step in range(len(history), schedule.steps):
            for group, factor in zip(optimiser.param_groups, factors, strict=True):
                group["lr"] = schedule.lr * factor * schedule.factor(step)
            row = _step(optimiser, stage, step, schedule.seed, step_losses)
            history.append(row)
            for name, value in row.items():
                writer.add_scalar(f"{stage}/{name}", value, step)
            advance(row["total"])
            due = time.monotonic() - saved > schedule.checkpoint_s
            stop = stopping()  # read once: a signal between two looks would skip the checkpoint
            if due or stop or step + 1 == schedule.steps:
                _save(checkpoint, model, optimiser, history)
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt(
                    f"{stage}: stopped after step {step + 1}, checkpoint written"
                )
    writer.close()
    _write_csv(folder / f"{stage}.csv", history)
    return [row["total"] for row in history]


def _step(
    optimiser: torch.optim.Optimizer,
    stage: str,
    step: int,
    seed: int,
    step_losses: Callable[[int, np.random.Generator], Mapping[str, Tensor]],
) -> dict[str, float]:
    rng = rng_for(seed, stage, step)
    torch.manual_seed(int(rng.integers(2**31)))  # dropout
    named = step_losses(step, rng)
    total = torch.stack([value for name, value in named.items() if name.endswith("_loss")]).sum()
    if not bool(torch.isfinite(total)):
        raise FloatingPointError(f"{stage}: loss is not finite at step {step}")
    optimiser.zero_grad(set_to_none=True)
    total.backward()
    nn.utils.clip_grad_norm_([p for g in optimiser.param_groups for p in g["params"]], 1.0)
    optimiser.step()
    return {"total": total.item(), **{name: value.item() for name, value in named.items()}}


def _resume(
    path: Path, model: nn.Module, optimiser: torch.optim.Optimizer
) -> list[dict[str, float]]:
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("resumed=%s step=%d", path.name, len(state["history"]))
    return list(state["history"])


def _save(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    history: list[dict[str, float]],
) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(
        {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "history": history},
        temporary,
    )
    temporary.replace(path)


def _write_csv(path: Path, history: list[dict[str, float]]) -> None:
    if not history:
        return
    names = list(dict.fromkeys(name for row in history for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["step", *names])
        writer.writeheader()
        writer.writerows({"step": step, **row} for step, row in enumerate(history))


@contextmanager
def _bar(stage: str, total: int, done: int) -> Any:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(stage, total=total, completed=done, loss=float("nan"))
        yield lambda loss: progress.update(task, advance=1, loss=loss)


@contextmanager
def _stop_signal() -> Any:
    """Turn SIGTERM and Ctrl-C into a flag, so that the step ends and a checkpoint is written."""
    asked = False

    def ask(_signum: int, _frame: object) -> None:
        nonlocal asked
        asked = True

    try:
        previous = {s: signal.signal(s, ask) for s in (signal.SIGTERM, signal.SIGINT)}
    except ValueError:  # not the main thread: tests and notebooks stop otherwise
        previous = {}
    try:
        yield lambda: asked
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
