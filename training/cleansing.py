"""Stage 1: drop background frames, guided by prevalence, in two rounds.

Frames that the quality gate sets aside are neither trained on nor kept, as the service abstains
from them. Round 1 trains the towers as a weak detector with two standard sentences, every frame
inheriting its report's claim. The top share of the positive exams' frames - the share comes from a
small labelled sample - trains round 2 against the frames of polyp-free exams. A ledger holds every
frame's scores and fate; nothing is deleted.

The paper gives the positive sentence and the two rounds; its share, its negative sentence and
whether the share is per exam are not known (METHOD 1.2). We rank the frames of all positive exams
together with a floor per exam, because the lesion share of an exam varies from 2 to 70 %: a fixed
share per exam would drop lesions in one and keep background in the next. ``per_exam`` stays
available and both stand in the report.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.batches import Augmentation
from training.config import CleansingConfig, ComputeConfig, Recipe
from training.errors import ConfigError
from training.loop import Schedule, train
from training.losses import caption_loss
from training.model import EndoClip, save_weights
from training.reading import Exam
from training.records import write_jsonl
from training.sample import Share
from training.scoring.models import GateOnly, Model, StageWeights
from training.scoring.scores import read_scores, score_archive
from training.step import Bench, Encoded, Step

__all__ = [
    "HARDEST",
    "SENTENCES",
    "SET_ASIDE",
    "Fate",
    "cleanse",
    "hardest",
    "read_ledger",
    "select",
    "threshold",
]

log = logging.getLogger(__name__)

SET_ASIDE = -1.0
"""Rank of a frame that the quality gate set aside: below every probability."""
FEW = 2000
"""Frames below which one process scores them: another one costs 10 s to start."""
HARDEST = 0.1
"""Share of polyp-free exams' frames that count as hard: those round 2 takes most for lesions."""
SENTENCES = ("This is a colon with polyps.", "This is a colon without polyps.")


@dataclass(frozen=True)
class Fate:
    """One ledger line.

    Attributes:
        record_id: Of the record.
        frame: Path within the archive.
        positive: The report found a lesion.
        round1: Probability of the positive sentence after round 1; -1 of an unreadable frame.
        round2: The same after round 2.
        reason: Why the quality gate set the frame aside, ``unreadable``, or None.
        kept: A frame to train on as showing a lesion.
    """

    record_id: str
    frame: str
    positive: bool
    round1: float
    round2: float
    reason: str | None
    kept: bool


def select(
    scores: Sequence[npt.NDArray[np.float64]], floors: Sequence[int], share: float, selection: str
) -> list[npt.NDArray[np.bool_]]:
    """Keep the top share of frames, never fewer than an exam's floor, none that was set aside.

    Args:
        scores: Per positive exam, (n,) probabilities; ``SET_ASIDE`` where the gate refused.
        floors: Per exam, frames kept at least (the lesions its report names).
        share: Kept share, 0-1.
        selection: ``pooled`` or ``per_exam``.

    Returns:
        Per exam, (n,) bool.
    """
    if not scores:
        return []
    lowest = threshold(scores, share)
    kept = []
    for values, floor in zip(scores, floors, strict=True):
        order = np.argsort(-values, kind="stable")
        count = (
            int((values >= lowest).sum())
            if selection == "pooled"
            else math.ceil(share * len(values))
        )
        keep = np.zeros(len(values), dtype=bool)
        keep[order[: min(len(values), max(floor, count))]] = True
        kept.append(keep & (values > SET_ASIDE))
    return kept


def threshold(scores: Sequence[npt.NDArray[np.float64]], share: float) -> float:
    """Lowest score that is kept for its rank when exams are pooled; arguments as of ``select``."""
    return float(np.quantile(np.concatenate(scores), 1.0 - share))


