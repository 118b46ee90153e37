"""How training went: losses, effective targets and attention scale of every stage."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.report.blocks import Figure, Finding, Missing
from training.report.charts import Series, line_chart
from training.report.inputs import Inputs
from training.report.words import number

__all__ = ["stage_curves"]

Floats = npt.NDArray[np.float64]

_MORE_RUNS = {f"attunement{run}.csv": f"Run {run}" for run in range(2, 10)}
_STAGES = {
    "1-cleansing": ("Cleansing", {"round1.csv": "Round 1", "round2.csv": "Round 2"}),
    "2-attunement": ("Attunement", {"attunement.csv": "Attunement"} | _MORE_RUNS),
    "3-unification": ("Unification", {"unification.csv": "Unification"}),
}
_APART = {
    "effective_targets": ("effective targets", "median of the step"),
    "attention_scale": ("attention scale", "scale"),
}


def stage_curves(inputs: Inputs) -> list[Finding | Missing]:
    """One finding a stage."""
    return [_stage(inputs, stage, *entry) for stage, entry in _STAGES.items()]


def _stage(inputs: Inputs, stage: str, title: str, files: dict[str, str]) -> Finding | Missing:
    key = f"curves-{title.lower()}"
    unfinished = not (inputs.run / stage).is_dir()
    folder = inputs.run / (f"{stage}.partial" if unfinished else stage)
    tables = {words: _read(folder / name) for name, words in files.items()}
    tables = {words: columns for words, columns in tables.items() if len(columns.get("step", ()))}
    if not tables:
        reason = f"{stage} holds no losses: the stage is switched off or has not begun."
        return Missing(key, title, reason, inputs.run_command())
    panels, told = [], []
    for words, columns in tables.items():
        steps = columns.pop("step")
        panels += _panels(words, steps, columns)
        told.append(f"{words}: {_words(columns)}")
    counts = ", ".join(f"{len(columns['total']):,}" for columns in tables.values())
    names = [f"{stage}/{name}" for name, words in files.items() if words in tables]
    source = inputs.source(*names, stage=stage, items=f"{counts} steps")
    reading = "; ".join(told) + (". The stage is not finished." if unfinished else ".")
    return Finding(key, title, reading, source, panels)


def _words(columns: dict[str, Floats]) -> str:
    """From the first steps to the last."""
    total = columns["total"]
    ends = max(1, min(20, len(total) // 2))
    first, last = float(total[:ends].mean()), float(total[-ends:].mean())
    steps = "step" if ends == 1 else f"{ends} steps"
    words = (
        f"total loss from {number(first, 2)} to {number(last, 2)} (means of the first and the "
        f"last {steps} of {len(total):,})"
    )
    for extra in _APART:
        if extra in columns:
            at = [
                float(np.median(part)) for part in (columns[extra][:ends], columns[extra][-ends:])
            ]
            words += f", {extra.replace('_', ' ')} from {number(at[0], 2)} to {number(at[1], 2)}"
    return words


def _panels(title: str, steps: Floats, columns: dict[str, Floats]) -> list[Figure]:
    losses = {n: v for n, v in columns.items() if n not in _APART}
    if len(losses) == 2:  # the total of one loss is that loss
        losses.pop("total")
    panels = [_panel(f"{title}: loss", "loss", steps, losses)]
    for name, (caption, unit) in _APART.items():
        if name in columns:
            panels.append(_panel(f"{title}: {caption}", unit, steps, {unit: columns[name]}))
    return panels


def _panel(caption: str, unit: str, steps: Floats, columns: dict[str, Floats]) -> Figure:
    window = max(1, len(steps) // 25)
    series = []
    for color, (name, values) in enumerate(columns.items()):
        series.append(Series("", steps, values, style="faint", color=color))
        smooth = _running_mean(values, window)
        series.append(Series(name.replace("_", " "), steps, smooth, color=color))
    alt = f"{caption} over {len(steps)} training steps, with a running mean of {window} steps."
    return line_chart(series, caption, alt, x_label="step", y_label=unit)


def _running_mean(values: Floats, window: int) -> Floats:
    """Centred mean over ``window`` steps, over fewer at both ends."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    low = np.maximum(at - window // 2, 0)
    high = np.minimum(at + window // 2 + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _read(path: Path) -> dict[str, Floats]:
    """Columns by name; empty without a file. A line cut off by a kill is left out."""
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    names, found = rows[0], []
    for row in rows[1:]:
        try:
            values = [float(cell) if cell else np.nan for cell in row]
        except ValueError:
            continue
        if len(values) == len(names):
            found.append(values)
    table = np.array(found, np.float64).reshape(len(found), len(names))
    return {name: table[:, i] for i, name in enumerate(names)}
