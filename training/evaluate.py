"""Figures of a packed bundle, through ``model_store``: the code path that serves.

AUROCs are over all items; one that the quality gate sets aside counts as probability 0.5, and
coverage stands beside. Decisions are the operating point's, band and all: one that abstains, or
that the gate prevents, counts neither as a detection nor as a correct rejection. Intervals
resample source groups. ``malignancy`` is on items with a lesion; specificity on items without one
is reported apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.patient import score_patient
from model_store.scoring import Calibration, Decision, cosines, margin
from training.calibrate import ece_floor, expected_calibration_error
from training.items import Embedded, Item
from training.metrics import (
    auroc,
    auroc_interval,
    paired_interval,
    stratified_auroc,
    wilson,
)

__all__ = [
    "TASKS",
    "Baseline",
    "Patient",
    "PatientScores",
    "decision_figures",
    "frame_figures",
    "frame_margins",
    "negative_share",
    "patient_figures",
    "probabilities",
    "score_patients",
    "source_figures",
    "truth",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Baseline = Callable[[Sequence[Item]], Floats]
"""Scores items without looking at a pixel."""
TASKS = ("polyp_detection", "malignancy")
POOLINGS = ("unify", "mean", "max")


@dataclass(frozen=True)
class Patient:
    """A composed patient.

    Attributes:
        rows: Rows of an ``Embedded``, in order.
        positive: What the task asks for is among them.
        mixed: It holds a neoplastic and a non-neoplastic lesion.
        seed: Of the protocol run it belongs to.
        groups: Source groups of its lesions, the units of resampling; a patient without a lesion
            has those of the one it is compared with.
    """

    rows: tuple[int, ...]
    positive: bool
    mixed: bool
    seed: int
    groups: tuple[str, ...]


@dataclass(frozen=True)
class PatientScores:
    """Scores of p patients.

    Attributes:
        frames: (p,) scored frames; 0 where the gate set all aside.
        margin: (p,) margins of the pooled vectors, 0 without a scored frame.
        probability: By pooling, (p,) calibrated; 0.5 without a scored frame. ``unify`` is what
            the service answers; ``mean`` (the mean embedding) and ``max`` (the largest frame
            margin) go through the very same map with the same term for the frame count.
    """

    frames: npt.NDArray[np.int64]
    margin: Floats
    probability: dict[str, Floats]


def truth(task: str, items: Sequence[Item]) -> tuple[Bools, Bools]:
    """Truth (n,) and where it is known (n,); for malignancy only of items with a lesion."""
    told = [item.polyp if task == "polyp_detection" else item.neoplastic for item in items]
    return np.array([bool(t) for t in told]), np.array([t is not None for t in told])


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


def frame_figures(
    encoder: Encoder, found: Embedded, baseline: Baseline | None = None
) -> dict[str, Any]:
    """Single-frame figures by task and kind of item.

    Args:
        encoder: Of the bundle.
        found: Items.
        baseline: Stands beside every figure of malignancy.
    """
    figures: dict[str, Any] = {}
    for kind in sorted({item.kind for item in found.items}):
        mine = found.where([item.kind == kind for item in found.items])
        figures[kind] = {"coverage": float(mine.scored.mean()), "items": len(mine.items)}
        for task in TASKS:
            y, known = truth(task, mine.items)
            told, y = mine.where(known), y[known]
            if 0 < y.sum() < len(y):
                beside = baseline if task == "malignancy" else None
                figures[kind][task] = _both_classes(encoder, task, told, y, beside)
            elif len(y):
                one_class = figures[kind].setdefault("one_class", {})
                one_class[task] = _one_class(encoder, task, told, bool(y[0]))
        without = mine.where([item.polyp is False for item in mine.items])
        if len(without.items):
            figures[kind]["no_lesion"] = {"items": len(without.items)} | {
                f"{task}_specificity": negative_share(encoder, task, without)[0] for task in TASKS
            }
    return figures


def _both_classes(
    encoder: Encoder, task: str, found: Embedded, y: Bools, baseline: Baseline | None
) -> dict[str, Any]:
    p = probabilities(encoder, task, found)
    groups = [item.group for item in found.items]
    dims = [item.dims for item in found.items]
    decisions = _decisions(encoder, task, found, p)
    low, high = auroc_interval(y, p, groups)
    scored = found.scored
    figures: dict[str, Any] = {
        "auroc": auroc(y, p),
        "auroc_low": low,
        "auroc_high": high,
        "auroc_within_dimensions": stratified_auroc(y, p, dims),
        "positives": int(y.sum()),
        "negatives": int((~y).sum()),
        "groups": len(set(groups)),
        "balanced_sensitivity": float((decisions[y] == Decision.POSITIVE).mean()),
        "balanced_specificity": float((decisions[~y] == Decision.NEGATIVE).mean()),
        "balanced_abstained": float((decisions == Decision.ABSTAINED).mean()),
    } | _calibration_figures(p[scored], y[scored])
    if baseline is not None:
        figures["no_pixel"] = _beside(y, p, baseline(found.items), groups)
        figures["no_pixel"]["auroc_within_dimensions"] = stratified_auroc(
            y, baseline(found.items), dims
        )
    return figures


def _calibration_figures(p: Floats, y: Bools) -> dict[str, float | None]:
    """Of what was scored: 0.5 for what was set aside is no probability that anyone is told."""
    if not len(p):
        return {"ece15": None, "ece15_floor": None, "brier": None}
    return {
        "ece15": expected_calibration_error(p, y),
        "ece15_floor": ece_floor(p),
        "brier": float(((p - y) ** 2).mean()),
    }


def _beside(
    y: Bools, p: Floats, other: Floats, units: Sequence[str] | Sequence[tuple[str, ...]]
) -> dict[str, Any]:
    """AUROC of a baseline on the same items, and the model's lead over it."""
    low, high = paired_interval(y, p, other, units)
    own = auroc(y, other)
    return {"auroc": own, "lead": auroc(y, p) - own, "lead_low": low, "lead_high": high}


