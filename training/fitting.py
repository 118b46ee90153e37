"""Calibrate a bundle: its probability maps and operating points, on the ``calibrate`` part.

Frames: crops, windows, whole-frame views and whole frames, every kind counting alike; a kind that
holds one class alone has no say, since it would only shift the map. ``malignancy`` is fitted on
items with a lesion; what it makes of items without one is measured apart. Patients: 2 to about
200 frames, so that one threshold holds for every number of frames; of an ingested archive, its
exams as they are.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.patient import score_patient
from model_store.scoring import Calibration, FrameMap, PatientMap, margin
from training.calibrate import (
    Alone,
    Judged,
    fit_frame_map,
    fit_patient_map,
    kind_weights,
    operating_points,
)
from training.errors import ArchiveRefused
from training.evaluate import TASKS, frame_margins, score_patients, truth
from training.items import Embedded, embed
from training.protocol import CALIBRATION_BACKGROUNDS, archive_items, data_items, part_patients

__all__ = ["fit_calibrations", "part_items"]


def part_items(encoder: Encoder, archive: Path, data: Path | None, part: str) -> Embedded:
    """A part's single frames: the archive's views and the data folder's own images."""
    items = archive_items(archive, part)
    return embed(encoder, items + (data_items(data, archive, part) if data else []))


def fit_calibrations(encoder: Encoder, archive: Path, found: Embedded) -> dict[str, Calibration]:
    """Fit maps and operating points of every task.

    Args:
        encoder: Of a draft; its own calibration is not looked at.
        archive: Gives the patients.
        found: The ``calibrate`` part, as from ``part_items``.

    Raises:
        ArchiveRefused: No kind of item holds both classes of a task.
    """
    among = part_patients(archive, "calibrate", backgrounds=CALIBRATION_BACKGROUNDS)
    pooled = found.pick(among.items)
    result = {}
    for task in TASKS:
        frame_map, frames = _fit_frames(encoder, task, found)
        told = among.malignancy if task == "malignancy" else [*among.holding, *among.without]
        y = np.array([p.positive for p in told])
        scores = score_patients(encoder, task, pooled, told)
        many = scores.frames > 1
        z, n, y = scores.margin[many], scores.frames[many], y[many]
        line = fit_patient_map(frame_map, _alone(encoder, task, found), z, n, y)
        patients = Judged(_patient_probabilities(line, z, n), y)
        if task == "malignancy":
            other = score_patients(encoder, task, pooled, among.without)
            many = other.frames > 1
            none = _patient_probabilities(line, other.margin[many], other.frames[many])
            patients = dataclasses.replace(patients, no_lesion=none)
        result[task] = Calibration(frame_map, line, operating_points(frames, patients))
    return result


def _fit_frames(encoder: Encoder, task: str, found: Embedded) -> tuple[FrameMap, Judged]:
    """Fit the frame map; a frame that the gate sets aside is never scored and has no say."""
    y, known = truth(task, found.items)
    kinds = np.array([item.kind for item in found.items])
    usable = known & found.scored
    both = [k for k in np.unique(kinds) if len(np.unique(y[usable & (kinds == k)])) == 2]
    rows = usable & np.isin(kinds, both)
    if not rows.any():
        raise ArchiveRefused(f"part calibrate: expected both classes of {task} in a kind of item")
    z = frame_margins(encoder, task, found)
    weights = kind_weights(kinds[rows].tolist())
    frame_map = fit_frame_map(z[rows], y[rows], weights)
    p = np.asarray(frame_map.probability(z), np.float64)
    judged = Judged(p[rows], y[rows], weights)
    if task == "malignancy":
        none = found.scored & np.array([item.polyp is False for item in found.items])
        judged = dataclasses.replace(
            judged, no_lesion=p[none], no_lesion_weights=kind_weights(kinds[none].tolist())
        )
    return frame_map, judged


def _alone(encoder: Encoder, task: str, found: Embedded) -> Alone:
    """Single frames of every kind as such, and through unify."""
    usable = found.where(found.scored)
    label_set = encoder.bundle.label_set(task)
    classes, index = encoder.class_embeddings(label_set), label_set.positive_index or 0
    scale = encoder.bundle.manifest.logit_scale
    # A patient of one frame is not pooled; the frame beside itself gives the same vector.
    pooled = [
        score_patient(encoder, label_set, classes, None, np.repeat(row[None], 2, 0)).cosines
        for row in usable.embeddings
    ]
    return Alone(
        frame_margins(encoder, task, usable),
        np.asarray(margin(np.stack(pooled), index, scale), np.float64),
        kind_weights([item.kind for item in usable.items]),
    )


def _patient_probabilities(
    line: PatientMap, z: npt.NDArray[np.float64], frames: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    return np.array([line.probability(float(m), int(n)) for m, n in zip(z, frames, strict=True)])
