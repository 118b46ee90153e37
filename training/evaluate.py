"""Figures of a packed bundle, through ``model_store``: the code path that serves.

AUROCs are over all items; an item that the quality gate sets aside counts as probability 0.5, and
coverage stands beside. Intervals resample source groups. ``malignancy`` is on items with a
lesion; specificity on items without one is reported apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.patient import score_patient
from model_store.scoring import cosines, margin
from training.calibrate import ece_floor, expected_calibration_error
from training.items import Embedded
from training.metrics import auroc, auroc_interval, paired_interval, stratified_auroc

__all__ = [
    "TASKS",
    "Patient",
    "frame_figures",
    "frame_margins",
    "patient_figures",
    "patient_margins",
    "probabilities",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TASKS = ("polyp_detection", "malignancy")


@dataclass(frozen=True)
class Patient:
    """A composed patient.

    Attributes:
        rows: Rows of an ``Embedded``, in order.
        positive: A neoplastic lesion is among them.
        mixed: It also holds a non-neoplastic lesion.
        seed: Of the protocol run it belongs to.
        group: Source group of its first lesion, the unit of resampling.
    """

    rows: tuple[int, ...]
    positive: bool
    mixed: bool
    seed: int
    group: str


def frame_margins(encoder: Encoder, task: str, found: Embedded) -> Floats:
    """Margins z (n,) of single frames for a task's positive label."""
    label_set = encoder.bundle.label_set(task)
    cosine = cosines(found.embeddings, encoder.class_embeddings(label_set))
    return np.asarray(
        margin(cosine, label_set.positive_index or 0, encoder.bundle.manifest.logit_scale)
    )


def probabilities(encoder: Encoder, task: str, found: Embedded) -> Floats:
    """Calibrated probabilities (n,); 0.5 where the gate abstains."""
    z = frame_margins(encoder, task, found)
    p = np.asarray(encoder.bundle.calibrations[task].frame.probability(z), np.float64)
    return np.where(found.scored, p, 0.5)


def frame_figures(encoder: Encoder, found: Embedded) -> dict[str, Any]:
    """Single-frame figures by task and kind of item."""
    figures: dict[str, Any] = {}
    for kind in sorted({item.kind for item in found.items}):
        mine = found.where([item.kind == kind for item in found.items])
        figures[kind] = {"coverage": float(mine.scored.mean()), "items": len(mine.items)}
        polyp = mine.where([item.polyp is not None for item in mine.items])
        y = np.array([bool(item.polyp) for item in polyp.items])
        if 0 < y.sum() < len(y):
            figures[kind]["polyp_detection"] = _task(encoder, "polyp_detection", polyp, y)
        lesion = mine.where([item.neoplastic is not None for item in mine.items])
        y = np.array([bool(item.neoplastic) for item in lesion.items])
        if 0 < y.sum() < len(y):
            figures[kind]["malignancy"] = _task(encoder, "malignancy", lesion, y)
        without = mine.where([item.polyp is False for item in mine.items])
        if len(without.items):
            figures[kind]["no_lesion"] = _specificity(encoder, without)
    return figures


def _task(encoder: Encoder, task: str, found: Embedded, y: Bools) -> dict[str, Any]:
    p = probabilities(encoder, task, found)
    groups = [item.group for item in found.items]
    point = encoder.bundle.calibrations[task].operating_point("balanced")
    positive = p >= point.frame_threshold
    low, high = auroc_interval(y, p, groups)
    return {
        "auroc": auroc(y, p),
        "auroc_low": low,
        "auroc_high": high,
        "auroc_within_dimensions": stratified_auroc(y, p, [item.dims for item in found.items]),
        "positives": int(y.sum()),
        "negatives": int((~y).sum()),
        "groups": len(set(groups)),
        "balanced_sensitivity": float(positive[y].mean()),
        "balanced_specificity": float((~positive[~y]).mean()),
        "ece15": expected_calibration_error(p, y),
        "ece15_floor": ece_floor(p),
        "brier": float(((p - y) ** 2).mean()),
    }


