"""Scores one patient: its frames one by one, and all of them together.

`no_polyp` and `benign` are claims about all frames, and an attention query finds some frame. So in
a set with a positive label that label's query alone attends, and every label is scored on the one
vector it pooled; only sets without a positive label attend label by label. The service and the
evaluation in training both come through here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.encoder import Floats, Unifier
from model_store.errors import InvalidInput
from model_store.label_sets import LabelSet
from model_store.scoring import (
    Calibration,
    FloatArray,
    cosines,
    margin,
    probability_scores,
    softmax,
    unit_rows,
)

__all__ = ["PatientScore", "heatmap", "score_patient"]


@dataclass(frozen=True, slots=True)
class PatientScore:
    """Scores of n frames and of the patient they make, for k labels in the set's order.

    Attributes:
        frame_cosines: float32 (n, k).
        frame_scores: float64 (n, k), rows summing to 1; calibrated where there is a probability,
            else the softmax at the bundle's logit scale.
        frame_probability: float64 (n,) of the positive label, calibrated; None without calibration.
        attention: weight of each frame, summing to 1: (n,) of the positive label's query, or (k, n)
            one row per label where the set has no positive label.
        cosines: float32 (k,) of the pooled vector (each label's own, without a positive label).
        scores: float64 (k,), summing to 1.
        probability: of the positive label, calibrated; None without calibration.
    """

    frame_cosines: FloatArray
    frame_scores: npt.NDArray[np.float64]
    frame_probability: npt.NDArray[np.float64] | None
    attention: FloatArray
    cosines: FloatArray
    scores: npt.NDArray[np.float64]
    probability: float | None


def score_patient(
    encoder: Unifier,
    label_set: LabelSet,
    classes: Floats,
    calibration: Calibration | None,
    embeddings: Floats,
) -> PatientScore:
    """Score a patient's frames.

    Args:
        encoder: gives `unify` and the logit scale.
        label_set: k labels; its positive label decides who attends.
        classes: float32 (k, d), as `encoder.class_embeddings` gives them.
        calibration: of this set, the bundle's or a site's; used only with a positive label. None
            gives softmax scores.
        embeddings: float32 (n, d) of the frames that count, n at least 1.

    Returns:
        The scores. With one frame the patient's are that frame's.

    Raises:
        InvalidInput: no frame.
        EncodeFailed: `unify` did not run.
    """
    if len(embeddings) == 0:
        raise InvalidInput("expected at least one frame to score; found none")
    scale, positive = encoder.bundle.manifest.logit_scale, label_set.positive_index
    frame_cosines = cosines(embeddings, classes)
    frame_scores = softmax(scale * frame_cosines)
    frame_probability = None
    corrections = np.zeros(len(embeddings))
    if calibration is not None and positive is not None:
        corrections = calibration.corrections(embeddings)
        frame_probability = calibration.frame.probability(
            margin(frame_cosines, positive, scale) + corrections
        )
        frame_scores = probability_scores(frame_probability, frame_cosines, positive, scale)
    if len(embeddings) == 1:
        attention = np.ones(1 if positive is not None else (len(classes), 1), np.float32)
        pooled_cosines, scores = frame_cosines[0], frame_scores[0]
        probability = None if frame_probability is None else float(frame_probability[0])
    else:
        pooled_cosines, attention = _pool(encoder, classes, positive, embeddings)
        scores, probability = softmax(scale * pooled_cosines), None
        if calibration is not None and positive is not None:
            z = float(margin(pooled_cosines[None], positive, scale)[0])
            z += calibration.patient_correction(corrections, attention)
            probability = calibration.patient.probability(z, len(embeddings))
            scores = probability_scores(
                np.asarray([probability]), pooled_cosines[None], positive, scale
            )[0]
    return PatientScore(
        frame_cosines,
        np.asarray(frame_scores, np.float64),
        None if frame_probability is None else np.asarray(frame_probability, np.float64),
        attention,
        pooled_cosines,
        np.asarray(scores, np.float64),
        probability,
    )


def heatmap(grid: Floats, classes: Floats, label: int, logit_scale: float) -> FloatArray:
    """Show where in a frame a label is seen.

    Args:
        grid: float32 (rows, columns, d), one frame's from `encode_images_with_grid`.
        classes: float32 (k, d).
        label: index of the label to show.
        logit_scale: positive factor of the bundle.

    Returns:
        float64 (rows, columns) in 0-1: the label's softmax share at each place. Not calibrated, and
        not stretched to fill the range: a frame without the label stays low everywhere.
    """
    rows, columns, width = grid.shape
    places = unit_rows(grid.reshape(-1, width))
    shares = softmax(logit_scale * cosines(places, classes))[:, label]
    return np.asarray(shares.reshape(rows, columns))


def _pool(
    encoder: Unifier, classes: Floats, positive: int | None, embeddings: Floats
) -> tuple[FloatArray, FloatArray]:
    """Attend; gives (cosines (k,), attention (n,) or (k, n))."""
    queries = classes if positive is None else classes[positive : positive + 1]
    seen = np.ones(len(embeddings), np.bool_)
    pooled, attention = encoder.unify(embeddings, seen, np.ascontiguousarray(queries))
    pooled = unit_rows(pooled).astype(np.float32)
    if positive is None:
        return np.clip((pooled * classes).sum(axis=1), -1.0, 1.0), attention
    return cosines(pooled, classes)[0], attention[0]
