"""Whether soft targets cluster lesions of like morphology more tightly than one-hot ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.manifold import TSNE

from training.attributes import ATTRIBUTES
from training.report.blocks import Block, Finding, Missing, Note, Table
from training.report.charts import scatter_chart
from training.report.clusters import Tightness, tightness
from training.report.inputs import Inputs, short
from training.report.towers import stage_embeddings
from training.report.words import listed, number, span
from training.runs import file_digest

__all__ = ["soft_targets"]

Floats = npt.NDArray[np.float64]

_KEY, _TITLE = "attunement-tsne", "One-hot against soft targets"
_STAGE = "2-attunement"
_ARMS = {"one-hot": "+ attunement, one-hot", "soft": "+ attunement"}
# Colour by what the seed calls morphological type; what an archive does not tell gives way.
_PREFERRED = ("paris", "surface_texture", "size_band", "margin", "colour")
_SHOWN = 2
_SMALLEST = 3
"""Lesions of a class at least; fewer are no cluster."""


@dataclass(frozen=True)
class _Lesion:
    """A lesion of the part.

    Attributes:
        frames: That show it.
        group: Source group.
        told: Attributes as its report gives them.
    """

    frames: tuple[Path, ...]
    group: str
    told: Mapping[str, str]


@dataclass(frozen=True)
class _Space:
    """Stage-2 weights.

    Attributes:
        name: one-hot or soft.
        weights: The file.
        model: Name of the towers.
        folder: Of the run, for the source line.
    """

    name: str
    weights: Path
    model: str
    folder: str


def soft_targets(inputs: Inputs) -> list[Finding | Missing]:
    """t-SNE of both spaces side by side, and their tightness."""
    if inputs.archive is None:
        reason = "The archive, which holds the frames, is not in the run's folder."
        return [Missing(_KEY, _TITLE, reason, inputs.report_command(archive="ARCHIVE"))]
    lesions = _lesions(inputs)
    shown = _shown(lesions)
    spaces = _spaces(inputs)
    if not shown:
        reason = f"The {inputs.part} part has no attribute with two values of {_SMALLEST} lesions."
        return [Missing(_KEY, _TITLE, reason)]
    if not spaces:
        reason = f"{_STAGE}/weights.pt is not there: attunement is not finished."
        return [Missing(_KEY, _TITLE, reason, inputs.run_command())]
    embeddings = {space.name: _embed(inputs, space, lesions) for space in spaces}
    found: list[Finding | Missing] = [_finding(inputs, lesions, shown, spaces, embeddings)]
    for name in _ARMS.keys() - embeddings.keys():
        arm = _ARMS[name]
        command = (
            f'python -m training arms --of stages --arm "{_ARMS["one-hot"]}" '
            f'--arm "{_ARMS["soft"]}" --recipe {inputs.recipe_name} --archive '
            f"{inputs.given_archive or inputs.run / '0-archive'} --out {inputs.experiments_folder}"
        ) + (f" --data {inputs.data}" if inputs.data else "")
        title = f"{_TITLE}: the {name} arm"
        reason = f'There is no run of the arm "{arm}" to compare with.'
        found.append(Missing(f"attunement-{name}", title, reason, command))
    return found


def _finding(
    inputs: Inputs,
    lesions: list[_Lesion],
    shown: list[str],
    spaces: list[_Space],
    embeddings: dict[str, Floats],
) -> Finding:
    blocks: list[Block] = []
    told = []
    perplexity = min(30.0, (len(lesions) - 1) / 3)
    planes = {name: _plane(rows, perplexity) for name, rows in embeddings.items()}
    for attribute in shown:
        classes = _classes(lesions, attribute)
        keep = np.array([i for rows in classes.values() for i in rows])
        labels = np.repeat(np.arange(len(classes)), [len(rows) for rows in classes.values()])
        units = [lesions[i].group for i in keep]
        word = attribute.replace("_", " ")
        measured = {n: tightness(e[keep], labels, units) for n, e in embeddings.items()}
        for name, plane in planes.items():
            groups = {value: plane[rows] for value, rows in classes.items()}
            caption = f"{name.capitalize()} targets, by {word}"
            alt = f"t-SNE of {len(keep)} lesions. {caption}: {_sentence(measured[name])}."
            blocks.append(scatter_chart(groups, caption, alt))
        blocks.append(_table(word, measured))
        told.append(_reading(word, measured))
    weights = ", ".join(
        f"{s.name}: {s.folder}/{_STAGE}/weights.pt {short(file_digest(s.weights))}" for s in spaces
    )
    source = " · ".join(
        [
            weights,
            f"{len(lesions)} lesions of the {inputs.part} part, mean of their views",
            f"t-SNE perplexity {perplexity:.0f}, seed 0",
            "95 % intervals resample source groups",
        ]
    )
    blocks.append(Note(_note(shown)))
    return Finding(_KEY, _TITLE, " ".join(told), source, blocks)


def _note(shown: list[str]) -> str:
    absent = [a.replace("_", " ") for a in _PREFERRED[:_SHOWN] if a not in shown]
    note = (
        "Axes of a t-SNE plane have no unit, and distances in it mean little; silhouette and "
        "distance ratio are cosine distances in the embedding space. Silhouette: larger is "
        "tighter. Ratio: mean distance within a class over between classes, smaller is tighter."
    )
    if absent:
        note += f" Not in this data, with two values of enough lesions: {listed(absent)}."
    return note


def _lesions(inputs: Inputs) -> list[_Lesion]:
    """By truth: every lesion with its frames; else the kept frames of single-lesion exams."""
    if inputs.truth and inputs.archive_path:
        found: dict[str, _Lesion] = {}
        for exam in inputs.exams:
            entry = inputs.truth.get(exam.record_id)
            if entry is None or exam.part != inputs.part:
                continue
            for lesion in entry["lesions"]:
                shown = [
                    frame
                    for frame in entry["frames"]
                    if frame["lesion"] == lesion["index"] and frame["kind"] == "lesion"
                ]
                if shown:
                    paths = tuple(inputs.archive_path / frame["file"] for frame in shown)
                    one = _Lesion(paths, shown[0]["group"], lesion["told"])
                    found.setdefault(lesion["lesion_id"], one)
        return list(found.values())
    lesions = []
    names = list(ATTRIBUTES)
    for exam in inputs.exams:
        fates = inputs.ledger.get(exam.record_id)
        if exam.part != inputs.part or len(exam.lesions) != 1 or not fates:
            continue
        kept = tuple(f for f, fate in zip(exam.frames, fates, strict=True) if fate.kept)
        told = {
            name: ATTRIBUTES[name][code]
            for name, code in zip(names, exam.lesions[0].codes, strict=True)
            if code >= 0
        }
        if kept:
            lesions.append(_Lesion(kept, min(exam.groups, default=exam.patient_id), told))
    return lesions


def _classes(lesions: list[_Lesion], attribute: str) -> dict[str, list[int]]:
    """Rows of each value that enough lesions have, in the attribute's own order."""
    rows: dict[str, list[int]] = {value: [] for value in ATTRIBUTES[attribute]}
    for i, lesion in enumerate(lesions):
        if lesion.told.get(attribute) in rows:
            rows[lesion.told[attribute]].append(i)
    return {value: found for value, found in rows.items() if len(found) >= _SMALLEST}


