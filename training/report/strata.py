"""Results by size, morphology, source and imaging mode, where they are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from training.attributes import ATTRIBUTES, extract, strip_pathology
from training.evaluate import TASKS
from training.items import Item
from training.metrics import auroc, auroc_interval
from training.report.blocks import Block, Figure, Finding, Missing, Note, Table
from training.report.charts import Row, interval_chart
from training.report.inputs import Inputs
from training.report.levels import Level, levels, task_name
from training.report.words import listed, number, span
from training.sources import SOURCES

__all__ = ["by_stratum", "described"]

_LEAST = 5
"""Positives, and negatives, of a stratum at least; under it an AUROC says nothing."""
_VARIABLES = {
    "size_band": "size band",
    "paris": "morphology (Paris)",
    "surface_texture": "morphology (surface texture)",
    "source": "source",
    "imaging_mode": "imaging mode",
}


@dataclass(frozen=True)
class _Stratum:
    """AUROC of one value of a variable."""

    variable: str
    level: str
    value: str
    positives: int
    negatives: int
    auroc: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.variable} {self.value}, {self.level}"

    @property
    def cells(self) -> list[str]:
        """A row of the table."""
        counts = [f"{self.positives:,}", f"{self.negatives:,}"]
        figure = span(self.auroc, self.low, self.high)
        return [self.variable, self.level, self.value, *counts, figure]


def by_stratum(inputs: Inputs) -> list[Finding | Missing]:
    """AUROC of single frames within each stratum, one finding a task."""
    every = [level for level in levels(inputs) if level.items]
    told = described(inputs)
    return [_task(inputs, task, [x for x in every if x.task == task], told) for task in TASKS]


def described(inputs: Inputs) -> Callable[[Item], dict[str, str]]:
    """What is known of an item's lesion and frame, by name of a variable.

    A composed archive's views have measured attributes; of an ingested one a frame with a lesion
    has those that the report of its exam gives, where the exam has one lesion.
    """
    by_frame: dict[str, dict[str, str]] = {}
    if not inputs.views and inputs.archive:
        for record in inputs.archive.part(inputs.part):
            lesions = extract(strip_pathology(record.report))
            if len(lesions) != 1:
                continue
            given = {**lesions[0].attributes, **lesions[0].context}
            values = {name: value.value for name, value in given.items()}
            by_frame |= {str(frame): values for frame in record.frames}

    def known(item: Item) -> dict[str, str]:
        row = inputs.views.get(item.view, {})
        # Attributes are measured on windows; in a whole frame every lesion measures small.
        measured = {} if row.get("scope") else dict(row.get("attributes", {}))
        values = measured or (by_frame.get(str(item.path), {}) if item.polyp else {})
        source = SOURCES.get(item.source, item.source)
        return {**values, **({"source": source} if source else {})}

    return known


def _task(
    inputs: Inputs, task: str, mine: Sequence[Level], told: Callable[[Item], dict[str, str]]
) -> Finding | Missing:
    key, title = f"strata-{task}", f"{task_name(task).capitalize()}: results by stratum"
    charts: list[Block] = []
    found: list[_Stratum] = []
    absent, few = [], []
    for variable, words in _VARIABLES.items():
        strata, small, known = _strata(variable, mine, told)
        few += small
        found += strata
        absent += [] if known else [words]
        charts += _charts(words, task_name(task), strata)
    if not found:
        reason = f"No stratum of the {inputs.part} part holds {_LEAST} items of both classes."
        return Missing(key, title, reason)
    worst, best = (end(found, key=lambda s: s.auroc) for end in (min, max))
    reading = (
        f"Lowest AUROC {number(worst.auroc)} ({worst}), highest {number(best.auroc)} ({best})."
    )
    notes = [
        "A stratum's positives stand against all negatives of the kind, or against those of the "
        "same stratum where negatives have one."
    ]
    notes += [f"Not in this data: {listed(absent)}."] if absent else []
    notes += [f"Fewer than {_LEAST} items of a class: {listed(few)}."] if few else []
    table = Table(
        ["variable", "items", "value", "n+", "n−", "AUROC (95 %)"], [s.cells for s in found]
    )
    source = inputs.source(
        "views/views.jsonl of the archive" if inputs.views else "records.jsonl",
        items=f"{inputs.part} part, " + ", ".join(f"{len(x.y):,} {x.name}" for x in mine),
        interval="95 % intervals resample source groups",
    )
    return Finding(key, title, reading, source, [*charts, *map(Note, notes), table])


def _charts(words: str, task: str, strata: Sequence[_Stratum]) -> list[Figure]:
    """One chart a kind of item; where it has a single value there is nothing to compare."""
    charts = []
    for name in dict.fromkeys(s.level for s in strata):
        here = [s for s in strata if s.level == name]
        if len(here) > 1:
            told = ", ".join(f"{s.value} {s.auroc:.3f}" for s in here)
            charts.append(
                interval_chart(
                    [Row(s.value, s.auroc, s.low, s.high) for s in here],
                    f"By {words}, {name}",
                    f"AUROC of {task} by {words}, {name}: {told}",
                    x_label="AUROC",
                    reference=0.5,
                )
            )
    return charts


def _strata(
    variable: str, mine: Sequence[Level], told: Callable[[Item], dict[str, str]]
) -> tuple[list[_Stratum], list[str], bool]:
    """Strata with an AUROC, those with too few items, and whether the variable is known at all."""
    found, small, known = [], [], False
    for level in mine:
        values = np.array([told(item).get(variable, "") for item in level.items])
        known = known or bool((values != "").any())
        # Background has a source but no size: then all of it stands against each stratum.
        negatives_told = bool((values[~level.y] != "").any())
        for value in _ordered(variable, values):
            inside = values == value
            rows = (inside & level.y) | (~level.y & (inside if negatives_told else True))
            y = level.y[rows]
            if min(y.sum(), (~y).sum()) < _LEAST:
                small.append(f"{value} ({level.name}, {y.sum()}+ / {(~y).sum()}−)")
                continue
            units = [item.group for item, one in zip(level.items, rows, strict=True) if one]
            score = level.p[rows]
            low, high = auroc_interval(y, score, units)
            counts = int(y.sum()), int((~y).sum())
            words = _VARIABLES[variable]
            found.append(
                _Stratum(words, level.name, str(value), *counts, auroc(y, score), low, high)
            )
    return found, small, known


def _ordered(variable: str, values: np.ndarray) -> list[str]:
    present = {str(value) for value in values} - {""}
    return [v for v in ATTRIBUTES.get(variable, ()) if v in present] or sorted(present)
