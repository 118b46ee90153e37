"""The one training loop: seeded, with progress bar, step checkpoints and exact resume.

Everything random in a step derives from (seed, stage, step), so a run that was stopped and
resumed gives the same losses as an uninterrupted one, however many ranks it runs on.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import nn

from training.distributed import Ranks
from training.errors import Diverged, StaleInput
from training.feed import Feed
from training.model import parameter_groups, train_mode
from training.step import Bench, Task, gradients
from training.stopping import Stopped, stop_later

__all__ = ["Schedule", "follow", "train"]

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


def train(folder: Path, task: Task, bench: Bench, schedule: Schedule) -> list[float]:
    """Train, resuming from ``folder/<task>.ckpt`` where it exists; rank 0's part of it.

    Args:
        folder: Working folder: checkpoint, ``<task>.csv`` with every step's losses, TensorBoard.
        task: What is trained for.
        bench: Its model is trained in place, and all of the model's state is checkpointed.
        schedule: Steps, rate, seed.

    Returns:
        Total loss of every step, the resumed ones included.

    Raises:
        Stopped: SIGTERM or Ctrl-C came; the checkpoint is written.
        Diverged: A loss is not finite.
        ConfigError: A step has no frames.
        FrameUnreadable: A step's frames cannot be read, whatever is drawn.
        StaleInput: The checkpoint cannot be read.
    """
    trainer = _Trainer(task, bench, schedule)
    checkpoint = folder / f"{task.name}.ckpt"
    if checkpoint.exists():
        trainer.restore(_read(checkpoint))
        log.info("resumed=%s step=%d", checkpoint.name, len(trainer.history))
    ranks = bench.machine.ranks
    if ranks.count > 1:
        state = io.BytesIO()  # as in a checkpoint: tensors pickled by themselves keep their device
        torch.save(trainer.state(), state)
        ranks.send(_Job(task, schedule, state.getvalue()))
    saved, wish = time.monotonic(), 0
    shown = _shown(folder, task.name, len(trainer.history), schedule.steps)
    with shown as show, stop_later() as asked:
        for row, wish in trainer.steps(asked):
            show(len(trainer.history) - 1, row)
            due = time.monotonic() - saved > schedule.checkpoint_s
            if due or wish or len(trainer.history) == schedule.steps:
                _write(checkpoint, trainer.state())
                saved = time.monotonic()
        if wish:
            done = len(trainer.history)
            raise Stopped(wish, f"{task.name}: stopped after step {done}, checkpoint written")
    _write_csv(folder / f"{task.name}.csv", trainer.history)
    return [row["total"] for row in trainer.history]


def follow(ranks: Ranks, make_bench: Callable[[], Bench]) -> None:
    """Train along with rank 0 until it says that there is nothing more to do.

    Args:
        ranks: The processes of the run.
        make_bench: Gives towers of the recipe; whatever weights they have are replaced.

    Raises:
        Stopped: This process was asked to stop, and the ranks have stopped together.
    """
    with stop_later() as asked:
        while (job := ranks.receive()) is not None:
            trainer = _Trainer(job.task, make_bench(), job.schedule)
            trainer.restore(_loaded(io.BytesIO(job.state)))
            for _ in trainer.steps(asked):
                pass


@dataclass(frozen=True)
class _Job:
    """What rank 0 sends the others: a stage, and where in it they begin."""

    task: Task
    schedule: Schedule
    state: bytes


class _Trainer:
    """A stage in training: model, optimiser, loss scale, losses so far."""

    def __init__(self, task: Task, bench: Bench, schedule: Schedule) -> None:
        train_mode(bench.model)
        groups = parameter_groups(bench.model)
        self._task, self._bench, self._schedule = task, bench, schedule
        self._factors = [float(group["factor"]) for group in groups]
        self._optimiser = torch.optim.AdamW(
            [{"params": group["params"]} for group in groups], lr=schedule.lr, weight_decay=0.01
        )
        self._scaler = bench.machine.scaler()
        self._feed = Feed(bench, task, schedule.seed, schedule.steps)
        self.history: list[dict[str, float]] = []

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "model": self._bench.model.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a ``state``, of whatever device."""
        self._bench.model.load_state_dict(state["model"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._scaler.load_state_dict(state["scaler"])
        self.history = list(state["history"])

    def steps(self, asked: Callable[[], int]) -> Iterator[tuple[dict[str, float], int]]:
        """Take the steps that are left, until a rank is asked to stop.

        Args:
            asked: What this process was asked for (``stop_later``).

        Yields:
            The step's scalars, and what the ranks are asked for, alike on all of them.
        """
        ranks = self._bench.machine.ranks
        ranks.busy, wish = True, 0
        while len(self.history) < self._schedule.steps and not wish:
            self.history.append(self._step(len(self.history)))
            wish = ranks.agree(asked())
            yield self.history[-1], wish
        ranks.busy = False

    def _step(self, step: int) -> dict[str, float]:
        for group, factor in zip(self._optimiser.param_groups, self._factors, strict=True):
            group["lr"] = self._schedule.lr * factor * self._schedule.factor(step)
        seed, drawn, squares = self._feed.take(step)
        named = gradients(self._bench, self._task, drawn, squares, seed, self._scaler)
        row = {name: float(value) for name, value in named.items()}
        if not math.isfinite(row["total"]):
            raise Diverged(
                f"{self._task.name}: loss is not finite at step {step}; lower the learning rate"
            )
        self._scaler.unscale_(self._optimiser)
        trained = [p for group in self._optimiser.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(trained, 1.0)
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return row


def _loaded(source: Path | IO[bytes]) -> dict[str, Any]:
    return dict(torch.load(source, map_location="cpu", weights_only=True))


def _read(path: Path) -> dict[str, Any]:
    try:
        return _loaded(path)
    except OSError:
        raise
    except Exception as error:  # bytes that are no checkpoint make torch.load raise anything
        raise StaleInput(
            f"{path.name}: cannot be read as a checkpoint; delete it to begin the stage anew"
        ) from error


def _write(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_name(path.name + ".tmp")
    torch.save(state, temporary)
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
def _shown(
    folder: Path, name: str, done: int, steps: int
) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Progress bar and TensorBoard; gives a function that takes a step and its scalars."""
    from torch.utils.tensorboard import SummaryWriter

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]}"),
        TimeRemainingColumn(),
    )
    writer = SummaryWriter(str(folder / "tensorboard" / name), purge_step=done)
    with writer, Progress(*columns) as progress:
        bar = progress.add_task(name, total=steps, completed=done, loss="-")

        def show(step: int, row: dict[str, float]) -> None:
            for key, value in row.items():
                writer.add_scalar(f"{name}/{key}", value, step)
            progress.update(bar, advance=1, loss=f"{row['total']:.3f}")

        yield show
