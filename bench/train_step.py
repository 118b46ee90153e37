"""What a training step costs: seconds and memory of stage 2 or 3 under settings of ``[compute]``.

Run from the repository's root, in the training environment:

    python -m bench.train_step --archive ARCHIVE                    # `phantom` draws one
    python -m bench.train_step --archive ARCHIVE --stage unification --set compute.accumulate=4

Prints one JSON line: wall and CPU seconds a step (the first five steps, which fill caches, left
out), and the process's peak memory in MB before and in training.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from training.attunement import AttunementTask, Sampler
from training.config import load
from training.loop import train
from training.stages import open_workshop
from training.step import Step, Task
from training.unification import PatientSampler, UnificationTask

WARM = 5
CONFIGS = Path(__file__).parents[1] / "training" / "configs"


class Timed:
    """A task that notes when each step's losses are computed."""

    def __init__(self, task: Task) -> None:
        self.task, self.name, self.px = task, task.name, task.px
        self.ticks: list[tuple[float, float]] = []

    def draw(self, rng: np.random.Generator) -> Step:
        """Draw a step."""
        return self.task.draw(rng)

    def losses(self, model, encoded, told):  # type: ignore[no-untyped-def]
        """Losses of a step."""
        self.ticks.append((time.perf_counter(), time.process_time()))
        return self.task.losses(model, encoded, told)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--archive", type=Path, required=True)
    parser.add_argument("--recipe", default="default")
    parser.add_argument("--stage", choices=("attunement", "unification"), default="attunement")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    recipe = load(CONFIGS / f"{args.recipe}.toml", ["compute.threads=1", *args.set])
    shop = open_workshop(recipe, args.archive)
    exams = shop.part("train")
    kept = {exam.record_id: list(exam.frames) for exam in exams if exam.positive}
    config = getattr(recipe, args.stage)
    timed = Timed(
        AttunementTask(Sampler(exams, kept, config))
        if args.stage == "attunement"
        else UnificationTask(PatientSampler(exams, kept, config), True)
    )
    bench = shop.bench(None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        train(Path(folder), timed, bench, shop.schedule(args.steps, config.lr, 2))
    first, last = timed.ticks[WARM], timed.ticks[-1]
    count = args.steps - WARM - 1
    found = {
        "stage": args.stage,
        "set": args.set,
        "wall_s": round((last[0] - first[0]) / count, 3),
        "cpu_s": round((last[1] - first[1]) / count, 3),
        "before_mb": before // 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(json.dumps(found))  # noqa: T201 - for the person who measures


if __name__ == "__main__":
    main()
