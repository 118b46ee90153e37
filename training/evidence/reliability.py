"""How far probabilities can be taken at their word: calibration error on 2,000 items and more.

Frames: those of a part, by the map that the bundle serves, and those of ``calibrate``, each by a
map that was fitted without its source group (five folds); further windows of lesions whose
histology is known make up the number. Patients: composed ones of the part, by the map that is
served and by one fitted anew on ``calibrate`` with the code of today.

Beside every error stands what a perfect model would get by chance: with every item drawn by itself,
and with all items of a source group drawn as one (a group's items share their lesion, so
2,000 windows of 150 frames are not 2,000 outcomes). The truth lies between the two.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.model_selection import GroupKFold

from model_store.scoring import Calibration
from training.calibrate import (
    ece_floor,
    expected_calibration_error,
    fit_frame_map,
    kind_weights,
)
from training.evaluate import (
    TASKS,
    Patient,
    PatientScores,
    frame_margins,
    probabilities,
    score_patients,
    truth,
)
from training.evidence.decided import Scorer
from training.fitting import fit_calibrations
from training.items import Embedded, Item
from training.metrics import group_weights, interval
from training.patients import read_views
from training.protocol import HISTOLOGY, archive_items, archive_patients, data_items, presence
from training.sources import SOURCES, read_sources, read_split
from training.views import encode, field_of_view, lesion_windows, render

__all__ = ["grouped_floor", "more_windows", "reliability", "reliability_figures"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Units = Sequence[str] | Sequence[tuple[str, ...]]
FOLDS = 5
BINS = 15
WINDOWS = 6
"""Further windows of each lesion of known histology."""
SEEDS = {"malignancy": 10, "polyp_detection": 5}
"""Draws of the fixed protocol: 200 patients each, for polyp detection 200 and their twins."""


def reliability_figures(
    scorer: Scorer, archive: Path, data: Path | None, part: str
) -> dict[str, Any]:
    """Measure calibration of frames and patients for both tasks.

    Args:
        scorer: Of the bundle.
        archive: Gives split, views and patients.
        data: Folder of real frames with an index, or None.
        part: select or report; ``calibrate`` is what the maps were fitted on.

    Returns:
        ``frames`` and ``patients``, by task ``reliability`` of the map that is served; of patients
        also ``anew``.
    """

    def items(name: str) -> list[Item]:
        known = archive_items(archive, name) + (data_items(data, archive, name) if data else [])
        more = more_windows(data, archive, name, scorer.work) if data else []
        return known + more

    fitted, measured = scorer(items("calibrate")), scorer(items(part))
    return {
        "frames": {task: _frames(scorer, task, fitted, measured) for task in TASKS},
        "patients": _patients(scorer, archive, data, part),
    }


def reliability(p: Floats, y: Bools, units: Units) -> dict[str, Any]:
    """Calibration error (15 bins) with its interval and both floors, and the Brier score.

    Args:
        p: (n,) probabilities.
        y: (n,) truth.
        units: (n,) source groups, the units of resampling.
    """
    draws = [_errors(p, y, w) for w in group_weights(units, 500, 0) if w.sum() > 0]
    ece, brier = (interval(np.array(column)) for column in zip(*draws, strict=True))
    return {
        "items": len(p),
        "groups": len({one for unit in units for one in _names(unit)}),
        "ece15": expected_calibration_error(p, y, BINS),
        "ece15_low": ece[0],
        "ece15_high": ece[1],
        "floor": ece_floor(p, BINS),
        "grouped_floor": grouped_floor(p, units),
        "brier": float(((p - y) ** 2).mean()),
        "brier_low": brier[0],
        "brier_high": brier[1],
        "mean_probability": float(p.mean()),
        "positives": float(y.mean()),
    }


def grouped_floor(p: Floats, units: Units, repeats: int = 200, seed: int = 0) -> float:
    """Mean ECE of a perfectly calibrated model where a group's items are decided by one draw."""
    _, place = np.unique(["+".join(_names(unit)) for unit in units], return_inverse=True)
    rng = np.random.default_rng(seed)
    drawn = (rng.random(place.max() + 1)[place] < p for _ in range(repeats))
    return float(np.mean([expected_calibration_error(p, y, BINS) for y in drawn]))