def _shown(lesions: list[_Lesion]) -> list[str]:
    return [a for a in _PREFERRED if len(_classes(lesions, a)) > 1][:_SHOWN]


def _spaces(inputs: Inputs) -> list[_Space]:
    """Both arms of the experiment ``stages``; without it the run's own weights, as soft."""
    own = inputs.run / _STAGE / "weights.pt"
    stages = inputs.experiments.by_name.get("stages")
    found = []
    for name, arm_name in _ARMS.items():
        arms = [a for a in (stages.arms if stages else ()) if a.name == arm_name and a.folder]
        folder = arms[0].folder if arms else None
        if folder and (folder / _STAGE / "weights.pt").is_file():
            model = _model(Inputs(folder, None, None, inputs.part, folder)) or _model(inputs)
            label = f"{folder.parent.name}/{folder.name}"
            found.append(_Space(name, folder / _STAGE / "weights.pt", model, label))
        elif name == "soft" and own.is_file() and _model(inputs):
            found.append(_Space(name, own, _model(inputs), inputs.run.name))
    return found


def _model(inputs: Inputs) -> str:
    if inputs.bundle:
        return str(inputs.bundle.manifest.provenance.extra["model"])
    return inputs.recipe.model.config if inputs.recipe else ""


def _embed(inputs: Inputs, space: _Space, lesions: list[_Lesion]) -> Floats:
    """(lesions, d): the mean of each lesion's frames, at unit length."""
    frames = [frame for lesion in lesions for frame in lesion.frames]
    key = ["stage", file_digest(space.weights), space.model, *map(str, frames)]
    rows = inputs.cache.arrays(
        key, lambda: {"embeddings": stage_embeddings(space.weights, space.model, frames)}
    )["embeddings"].astype(np.float64)
    edges = np.cumsum([0, *(len(lesion.frames) for lesion in lesions)])
    means = np.stack([rows[a:b].mean(axis=0) for a, b in pairwise(edges)])
    return np.asarray(means / np.linalg.norm(means, axis=1, keepdims=True))