def _one_class(encoder: Encoder, task: str, found: Embedded, positive: bool) -> dict[str, Any]:
    """What can be said of items that are all positive or all negative, at the balanced point."""
    decisions = _decisions(encoder, task, found, probabilities(encoder, task, found))
    hits = int((decisions == (Decision.POSITIVE if positive else Decision.NEGATIVE)).sum())
    low, high = wilson(hits, len(decisions))
    return {
        "measures": "sensitivity" if positive else "specificity",
        "value": hits / len(decisions),
        "low": low,
        "high": high,
        "items": len(decisions),
        "groups": len({item.group for item in found.items}),
        "abstained": float((decisions == Decision.ABSTAINED).mean()),
    }


def negative_share(encoder: Encoder, task: str, found: Embedded) -> tuple[float, int]:
    """Share of items that the balanced point calls negative, and their number."""
    decisions = _decisions(encoder, task, found, probabilities(encoder, task, found))
    hits = int((decisions == Decision.NEGATIVE).sum())
    return hits / len(decisions), hits


def _decisions(encoder: Encoder, task: str, found: Embedded, p: Floats) -> npt.NDArray[np.object_]:
    """Decisions (n,) of the balanced point; what the gate sets aside is abstained from."""
    point = encoder.bundle.calibrations[task].operating_point("balanced")
    return np.array(
        [
            point.decide_frame(float(value)) if scored else Decision.ABSTAINED
            for value, scored in zip(p, found.scored, strict=True)
        ],
        dtype=object,
    )


def source_figures(encoder: Encoder, test: Embedded, polyps: Embedded) -> dict[str, Any]:
    """Figures of the sources that were never trained, calibrated or thresholded on.

    Args:
        encoder: Of the bundle.
        test: Their whole frames: normal ones, and non-informative ones whose ``polyp`` is None.
        polyps: Whole frames with a polyp, of other sources.

    Returns:
        By source, specificity on normal frames and recall of the quality gate on non-informative
        ones; and the AUROC of the polyp frames against all normal ones, which is confounded with
        the source: camera, border, device text.
    """
    figures: dict[str, Any] = {"normal": {}, "gate_recall": {}}
    normal = np.array([item.polyp is False for item in test.items])
    sources = np.array([item.source for item in test.items])
    for name in [*sorted(set(sources.tolist())), "all"]:
        here = (sources == name) | (name == "all")
        clean, spoiled = test.where(here & normal), test.where(here & ~normal)
        if len(clean.items):
            figures["normal"][name] = {
                task: _one_class(encoder, task, clean, positive=False) for task in TASKS
            }
        if len(spoiled.items):
            caught = int((~spoiled.scored).sum())
            low, high = wilson(caught, len(spoiled.items))
            figures["gate_recall"][name] = {
                "value": caught / len(spoiled.items),
                "low": low,
                "high": high,
                "items": len(spoiled.items),
            }
    clean = test.where(normal)
    if len(clean.items) and len(polyps.items):
        p = [probabilities(encoder, "polyp_detection", part) for part in (polyps, clean)]
        y = np.repeat([True, False], [len(part) for part in p])
        groups = [item.group for part in (polyps, clean) for item in part.items]
        low, high = auroc_interval(y, np.concatenate(p), groups)
        figures["polyp_frames_against_normal"] = {
            "note": "cross-source, confounded",
            "auroc": auroc(y, np.concatenate(p)),
            "auroc_low": low,
            "auroc_high": high,
            "positives": len(p[0]),
            "negatives": len(p[1]),
        }
    return figures