def _specificity(encoder: Encoder, found: Embedded) -> dict[str, float]:
    """Share of items without a lesion that the balanced point calls negative, per task."""
    figures = {"items": float(len(found.items))}
    for task in TASKS:
        point = encoder.bundle.calibrations[task].operating_point("balanced")
        scored = found.where(found.scored)
        p = probabilities(encoder, task, scored)
        figures[f"{task}_specificity"] = (
            float((p < point.frame_threshold).mean()) if len(p) else float("nan")
        )
    return figures


def patient_margins(
    encoder: Encoder, task: str, found: Embedded, patients: Sequence[Patient]
) -> dict[str, Floats]:
    """Margins of each patient under three poolings of the same embeddings: unify, mean, max.

    ``mean`` scores the mean embedding, ``max`` takes the largest frame margin. Frames that the
    gate sets aside are left out; a patient without a scored frame gets margin 0.
    """
    label_set = encoder.bundle.label_set(task)
    classes = encoder.class_embeddings(label_set)
    scale, index = encoder.bundle.manifest.logit_scale, label_set.positive_index or 0
    single = frame_margins(encoder, task, found)
    scored = found.scored
    values: dict[str, list[float]] = {"unify": [], "mean": [], "max": [], "frames": []}
    for patient in patients:
        rows = [r for r in patient.rows if scored[r]]
        values["frames"].append(max(1, len(rows)))
        if not rows:
            for name in ("unify", "mean", "max"):
                values[name].append(0.0)
            continue
        embeddings = found.embeddings[rows]
        score = score_patient(encoder, label_set, classes, None, embeddings)
        mean = embeddings.mean(0, keepdims=True)
        mean /= np.linalg.norm(mean)
        values["unify"].append(float(margin(score.cosines[None], index, scale)[0]))
        values["mean"].append(float(margin(cosines(mean, classes), index, scale)[0]))
        values["max"].append(float(single[rows].max()))
    return {name: np.array(v, np.float64) for name, v in values.items()}


def patient_figures(
    encoder: Encoder, task: str, found: Embedded, patients: Sequence[Patient]
) -> dict[str, Any]:
    """AUROC per patient: unify against mean and max pooling, per seed and overall.

    Intervals resample the source groups of the patients' first lesions; patients share further
    views, so the true width is somewhat larger (stated in the card).
    """
    y = np.array([p.positive for p in patients])
    margins = patient_margins(encoder, task, found, patients)
    units = [p.group for p in patients]
    figures: dict[str, Any] = {"patients": len(patients), "positives": int(y.sum())}
    for name in ("unify", "mean", "max"):
        per_seed = [
            auroc(y[rows], margins[name][rows])
            for seed in sorted({p.seed for p in patients})
            for rows in [np.array([i for i, p in enumerate(patients) if p.seed == seed])]
        ]
        low, high = auroc_interval(y, margins[name], units)
        figures[name] = {
            "auroc": auroc(y, margins[name]),
            "auroc_low": low,
            "auroc_high": high,
            "per_seed": per_seed,
        }
    for other in ("mean", "max"):
        figures[f"unify_minus_{other}"] = paired_interval(
            y, margins["unify"], margins[other], units
        )
    calibration = encoder.bundle.calibrations[task]
    p = np.array(
        [
            calibration.patient.probability(z, int(n)) if n > 1 else 0.5
            for z, n in zip(margins["unify"], margins["frames"], strict=True)
        ]
    )
    point = calibration.operating_point("balanced")
    positive = p >= point.patient_threshold
    mixed = np.array([p_.mixed for p_ in patients])
    figures |= {
        "balanced_sensitivity": float(positive[y].mean()),
        "balanced_specificity": float((~positive[~y]).mean()),
        "mixed_sensitivity": float(positive[y & mixed].mean()) if (y & mixed).any() else None,
        "ece15": expected_calibration_error(p, y),
        "ece15_floor": ece_floor(p),
    }
    return figures