class _Pools:
    """Frames to draw from, by claim."""

    def __init__(self, positive: list[Path], negative: list[Path]) -> None:
        if not positive or not negative:
            raise ConfigError("cleansing needs positive and polyp-free exams; one kind is missing")
        self.positive = positive
        self.negative = negative

    def draw(self, count: int, rng: np.random.Generator) -> tuple[list[Path], Tensor]:
        half = count // 2
        first = [self.positive[i] for i in rng.integers(len(self.positive), size=half)]
        second = [self.negative[i] for i in rng.integers(len(self.negative), size=count - half)]
        return first + second, torch.tensor([0] * half + [1] * (count - half))


@dataclass(frozen=True)
class _Detector:
    """A round's task: the two sentences against frames drawn by claim."""

    name: str
    px: int
    batch: int
    pools: _Pools

    def draw(self, rng: np.random.Generator) -> Step:
        paths, classes = self.pools.draw(self.batch, rng)
        look = Augmentation.draw(len(paths), rng, keep_shape=False)
        return Step(paths, look, SENTENCES, classes)

    def losses(self, model: EndoClip, encoded: Encoded, told: Tensor) -> dict[str, Tensor]:
        loss = caption_loss(encoded.images, encoded.texts, model.logit_scale, told)
        return {"caption_loss": loss}


def cleanse(
    folder: Path,
    bench: Bench,
    root: Path,
    exams: list[Exam],
    share: Share,
    recipe: Recipe,
    schedule: Schedule,
) -> dict[str, Any]:
    """Run both rounds, write ``ledger.jsonl`` and ``weights.pt`` into the folder.

    Args:
        folder: The stage's working folder.
        bench: Its model is trained in place.
        root: The archive's folder, which the ledger's paths start from.
        exams: Exams of the train part and, scored but not trained on, of the select part.
        share: Prevalence; the upper end of its interval is kept, since a lost lesion costs more
            than a kept background frame.
        recipe: Gives the stage's settings, the towers and the engine that scores.
        schedule: Of each round.

    Returns:
        Figures for the stamp.
    """
    config = recipe.cleansing
    everything = [frame for exam in exams for frame in exam.frames]
    gate = GateOnly(bench.store.contract)
    _, reasons = _scored(folder / "gate", root, exams, gate, recipe.compute)
    passed = np.array([reason is None for reason in reasons])

    def ranks(name: str) -> npt.NDArray[np.float64]:
        weights = folder / f"{name}.pt"
        if not weights.exists():  # other bytes of the same weights would make the scores stale
            save_weights(bench.model, weights.with_suffix(".tmp"))
            weights.with_suffix(".tmp").replace(weights)
        stage = StageWeights.of(weights, recipe.model, config.px, SENTENCES)
        scores, _ = _scored(folder / f"{name}-scores", root, exams, stage, recipe.compute)
        return scores

    def train_round(name: str, pools: _Pools) -> None:
        train(folder, _Detector(name, config.px, config.batch, pools), bench, schedule)

    usable = {f for f, ok in zip(everything, passed, strict=True) if ok}
    training = [exam for exam in exams if exam.part == "train"]
    positive = [f for e in training if e.positive for f in e.frames if f in usable]
    negative = [f for e in training if not e.positive for f in e.frames if f in usable]
    train_round("round1", _Pools(positive, negative))
    round1 = ranks("round1")
    keep1 = _kept(exams, np.where(passed, round1, SET_ASIDE), share, config)
    chosen = [
        f
        for e, k in zip(exams, keep1, strict=True)
        if e.part == "train" and e.positive
        for f, keep in zip(e.frames, k, strict=True)
        if keep
    ]
    cap = math.ceil(config.negative_cap * len(chosen))
    order = np.random.default_rng([schedule.seed, 77]).permutation(len(negative))[:cap]
    train_round("round2", _Pools(chosen, [negative[i] for i in order]))
    round2 = ranks("round2")
    keep2 = _kept(exams, np.where(passed, round2, SET_ASIDE), share, config)
    _write_ledger(folder / "ledger.jsonl", root, exams, round1, round2, reasons, keep2)
    (folder / "round2.pt").replace(folder / "weights.pt")
    (folder / "round1.pt").unlink()
    for name in ("gate", "round1-scores", "round2-scores"):  # all of it stands in the ledger
        shutil.rmtree(folder / name)
    return {
        "share": share.value,
        "share_low": share.low,
        "share_high": share.high,
        "share_sample": share.sample,
        "kept": int(sum(k.sum() for k in keep2)),
        "set_aside": int((~passed).sum()),
    }


