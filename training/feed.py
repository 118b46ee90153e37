"""The steps of a stage in order: each drawn once, its frames decoded before they are needed.

A step's draw depends on (seed, stage, step) alone, so what comes next is known while this step
trains, the order is the same after a resume, and every rank draws the same. A step with a frame
that cannot be read is drawn again, from (seed, stage, step, attempt): one lost file costs one draw
and no run. The ranks agree on it, whoever met the frame.
"""

from __future__ import annotations

import logging

import numpy as np

from training.errors import ConfigError, FrameUnreadable
from training.step import Bench, Squares, Step, Task, own_frames

__all__ = ["ATTEMPTS", "Feed", "rng_for"]

log = logging.getLogger(__name__)

AHEAD = 2
"""Steps whose frames workers decode while one trains: one evens out slow files, two slow steps."""
ATTEMPTS = 20
"""Draws of one step until a readable one is given up. With 1 % of frames lost, 0.99^44 = 64 % of
the default recipe's steps are readable at once and 1 in 10^9 is given up."""


def rng_for(seed: int, stage: str, step: int, attempt: int = 0) -> np.random.Generator:
    """The generator of one step, independent of every other step.

    Args:
        seed: Of the stage.
        stage: Its name.
        step: From 0.
        attempt: Which draw of the step this is, from 0.
    """
    return np.random.default_rng([seed, *stage.encode(), step, *([attempt] if attempt else [])])


class Feed:
    """Gives each step with this rank's frames.

    Args:
        bench: Store and ranks.
        task: Draws.
        seed: Of the stage.
        steps: Of the stage; nothing is drawn beyond.
    """

    def __init__(self, bench: Bench, task: Task, seed: int, steps: int) -> None:
        self._bench, self._task, self._seed, self._steps = bench, task, seed, steps
        self._drawn: dict[int, tuple[int, Step]] = {}

    def take(self, step: int) -> tuple[int, Step, Squares]:
        """The seed of a step's dropout, what it encodes, and this rank's frames.

        Raises:
            ConfigError: The step has no frame: a stage must not run over nothing.
            FrameUnreadable: None of the step's draws could be read.
        """
        coming = range(step, min(step + 1 + AHEAD, self._steps))
        self._drawn = {i: self._drawn.get(i) or self._draw(i, 0) for i in coming}
        self._bench.store.ahead(
            [p for i in coming for part in own_frames(self._bench, self._drawn[i][1]) for p in part]
        )
        for attempt in range(ATTEMPTS):
            seed, drawn = self._drawn[step] if attempt == 0 else self._draw(step, attempt)
            squares, lost = self._read(drawn)
            if not self._bench.machine.ranks.agree(int(lost is not None)):
                return seed, drawn, squares
            told = lost or "of another rank"
            log.warning("stage=%s step=%d drawn again: frame %s", self._task.name, step, told)
        raise lost or ConfigError(
            f"{self._task.name}: step {step} was drawn {ATTEMPTS} times, "
            "and each time another rank could not read a frame; its message names the last"
        )

    def _draw(self, step: int, attempt: int) -> tuple[int, Step]:
        rng = rng_for(self._seed, self._task.name, step, attempt)
        seed = int(rng.integers(2**31))
        drawn = self._task.draw(rng)
        if not drawn.frames:
            raise ConfigError(
                f"{self._task.name}: expected frames to train on, found none at step {step}; "
                "does the archive's train part have any that passed the quality gate?"
            )
        return seed, drawn

    def _read(self, drawn: Step) -> tuple[Squares, FrameUnreadable | None]:
        frames, still = own_frames(self._bench, drawn)
        store = self._bench.store
        try:
            return Squares(store.get(frames), store.get(still)), None
        except FrameUnreadable as error:
            return Squares(store.get([]), store.get([])), error
