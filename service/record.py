"""What one request did: counts, its outcome, and when each phase of it ran. Never what it held.

The envelope makes a record for each request, the code below it fills in what it knows, and the log
line and the trace are written from it. Phases have the words of `service.metrics`, but are seen
from the request: from the first frame's beginning to the last one's end, with the waits for a
thread or the worker in them. So they overlap: while one frame is encoded, the next is decoded.
"""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

__all__ = ["Record", "begin", "note", "phase", "waited_for_turn"]


@dataclass(slots=True)
class Record:
    """One request, as far as it may be told.

    Attributes:
        request_id: as sent or made.
        method: of HTTP; `-` for one that is not known.
        route: template of the path; `-` where there is none.
        task: asked for, or None.
        client: id of its key, or None.
        frames: as sent; None before the body is read.
        bytes_in: of the body, as far as it was read.
        status: of HTTP; 0 where nothing was answered.
        outcome: `ok`, `client_gone` or the error code.
        spans: phase → beginning and end, ns of `time.perf_counter_ns`, as all times here.
    """

    request_id: str
    method: str
    route: str = "-"
    task: str | None = None
    client: str | None = None
    frames: int | None = None
    bytes_in: int = 0
    status: int = 0
    outcome: str = "ok"
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    began_ns: int = field(default_factory=time.perf_counter_ns)
    ended_ns: int = 0
    began_at_ns: int = field(default_factory=time.time_ns)

    def ran(self, name: str, began_ns: int, ended_ns: int) -> None:
        """Note that a phase, or a part of it, ran."""
        known = self.spans.get(name)
        if known is not None:
            began_ns, ended_ns = min(known[0], began_ns), max(known[1], ended_ns)
        self.spans[name] = (began_ns, ended_ns)

    def wall_ns(self, at_ns: int) -> int:
        """Turn a time of the record into ns since 1970."""
        return self.began_at_ns + at_ns - self.began_ns

    def fields(self) -> dict[str, Any]:
        """Give the record as the log line has it; times in ms."""
        told: dict[str, Any] = {
            "request_id": self.request_id,
            "method": self.method,
            "route": self.route,
            "status": self.status,
            "outcome": self.outcome,
            "task": self.task,
            "frames": self.frames,
            "client": self.client,
            "bytes_in": self.bytes_in,
            "ms": _ms(self.ended_ns - self.began_ns),
        }
        told |= {f"{name}_ms": _ms(end - start) for name, (start, end) in self.spans.items()}
        return {name: value for name, value in told.items() if value is not None}


_current: ContextVar[Record | None] = ContextVar("record", default=None)


def begin(record: Record) -> None:
    """Make a record the one of this request: of this task and those it starts."""
    _current.set(record)


def note(*, task: str | None = None, frames: int | None = None, outcome: str | None = None) -> None:
    """Fill in the record of this request, if it has one; None leaves a field as it is."""
    record = _current.get()
    if record is not None:
        record.task = task or record.task
        record.frames = record.frames if frames is None else frames
        record.outcome = outcome or record.outcome


def waited_for_turn(since_s: float) -> None:
    """Note how long the request's first turn took; the others overlap with its own work."""
    record = _current.get()
    if record is not None and "turn" not in record.spans:
        record.ran("turn", int(since_s * 1e9), time.perf_counter_ns())


class phase:
    """Context manager: what runs in it is (a part of) a phase of the current request."""

    __slots__ = ("_began", "_name")

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        self._began = time.perf_counter_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        record = _current.get()
        if record is not None:
            record.ran(self._name, self._began, time.perf_counter_ns())


def _ms(ns: int) -> float:
    return round(ns / 1e6, 2)
