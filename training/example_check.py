"""Score the drawn example frames with a bundle: whoever tries the service tries these first."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from model_store.encoder import Encoder
from model_store.images import decode
from model_store.patient import score_patient
from model_store.quality import QualityLimits, assess
from model_store.scoring import Decision

__all__ = ["EXAMPLES", "check_examples"]

log = logging.getLogger(__name__)

EXAMPLES = Path(__file__).parents[1] / "examples"
TASK = "polyp_detection"
PATIENTS = {
    "polyp_1 + normal_1": (("polyp_1", "normal_1"), True),
    "normal_1 + normal_2 + normal_3": (("normal_1", "normal_2", "normal_3"), False),
}


def check_examples(encoder: Encoder, folder: Path = EXAMPLES) -> dict[str, Any]:
    """Score every ``polyp_*.jpg`` and ``normal_*.jpg``, and two patients made of them.

    Args:
        encoder: Of a calibrated bundle.
        folder: Holds the frames.

    Returns:
        ``frames`` and ``patients``, each name -> probability, decision and ``right``: a frame on
        its side of the balanced threshold, a patient with the decision that is due. Empty where
        there are no examples. What is wrong is also logged as a warning.
    """
    paths = sorted([*folder.glob("polyp_*.jpg"), *folder.glob("normal_*.jpg")])
    if not paths:
        return {}
    contract = encoder.bundle.manifest.input
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    pixels = {path.stem: decode(path.read_bytes(), contract) for path in paths}
    rows = encoder.encode_images(np.stack(list(pixels.values())))
    embeddings = dict(zip(pixels, rows, strict=True))
    point = encoder.bundle.calibrations[TASK].operating_point("balanced")
    frames = {}
    for name, row in embeddings.items():
        p = _probability(encoder, row[None])
        side = (p >= point.frame_threshold) == name.startswith("polyp")
        frames[name] = {
            "probability": p,
            "decision": str(point.decide_frame(p)),
            "right": side and assess(pixels[name], limits) is None,
        }
    patients = {}
    for name, (parts, positive) in PATIENTS.items():
        if not set(parts) <= set(embeddings):
            continue
        p = _probability(encoder, np.stack([embeddings[part] for part in parts]))
        decision = point.decide_patient(p, len(parts))
        due = Decision.POSITIVE if positive else Decision.NEGATIVE
        patients[name] = {"probability": p, "decision": str(decision), "right": decision is due}
    found = {"frames": frames, "patients": patients}
    _warn(found)
    return found


def _warn(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    for level, entries in found.items():
        for name, entry in entries.items():
            if not entry["right"]:
                log.warning(
                    "drawn example on the wrong side: %s %s, probability %.3f, %s",
                    level,
                    name,
                    entry["probability"],
                    entry["decision"],
                )


def _probability(encoder: Encoder, embeddings: np.ndarray) -> float:
    label_set = encoder.bundle.label_set(TASK)
    classes = encoder.class_embeddings(label_set)
    calibration = encoder.bundle.calibrations[TASK]
    score = score_patient(encoder, label_set, classes, calibration, embeddings)
    return float("nan") if score.probability is None else score.probability