def _plane(embeddings: Floats, perplexity: float) -> Floats:
    tsne = TSNE(perplexity=perplexity, metric="cosine", init="pca", random_state=0)
    return np.asarray(tsne.fit_transform(embeddings), np.float64)


def _table(word: str, measured: dict[str, Tightness]) -> Table:
    figures = {n: (t.silhouette, t.silhouettes, t.ratio, t.ratios) for n, t in measured.items()}
    if len(figures) == 2:
        soft, hard = measured["soft"], measured["one-hot"]
        figures["soft − one-hot"] = (
            soft.silhouette - hard.silhouette,
            soft.silhouettes - hard.silhouettes,
            soft.ratio - hard.ratio,
            soft.ratios - hard.ratios,
        )
    rows = [
        [name, span(one, *_ends(draws)), span(other, *_ends(others))]
        for name, (one, draws, other, others) in figures.items()
    ]
    head = ["targets", "silhouette (95 %)", "within / between (95 %)"]
    return Table(head, rows, f"Tightness in the embedding space, by {word}")


def _reading(word: str, measured: dict[str, Tightness]) -> str:
    if len(measured) < 2:
        return "".join(f"By {word}, {n} targets: {_sentence(t)}." for n, t in measured.items())
    soft, hard = measured["soft"], measured["one-hot"]
    tighter, ratio = _ends(soft.silhouettes - hard.silhouettes), _ends(soft.ratios - hard.ratios)
    return (
        f"By {word}, soft targets against one-hot: silhouette {number(soft.silhouette)} against "
        f"{number(hard.silhouette)} ({_verdict(*tighter, larger_is_tighter=True)}), "
        f"distance within over between classes {number(soft.ratio)} against {number(hard.ratio)} "
        f"({_verdict(*ratio, larger_is_tighter=False)})."
    )


def _verdict(low: float, high: float, *, larger_is_tighter: bool) -> str:
    """What the interval of a difference says."""
    if not (low > 0 or high < 0):
        word = "not told apart"
    else:
        word = "tighter" if (low > 0) == larger_is_tighter else "looser"
    return f"{word}, difference {number(low)} to {number(high)}"


def _sentence(t: Tightness) -> str:
    return f"silhouette {span(t.silhouette, *_ends(t.silhouettes))}"


def _ends(values: Floats) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
