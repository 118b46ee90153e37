"""What a few labelled frames would add to a bundle: 1 to 16 shots a class, several draws of them.

Shots are drawn from one part and measured on another, whose groups are others. Scores are logits:
zero-shot is the bundle's calibrated margin, the linear probe a logistic regression on embeddings,
the cache adds to the margin (``training.fewshot.adapters``). A frame that the quality gate sets
aside is no shot, and where it is measured it counts as probability 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.encoder import Encoder
from training.errors import LabelsRefused
from training.evaluate import TASKS, truth
from training.fewshot.adapters import ADAPTERS
from training.fewshot.frames import Bools, Floats, Frames, draw_shots, known_frames
from training.items import Embedded
from training.metrics import auroc, auroc_draws, interval

__all__ = ["NAMES", "SHOTS", "Cell", "cells", "measure", "study", "study_text"]

SHOTS = (1, 2, 4, 8, 16)
DRAWS = 1000
NAMES = {"linear": "linear probe", "cache": "cache (Tip-Adapter)"}


@dataclass(frozen=True)
class Cell:
    """One question: a task on one kind of item.

    Attributes:
        task: Label set.
        kind: Kind of the measured items.
        pool: What shots are drawn from.
        test: Measured frames; those the gate sets aside have embeddings of zero.
        scored: (n,) False where the gate sets a measured frame aside.
        line: Slope and intercept of the bundle's frame map.
    """

    task: str
    kind: str
    pool: Frames
    test: Frames
    scored: Bools
    line: tuple[float, float]

    @property
    def most(self) -> int:
        """Shots per class that the pool has."""
        return int(min(self.pool.y.sum(), (~self.pool.y).sum()))

    def logits(self, kind: str, correction: Floats) -> Floats:
        """Logits (n,) of the measured frames; 0 where the gate sets one aside."""
        z = self.test.margin + correction
        # A probe's own output is a logit already; the cache speaks in margins of the bundle.
        found = z if kind == "linear" else self.line[0] * z + self.line[1]
        return np.where(self.scored, found, 0.0)


def cells(encoder: Encoder, shots: Embedded, measured: Embedded) -> list[Cell]:
    """Every task and kind of item that both sides hold both classes of.

    Args:
        encoder: Of the bundle.
        shots: Frames to draw shots from. A kind that is not among them is shown shots of all.
        measured: Frames to measure on.

    Raises:
        LabelsRefused: The two share a source group or patient, or nothing can be measured.
    """
    shared = {i.group for i in shots.items} & {i.group for i in measured.items}
    if shared:
        raise LabelsRefused(
            f"expected shots and measured frames of other groups, found {len(shared)} in both"
        )
    found = [
        cell
        for task in TASKS
        for kind in dict.fromkeys(item.kind for item in measured.items)
        if (cell := _cell(encoder, task, kind, shots, measured)) is not None
    ]
    if not found:
        raise LabelsRefused("expected both classes of a task on both sides, found none")
    return found


def _cell(
    encoder: Encoder, task: str, kind: str, shots: Embedded, measured: Embedded
) -> Cell | None:
    told = measured.where([item.kind == kind for item in measured.items])
    told = told.where(truth(task, told.items)[1])
    of_kind = [item.kind == kind for item in shots.items]
    pool = known_frames(encoder, task, shots.where(of_kind) if any(of_kind) else shots)
    # Under its reasons no measured frame is left out; the gate's are put to 0.5 afterwards.
    test = known_frames(
        encoder, task, Embedded(told.items, told.embeddings, [None] * len(told.items))
    )
    if any(len(set(y.tolist())) < 2 for y in (pool.y, test.y)):
        return None
    line = encoder.bundle.calibrations[task].frame
    return Cell(task, kind, pool, test, told.scored, (line.slope, line.intercept))


def study(
    found: Sequence[Cell], seeds: int, done: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Measure every cell, method and number of shots.

    Args:
        found: As from ``cells``.
        seeds: Draws of shots, at least 3.
        done: Called after each of ``len(found) * len(ADAPTERS) * len(SHOTS)`` steps.

    Returns:
        A row per cell; ``methods`` holds by adapter and number of shots what ``measure`` gives.
    """
    rows = []
    for cell in found:
        zero = cell.logits("cache", np.zeros(len(cell.scored)))
        low, high = interval(auroc_draws(cell.test.y, zero, _units(cell), DRAWS))
        row: dict[str, Any] = {
            "task": cell.task,
            "kind": cell.kind,
            "positives": int(cell.test.y.sum()),
            "negatives": int((~cell.test.y).sum()),
            "groups": len(set(_units(cell))),
            "set_aside": int((~cell.scored).sum()),
            "zero_shot": {"auroc": auroc(cell.test.y, zero), "low": low, "high": high},
            "methods": {name: {} for name in ADAPTERS},
        }
        for name in ADAPTERS:
            for count in SHOTS:
                if count <= cell.most:
                    row["methods"][name][str(count)] = _shots(cell, name, count, seeds, zero)
                done()
        rows.append(row)
    return rows


