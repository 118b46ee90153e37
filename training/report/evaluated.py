"""How good the packed bundle is on the part: curves, calibration, decisions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.scoring import Decision
from training.evaluate import TASKS
from training.metrics import wilson
from training.report.blocks import Figure, Finding, Missing, Note, Table
from training.report.charts import Mark, Series, line_chart
from training.report.inputs import Inputs
from training.report.levels import Level, levels, task_name
from training.report.operating import (
    average_precision,
    precision_recall,
    roc,
    share_interval,
)
from training.report.words import interval, number, span

__all__ = ["curves_of_tasks", "decisions_of_tasks"]

_BINS = 15
_POINTS = {"sensitivity_first": "s", "balanced": "b", "specificity_first": "p"}
_NEAR = 0.06
"""Marks that are nearer than this on both axes would print over each other."""
_LEGEND = Note(
    "Dots on ROC curves are the operating points: s sensitivity first, b balanced, p specificity "
    "first. The dashed line of precision-recall is the share of positives. Reliability: observed "
    "share of positives in 15 equal bins with Wilson intervals, without what the gate set aside."
)
_INTERVAL = "bands and 95 % intervals resample source groups"


def curves_of_tasks(inputs: Inputs) -> list[Finding | Missing]:
    """ROC, precision-recall and reliability of every level, one finding a task."""
    found: list[Finding | Missing] = []
    every = levels(inputs)
    for task in TASKS:
        mine = [level for level in every if level.task == task]
        key, title = f"evaluation-{task}", f"{task_name(task).capitalize()}: curves and calibration"
        if not mine:
            reason = f"The {inputs.part} part holds one class of {task_name(task)} only."
            found.append(Missing(key, title, reason))
            continue
        panels = [panel for level in mine for panel in _panels(level)]
        items = ", ".join(f"{len(x.y):,} {x.name}" for x in mine)
        found.append(
            Finding(
                key,
                title,
                _reading(mine),
                inputs.source(items=f"{inputs.part} part: {items}", interval=_INTERVAL),
                [*panels, _LEGEND],
            )
        )
    return found


def decisions_of_tasks(inputs: Inputs) -> list[Finding | Missing]:
    """Confusion at each operating point."""
    every = levels(inputs)
    key, title = "evaluation-confusion", "Decisions at each operating point"
    if not every:
        return [Missing(key, title, f"The {inputs.part} part holds one class of each task only.")]
    tables, told = [], []
    for task in TASKS:
        mine = [level for level in every if level.task == task]
        rows = [_confusion(level, point) for level in mine for point in _POINTS]
        head = [
            "items",
            "operating point",
            "TP",
            "FN",
            "abst. +",
            "TN",
            "FP",
            "abst. −",
            "sensitivity (95 %)",
            "specificity (95 %)",
        ]
        if rows:
            tables.append(Table(head, rows, task_name(task).capitalize()))
            first = _confusion(mine[0], "balanced")
            told.append(
                f"{task_name(task)} of {mine[0].name}: sensitivity {first[-2]}, "
                f"specificity {first[-1]}"
            )
    reading = f"At the balanced point, {'; '.join(told)}."
    source = inputs.source(
        "calibration.json of the bundle", items=f"{inputs.part} part", interval=_INTERVAL
    )
    return [Finding(key, title, reading, source, tables)]


def _reading(mine: Sequence[Level]) -> str:
    by_auroc = sorted(mine, key=lambda level: level.auroc["auroc"])
    worst, best = by_auroc[0], by_auroc[-1]
    off = max(mine, key=lambda x: (x.figures["ece15"] or 0) - (x.figures["ece15_floor"] or 0))
    return (
        f"AUROC from {interval(worst.auroc)} on {worst.name} to {interval(best.auroc)} on "
        f"{best.name}; the calibration error lies furthest above its floor on {off.name} "
        f"({number(off.figures['ece15'])}, floor {number(off.figures['ece15_floor'])})."
    )


def _panels(level: Level) -> list[Figure]:
    return [_roc(level), _precision(level), _reliability(level)]


def _roc(level: Level) -> Figure:
    curve = roc(level.y, level.p, level.units)
    told = f"AUROC {interval(level.auroc)}"
    figure = line_chart(
        [Series("", curve.x, curve.y, curve.low, curve.high, color=0)],
        f"{level.name.capitalize()}: ROC",
        f"ROC curve of {_own(level)}: {told}.",
        x_label="1 − specificity",
        y_label="sensitivity",
        x_range=(-0.01, 1.01),
        y_range=(0, 1.02),
        marks=_marks(level),
        diagonal=True,
    )
    return replace(figure, detail=told)


def _precision(level: Level) -> Figure:
    curve = precision_recall(level.y, level.p, level.units)
    told = f"average precision {span(*average_precision(level.y, level.p, level.units))}"
    share = np.full(2, level.y.mean())
    figure = line_chart(
        [
            Series("", curve.x, curve.y, curve.low, curve.high, color=0),
            Series("", np.array([0.0, 1.0]), share, style="dashed", color=1),
        ],
        f"{level.name.capitalize()}: precision-recall",
        f"Precision-recall curve of {_own(level)}: {told}, share of positives {share[0]:.2f}.",
        x_label="recall",
        y_label="precision",
        x_range=(-0.01, 1.01),
        y_range=(0, 1.02),
    )
    return replace(figure, detail=told)


def _reliability(level: Level) -> Figure:
    """Observed share by told probability, in the bins of the ECE, of what was scored."""
    scored = level.frames > 0
    p, y = level.p[scored], level.y[scored]
    which = np.clip((p * _BINS).astype(int), 0, _BINS - 1)
    inside = [which == b for b in np.unique(which)]
    x, observed = (np.array([v[rows].mean() for rows in inside]) for v in (p, y))
    ends = np.array([wilson(int(y[rows].sum()), int(rows.sum())) for rows in inside])
    low, high = ends.reshape(len(inside), 2).T
    told = f"ECE {number(level.figures['ece15'])}, Brier {number(level.figures['brier'])}"
    figure = line_chart(
        [
            Series("", x, observed, low, high, style="faint", color=0),
            Series("", x, observed, style="dots", color=0),
        ],
        f"{level.name.capitalize()}: reliability",
        f"Reliability diagram of {_own(level)} in {len(inside)} bins: {told}.",
        x_label="told probability",
        y_label="observed share of positives",
        x_range=(-0.01, 1.01),
        y_range=(-0.01, 1.02),
        diagonal=True,
    )
    return replace(figure, detail=told)


def _own(level: Level) -> str:
    return f"{level.name}, {task_name(level.task)}"


def _marks(level: Level) -> list[Mark]:
    """Operating points; those that fall together share one dot."""
    places: dict[tuple[float, float], str] = {}
    for point, letter in _POINTS.items():
        decisions = level.decisions(point)
        false, hit = (
            float((decisions[level.y == side] == Decision.POSITIVE).mean())
            for side in (False, True)
        )
        near = [at for at in places if max(abs(at[0] - false), abs(at[1] - hit)) < _NEAR]
        at = near[0] if near else (false, hit)
        places[at] = f"{places[at]}, {letter}" if near else letter
    return [Mark(*at, letters) for at, letters in places.items()]


def _confusion(level: Level, point: str) -> list[str]:
    decisions, y = level.decisions(point), level.y
    counts = [
        int((decisions[y == side] == word).sum())
        for side, words in (
            (True, (Decision.POSITIVE, Decision.NEGATIVE, Decision.ABSTAINED)),
            (False, (Decision.NEGATIVE, Decision.POSITIVE, Decision.ABSTAINED)),
        )
        for word in words
    ]
    rates = [
        span(*share_interval(decisions[y == side] == word, _of(level.units, y == side)), digits=2)
        for side, word in ((True, Decision.POSITIVE), (False, Decision.NEGATIVE))
    ]
    return [level.name, point.replace("_", " "), *(f"{count:,}" for count in counts), *rates]


def _of(units: Sequence[Any], keep: npt.NDArray[np.bool_]) -> list[Any]:
    return [unit for unit, one in zip(units, keep, strict=True) if one]
