"""What answers about exams hold, as pydantic models: the documentation, and what tests check."""

from typing import Annotated, Literal

from pydantic import Field

from service.answers import (
    Answer,
    Cosine,
    DecisionWord,
    FrameError,
    Heatmap,
    Model,
    NamedTaskFrame,
    NamedTaskPatient,
    OperatingPointUsed,
    Probability,
    Scores,
    SiteProfileUsed,
)

__all__ = ["ExamAnswer", "ExamFramesAnswer"]

Time = Annotated[str, Field(description="RFC 3339, UTC.", examples=["2025-03-01T09:30:00.000Z"])]
ExamId = Annotated[str, Field(examples=["exam-17"])]
Revision = Annotated[int, Field(description="Number of frames kept.", examples=[42])]


class _ExamFrame(NamedTaskFrame):
    """A frame of an exam, in the order of capture; those without a time last, by id."""

    captured_at: Time | None = None
    duplicate_of: Annotated[
        str | None, Field(description="The frame of the same file that counts in its place.")
    ] = None


class ExamPatient(NamedTaskPatient):
    """The exam's frames as one patient; `empty` before the first."""

    # An exam may be empty and its frames say more: answers are written, never read as the base.
    status: Literal["scored", "abstained", "empty"]  # type: ignore[assignment]
    frames: list[_ExamFrame]  # type: ignore[assignment]


class ExamSegment(Answer):
    """A stretch of time in which a label holds; of the frames that have a time."""

    label: str
    begin: Time
    end: Time
    frames: int
    mean_probability: Probability
    max_probability: Probability


class ExamResult(Answer):
    """What an exam comes to for one task."""

    task: str
    labels: Annotated[list[str], Field(description="In order, the positive one first.")]
    label_definitions: dict[str, str]
    site_profile: SiteProfileUsed | None = None
    operating_point: OperatingPointUsed
    patient: ExamPatient
    segments: list[ExamSegment]


class Smoothing(Answer):
    """How segments were made: mean over a window; no segment spans a longer gap."""

    window_s: float
    max_gap_s: float


class ExamAnswer(Answer):
    """An exam and its result: so far, or final once the exam is closed."""

    request_id: str
    expires_at: Annotated[Time, Field(description="When it is removed if nothing changes it.")]
    takes_frames: Annotated[
        bool,
        Field(description="It is open, and its bundle is what is served."),
    ]
    exam_id: ExamId
    patient_id: str
    state: Literal["open", "closing", "closed"]
    final: Annotated[bool, Field(description="True: this is what every later answer says.")]
    revision: Revision
    created_at: Time
    changed_at: Time
    tasks: list[str]
    device: str
    operating_point: str
    model: Model
    intended_use: str
    frames_total: int
    frames_scored: int
    smoothing: Smoothing
    results: Annotated[list[ExamResult], Field(description="One for each task.")]


class FrameAlone(Answer):
    """A scored frame by itself, for one task."""

    probability: Probability
    scores: Scores
    cosine: Cosine
    decision: DecisionWord
    reason: Literal["low_confidence"] | None = None
    heatmap: Heatmap | None = None


class TakenFrame(Answer):
    """What became of a frame."""

    frame_id: Annotated[str, Field(description="As sent, or made from its content and time.")]
    status: Literal["scored", "abstained", "rejected"]
    captured_at: Time | None = None
    duplicate: Annotated[bool, Field(description="It was there already; nothing changed.")]
    reason: str | None = None
    error: Annotated[
        FrameError | None, Field(description="A rejected frame is not kept; send it mended.")
    ] = None
    results: Annotated[
        dict[str, FrameAlone] | None, Field(description="Task → its figures, if scored.")
    ] = None


class ExamFramesAnswer(Answer):
    """What became of the frames of one request; what is answered is kept."""

    request_id: str
    exam_id: ExamId
    model: Model
    intended_use: str
    frames: Annotated[list[TakenFrame], Field(description="In the caller's order.")]
    revision: Revision