def _scored(
    out: Path, root: Path, exams: list[Exam], model: Model, compute: ComputeConfig
) -> tuple[npt.NDArray[np.float64], list[str | None]]:
    """Score all frames by the pass of ``training score``, which streams and resumes.

    Returns:
        Probabilities (n,), ``SET_ASIDE`` where a frame cannot be read or the model gives none, and
        the reasons (n,) of frames that are set aside.
    """
    few = sum(len(exam.frames) for exam in exams) < FEW
    score_archive(out, root, exams, model, engine=compute.scoring, workers=1 if few else 0)
    scores: list[float] = []
    reasons: list[str | None] = []
    for table in read_scores(out):
        reasons += table["reason"].to_pylist()
        if "probability" in table.column_names:
            told = table["probability"].to_pylist()
            scores += [SET_ASIDE if p is None else p for p in told]
    return np.array(scores), reasons


def _kept(
    exams: list[Exam], scores: npt.NDArray[np.float64], share: Share, config: CleansingConfig
) -> list[npt.NDArray[np.bool_]]:
    """Kept flags per exam; nothing of a polyp-free exam is kept."""
    edges = np.cumsum([0, *(len(exam.frames) for exam in exams)])
    pieces = [scores[a:b] for a, b in pairwise(edges)]
    chosen = [i for i, exam in enumerate(exams) if exam.positive]
    kept = select(
        [pieces[i] for i in chosen],
        [max(1, len(exams[i].lesions)) for i in chosen],
        share.high,
        config.selection,
    )
    result = [np.zeros(len(piece), dtype=bool) for piece in pieces]
    for i, keep in zip(chosen, kept, strict=True):
        result[i] = keep
    return result


def _write_ledger(
    path: Path,
    root: Path,
    exams: list[Exam],
    round1: npt.NDArray[np.float64],
    round2: npt.NDArray[np.float64],
    reasons: list[str | None],
    kept: list[npt.NDArray[np.bool_]],
) -> None:
    rows, i = [], 0
    for exam, flags in zip(exams, kept, strict=True):
        for frame, flag in zip(exam.frames, flags, strict=True):
            rows.append(
                {
                    "record_id": exam.record_id,
                    "frame": frame.relative_to(root).as_posix(),
                    "positive": exam.positive,
                    "round1": float(round1[i]),
                    "round2": float(round2[i]),
                    "reason": reasons[i],
                    "kept": bool(flag),
                }
            )
            i += 1
    write_jsonl(path, rows)


def read_ledger(path: Path) -> dict[str, list[Fate]]:
    """Ledger lines by record id, frames in the record's order."""
    found: dict[str, list[Fate]] = {}
    for line in path.read_text("utf-8").splitlines():
        fate = Fate(**json.loads(line))
        found.setdefault(fate.record_id, []).append(fate)
    return found


def hardest(fates: Mapping[str, Sequence[Fate]], exams: Sequence[Exam]) -> frozenset[Path]:
    """Frames of polyp-free exams that round 2 takes most for lesions: the top ``HARDEST``.

    Args:
        fates: Ledger lines by record id.
        exams: Exams of the ledger, with all their frames; positive ones are passed over.
    """
    told = [
        (fate.round2, frame)
        for exam in exams
        if not exam.positive
        for frame, fate in zip(exam.frames, fates[exam.record_id], strict=True)
        if fate.reason is None
    ]
    told.sort(key=lambda pair: -pair[0])
    return frozenset(frame for _, frame in told[: math.ceil(HARDEST * len(told))])
