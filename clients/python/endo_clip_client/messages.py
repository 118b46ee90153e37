"""What a stream tells, as typed values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from endo_clip_client.exam_results import ExamFrame

__all__ = ["Dropped", "Full", "Kept", "Message", "Opened", "Result"]


@dataclass(frozen=True, slots=True)
class Opened:
    """There is a connection: the first, or another after one broke.

    Attributes:
        revision: number of frames that the exam has.
        last_captured_at: of the latest frame kept, or None.
        max_message_bytes: a frame must be smaller by 8 bytes.
        intended_use: to be shown wherever the scores are.
        reconnects: how many connections there were before.
    """

    revision: int
    last_captured_at: datetime | None
    max_message_bytes: int
    intended_use: str
    reconnects: int
    document: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a frame.

    Attributes:
        frame: its figures, or why it has none.
        captured_at: as sent.
        service_s: from its arrival in the service to this message's departure, seconds.
        latency_s: from `send` to this message's arrival, seconds.
    """

    frame: ExamFrame
    captured_at: datetime
    service_s: float | None
    latency_s: float | None
    document: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Dropped:
    """The service had no room for a frame (`overloaded`), or the key's rate none."""

    captured_at: datetime
    reason: str
    document: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Kept:
    """A frame is part of the exam, and on the disk."""

    frame_id: str
    captured_at: datetime
    revision: int
    document: Mapping[str, Any] = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Full:
    """A frame was to be kept, but the exam has as many as it may; results go on."""

    frame_id: str
    captured_at: datetime
    document: Mapping[str, Any] = field(repr=False, compare=False)


Message = Opened | Result | Dropped | Kept | Full
