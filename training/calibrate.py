"""From margins to probabilities and operating points, on the ``calibrate`` part.

Platt scaling (Platt 1999) for frames; for patients the log of the frame count enters, because
attention pooling is max-like: any query finds more to like among more frames, and one threshold
must hold for all n.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression

from model_store.scoring import FrameMap, OperatingPoint, PatientMap

__all__ = [
    "ece_floor",
    "expected_calibration_error",
    "fit_frame_map",
    "fit_patient_map",
    "operating_points",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

SMALLEST_SLOPE = 1e-3  # a model without skill still gets an increasing map, and a card that says so
ABSTAIN_HALF_WIDTH = 0.03  # of the balanced point: closer than this a decision is a coin toss


def fit_frame_map(z: Floats, y: Bools) -> FrameMap:
    """Fit p = sigmoid(slope z + intercept).

    Args:
        z: (n,) margins.
        y: (n,) truth, both classes present.
    """
    fit = LogisticRegression(C=100.0).fit(z[:, None], y)
    return FrameMap(max(float(fit.coef_[0, 0]), SMALLEST_SLOPE), float(fit.intercept_[0]))


def fit_patient_map(z: Floats, frames: npt.NDArray[np.int64], y: Bools) -> PatientMap:
    """Fit p = sigmoid(slope z + intercept + log_n ln n).

    Args:
        z: (p,) margins of pooled vectors.
        frames: (p,) scored frames, at least 1.
        y: (p,) truth.
    """
    fit = LogisticRegression(C=100.0).fit(np.column_stack([z, np.log(frames)]), y)
    slope, log_n = (float(c) for c in fit.coef_[0])
    return PatientMap(max(slope, SMALLEST_SLOPE), float(fit.intercept_[0]), log_n)


def operating_points(
    frame: tuple[Floats, Bools], patient: tuple[Floats, Bools]
) -> dict[str, OperatingPoint]:
    """Three named points, each with what it measured on these items.

    ``balanced`` maximises sensitivity + specificity (Youden 1950); ``sensitivity_first`` is the
    highest threshold with sensitivity of at least 0.95, ``specificity_first`` the lowest with
    specificity of at least 0.95.

    Args:
        frame: Probabilities and truth of frames.
        patient: Probabilities and truth of patients.
    """
    points = {}
    for name in ("balanced", "sensitivity_first", "specificity_first"):
        thresholds = {"frame": _threshold(name, *frame), "patient": _threshold(name, *patient)}
        measured = {}
        for level, (p, y) in (("frame", frame), ("patient", patient)):
            positive = p >= thresholds[level]
            measured[f"{level}_sensitivity"] = float(positive[y].mean())
            measured[f"{level}_specificity"] = float((~positive[~y]).mean())
        bands = {k: _band(t) if name == "balanced" else None for k, t in thresholds.items()}
        points[name] = OperatingPoint(
            name,
            thresholds["frame"],
            thresholds["patient"],
            bands["frame"],
            bands["patient"],
            measured,
        )
    return points


def _threshold(name: str, p: Floats, y: Bools) -> float:
    """Candidate thresholds lie half-way between neighbouring distinct probabilities."""
    distinct = np.unique(p)
    candidates = np.concatenate([[distinct[0]], (distinct[1:] + distinct[:-1]) / 2])
    sensitivity = np.array([(p[y] >= t).mean() for t in candidates])
    specificity = np.array([(p[~y] < t).mean() for t in candidates])
    if name == "balanced":
        return float(candidates[np.argmax(sensitivity + specificity)])
    if name == "sensitivity_first":
        return float(candidates[np.flatnonzero(sensitivity >= 0.95)[-1]])
    enough = np.flatnonzero(specificity >= 0.95)
    return float(candidates[enough[0]] if len(enough) else distinct[-1])


def _band(threshold: float) -> tuple[float, float]:
    return max(0.0, threshold - ABSTAIN_HALF_WIDTH), min(1.0, threshold + ABSTAIN_HALF_WIDTH)


def expected_calibration_error(p: Floats, y: Bools, bins: int = 15) -> float:
    """ECE over equal-width bins (Guo 2017): mean |confidence - frequency|, weighted by count."""
    which = np.clip((p * bins).astype(int), 0, bins - 1)
    total = 0.0
    for b in range(bins):
        inside = which == b
        if inside.any():
            total += float(inside.mean() * abs(p[inside].mean() - y[inside].mean()))
    return total


def ece_floor(p: Floats, bins: int = 15, repeats: int = 200, seed: int = 0) -> float:
    """Mean ECE of a perfectly calibrated model with these probabilities, by sampling alone."""
    rng = np.random.default_rng(seed)
    return float(
        np.mean(
            [expected_calibration_error(p, rng.random(len(p)) < p, bins) for _ in range(repeats)]
        )
    )
