"""What the service answers, as typed values.

One shape serves all tasks: what a task does not give is None or empty. Members that a later version
of the service adds are left in `Answer.document`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Answer", "Frame", "FrameError", "Heatmap", "Model", "OperatingPoint", "Patient"]

_NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True)
class FrameError:
    """Why a frame was rejected: a code of the contract, and the rule in words."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Heatmap:
    """Where in the frame `label` is seen: `values` 0-1, row-major; not calibrated."""

    rows: int
    cols: int
    values: tuple[float, ...]
    label: str


@dataclass(frozen=True, slots=True)
class Frame:
    """What became of one frame.

    Attributes:
        frame_id: as sent, else its decimal index.
        status: `scored`, `abstained` (set aside: see `reason`) or `rejected` (see `error`).
        probability: of the positive label, calibrated; None for zero-shot and embeddings.
        decision: `positive`, `negative`, `abstained`.
        reason: `blurred`, `dark`, `overexposed`, `not_endoscopic`, `low_confidence`.
        error: of a rejected frame.
        scores: label → share, in the order of the labels.
        cosine: label → cosine.
        attention: weight in the patient's score (named tasks).
        attention_by_label: the same by label (zero-shot).
        top_label: of zero-shot.
        heatmap: with `explain`.
        captured_at: as sent, in an exam's result.
        duplicate_of: the frame of the same file that counts in its place, in an exam's result.
        embedding: unit, of the embeddings endpoint.
    """

    frame_id: str
    status: str
    probability: float | None = None
    decision: str | None = None
    reason: str | None = None
    error: FrameError | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    cosine: Mapping[str, float] = field(default_factory=dict)
    attention: float | None = None
    attention_by_label: Mapping[str, float] = field(default_factory=dict)
    top_label: str | None = None
    heatmap: Heatmap | None = None
    captured_at: datetime | None = None
    duplicate_of: str | None = None
    embedding: tuple[float, ...] = ()

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Frame":
        """Read a frame of an answer."""
        attention = document.get("attention")
        by_label = attention if isinstance(attention, Mapping) else _NOTHING
        heatmap, error = document.get("heatmap"), document.get("error")
        at = document.get("captured_at")
        return cls(
            frame_id=str(document["frame_id"]),
            status=str(document["status"]),
            probability=document.get("probability"),
            decision=document.get("decision"),
            reason=document.get("reason"),
            error=FrameError(error["code"], error["message"]) if error else None,
            scores=dict(document.get("scores") or _NOTHING),
            cosine=dict(document.get("cosine") or _NOTHING),
            attention=None if isinstance(attention, Mapping) else attention,
            attention_by_label=dict(by_label),
            top_label=document.get("top_label"),
            heatmap=_heatmap(heatmap) if heatmap else None,
            captured_at=datetime.fromisoformat(at) if at else None,
            duplicate_of=document.get("duplicate_of"),
            embedding=tuple(document.get("embedding") or ()),
        )


@dataclass(frozen=True, slots=True)
class Patient:
    """What became of one patient; with one scored frame it has that frame's figures.

    Attributes:
        patient_id: as sent, else its decimal index.
        status: `scored`, `abstained` (no frame scored) or `rejected` (no frame readable).
        frames: in the order sent.
        frames_scored: how many took part in the score.
    """

    patient_id: str
    status: str
    frames: tuple[Frame, ...]
    frames_scored: int
    probability: float | None = None
    decision: str | None = None
    reason: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    cosine: Mapping[str, float] = field(default_factory=dict)
    top_label: str | None = None

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Patient":
        """Read a patient of an answer."""
        return cls(
            patient_id=str(document["patient_id"]),
            status=str(document["status"]),
            frames=tuple(Frame.read(one) for one in document["frames"]),
            frames_scored=int(document["frames_scored"]),
            probability=document.get("probability"),
            decision=document.get("decision"),
            reason=document.get("reason"),
            scores=dict(document.get("scores") or _NOTHING),
            cosine=dict(document.get("cosine") or _NOTHING),
            top_label=document.get("top_label"),
        )


@dataclass(frozen=True, slots=True)
class Model:
    """Which model answered; `digest` fixes every number it gives."""

    name: str
    version: str
    digest: str
    execution_provider: str

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Model":
        """Read the model of an answer."""
        return cls(
            document["name"],
            document["version"],
            document["digest"],
            document["execution_provider"],
        )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """The thresholds behind the decisions."""

    name: str
    frame_threshold: float
    patient_threshold: float

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "OperatingPoint":
        """Read the operating point of an answer."""
        return cls(document["name"], document["frame_threshold"], document["patient_threshold"])


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer.

    Attributes:
        request_id: finds the request in the service's log.
        task: which task it was.
        model: what answered.
        intended_use: to be shown wherever the scores are.
        labels: in order, the positive one first.
        label_definitions: what each label means.
        operating_point: of the named tasks.
        patients: in the order sent.
        texts: unit embeddings of the texts, in order (embeddings endpoint).
        received: when the answer came, UTC.
        document: the JSON as it came.
    """

    request_id: str
    task: str
    model: Model
    intended_use: str
    labels: tuple[str, ...]
    label_definitions: Mapping[str, str]
    operating_point: OperatingPoint | None
    patients: tuple[Patient, ...]
    texts: tuple[tuple[float, ...], ...]
    received: datetime
    document: Mapping[str, Any] = field(repr=False)

    @property
    def patient(self) -> Patient:
        """The one patient of the request.

        Raises:
            ValueError: there is none, or more than one.
        """
        (only,) = self.patients
        return only

    @classmethod
    def read(cls, document: Mapping[str, Any], received: datetime) -> "Answer":
        """Read an answer.

        Raises:
            KeyError, TypeError, ValueError: it has another shape than the contract.
        """
        point = document.get("operating_point")
        return cls(
            request_id=str(document["request_id"]),
            task=str(document["task"]),
            model=Model.read(document["model"]),
            intended_use=str(document["intended_use"]),
            labels=tuple(document.get("labels") or ()),
            label_definitions=dict(document.get("label_definitions") or {}),
            operating_point=OperatingPoint.read(point) if point else None,
            patients=tuple(Patient.read(one) for one in document["patients"]),
            texts=tuple(tuple(one["embedding"]) for one in document.get("texts") or ()),
            received=received,
            document=document,
        )


def _heatmap(document: Mapping[str, Any]) -> Heatmap:
    values = tuple(document["values"])
    return Heatmap(document["rows"], document["cols"], values, document["label"])
