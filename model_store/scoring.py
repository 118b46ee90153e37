"""From embeddings to cosines, probabilities and decisions: pure functions and their numbers.

A probability of the positive label is a logistic map of one margin,
`z = logit_scale * (cosine of the positive label - mean cosine of the others)`. The map of a patient
of n frames has two terms more. `log_n * ln n`, because an attention query that may choose among
more frames finds a higher cosine in any of them; `shift * (1 - 1/n)`, because what is positive
among frames that somebody chose is not as often positive among patients. Both are 0 at n = 1, and
at most 0: one more frame is never evidence by its number.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite, log

import numpy as np
import numpy.typing as npt

from model_store.adapters import Adapter
from model_store.errors import BundleCorrupt, UnknownOperatingPoint
from model_store.schema import parse_json, read_as, write_json

__all__ = [
    "Calibration",
    "Decision",
    "FloatArray",
    "FrameMap",
    "OperatingPoint",
    "PatientMap",
    "cosines",
    "decide",
    "margin",
    "probability_scores",
    "read_calibrations",
    "sigmoid",
    "softmax",
    "unit_rows",
    "write_calibrations",
]

FloatArray = npt.NDArray[np.floating]


class Decision(StrEnum):
    """What an operating point makes of a probability."""

    POSITIVE = "positive"
    """At or above the threshold, outside the abstention band."""
    NEGATIVE = "negative"
    """Below the threshold, outside the abstention band."""
    ABSTAINED = "abstained"
    """Inside the abstention band: too close to call."""


@dataclass(frozen=True, slots=True)
class FrameMap:
    """Logistic map of one frame's margin; slope above 0."""

    slope: float
    intercept: float

    def probability(self, z: FloatArray) -> FloatArray:
        """Map margins (n,) to probabilities (n,) of the positive label."""
        return sigmoid(self.slope * np.asarray(z, np.float64) + self.intercept)


@dataclass(frozen=True, slots=True)
class PatientMap:
    """Logistic map of a patient's margin and frame count; slope above 0, log_n, shift at most 0."""

    slope: float
    intercept: float
    log_n: float
    shift: float

    def probability(self, z: float, frames: int) -> float:
        """Map the margin of a pooled vector over `frames` frames to a probability."""
        logit = self.slope * z + self.intercept + self.log_n * log(frames)
        logit += self.shift * (1 - 1 / frames)
        return float(sigmoid(np.asarray([logit]))[0])


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """Thresholds of one named way to use the bundle, chosen on the `calibrate` part.

    Attributes:
        name: `sensitivity_first`, `balanced` or `specificity_first`.
        frame_threshold: lowest probability of a positive frame.
        patient_threshold: the same for a patient of two frames or more.
        frame_abstain: probabilities (low, high) between which a frame is not decided, or None.
        patient_abstain: the same for a patient.
        measured: sensitivity, specificity and what else was measured at these thresholds.
    """

    name: str
    frame_threshold: float
    patient_threshold: float
    frame_abstain: tuple[float, float] | None = None
    patient_abstain: tuple[float, float] | None = None
    measured: Mapping[str, float] = field(default_factory=dict)

    def decide_frame(self, probability: float) -> Decision:
        """Decide one frame."""
        return decide(probability, self.frame_threshold, self.frame_abstain)

    def decide_patient(self, probability: float, frames: int) -> Decision:
        """Decide a patient of `frames` scored frames; one frame is decided as that frame."""
        if frames == 1:
            return self.decide_frame(probability)
        return decide(probability, self.patient_threshold, self.patient_abstain)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Everything that turns one label set's cosines into probabilities and decisions.

    Attributes:
        frame: map of a frame's margin.
        patient: map of a patient's margin.
        operating_points: by name.
        adapter: a site's own, which corrects the margins before they are mapped; a bundle has none.
    """

    frame: FrameMap
    patient: PatientMap
    operating_points: Mapping[str, OperatingPoint]
    adapter: Adapter | None = None

    def corrections(self, embeddings: FloatArray) -> npt.NDArray[np.float64]:
        """Give what is added to the margins of unit embeddings (n, d): float64 (n,)."""
        if self.adapter is None:
            return np.zeros(len(embeddings))
        return self.adapter.correction(embeddings)

    def patient_correction(self, corrections: FloatArray, attention: FloatArray) -> float:
        """Give what is added to the margin of a patient's pooled vector.

        The frames' corrections (n,), weighted by their attention (n,): what a correction that is
        linear gives on the weighted mean of the frames. `unify` may scale margins; the two slopes,
        which agree on a patient of one frame, say by how much.
        """
        return float(attention @ corrections) * self.frame.slope / self.patient.slope

    def operating_point(self, name: str) -> OperatingPoint:
        """Look up an operating point.

        Raises:
            UnknownOperatingPoint: carrying the known names.
        """
        try:
            return self.operating_points[name]
        except KeyError:
            raise UnknownOperatingPoint(name, self.operating_points) from None


@dataclass(frozen=True, slots=True)
class _StoredPoint:
    """Shape of one operating point in calibration.json."""

    frame_threshold: float
    patient_threshold: float
    frame_abstain: tuple[float, float] | None
    patient_abstain: tuple[float, float] | None
    measured: dict[str, float]


@dataclass(frozen=True, slots=True)
class _StoredWithoutShift:
    """Shape of a patient's map in bundles up to 0.2.0, whose shift is 0."""

    slope: float
    intercept: float
    log_n: float