def more_windows(data: Path, archive: Path, part: str, work: Path) -> list[Item]:
    """Cut further windows of the lesions of a part whose histology is known.

    Sides are drawn from those of the part's background windows, as the composer's are.

    Args:
        data: Folder of index.csv.
        archive: Gives the split and the sides.
        part: Of the frames.
        work: Folder the windows are written to.
    """
    parts = read_split(archive / "source_split.json")
    names = {short: name for name, short in SOURCES.items()}
    sides: dict[str, list[float]] = {}
    for row in read_views(archive):
        if row["part"] == part and row["kind"] == "background" and not row.get("scope"):
            sides.setdefault(row["source"], []).append(float(row["side"]))
    found = []
    for image in read_sources(data):
        known = image.kind == "frame" and image.histology in HISTOLOGY
        if not known or parts[image.group] != part:
            continue
        rng = np.random.default_rng(zlib.crc32(f"{image.name}/reliability".encode()))
        pixels = Image.open(image.path).convert("RGB")
        field = field_of_view(image, np.asarray(pixels))
        for lesion in range(len(image.boxes)):
            wanted = [float(side) for side in rng.choice(sides[image.source], WINDOWS)]
            for i, window in enumerate(lesion_windows(image, field, lesion, rng, wanted)):
                path = work / f"{image.name}_more{lesion}_{i}.jpg"
                path.write_bytes(encode(render(pixels, window)))
                found.append(
                    Item(
                        path=path,
                        kind="view",
                        polyp=None,  # of polyp detection there are enough
                        neoplastic=HISTOLOGY[image.histology],
                        group=image.group,
                        source=names[image.source],
                        dims=image.dims,
                        image=image.name,
                    )
                )
    return found


def _errors(p: Floats, y: Bools, weights: Floats) -> tuple[float, float]:
    """Calibration error and Brier score of weighted items."""
    which = np.clip((p * BINS).astype(int), 0, BINS - 1)
    gap = np.bincount(which, weights=weights * (p - y), minlength=BINS)
    total = float(weights.sum())
    return float(np.abs(gap).sum() / total), float((weights * (p - y) ** 2).sum() / total)


def _names(unit: str | tuple[str, ...]) -> tuple[str, ...]:
    return (unit,) if isinstance(unit, str) else unit


def _frames(scorer: Scorer, task: str, fitted: Embedded, measured: Embedded) -> dict[str, Any]:
    p, y, groups = [], [], []
    for found, served in ((fitted, False), (measured, True)):
        told, known = truth(task, found.items)
        rows = known & found.scored
        mine = found.where(rows)
        p.append(
            probabilities(scorer.encoder, task, mine)
            if served
            else _out_of_fold(scorer, task, mine, told[rows])
        )
        y.append(told[rows])
        groups += [item.group for item in mine.items]
    return reliability(np.concatenate(p), np.concatenate(y), groups)


def _out_of_fold(scorer: Scorer, task: str, found: Embedded, y: Bools) -> Floats:
    """Probabilities of frames by maps fitted, as the served one is, on the other groups."""
    z = frame_margins(scorer.encoder, task, found)
    kinds = np.array([item.kind for item in found.items])
    both = [k for k in np.unique(kinds) if len(np.unique(y[kinds == k])) == 2]
    groups = np.array([item.group for item in found.items])
    p = np.zeros(len(z))
    for others, mine in GroupKFold(FOLDS).split(z, y, groups):
        rows = others[np.isin(kinds[others], both)]
        fit = fit_frame_map(z[rows], y[rows], kind_weights(kinds[rows].tolist()))
        p[mine] = fit.probability(z[mine])
    return p


def _patients(scorer: Scorer, archive: Path, data: Path | None, part: str) -> dict[str, Any]:
    known = archive_items(archive, "calibrate")
    known += data_items(data, archive, "calibrate") if data else []
    anew = fit_calibrations(scorer.encoder, archive, scorer(known))
    figures = {}
    for task in TASKS:
        items, patients = archive_patients(archive, part, SEEDS[task])
        if task == "polyp_detection":
            holding, without = presence(archive, part, patients, SEEDS[task])
            patients = [*holding, *without]
        scores = score_patients(scorer.encoder, task, scorer(items), patients)
        served = scorer.encoder.bundle.calibrations[task]
        figures[task] = _mapped(served, scores, patients) | {
            "anew": _mapped(anew[task], scores, patients)
        }
    return figures


def _mapped(
    calibration: Calibration, scores: PatientScores, patients: Sequence[Patient]
) -> dict[str, Any]:
    many = [int(i) for i in np.flatnonzero(scores.frames > 1)]
    p = np.array(
        [
            calibration.patient.probability(float(scores.margin[i]), int(scores.frames[i]))
            for i in many
        ]
    )
    y = np.array([patients[i].positive for i in many])
    return reliability(p, y, [patients[i].groups for i in many])
