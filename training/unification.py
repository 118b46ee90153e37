"""Stage 3: patient-level cross-attention over multi-lesion, single-lesion and polyp-free records.

Every text set attends to every record's frames (the pairwise form); targets are soft similarities
of the records' unified attributes. Class sentences are pooled as they are at request time: the
positive sentence alone makes the attention, and both sentences are scored on that one vector - so
an exam with one lesion among 200 normal frames is still an exam with a polyp, and a mixed patient
is not benign. So that the attention learns this, records are made as long as exams are: frames of
polyp-free records, encoded without gradients, join each record in a drawn number.

The mirrored direction (frames attend to texts) is left out: nothing uses it at request time, and
over a single prompt it would return the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from training.attending import learn_to_attend
from training.batches import Augmentation
from training.claims import opinion_sentence, presence_sentence
from training.config import UnificationConfig
from training.errors import ConfigError
from training.loop import Schedule, train
from training.losses import (
    effective_targets,
    pairwise_scores,
    soft_cross_entropy,
    soft_targets,
    unified_codes,
    union_similarity,
)
from training.model import EndoClip, save_weights
from training.reading import LEVELS, Exam
from training.step import Bench, Encoded, Step

__all__ = [
    "Bags",
    "PatientSampler",
    "UnificationTask",
    "class_query_loss",
    "opinion_classes",
    "record_targets",
    "unify_records",
]

OTHERS = 64
"""Background frames encoded a step to lengthen records with."""


@dataclass(frozen=True)
class Bags:
    """One step's records.

    Attributes:
        exams: The p records; no two are of one patient or share a source group.
        frames: Paths per record.
        others: Frames of polyp-free records.
        joined: Per record, rows of ``others`` that lengthen it; none of its patient
            or of a group of its own.
    """

    exams: list[Exam]
    frames: list[list[Path]]
    others: list[Path]
    joined: list[list[int]]

    @property
    def mask(self) -> Tensor:
        """(p, n) bool over the padded frames, own ones first, joined ones behind them."""
        counts = [len(f) + len(j) for f, j in zip(self.frames, self.joined, strict=True)]
        return torch.arange(max(counts))[None, :] < torch.tensor(counts)[:, None]

    def padded(self, own: Tensor, others: Tensor) -> Tensor:
        """Embeddings (p, n, d) in the order of ``mask``, zeros behind.

        Args:
            own: (sum of the records' frames, d).
            others: (len(others), d).
        """
        pieces = own.split([len(f) for f in self.frames])
        rows = [
            torch.cat([piece, others[torch.tensor(joined, dtype=torch.long)]])
            for piece, joined in zip(pieces, self.joined, strict=True)
        ]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)


class PatientSampler:
    """Draws records: half multi-lesion, a quarter single-lesion, a quarter polyp-free.

    Args:
        exams: Train exams.
        kept: Kept frames by record id.
        config: Stage settings.
    """

    def __init__(
        self, exams: Sequence[Exam], kept: Mapping[str, list[Path]], config: UnificationConfig
    ) -> None:
        self.config, self.kept = config, kept
        self.pools = [
            [e for e in exams if len(e.lesions) > 1],
            [e for e in exams if len(e.lesions) == 1],
            [e for e in exams if not e.positive],
        ]
        if not all(self.pools):
            raise ConfigError(
                "unification needs multi-lesion, single-lesion and polyp-free records"
            )

    def draw(self, rng: np.random.Generator) -> Bags:
        """One batch of records with up to ``frames`` frames each."""
        p = self.config.records
        wanted = [0] * (p - 2 * (p // 4)) + [1] * (p // 4) + [2] * (p // 4)
        exams: list[Exam] = []
        taken: set[str] = set()
        for pool in (self.pools[i] for i in wanted):
            for i in rng.permutation(len(pool))[:50]:
                if not taken & pool[i].ties:
                    exams.append(pool[i])
                    taken |= pool[i].ties
                    break
        frames = [self._frames(exam, rng) for exam in exams]
        return Bags(exams, frames, *self._joined(exams, rng))

    def _joined(
        self, exams: Sequence[Exam], rng: np.random.Generator
    ) -> tuple[list[Path], list[list[int]]]:
        """Background frames of the step, and which of them lengthen which record.

        A record grows by up to ``longest`` frames, log-uniformly; frames may come twice, since
        what matters is how many there are.
        """
        if not self.config.longest:
            return [], [[] for _ in exams]
        free = self.pools[2]
        givers = [free[i] for i in rng.integers(len(free), size=OTHERS)]
        others = [e.frames[rng.integers(len(e.frames))] for e in givers]
        joined = []
        for exam in exams:
            fit = [i for i, giver in enumerate(givers) if not giver.ties & exam.ties]
            count = int(np.exp(rng.uniform(0, np.log(self.config.longest + 1)))) if fit else 0
            joined.append([fit[i] for i in rng.integers(max(len(fit), 1), size=count)])
        return others, joined

    def _frames(self, exam: Exam, rng: np.random.Generator) -> list[Path]:
        """All kept frames as far as they fit, and background: the attention must find the lesions.

        Kept frames are not thinned out: without its only neoplastic lesion a mixed record would
        carry an impression that none of its frames bears out.
        """
        limit = self.config.frames
        kept = set(self.kept.get(exam.record_id, []))
        first = [f for f in exam.frames if f in kept]
        rest = [f for f in exam.frames if f not in kept]
        chosen = [first[i] for i in rng.permutation(len(first))[: limit - limit // 4]]
        chosen += [rest[i] for i in rng.permutation(len(rest))[: limit - len(chosen)]]
        return chosen


def record_targets(exams: Sequence[Exam], tau: float) -> Tensor:
    """Soft targets (p, p) from the overlap of the records' unified attributes.

    Two polyp-free records are identical; a record with and one without a lesion share nothing.
    """
    nothing = (-1,) * len(LEVELS)
    codes = [torch.tensor([x.codes for x in e.lesions] or [nothing]) for e in exams]
    union = unified_codes(codes, LEVELS)
    similarity = union_similarity(union, LEVELS)
    free = torch.tensor([not e.positive for e in exams])
    identical = torch.eye(len(exams), dtype=torch.bool) | (free[:, None] & free[None, :])
    return soft_targets(similarity, tau, identical)


def class_query_loss(
    model: EndoClip, images: Tensor, mask: Tensor, captions: Tensor, classes: Tensor
) -> Tensor:
    """Two-way cross entropy of class sentences on the vector pooled by the positive one.

    Args:
        model: Gives unify and logit scale.
        images: (p, n, d) unit rows.
        mask: (p, n) bool.
        captions: (2, d), positive first.
        classes: (p,) 0 or 1, on the CPU; -1 = not stated, left out.
    """
    known = classes >= 0
    if not bool(known.any()):
        return images.sum() * 0.0
    pooled, _ = model.unify(images[known], mask[known], captions[:1])
    told = classes[known].to(images.device)
    return F.cross_entropy(model.logit_scale * pooled[:, 0] @ captions.T, told)


def _texts(bags: Bags) -> tuple[list[str], Tensor]:
    """Padded text sets: finding sentences per record, or its normal sentence."""
    sets = [[x.text for x in e.lesions][:4] or [e.normal_text] for e in bags.exams]
    longest = max(len(s) for s in sets)
    mask = torch.tensor([[i < len(s) for i in range(longest)] for s in sets])
    return [s[i] if i < len(s) else s[0] for s in sets for i in range(longest)], mask


def opinion_classes(exams: Sequence[Exam]) -> Tensor:
    """What reports say of whole exams.

    Returns:
        (p,) int64: 0 = a lesion is called neoplastic; 1 = none is, by what is stated; -1 = not
        stated.
    """
    classes = []
    for exam in exams:
        stated = [lesion.opinion for lesion in exam.lesions]
        if 0 in stated:
            classes.append(0)
        elif not exam.positive or (stated and -1 not in stated):
            classes.append(1)
        else:
            classes.append(-1)
    return torch.tensor(classes)


@dataclass(frozen=True)
class _Told:
    """What the losses of a step need: its records, and which slots of text sets are filled."""

    bags: Bags
    text_mask: Tensor


class UnificationTask:
    """The stage's task (``training.step.Task``)."""

    name = "unification"

    def __init__(self, sampler: PatientSampler, impression: bool) -> None:
        self.sampler, self.impression = sampler, impression
        self.px = sampler.config.px

    def draw(self, rng: np.random.Generator) -> Step:
        """Records, what lengthens them, and their texts."""
        bags = self.sampler.draw(rng)
        frames = [frame for own in bags.frames for frame in own]
        look = Augmentation.draw(len(frames), rng, keep_shape=True)
        still = Augmentation.draw(len(bags.others), rng, keep_shape=True) if bags.others else None
        texts, text_mask = _texts(bags)
        claims = [presence_sentence(0, rng), presence_sentence(1, rng)]
        claims += [opinion_sentence(0, "", rng), opinion_sentence(1, "", rng)]
        return Step(frames, look, texts + claims, _Told(bags, text_mask), bags.others, still)

    def losses(self, model: EndoClip, encoded: Encoded, told: _Told) -> dict[str, Tensor]:
        """Named losses over all rows."""
        bags, device, weight = told.bags, encoded.images.device, self.sampler.config.class_weight
        images, mask = bags.padded(encoded.images, encoded.still), bags.mask.to(device)
        captions = encoded.texts[told.text_mask.numel() :]
        sets = encoded.texts[: told.text_mask.numel()].reshape(len(bags.exams), -1, model.dim)
        logits = model.logit_scale * pairwise_scores(
            images, mask, sets, told.text_mask.to(device), model.unify
        )
        targets = record_targets(bags.exams, self.sampler.config.tau)
        forward = targets.to(device)
        backward = forward.T / forward.sum(0)[:, None]
        presence = torch.tensor([0 if e.positive else 1 for e in bags.exams])
        losses = {
            "effective_targets": effective_targets(targets).median(),
            "attention_scale": model.unify.log_scale.detach().exp(),
            "record_loss": 0.5
            * (soft_cross_entropy(logits, forward) + soft_cross_entropy(logits.T, backward)),
            "presence_loss": weight * class_query_loss(model, images, mask, captions[:2], presence),
        }
        if self.impression:
            losses["opinion_loss"] = weight * class_query_loss(
                model, images, mask, captions[2:], opinion_classes(bags.exams)
            )
        return losses


def unify_records(
    folder: Path, bench: Bench, sampler: PatientSampler, impression: bool, schedule: Schedule
) -> dict[str, Any]:
    """Train stage 3, towers and attention and then the attention alone; write ``weights.pt``.

    Returns:
        Figures for the stamp.
    """
    config, task = sampler.config, UnificationTask(sampler, impression)
    history = train(folder, task, bench, schedule)
    figures = {"last_loss": float(np.mean(history[-20:]))}
    if config.attention_steps:
        alone = Schedule(config.attention_steps, config.attention_lr, schedule.seed, 0.0)
        history = learn_to_attend(bench, task, alone)
        figures |= {"attention_last_loss": float(np.mean(history[-20:]))}
    save_weights(bench.model, folder / "weights.pt")
    return figures | {"attention_scale": bench.model.unify.log_scale.exp().item()}