def _shots(cell: Cell, name: str, count: int, seeds: int, zero: Floats) -> dict[str, Any]:
    scores, groups = [], []
    for seed in range(seeds):
        drawn = draw_shots(cell.pool, count, np.random.default_rng([seed, 0xF5]))
        adapter = ADAPTERS[name](cell.pool.rows(drawn))
        scores.append(cell.logits(name, adapter.correction(cell.test.embeddings)))
        groups.append(len(set(cell.pool.groups[drawn].tolist())))
    return measure(cell.test.y, scores, zero, _units(cell)) | {"groups_of_shots": min(groups)}


def measure(
    y: Bools, scores: Sequence[Floats], zero: Floats, units: Sequence[str]
) -> dict[str, Any]:
    """AUROC of several fits, and their lead over zero-shot.

    Intervals (95 %) are over fits and groups at once: each of the bootstrap draws resamples the
    groups and, with replacement, which of the fits are averaged.

    Args:
        y: (n,) truth.
        scores: Of each fit (n,).
        zero: (n,) of zero-shot.
        units: n groups.
    """
    draws = np.stack([auroc_draws(y, score, units, DRAWS) for score in scores], axis=1)
    base = auroc_draws(y, zero, units, DRAWS)
    picked = np.random.default_rng(0x5EED).integers(len(scores), size=draws.shape)
    mean = np.take_along_axis(draws, picked, axis=1).mean(axis=1)
    per_seed = [auroc(y, score) for score in scores]
    (low, high), (lead_low, lead_high) = interval(mean), interval(mean - base)
    return {
        "auroc": float(np.mean(per_seed)),
        "low": low,
        "high": high,
        "lead": float(np.mean(per_seed)) - auroc(y, zero),
        "lead_low": lead_low,
        "lead_high": lead_high,
        "per_seed": per_seed,
    }


def study_text(figures: dict[str, Any]) -> str:
    """Write a study as Markdown: AUROC by shots, and the lead over zero-shot."""
    bundle = figures["bundle"]
    head = (
        f"Bundle {bundle['name']} {bundle['version']}: shots from {figures['shots_from']}, "
        f"measured on {figures['measured_on']}, {figures['seeds']} draws of shots. Mean AUROC over "
        "the draws; 95 % intervals resample draws and source groups together."
    )
    return "\n".join([head, "", *_table(figures["cells"])])


def _table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    yield "| task, items (n+ / n-, groups) | method | " + " | ".join(map(str, SHOTS)) + " |"
    yield "|---" * (len(SHOTS) + 2) + "|"
    for row in rows:
        counts = f"{row['positives']} / {row['negatives']}, {row['groups']}"
        what = f"{row['task']}, {row['kind']} ({counts})"
        zero = _number(row["zero_shot"])
        yield f"| {what} | zero-shot | {zero} |" + " |" * (len(SHOTS) - 1)
        for name, found in row["methods"].items():
            texts = [found.get(str(count)) for count in SHOTS]
            yield f"| | {NAMES[name]} | " + " | ".join(map(_number, texts)) + " |"
            leads = [
                f"{f['lead']:+.3f} ({f['lead_low']:+.3f} to {f['lead_high']:+.3f})" if f else "-"
                for f in texts
            ]
            yield "| | minus zero-shot | " + " | ".join(leads) + " |"


def _number(f: dict[str, Any] | None) -> str:
    return f"{f['auroc']:.3f} ({f['low']:.3f}-{f['high']:.3f})" if f else "-"


def _units(cell: Cell) -> list[str]:
    return [str(group) for group in cell.test.groups]
