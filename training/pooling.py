"""Ways to make one score of a patient's frames, over the same embeddings of one bundle.

    python -m training pooling --bundle B --archive A --part select

Beside what the service does (``unify``) stand the mean embedding, the largest frame margin (every
frame matched by itself, no patient step) and a trained rival: attention-based pooling with a gate
(Ilse, Tomczak and Welling, "Attention-based Deep Multiple Instance Learning", ICML 2018, eq. 9),
a_i = softmax_i(w . (tanh(V h_i) * sigmoid(U h_i))), with a linear head on the pooled vector. It
learns from the very records and claims that stage 3 learns from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.encoder import Encoder
from training.config import AttributesConfig
from training.errors import ArchiveRefused
from training.evaluate import TASKS, Patient, score_patients
from training.items import Embedded, Item, embed
from training.metrics import auroc, auroc_interval, paired_interval
from training.protocol import part_patients
from training.reading import Exam, read_exams
from training.records import read
from training.unification import opinion_classes

__all__ = ["GatedPooling", "pooling_figures", "pooling_table", "train_gated"]

Floats = npt.NDArray[np.float64]
HIDDEN = 128
EPOCHS, BATCH, RATE, DECAY = 40, 16, 2e-3, 1e-3
LONGEST = 64
"""Frames of a record that one training step sees, drawn anew each time."""


class GatedPooling(nn.Module):
    """Gated attention over frames and a linear head (Ilse et al. 2018)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.tanh, self.gate = nn.Linear(dim, HIDDEN), nn.Linear(dim, HIDDEN)
        self.weight = nn.Linear(HIDDEN, 1, bias=False)
        self.head = nn.Linear(dim, 1)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        """Score records.

        Args:
            frames: (p, n, d) unit rows, padded.
            mask: (p, n) bool, True = a frame.

        Returns:
            (p,) logits.
        """
        told = torch.tanh(self.tanh(frames)) * torch.sigmoid(self.gate(frames))
        logits = self.weight(told)[..., 0].masked_fill(~mask, -1e9)
        pooled = (torch.softmax(logits, -1)[..., None] * frames).sum(-2)
        return torch.as_tensor(self.head(pooled))[..., 0]