def score_patients(
    encoder: Encoder, task: str, found: Embedded, patients: Sequence[Patient]
) -> PatientScores:
    """Score patients as the service does; frames that the gate sets aside are left out."""
    label_set = encoder.bundle.label_set(task)
    classes = encoder.class_embeddings(label_set)
    calibration = encoder.bundle.calibrations[task]
    scale, index = encoder.bundle.manifest.logit_scale, label_set.positive_index or 0
    single, scored = frame_margins(encoder, task, found), found.scored
    counts, margins = [], []
    p: dict[str, list[float]] = {name: [] for name in POOLINGS}
    for patient in patients:
        rows = [r for r in patient.rows if scored[r]]
        counts.append(len(rows))
        if not rows:
            margins.append(0.0)
            for name in POOLINGS:
                p[name].append(0.5)
            continue
        embeddings = found.embeddings[rows]
        score = score_patient(encoder, label_set, classes, calibration, embeddings)
        mean = embeddings.mean(0, keepdims=True)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        z_mean = float(margin(cosines(mean, classes), index, scale)[0])
        margins.append(float(margin(score.cosines[None], index, scale)[0]))
        p["unify"].append(0.5 if score.probability is None else score.probability)
        p["mean"].append(_mapped(calibration, z_mean, len(rows)))
        p["max"].append(_mapped(calibration, float(single[rows].max()), len(rows)))
    return PatientScores(
        np.array(counts, np.int64),
        np.array(margins, np.float64),
        {name: np.array(values, np.float64) for name, values in p.items()},
    )


def _mapped(calibration: Calibration, z: float, frames: int) -> float:
    if frames == 1:
        return float(calibration.frame.probability(np.array([z]))[0])
    return calibration.patient.probability(z, frames)


def patient_figures(
    encoder: Encoder,
    task: str,
    found: Embedded,
    patients: Sequence[Patient],
    baseline: Baseline | None = None,
) -> dict[str, Any]:
    """Figures per patient, of the probability and the decision that the service would give.

    Intervals weigh each patient by the product of the draws of its lesions' source groups;
    patients share background views, so the true width is somewhat larger (stated in the card).

    Args:
        encoder: Of the bundle.
        task: A task.
        found: The views that ``patients`` are made of.
        patients: Of both classes.
        baseline: Stands beside; it is told which frames show a lesion, and takes the largest.
    """
    y = np.array([p.positive for p in patients], dtype=bool)
    scores = score_patients(encoder, task, found, patients)
    units = [p.groups for p in patients]
    served = scores.probability["unify"]
    seeds = np.array([p.seed for p in patients])
    figures: dict[str, Any] = {"patients": len(patients), "positives": int(y.sum())}
    for name in POOLINGS:
        p = scores.probability[name]
        low, high = auroc_interval(y, p, units)
        figures[name] = {
            "auroc": auroc(y, p),
            "auroc_low": low,
            "auroc_high": high,
            "per_seed": [auroc(y[seeds == s], p[seeds == s]) for s in np.unique(seeds)],
        }
    for other in ("mean", "max"):
        figures[f"unify_minus_{other}"] = paired_interval(
            y, served, scores.probability[other], units
        )
    mixed = np.array([p.mixed for p in patients])
    figures |= decision_figures(encoder.bundle.calibrations[task], scores, y)
    detected = _patient_decisions(encoder.bundle.calibrations[task], scores) == Decision.POSITIVE
    figures["mixed_sensitivity"] = float(detected[mixed].mean()) if mixed.any() else None
    scored = scores.frames > 0
    figures |= _calibration_figures(served[scored], y[scored])
    if baseline is not None:
        figures["no_pixel"] = _beside(y, served, _largest(baseline, found, patients), units)
    return figures


def decision_figures(calibration: Calibration, scores: PatientScores, y: Bools) -> dict[str, Any]:
    """Sensitivity, specificity and abstained share of the balanced point; None without a class."""
    decisions = _patient_decisions(calibration, scores)
    return {
        "balanced_sensitivity": _mean(decisions[y] == Decision.POSITIVE),
        "balanced_specificity": _mean(decisions[~y] == Decision.NEGATIVE),
        "balanced_abstained": _mean(decisions == Decision.ABSTAINED),
    }


def _mean(hits: Bools) -> float | None:
    return float(hits.mean()) if len(hits) else None


def _patient_decisions(calibration: Calibration, scores: PatientScores) -> npt.NDArray[np.object_]:
    point = calibration.operating_point("balanced")
    told = zip(scores.probability["unify"], scores.frames, strict=True)
    return np.array(
        [point.decide_patient(float(p), int(n)) if n else Decision.ABSTAINED for p, n in told],
        dtype=object,
    )


def _largest(baseline: Baseline, found: Embedded, patients: Sequence[Patient]) -> Floats:
    scores = baseline(found.items)
    lesion = np.array([bool(item.polyp) for item in found.items])
    least = float(scores.min()) if len(scores) else 0.0
    return np.array(
        [max((float(scores[r]) for r in p.rows if lesion[r]), default=least) for p in patients]
    )
