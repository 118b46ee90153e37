"""From margins to probabilities and operating points, on the ``calibrate`` part.

Platt scaling (Platt 1999) for frames. For patients the frame count enters: by its logarithm,
because attention pooling is max-like (any query finds more to like among more frames, and one
threshold must hold for all n), and by a shift that makes up for patients being positive less often.

A decision that falls into the abstention band counts neither as a detection nor as a correct
rejection, here and in every figure: abstaining can never improve sensitivity or specificity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression

from model_store.scoring import Decision, FrameMap, OperatingPoint, PatientMap, decide

__all__ = [
    "POINTS",
    "Alone",
    "Judged",
    "abstain_band",
    "choose_threshold",
    "ece_floor",
    "expected_calibration_error",
    "fit_frame_map",
    "fit_patient_map",
    "kind_weights",
    "operating_points",
]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

POINTS = ("balanced", "sensitivity_first", "specificity_first")
SMALLEST_SLOPE = 1e-3  # a model without skill still gets an increasing map, and a card that says so
STEEPEST_LOG_N = -5.0  # bound of the search; beyond it two frames count for nothing
LOWEST_SHIFT = -5.0  # bound of the search; beyond it no patient of several frames is positive
ABSTAIN_HALF_WIDTH = 0.03  # of the balanced point: closer than this a decision is a coin toss
ABSTAIN_SHARE = 0.05  # at most: on a narrow scale of probabilities 0.03 took a quarter of patients


@dataclass(frozen=True)
class Judged:
    """Probabilities of frames or patients with their truth.

    Attributes:
        p: (n,) probabilities.
        y: (n,) truth, both classes present.
        weights: (n,) above 0, or None where all count alike.
        no_lesion: (m,) probabilities of others that show no lesion, whose specificity is measured
            apart; None where that is no question of its own.
        no_lesion_weights: (m,), or None.
    """

    p: Floats
    y: Bools
    weights: Floats | None = None
    no_lesion: Floats | None = None
    no_lesion_weights: Floats | None = None


def kind_weights(kinds: Sequence[str]) -> Floats:
    """Weights (n,), mean 1, under which every kind of item counts alike, however many it has.

    Views outnumber whole frames ten to one; unweighted, the map would be theirs alone.
    """
    _, inverse, counts = np.unique(np.array(kinds), return_inverse=True, return_counts=True)
    return np.asarray(len(kinds) / (len(counts) * counts[inverse]), np.float64)


def fit_frame_map(z: Floats, y: Bools, weights: Floats | None = None) -> FrameMap:
    """Fit p = sigmoid(slope z + intercept).

    Args:
        z: (n,) margins.
        y: (n,) truth, both classes present.
        weights: (n,), or None.
    """
    fit = LogisticRegression(C=100.0).fit(z[:, None], y, sample_weight=weights)
    return FrameMap(max(float(fit.coef_[0, 0]), SMALLEST_SLOPE), float(fit.intercept_[0]))


@dataclass(frozen=True)
class Alone:
    """Single frames as such, and seen through unify.

    Attributes:
        frame: (m,) margins of the frames.
        pooled: (m,) margins of the vectors that unify pools over that frame alone.
        weights: (m,), or None.
    """

    frame: Floats
    pooled: Floats
    weights: Floats | None = None


def fit_patient_map(
    frame: FrameMap, alone: Alone, z: Floats, frames: npt.NDArray[np.int64], y: Bools
) -> PatientMap:
    """Continue the frame's map to patients of n frames.

    p = sigmoid(slope z + intercept + log_n ln n + shift (1 - 1/n)), log_n and shift at most 0.

    The paper does not give this. We choose slope and intercept so that at n = 1 the map is the
    frame's, because a further look at the same frame must not change the question. They are not
    the frame's own two numbers: unify projects before it pools, which scales margins (by 0.75 to
    1.02 in three bundles) and shifts them, so they come from single frames seen through it
    (correlation 0.97 and more), by least squares on the logits. We choose log_n of at most 0,
    because it pays for the choice among n frames, and one more normal frame is never evidence of
    a lesion. What a unit of ln n is worth in margins is taken from a free logistic fit to patients
    of 2 to 200 frames, because there it is told apart from the prior: fitted as the one free
    number beside fixed slope and intercept, log_n made up for the higher share of positives among
    the frames, and of malignant patients with 60 frames or more it found 3 % where this rate of
    exchange finds 54 % (one experimental bundle, calibrate part).

    What is left is the prior: frames that show what they were chosen for are oftener positive than
    patients (malignancy: 0.7 against 0.5). We choose shift by maximum likelihood with the other
    three held, times 1 - 1/n because one frame is still the frame's question and a tenth changes
    little. It moves thresholds and probabilities alike: decisions, and what is ahead of what among
    patients of about as many frames, stay. A slope of its own for patients, with the least of both
    maps, fits the `calibrate` part better still and is worse on `select` for malignancy
    (training/LOG.md).

    A map fitted freely (0.1.0) takes up how the calibration patients were made: one clear polyp
    beside one normal frame came out negative, and further normal frames raised it.

    Args:
        frame: The frame's map.
        alone: Single frames.
        z: (p,) margins of pooled vectors.
        frames: (p,) scored frames, at least 2.
        y: (p,) truth, both classes present.
    """
    wanted = frame.slope * alone.frame + frame.intercept
    weights = np.ones(len(wanted)) if alone.weights is None else alone.weights
    slope = max(float(np.polyfit(alone.pooled, wanted, 1, w=np.sqrt(weights))[0]), SMALLEST_SLOPE)
    intercept = float(np.average(wanted - slope * alone.pooled, weights=weights))
    free = LogisticRegression(C=100.0).fit(np.column_stack([z, np.log(frames)]), y)
    per_z, per_log_n = (float(c) for c in free.coef_[0])
    # Margins without skill give no rate of exchange.
    log_n = slope * per_log_n / per_z if per_z > SMALLEST_SLOPE else 0.0
    log_n = float(np.clip(log_n, STEEPEST_LOG_N, 0.0))
    logit = slope * z + intercept + log_n * np.log(frames)
    return PatientMap(slope, intercept, log_n, _fit_shift(logit, frames, y))


def _fit_shift(logit: Floats, frames: npt.NDArray[np.int64], y: Bools) -> float:
    share = 1.0 - 1.0 / frames

    def loss(shift: float) -> float:
        moved = logit + shift * share
        return float(np.logaddexp(0.0, np.where(y, -moved, moved)).mean())

    found = minimize_scalar(loss, bounds=(LOWEST_SHIFT, 0.0), method="bounded")
    return min(float(found.x), 0.0) if loss(float(found.x)) < loss(0.0) else 0.0


def operating_points(frame: Judged, patient: Judged) -> dict[str, OperatingPoint]:
    """Three named points, each with what it measured on these items.

    ``balanced`` maximises sensitivity + specificity (Youden 1950) and abstains close to its
    threshold; ``sensitivity_first`` is the highest threshold with sensitivity of at least 0.95,
    ``specificity_first`` the lowest with specificity of at least 0.95.

    Args:
        frame: Frames.
        patient: Patients of two scored frames or more.
    """
    points = {}
    for name in POINTS:
        thresholds: dict[str, float] = {}
        bands: dict[str, tuple[float, float] | None] = {}
        measured: dict[str, float] = {}
        for level, judged in (("frame", frame), ("patient", patient)):
            threshold = choose_threshold(name, judged)
            band = abstain_band(threshold, judged) if name == "balanced" else None
            thresholds[level], bands[level] = threshold, band
            found = _measure(judged, threshold, band)
            measured |= {f"{level}_{key}": value for key, value in found.items()}
        points[name] = OperatingPoint(
            name,
            thresholds["frame"],
            thresholds["patient"],
            bands["frame"],
            bands["patient"],
            measured,
        )
    return points


def _measure(
    judged: Judged, threshold: float, band: tuple[float, float] | None
) -> dict[str, float]:
    decisions = np.array([decide(float(p), threshold, band) for p in judged.p])
    weights = np.ones(len(judged.p)) if judged.weights is None else judged.weights
    y = judged.y
    measured = {
        "sensitivity": _share(decisions[y] == Decision.POSITIVE, weights[y]),
        "specificity": _share(decisions[~y] == Decision.NEGATIVE, weights[~y]),
        "abstained": _share(decisions == Decision.ABSTAINED, weights),
    }
    if judged.no_lesion is not None and len(judged.no_lesion):
        negative = [
            decide(float(p), threshold, band) is Decision.NEGATIVE for p in judged.no_lesion
        ]
        measured["no_lesion_specificity"] = _share(np.array(negative), judged.no_lesion_weights)
    return measured


def _share(hits: Bools, weights: Floats | None) -> float:
    return float(np.average(hits, weights=weights))


def choose_threshold(name: str, judged: Judged, wanted: float = 0.95) -> float:
    """The threshold of a named point, half-way between neighbouring distinct probabilities.

    Args:
        name: Of ``POINTS``.
        judged: Frames or patients.
        wanted: Least sensitivity of ``sensitivity_first``, least specificity of
            ``specificity_first``.
    """
    p, y = judged.p, judged.y
    w = np.ones(len(p)) if judged.weights is None else judged.weights
    distinct, place = np.unique(p, return_inverse=True)
    candidates = np.concatenate([[distinct[0]], (distinct[1:] + distinct[:-1]) / 2])
    # Candidate i lies just below distinct value i: everything from there on is positive.
    positives = np.bincount(place, weights=w * y, minlength=len(distinct))
    negatives = np.bincount(place, weights=w * ~y, minlength=len(distinct))
    sensitivity = np.cumsum(positives[::-1])[::-1] / positives.sum()
    specificity = (np.cumsum(negatives) - negatives) / negatives.sum()
    if name == "balanced":
        return float(candidates[np.argmax(sensitivity + specificity)])
    # Sums of weights round: a share of exactly what is wanted must pass.
    if name == "sensitivity_first":
        return float(candidates[np.flatnonzero(sensitivity >= wanted - 1e-12)[-1]])
    enough = np.flatnonzero(specificity >= wanted - 1e-12)
    return float(candidates[enough[0]] if len(enough) else distinct[-1])


def abstain_band(threshold: float, judged: Judged) -> tuple[float, float]:
    """The widest band up to the half-width that takes no more than ``ABSTAIN_SHARE`` of items."""
    away = np.abs(judged.p - threshold)
    order = np.argsort(away)
    weights = np.ones(len(away)) if judged.weights is None else judged.weights[order]
    taken = np.cumsum(weights) / weights.sum()
    beyond = np.flatnonzero(taken > ABSTAIN_SHARE)
    half = ABSTAIN_HALF_WIDTH
    if len(beyond):
        first, last = away[order[beyond[0]]], away[order[beyond[0] - 1]] if beyond[0] else 0.0
        half = min(half, float(first + last) / 2)
    return max(0.0, threshold - half), min(1.0, threshold + half)


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