def train_gated(bags: Sequence[Tensor], y: Sequence[bool], seed: int) -> GatedPooling:
    """Train gated pooling on records.

    Args:
        bags: (n_i, d) unit rows each, none empty.
        y: Truth of each, both classes present.
        seed: Of weights and batches.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng([seed, 0x9A7ED])
    model = GatedPooling(bags[0].shape[1])
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    truth = torch.tensor(list(y), dtype=torch.float32)
    weight = (1 - truth.mean()) / truth.mean()  # both classes count alike
    for _ in range(EPOCHS):
        order = rng.permutation(len(bags))
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            frames, mask = _padded([_drawn(bags[i], rng) for i in rows])
            loss = F.binary_cross_entropy_with_logits(
                model(frames, mask), truth[torch.from_numpy(rows)], pos_weight=weight
            )
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return model.eval()


def _drawn(bag: Tensor, rng: np.random.Generator) -> Tensor:
    return bag[torch.from_numpy(rng.permutation(len(bag))[:LONGEST])]


def _padded(bags: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    frames = nn.utils.rnn.pad_sequence(list(bags), batch_first=True)
    counts = torch.tensor([len(bag) for bag in bags])
    return frames, torch.arange(frames.shape[1])[None, :] < counts[:, None]


@dataclass(frozen=True)
class _Records:
    """Train records whose frames are encoded."""

    exams: list[Exam]
    bags: list[Tensor]


def pooling_figures(
    encoder: Encoder, archive: Path, part: str, seeds: Sequence[int] = (1, 2, 3)
) -> dict[str, Any]:
    """Measure every way of pooling on the patients of a part.

    Args:
        encoder: Of a calibrated bundle.
        archive: Gives the train records and the part's patients.
        part: select, calibrate or report.
        seeds: Of the trained rival.

    Returns:
        By task: AUROC and interval of ``unify``, ``mean``, ``max`` and ``gated`` (its mean
        logit over the seeds; ``per_seed`` beside), and unify's lead over each with its paired
        interval over source groups.

    Raises:
        ArchiveRefused: The train records do not state both classes of a task.
    """
    records = _records(encoder, archive)
    among = part_patients(archive, part)
    found = embed(encoder, among.items)
    told = {
        "polyp_detection": [*among.holding, *among.without],
        "malignancy": among.malignancy,
    }
    return {
        "part": part,
        "records": len(records.exams),
        "tasks": {t: _task(encoder, t, records, found, told[t], seeds) for t in TASKS},
    }


def _records(encoder: Encoder, archive: Path) -> _Records:
    source = read(archive)
    exams = read_exams(
        source.records, AttributesConfig("rules", 0.0, 0.0), archive, source.composed
    )
    exams = [exam for exam in exams if exam.part == "train"]
    paths = list(dict.fromkeys(path for exam in exams for path in exam.frames))
    items = [Item(path, "frame", None, None, "", "", "") for path in paths]
    encoded = embed(encoder, items)
    place = {path: i for i, path in enumerate(paths) if encoded.scored[i]}
    rows = [[place[path] for path in exam.frames if path in place] for exam in exams]
    kept = [
        (e, torch.from_numpy(encoded.embeddings[r])) for e, r in zip(exams, rows, strict=True) if r
    ]
    return _Records([exam for exam, _ in kept], [bag for _, bag in kept])


def _classes(task: str, exams: Sequence[Exam]) -> list[int]:
    """1 positive, 0 negative, -1 not stated, by the reports."""
    if task == "polyp_detection":
        return [int(exam.positive) for exam in exams]
    return [{0: 1, 1: 0}.get(c, -1) for c in opinion_classes(exams).tolist()]


def _task(
    encoder: Encoder,
    task: str,
    records: _Records,
    found: Embedded,
    patients: Sequence[Patient],
    seeds: Sequence[int],
) -> dict[str, Any]:
    classes = _classes(task, records.exams)
    stated = [i for i, c in enumerate(classes) if c >= 0]
    if len({classes[i] for i in stated}) < 2:
        raise ArchiveRefused(f"{task}: expected train records of both classes, found one")
    bags, y = [records.bags[i] for i in stated], [classes[i] == 1 for i in stated]
    truth = np.array([p.positive for p in patients])
    units = [p.groups for p in patients]
    scores: dict[str, Floats] = dict(score_patients(encoder, task, found, patients).probability)
    per_seed = [_gated(train_gated(bags, y, seed), found, patients) for seed in seeds]
    scores["gated"] = np.mean(per_seed, axis=0)
    figures: dict[str, Any] = {"patients": len(patients)}
    for name, score in scores.items():
        low, high = auroc_interval(truth, score, units)
        figures[name] = {"auroc": auroc(truth, score), "auroc_low": low, "auroc_high": high}
        if name != "unify":
            figures[name]["unify_lead"] = auroc(truth, scores["unify"]) - auroc(truth, score)
            lead = paired_interval(truth, scores["unify"], score, units)
            figures[name]["unify_lead_low"], figures[name]["unify_lead_high"] = lead
    figures["gated"]["per_seed"] = [auroc(truth, score) for score in per_seed]
    return figures


def _gated(model: GatedPooling, found: Embedded, patients: Sequence[Patient]) -> Floats:
    """Logits (p,); 0 for a patient without a scored frame, as 0.5 is for the others."""
    scored = found.scored
    logits = np.zeros(len(patients))
    with torch.inference_mode():
        for i, patient in enumerate(patients):
            rows = [r for r in patient.rows if scored[r]]
            if rows:
                bag = torch.from_numpy(found.embeddings[rows])[None]
                logits[i] = float(model(bag, torch.ones(1, len(rows), dtype=torch.bool))[0])
    return logits


def pooling_table(figures: dict[str, Any]) -> str:
    """The figures as Markdown, one row a task and way."""
    lines = [
        "| task (patients) | pooling | AUROC (95 %) | lead of unify (95 %) |",
        "|---|---|---|---|",
    ]
    for task, told in figures["tasks"].items():
        for name in ("unify", "mean", "max", "gated"):
            one = told[name]
            lead = "-"
            if name != "unify":
                low, high = one["unify_lead_low"], one["unify_lead_high"]
                lead = f"{one['unify_lead']:+.3f} ({low:+.3f} to {high:+.3f})"
            area = f"{one['auroc']:.3f} ({one['auroc_low']:.3f}-{one['auroc_high']:.3f})"
            lines.append(f"| {task} ({told['patients']}) | {name} | {area} | {lead} |")
    return "\n".join(lines)
