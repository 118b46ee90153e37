"""What experiments found: arms of a recipe against AUROC, over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import spearmanr

from training.report.blocks import Finding, Missing, Table
from training.report.charts import Row, Series, interval_chart, line_chart
from training.report.experiments import Arm, Experiment
from training.report.inputs import Inputs, short
from training.report.words import number, span

__all__ = ["extraction_error", "share", "stages"]

_OUTCOMES = (
    ("patients", "malignancy", "malignancy (patients)"),
    ("patients", "polyp_detection", "polyp detection (patients)"),
    ("view", "malignancy", "malignancy (views)"),
    ("view", "polyp_detection", "polyp detection (views)"),
    ("frame", "malignancy", "malignancy (frames)"),
    ("frame", "polyp_detection", "polyp detection (frames)"),
)
_MOST = 3


def share(inputs: Inputs) -> list[Finding | Missing]:
    """Downstream AUROC by the share that cleansing keeps."""
    title = "Other shares: what becomes of the downstream AUROC"
    return [_against(inputs, "share", "share-downstream", title, "kept share", by_f1=False)]


def extraction_error(inputs: Inputs) -> list[Finding | Missing]:
    """Downstream AUROC by how wrong the attributes are."""
    title = "Do extraction errors hurt downstream?"
    return [
        _against(inputs, "attributes", "extraction-downstream", title, "extraction F1", by_f1=True)
    ]


def stages(inputs: Inputs) -> list[Finding | Missing]:
    """Downstream AUROC as the stages are added one by one."""
    key, title = "stages-downstream", "What each stage adds downstream"
    one = _usable(inputs, "stages", key, title)
    if isinstance(one, Missing):
        return [one]
    outcomes = _outcomes(one.arms)
    names = list(dict.fromkeys(arm.name for arm in one.arms))
    panels = []
    for level, task, words in outcomes:
        made = (_mean_row(name, _values(one.arms, name, level, task)) for name in names)
        rows = [row for row in made if row is not None]
        alt = f"AUROC of {words} by arm: " + ", ".join(f"{r.label} {r.value:.3f}" for r in rows)
        panels.append(interval_chart(rows, words.capitalize(), alt, x_label="AUROC", reference=0.5))
    level, task, words = outcomes[0]
    told = [
        f"{name} {number(float(np.mean(found)))}"
        for name in names
        if (found := [f["auroc"] for f in _values(one.arms, name, level, task)])
    ]
    reading = f"AUROC of {words}: {', '.join(told)}."
    return [Finding(key, title, reading, _source(one), [*panels, _table(one, outcomes)])]


def _against(
    inputs: Inputs, name: str, key: str, title: str, axis: str, *, by_f1: bool
) -> Finding | Missing:
    one = _usable(inputs, name, key, title)
    if isinstance(one, Missing):
        return one
    place = {id(arm): arm.extraction_f1 if by_f1 else arm.x for arm in one.arms}
    arms = [arm for arm in one.arms if place[id(arm)] is not None]
    if by_f1 and not arms:  # measured shares of spoiled values stand in for the F1
        place, axis = {id(arm): arm.x for arm in one.arms}, "share of values corrupted or dropped"
        arms = [arm for arm in one.arms if arm.x is not None]
    if not arms:
        return Missing(
            key, title, f"{one.file} gives no place on the axis for any arm.", one.command
        )
    outcomes = _outcomes(arms)
    panels = []
    for level, task, words in outcomes:
        dots, lines = _series(arms, place, level, task)
        told = "; ".join(f"{line.name} {_points(line)}" for line in lines)
        alt = f"AUROC of {words} by {axis}: {told}"
        panels.append(
            line_chart(
                [*dots, *lines],
                words.capitalize(),
                alt,
                x_label=axis,
                y_label="AUROC, mean of seeds",
            )
        )
    reading = _reading(arms, place, outcomes[0], axis)
    return Finding(key, title, reading, _source(one), [*panels, _table(one, outcomes)])


def _reading(
    arms: Sequence[Arm], place: dict[int, float | None], outcome: tuple[str, str, str], axis: str
) -> str:
    """Mean AUROC at both ends, and whether place and AUROC go together."""
    level, task, words = outcome
    points = [(place[id(a)], f["auroc"]) for a in arms if (f := a.auroc(level, task)) is not None]
    x, y = np.array(points, np.float64).T
    places = sorted({x.max(), x.min()}, reverse=True)
    ends = [f"{number(float(y[x == end].mean()))} at {end:.2f}" for end in places]
    reading = f"AUROC of {words} is {' and '.join(ends)} ({axis})"
    if len(np.unique(x)) > 2 and len(np.unique(y)) > 2:
        rho, p = spearmanr(x, y)
        reading += (
            f"; rank correlation {number(float(rho), 2)} over {len(x)} trained arms (p = {p:.2g})"
        )
    return reading + "."


def _points(line: Series) -> str:
    return ", ".join(f"{y:.3f} at {x:.2f}" for x, y in zip(line.x, line.y, strict=True))


def _series(
    arms: Sequence[Arm], place: dict[int, float | None], level: str, task: str
) -> tuple[list[Series], list[Series]]:
    """One kind of arm ("share", "corrupted", "dropped") a line; its seeds as dots."""
    kinds: dict[str, list[tuple[float, float]]] = {}
    for arm in arms:
        figure, x = arm.auroc(level, task), place[id(arm)]
        if figure is not None and x is not None:
            kinds.setdefault(arm.name.split(" ")[0], []).append((x, figure["auroc"]))
    dots, lines = [], []
    for color, (kind, points) in enumerate(kinds.items()):
        x, y = np.array(points).T
        dots.append(Series("", x, y, style="dots", color=color))
        at = np.unique(x)
        means = np.array([y[x == value].mean() for value in at])
        lines.append(Series(kind, at, means, style="line" if len(at) > 1 else "dots", color=color))
    return dots, lines


def _usable(inputs: Inputs, name: str, key: str, title: str) -> Experiment | Missing:
    command = (
        f"python -m training arms --of {name} --recipe ablation --archive "
        f"{inputs.given_archive or inputs.run / '0-archive'} --out {inputs.experiments_folder}"
    ) + (f" --data {inputs.data}" if inputs.data else "")
    one = inputs.experiments.by_name.get(name)
    if one is None:
        faults = [fault for fault in inputs.experiments.faults if fault.startswith(name)]
        reason = f"{name}.json is not in {inputs.experiments_folder}."
        return Missing(key, title, faults[0] if faults else reason, command)
    if one.part == "report" != inputs.part:
        reason = f"{one.file} holds closing figures (part report), which choose nothing."
        return Missing(key, title, reason, inputs.report_command(part="report"))
    if not _outcomes(one.arms):
        return Missing(key, title, f"{one.file} holds no AUROC.", command)
    return one


def _outcomes(arms: Sequence[Arm]) -> list[tuple[str, str, str]]:
    return [o for o in _OUTCOMES if any(a.auroc(o[0], o[1]) for a in arms)][:_MOST]


def _values(arms: Sequence[Arm], name: str, level: str, task: str) -> list[dict[str, float]]:
    found = [arm.auroc(level, task) for arm in arms if arm.name == name]
    return [figure for figure in found if figure is not None]


def _mean_row(name: str, found: Sequence[dict[str, float]]) -> Row | None:
    """Mean over seeds with their range; one seed has its own interval."""
    if not found:
        return None
    values = [figure["auroc"] for figure in found]
    if len(found) == 1:
        one = found[0]
        low, high = (float(one.get(f"auroc_{e}") or np.nan) for e in ("low", "high"))
        return Row(name, values[0], low, high)
    return Row(name, float(np.mean(values)), min(values), max(values))


def _table(one: Experiment, outcomes: Sequence[tuple[str, str, str]]) -> Table:
    """One row an arm."""
    rows = []
    for name in dict.fromkeys(arm.name for arm in one.arms):
        cells = []
        for level, task, _ in outcomes:
            row = _mean_row(name, _values(one.arms, name, level, task))
            cells.append("–" if row is None else span(row.value, row.low, row.high))
        seeds = len({arm.seed for arm in one.arms if arm.name == name})
        rows.append([name, str(seeds), *cells])
    head = ["arm", "seeds", *(words for _, _, words in outcomes)]
    return Table(head, rows, "Mean AUROC (range over seeds; of one seed, 95 % over source groups)")


def _source(one: Experiment) -> str:
    seeds = len({arm.seed for arm in one.arms if arm.folder})
    parts = [
        one.file,
        short(one.digest),
        f"commit {short(one.commit)}",
        f"recipe {one.recipe}",
        f"{one.part} part",
        f"{len(one.arms)} arms over {seeds} seed{'s' * (seeds != 1)}",
    ]
    return " · ".join(part for part in parts if part)
