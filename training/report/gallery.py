"""The most confident errors, in pictures."""

from __future__ import annotations

import numpy as np

from training.evaluate import TASKS
from training.report.blocks import Finding, Missing, Sheet
from training.report.inputs import Inputs
from training.report.levels import Level, levels, task_name
from training.report.strata import described
from training.report.thumbnails import thumbnail

__all__ = ["failures"]

_SHEET = 20
_KINDS = {"scope": "whole-frame view"}


def failures(inputs: Inputs) -> list[Finding | Missing]:
    """False positives from the highest probability on, false negatives from the lowest."""
    every = [level for level in levels(inputs) if level.items]
    found: list[Finding | Missing] = []
    for task in TASKS:
        mine = [level for level in every if level.task == task]
        key, title = f"failures-{task}", f"{task_name(task).capitalize()}: most confident errors"
        if not mine:
            reason = f"The {inputs.part} part holds one class of {task_name(task)} only."
            found.append(Missing(key, title, reason))
            continue
        found.append(_finding(inputs, task, key, title, mine))
    return found


def _finding(inputs: Inputs, task: str, key: str, title: str, mine: list[Level]) -> Finding:
    told = described(inputs)
    sheets, words = [], []
    for positive, name in ((False, "false positives"), (True, "false negatives")):
        wrong = []
        for level in mine:
            threshold = (
                level.encoder.bundle.calibrations[task].operating_point("balanced").frame_threshold
            )
            over = level.p >= threshold
            rows = np.flatnonzero((level.y == positive) & (over != positive) & (level.frames > 0))
            wrong += [(float(level.p[i]), level.items[int(i)]) for i in rows]
        wrong.sort(key=lambda entry: (entry[0] if positive else -entry[0], str(entry[1].path)))
        # One of a source group: its frames look alike and would fill the sheet.
        first = {item.group: (p, item) for p, item in reversed(wrong)}
        chosen = [entry for entry in wrong if first[entry[1].group] == entry][:_SHEET]
        thumbs = []
        for p, item in chosen:
            values = told(item)
            size = values.get("size_band", "")
            lines = [
                f"p {p:.3f}",
                f"{_KINDS.get(item.kind, item.kind)}, {values.get('source', 'source unknown')}",
                f"{size} mm" if size else item.dims,
            ]
            alt = f"{name[:-1]}, {', '.join(line for line in lines if line)}"
            thumbs.append(thumbnail(item.path, alt, [line for line in lines if line]))
        if thumbs:
            sheets.append(Sheet(f"{name.capitalize()}, most confident first", thumbs))
        words.append(f"{len(wrong):,} {name}")
    reading = (
        f"{' and '.join(words)} among {sum(len(x.y) for x in mine):,} single frames at the "
        "balanced threshold; shown is at most one of each source group."
    )
    source = inputs.source(items=f"{inputs.part} part, all kinds of items", interval="")
    return Finding(key, title, reading, source, sheets)
