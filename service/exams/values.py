"""What is kept of an exam."""

from dataclasses import dataclass
from enum import StrEnum

from model_store.encoder import Floats
from service.settings import Box

__all__ = ["Exam", "ExamOptions", "KeptFrame", "State"]


class State(StrEnum):
    """How far an exam is."""

    OPEN = "open"
    """Takes frames."""
    CLOSING = "closing"
    """Takes no more; its result is being computed, or was when the service ended."""
    CLOSED = "closed"
    """Has its final result."""


@dataclass(frozen=True, slots=True)
class ExamOptions:
    """What is fixed when an exam is opened.

    Attributes:
        patient_id: opaque pseudonym.
        tasks: names of label sets.
        device: name of the device profile.
        box: its crop box as it was then.
        operating_point: its name.
        bundle: digest of the bundle whose embeddings are kept.
        site_profile: digest of the site profile in force, if any.
    """

    patient_id: str
    tasks: tuple[str, ...]
    device: str
    box: Box
    operating_point: str
    bundle: str
    site_profile: str | None


@dataclass(frozen=True, slots=True)
class Exam:
    """An exam without its frames.

    Attributes:
        key: of the tables.
        owner: name of the key that opened it; `-` where there are no keys.
        exam_id: unique for its owner.
        options: fixed at opening.
        state: how far it is.
        revision: number of frames kept.
        created_us: when it was opened, microseconds since 1970.
        changed_us: when it last changed.
        final: the final result's JSON, once it is closed.
    """

    key: str
    owner: str
    exam_id: str
    options: ExamOptions
    state: State
    revision: int
    created_us: int
    changed_us: int
    final: bytes | None


@dataclass(frozen=True, slots=True)
class KeptFrame:
    """A frame as it is kept: scored (an embedding) or set aside (a reason).

    Attributes:
        frame_id: unique in its exam.
        content: SHA-256 of the file.
        captured_us: when it was captured, microseconds since 1970, or None.
        abstained: why the quality gate set it aside.
        embedding: float32 (d,), unit length.
        optics: float32 (6,) beside the embedding, as `quality.OPTICS`; None of a frame kept
            before they were.
    """

    frame_id: str
    content: bytes
    captured_us: int | None
    abstained: str | None = None
    embedding: Floats | None = None
    optics: Floats | None = None

    def same(self, other: "KeptFrame") -> bool:
        """Whether both are the same frame of the same file."""
        return self.content == other.content and self.captured_us == other.captured_us
