"""The three stages on towers of a few thousand weights: real samplers, files, loop and ranks.

Also a program, so that tests can signal it and start it by torchrun:

    python -m tests.training.tiny_stages FOLDER [KEY=VALUE ...]
    torchrun --nproc_per_node 2 -m tests.training.tiny_stages FOLDER [KEY=VALUE ...]

Keys: steps, pause (seconds a step), device, precision, accumulate, workers, cache_mb, dropout.
Stage folders and a file ``pid.<rank>`` are written to FOLDER.
"""

import dataclasses
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from model_store.images import InputContract
from tests.training.test_attunement import _exams
from training.attunement import Sampler, attune
from training.batches import FrameStore
from training.cleansing import _Detector, _Pools
from training.compute import Machine, open_machine
from training.config import Recipe, load
from training.loop import Schedule, follow, train
from training.model import EndoClip, save_weights
from training.reading import Exam
from training.step import Bench
from training.stopping import Stopped, stop_at_once
from training.unification import PatientSampler, unify_records

SMOKE = Path(__file__).parents[2] / "training" / "configs" / "smoke.toml"
CONTRACT = InputContract(32, "squash", "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "full")
DIM = 16
STAGES = ("1-cleansing/round1", "1-cleansing/round2", "2-attunement/attunement")
STAGES += ("3-unification/unification",)


class _Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 5, stride=3)
        self.body = nn.Conv2d(12, 24, 3, stride=2)
        self.head = nn.Linear(24, DIM)
        self.recompute = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.recompute = enable

    def forward(self, pixels: Tensor) -> Tensor:
        x = torch.relu(self.stem(pixels))
        if self.recompute:
            x = torch.utils.checkpoint.checkpoint(self.body, x, use_reentrant=False)
        else:
            x = self.body(x)
        return self.head(torch.relu(x).mean((2, 3)))


class _Text(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.tokens = nn.Embedding(64, 24)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(24, DIM)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        pass

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.dropout(self.tokens(ids)).mean(1))


class _Clip(nn.Module):
    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.visual, self.text = _Visual(), _Text(dropout)
        self.logit_scale = nn.Parameter(torch.tensor(2.0))


def tokenize(texts: list[str]) -> Tensor:
    """Words by their letters: (m, 24) ids in 0..63."""
    rows = [[sum(map(ord, word)) % 64 for word in text.split()][:24] for text in texts]
    return torch.tensor([row + [0] * (24 - len(row)) for row in rows])


def tiny_bench(
    machine: Machine | None = None, dropout: float = 0.0, workers: int = 0, cache_mb: int = 1
) -> Bench:
    """Tiny towers on a machine; the same weights each time."""
    torch.manual_seed(0)
    machine = machine or Machine()
    model = EndoClip(_Clip(dropout), DIM, quick_text=False)
    store = FrameStore(CONTRACT, cache_mb, workers)
    return Bench(machine.place(model), tokenize, store, machine)


def tiny_exams(folder: Path) -> list[Exam]:
    """Exams with the composer's reports and drawn frames of 64 px in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    exams = [
        dataclasses.replace(exam, frames=tuple(folder / frame for frame in exam.frames))
        for exam in _exams(100)
    ]
    rng = np.random.default_rng(1)
    for exam in exams:
        for path in exam.frames:
            coarse = rng.integers(40, 220, (4, 4, 3), dtype=np.uint8)
            if not path.exists():
                Image.fromarray(coarse).resize((64, 64)).save(path)
    return exams


def tiny_recipe(**overrides: object) -> Recipe:
    """The smoke recipe with odd sizes: what ranks and pieces divide must not be divisible."""
    odd = {"cleansing.batch": 9, "attunement.batch": 33, "attunement.px": 32}
    odd |= {"attunement.tau": 0.12, "unification.records": 5, "unification.px": 32}
    told = odd | {"attunement.background": 6} | overrides
    return load(SMOKE, [f"{key}={value}" for key, value in told.items()])


def kept_frames(exams: list[Exam]) -> dict[str, list[Path]]:
    """All frames of positive exams, by record."""
    return {exam.record_id: list(exam.frames) for exam in exams if exam.positive}


def run_stages(
    out: Path, make_bench: Callable[[], Bench], steps: int = 3, checkpoint_s: float = 0.0
) -> None:
    """Run the stages, each from the towers that the one before left."""
    recipe = tiny_recipe()
    exams, bench = tiny_exams(out.parent / "frames"), make_bench()
    schedule = Schedule(steps, 1e-3, 1, checkpoint_s)
    folders = [out / stage.partition("/")[0] for stage in (STAGES[0], *STAGES[2:])]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    # Cleansing's rounds without the scoring pass between them, which knows whole recipes alone.
    kept = kept_frames(exams)
    free = [frame for exam in exams if not exam.positive for frame in exam.frames]
    for name, count in (("round1", 2), ("round2", 1)):
        pools = _Pools([frame for own in kept.values() for frame in own[:count]], free)
        train(folders[0], _Detector(name, 32, recipe.cleansing.batch, pools), bench, schedule)
    save_weights(bench.model, folders[0] / "weights.pt")
    attune(folders[1], bench, Sampler(exams, kept, recipe.attunement), schedule)
    sampler = PatientSampler(exams, kept, recipe.unification)
    unify_records(folders[2], bench, sampler, True, schedule)


def main(argv: list[str]) -> int:
    """Run as a program; exit codes as of ``python -m training``."""
    out, told = Path(argv[0]), dict(item.split("=") for item in argv[1:])
    compute: dict[str, Any] = {
        "device": told.get("device", "cpu"),
        "precision": told.get("precision", "fp32"),
        "accumulate": int(told.get("accumulate", "1")),
        "threads": 1,
    }
    config = dataclasses.replace(tiny_recipe().compute, **compute)
    pause, steps = float(told.get("pause", "0")), int(told.get("steps", "3"))
    out.mkdir(parents=True, exist_ok=True)
    try:
        with stop_at_once(), open_machine(config) as machine:
            (out / f"pid.{machine.ranks.rank}").write_text(str(os.getpid()), "utf-8")

            def bench() -> Bench:
                made = tiny_bench(
                    machine,
                    float(told.get("dropout", "0")),
                    int(told.get("workers", "0")),
                    int(told.get("cache_mb", "1")),
                )
                if pause:
                    made.model.clip.visual.register_forward_pre_hook(lambda *_: time.sleep(pause))
                return made

            if machine.ranks.is_first:
                run_stages(out, bench, steps)
            else:
                follow(machine.ranks, bench)
    except Stopped as stop:
        return stop.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
