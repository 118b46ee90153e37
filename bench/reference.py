"""What a frame scores alone, and what follows from that for a patient: the answer to compare with.

Every frame is decoded, judged and encoded by itself, in this process, through `model_store`: no
batch, no other request, no HTTP. A patient's figures are computed from those single embeddings.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats
from model_store.errors import ImageRejected
from model_store.images import Box, decode
from model_store.label_sets import LabelSet
from model_store.patient import heatmap, score_patient
from model_store.quality import QualityLimits, assess
from model_store.scoring import OperatingPoint
from service.settings import FULL_FRAME, newest_bundle

__all__ = ["TOLERANCE", "Alone", "Reference", "differences"]

# Of probabilities, cosines, attention, heat and each member of an embedding. A batch of four and a
# batch of one differ by some 1e-6, heat is written with four digits; two frames of the pool differ
# by 6e-3 and more somewhere in their embeddings.
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, eq=False)
class Alone:
    """A frame by itself: an embedding (d,) and a grid (rows, columns, d), or why it has none."""

    embedding: Floats | None = None
    grid: Floats | None = None
    status: str = "scored"
    why: str = ""


class Reference:
    """Scores single frames, once each."""

    def __init__(self) -> None:
        self.encoder = Encoder(Bundle.open(newest_bundle()), threads=1)
        self._gate = QualityLimits.of(self.encoder.bundle.manifest.quality_gate)
        self._frames: dict[tuple[bytes, Box], Alone] = {}
        self._texts: dict[str, Floats] = {}
        self._classes: dict[LabelSet, Floats] = {}

    def alone(self, data: bytes, box: Box = FULL_FRAME) -> Alone:
        """Score one frame."""
        key = (data, box)
        if key not in self._frames:
            self._frames[key] = self._scored(data, box)
        return self._frames[key]

    def text(self, text: str) -> Floats:
        """Embed one sentence: float32 (d,)."""
        if text not in self._texts:
            self._texts[text] = self.encoder.encode_texts([text])[0]
        return self._texts[text]

    def patient(
        self,
        frames: Sequence[Alone],
        label_set: LabelSet | None,
        point: str | None,
        *,
        explain: bool = False,
    ) -> dict[str, Any]:
        """Give what an answer must hold of a patient, ids left out.

        Args:
            frames: of the patient, in order.
            label_set: that is asked for; None for embeddings.
            point: name of the operating point; None where there is none.
            explain: whether heatmaps are asked for.
        """
        rows = [frame.embedding for frame in frames if frame.embedding is not None]
        members = [_member(frame) for frame in frames]
        statuses = [member["status"] for member in members]
        best = next(one for one in ("scored", "abstained", "rejected") if one in statuses)
        pooled: dict[str, Any] = {}
        scored = [member for member in members if member["status"] == "scored"]
        if label_set is None:
            for member, row in zip(scored, rows, strict=True):
                member["embedding"] = row
        elif rows:
            pooled = self._fill(scored, np.stack(rows), label_set, point)
            grids = [frame.grid for frame in frames if frame.grid is not None]
            for member, grid in zip(scored, grids if explain else (), strict=explain):
                member["heatmap"] = self._heatmap(grid, label_set, point, member)
        return {"status": best, "frames_scored": len(rows), "frames": members, **pooled}

    def _scored(self, data: bytes, box: Box) -> Alone:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # as the service does
                pixels = decode(data, self.encoder.bundle.manifest.input, crop=box)
        except ImageRejected as error:
            return Alone(status="rejected", why=error.code.value)
        reason = assess(pixels, self._gate)
        if reason is not None:
            return Alone(status="abstained", why=reason.value)
        embeddings, grids = self.encoder.encode_images_with_grid(pixels[None])
        return Alone(embeddings[0], grids[0])

    def _fill(
        self, members: Sequence[dict[str, Any]], rows: Floats, labels: LabelSet, point: str | None
    ) -> dict[str, Any]:
        """Write the frames' figures into their members, and give the patient's."""
        if labels not in self._classes:
            self._classes[labels] = self.encoder.class_embeddings(labels)
        calibration = self.encoder.bundle.calibrations[labels.name] if point else None
        score = score_patient(self.encoder, labels, self._classes[labels], calibration, rows)
        chosen = calibration.operating_point(point) if calibration and point else None
        for row, member in enumerate(members):
            member["scores"] = dict(zip(labels.names, score.frame_scores[row], strict=True))
            member["cosine"] = dict(zip(labels.names, score.frame_cosines[row], strict=True))
            weights = score.attention[..., row]
            member["attention"] = weights if chosen else np.broadcast_to(weights, len(labels.names))
            if chosen and score.frame_probability is not None:
                member |= _decided(chosen, float(score.frame_probability[row]), 1)
        told = {"scores": dict(zip(labels.names, score.scores, strict=True))}
        if chosen and score.probability is not None:
            told |= _decided(chosen, score.probability, len(rows))
        return told

    def _heatmap(
        self, grid: Floats, labels: LabelSet, point: str | None, member: Mapping[str, Any]
    ) -> dict[str, Any]:
        positive = labels.positive_index
        most = int(np.argmax(list(member["scores"].values())))
        index = most if point is None or positive is None else positive
        scale = self.encoder.bundle.manifest.logit_scale
        values = heatmap(grid, self._classes[labels], index, scale)
        return {"rows": values.shape[0], "cols": values.shape[1], "values": values}


def differences(expected: Any, found: Any, place: str = "") -> list[str]:
    """Compare an answer with what is expected of it; members that are not expected are let be.

    Returns:
        A line for each place that differs: numbers by more than `TOLERANCE`, all else at all.
    """
    if isinstance(expected, Mapping):
        if not isinstance(found, Mapping):
            return [f"{place}: expected an object; found {found!r}"]
        return [
            line
            for name, value in expected.items()
            for line in differences(value, found.get(name), f"{place}/{name}")
        ]
    if isinstance(expected, set):
        return [] if found in expected else [f"{place}: expected one of {expected}; found {found}"]
    if isinstance(expected, list):
        if not isinstance(found, list) or len(found) != len(expected):
            return [f"{place}: expected a list of {len(expected)}; found {str(found)[:60]}"]
        pairs = enumerate(zip(expected, found, strict=True))
        return [
            line for at, (one, other) in pairs for line in differences(one, other, f"{place}/{at}")
        ]
    if isinstance(expected, np.ndarray | np.floating | float):
        return _far(np.asarray(expected, np.float64).ravel(), found, place)
    return [] if expected == found else [f"{place}: expected {expected!r}; found {found!r}"]


def _far(expected: Any, found: Any, place: str) -> list[str]:
    values = list(found.values()) if isinstance(found, Mapping) else found
    values = values if isinstance(values, list) else [values]
    if len(values) != len(expected) or not all(type(one) in (int, float) for one in values):
        return [f"{place}: expected {len(expected)} numbers; found {str(found)[:60]}"]
    apart = float(np.abs(np.asarray(values, np.float64) - expected).max(initial=0.0))
    # Not `apart > TOLERANCE`: NaN must not pass.
    return [] if apart <= TOLERANCE else [f"{place}: {apart:.2g} away from the frame alone"]


def _member(frame: Alone) -> dict[str, Any]:
    if frame.status == "abstained":
        return {"status": frame.status, "reason": frame.why}
    if frame.status == "rejected":
        return {"status": frame.status, "error": {"code": frame.why}}
    return {"status": "scored"}


def _decided(point: OperatingPoint, probability: float, frames: int) -> dict[str, Any]:
    near = (probability - TOLERANCE, probability, probability + TOLERANCE)
    decisions = {point.decide_patient(one, frames).value for one in near}
    return {"probability": probability, "decision": decisions}