@dataclass(frozen=True, slots=True)
class _StoredCalibration:
    """Shape of one entry of calibration.json."""

    frame: FrameMap
    patient: PatientMap | _StoredWithoutShift
    operating_points: dict[str, _StoredPoint]


def unit_rows(rows: FloatArray) -> FloatArray:
    """Scale rows (n, d) to length 1; a row of zeros stays zeros. Keeps the dtype."""
    norms = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(norms, np.finfo(np.float32).tiny), dtype=rows.dtype)


def cosines(embeddings: FloatArray, classes: FloatArray) -> FloatArray:
    """Similarity of unit embeddings (n, d) to unit class embeddings (k, d): (n, k) in -1 to 1."""
    return np.clip(embeddings @ classes.T, -1.0, 1.0)


def softmax(logits: FloatArray) -> FloatArray:
    """Softmax over the last axis in float64; finite for any finite logits."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def sigmoid(z: FloatArray) -> FloatArray:
    """Logistic function in float64, without overflow for any finite input."""
    wide = np.asarray(z, np.float64)
    small = np.exp(-np.abs(wide))
    return np.asarray(np.where(wide >= 0, 1.0, small) / (1.0 + small))


def margin(cosine: FloatArray, positive: int, logit_scale: float) -> FloatArray:
    """Scaled distance of the positive label from the mean of the others.

    Args:
        cosine: (n, k), k at least 2.
        positive: index of the positive label.
        logit_scale: positive factor of the bundle.

    Returns:
        float64 (n,).
    """
    wide = np.asarray(cosine, np.float64)
    others = np.delete(wide, positive, axis=-1).mean(axis=-1)
    return np.asarray(logit_scale * (wide[..., positive] - others))


def probability_scores(
    probability: FloatArray, cosine: FloatArray, positive: int, logit_scale: float
) -> FloatArray:
    """Scores of all labels, given the positive one's calibrated probability.

    Args:
        probability: (n,) in 0-1.
        cosine: (n, k).
        positive: index of the positive label.
        logit_scale: positive factor of the bundle.

    Returns:
        float64 (n, k), rows summing to 1: the probability at `positive`, the rest of the mass
        shared by the others as their softmax has it.
    """
    rest = softmax(logit_scale * np.delete(np.asarray(cosine, np.float64), positive, axis=-1))
    mass = np.asarray(probability, np.float64)
    return np.insert((1.0 - mass)[:, None] * rest, positive, mass, axis=1)


def decide(probability: float, threshold: float, abstain: tuple[float, float] | None) -> Decision:
    """Decide a probability; the abstention band is closed below and open above."""
    if abstain is not None and abstain[0] <= probability < abstain[1]:
        return Decision.ABSTAINED
    return Decision.POSITIVE if probability >= threshold else Decision.NEGATIVE


def read_calibrations(data: bytes, where: str = "calibration.json") -> dict[str, Calibration]:
    """Read calibration.json, by label set.

    Raises:
        BundleCorrupt: not the expected JSON, or a number without meaning.
    """
    stored = read_as(dict[str, _StoredCalibration], parse_json(data, where), where)
    return {name: _checked(entry, f"{where}: /{name}") for name, entry in stored.items()}


def write_calibrations(calibrations: Mapping[str, Calibration]) -> bytes:
    """Write calibration.json."""
    return write_json({name: _stored(item) for name, item in calibrations.items()})


def _stored(calibration: Calibration) -> _StoredCalibration:
    points = {
        name: _StoredPoint(
            point.frame_threshold,
            point.patient_threshold,
            point.frame_abstain,
            point.patient_abstain,
            dict(point.measured),
        )
        for name, point in calibration.operating_points.items()
    }
    return _StoredCalibration(calibration.frame, calibration.patient, points)


def _checked(stored: _StoredCalibration, where: str) -> Calibration:
    patient = stored.patient
    if isinstance(patient, _StoredWithoutShift):
        patient = PatientMap(patient.slope, patient.intercept, patient.log_n, 0.0)
    for name, line in (("frame", stored.frame), ("patient", patient)):
        # A slope of 0 or below would level or reverse the order of all scores.
        if not (isfinite(line.slope) and line.slope > 0 and isfinite(line.intercept)):
            raise BundleCorrupt(f"{where}/{name}", "a slope above 0, finite numbers", str(line))
    # Above 0 any patient of enough normal frames would be positive. Written so that NaN fails.
    for name in ("log_n", "shift"):
        value = getattr(patient, name)
        if not (isfinite(value) and value <= 0):
            raise BundleCorrupt(f"{where}/patient", f"{name} of at most 0", str(patient))
    points = {}
    for name, point in stored.operating_points.items():
        _check_point(point, f"{where}/operating_points/{name}")
        points[name] = OperatingPoint(
            name,
            point.frame_threshold,
            point.patient_threshold,
            point.frame_abstain,
            point.patient_abstain,
            point.measured,
        )
    return Calibration(stored.frame, patient, points)


def _check_point(point: _StoredPoint, where: str) -> None:
    pairs = (
        ("frame", point.frame_threshold, point.frame_abstain),
        ("patient", point.patient_threshold, point.patient_abstain),
    )
    for name, threshold, band in pairs:
        if not 0.0 <= threshold <= 1.0:
            raise BundleCorrupt(f"{where}/{name}_threshold", "0 to 1", str(threshold))
        if band is not None and not 0.0 <= band[0] <= band[1] <= 1.0:
            raise BundleCorrupt(f"{where}/{name}_abstain", "0 <= low <= high <= 1", str(band))
