"""What the service answers about an exam, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from endo_clip_client.results import Frame, FrameError, Model, OperatingPoint, Patient

__all__ = ["ExamFrame", "ExamResult", "ExamTask", "Segment", "Taken"]


@dataclass(frozen=True, slots=True)
class ExamFrame:
    """What became of a frame that was sent to an exam, by itself.

    Attributes:
        frame_id: as sent, else made by the service from content and time; None where it was not
            kept and has no name (a stream's unreadable frame).
        status: `scored`, `abstained` (set aside: see `reason`) or `rejected` (see `error`; it is
            not kept).
        captured_at: as sent.
        duplicate: it was there already; nothing changed.
        results: task → its figures.
    """

    frame_id: str | None
    status: str
    captured_at: datetime | None = None
    duplicate: bool = False
    reason: str | None = None
    error: FrameError | None = None
    results: Mapping[str, Frame] = field(default_factory=dict)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "ExamFrame":
        """Read a frame of an answer."""
        error, at, name = document.get("error"), document.get("captured_at"), document["frame_id"]
        common = {"frame_id": name, "status": document["status"]}
        told = (document.get("results") or {}).items()
        return cls(
            frame_id=name,
            status=str(document["status"]),
            captured_at=datetime.fromisoformat(at) if at else None,
            duplicate=bool(document.get("duplicate")),
            reason=document.get("reason"),
            error=FrameError(error["code"], error["message"]) if error else None,
            results={task: Frame.read({**common, **one}) for task, one in told},
        )


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the frames of one request; what is answered is kept.

    Attributes:
        frames: in the order sent.
        revision: number of frames that the exam has.
        document: the JSON as it came.
    """

    frames: tuple[ExamFrame, ...]
    revision: int
    document: Mapping[str, Any] = field(repr=False, compare=False)

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "Taken":
        """Read an answer."""
        frames = tuple(ExamFrame.read(one) for one in document["frames"])
        return cls(frames, int(document["revision"]), document)


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of time in which a label holds."""

    label: str
    begin: datetime
    end: datetime
    frames: int
    mean_probability: float
    max_probability: float


@dataclass(frozen=True, slots=True)
class ExamTask:
    """What an exam comes to for one task.

    Attributes:
        task: `polyp_detection` or `malignancy`.
        labels: in order, the positive one first.
        label_definitions: what each label means.
        operating_point: the thresholds behind the decisions.
        patient: the exam's frames as one patient; its status is `empty` before the first.
        segments: of the frames that have a time.
    """

    task: str
    labels: tuple[str, ...]
    label_definitions: Mapping[str, str]
    operating_point: OperatingPoint
    patient: Patient
    segments: tuple[Segment, ...]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "ExamTask":
        """Read one task of an exam's answer."""
        return cls(
            task=str(document["task"]),
            labels=tuple(document["labels"]),
            label_definitions=dict(document["label_definitions"]),
            operating_point=OperatingPoint.read(document["operating_point"]),
            patient=Patient.read(document["patient"]),
            segments=tuple(_segment(one) for one in document["segments"]),
        )


@dataclass(frozen=True, slots=True)
class ExamResult:
    """An exam and its result: so far, or final once it is closed.

    Attributes:
        exam_id: its name.
        patient_id: the pseudonym.
        state: `open`, `closing` or `closed`.
        final: this is what every later answer says.
        takes_frames: it is open, and the bundle that it began with is what is served.
        revision: number of frames kept.
        created_at, changed_at: when.
        expires_at: when it is removed if nothing changes it.
        device: the device profile.
        model: what scores it, from the first frame to the last.
        intended_use: to be shown wherever the scores are.
        frames_total, frames_scored: how many.
        tasks: the results, one for each task.
        document: the JSON as it came.
    """

    exam_id: str
    patient_id: str
    state: str
    final: bool
    takes_frames: bool
    revision: int
    created_at: datetime
    changed_at: datetime
    expires_at: datetime
    device: str
    model: Model
    intended_use: str
    frames_total: int
    frames_scored: int
    tasks: tuple[ExamTask, ...]
    document: Mapping[str, Any] = field(repr=False, compare=False)

    def task(self, name: str) -> ExamTask:
        """Give one task's result.

        Raises:
            KeyError: the exam was opened without it.
        """
        return {one.task: one for one in self.tasks}[name]

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> "ExamResult":
        """Read an answer.

        Raises:
            KeyError, TypeError, ValueError: it has another shape than the contract.
        """
        return cls(
            exam_id=str(document["exam_id"]),
            patient_id=str(document["patient_id"]),
            state=str(document["state"]),
            final=bool(document["final"]),
            # Services before 2026-11-30 do not say.
            takes_frames=bool(document.get("takes_frames", document["state"] == "open")),
            revision=int(document["revision"]),
            created_at=datetime.fromisoformat(document["created_at"]),
            changed_at=datetime.fromisoformat(document["changed_at"]),
            expires_at=datetime.fromisoformat(document["expires_at"]),
            device=str(document["device"]),
            model=Model.read(document["model"]),
            intended_use=str(document["intended_use"]),
            frames_total=int(document["frames_total"]),
            frames_scored=int(document["frames_scored"]),
            tasks=tuple(ExamTask.read(one) for one in document["results"]),
            document=document,
        )


def _segment(document: Mapping[str, Any]) -> Segment:
    return Segment(
        label=str(document["label"]),
        begin=datetime.fromisoformat(document["begin"]),
        end=datetime.fromisoformat(document["end"]),
        frames=int(document["frames"]),
        mean_probability=float(document["mean_probability"]),
        max_probability=float(document["max_probability"]),
    )
