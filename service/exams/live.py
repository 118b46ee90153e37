"""A room's frames as they are taken, over one WebSocket; results come back as they are ready.

One frame is worked on at a time, and of those that arrive meanwhile the newest waits: an old one
is dropped and counted, so under load a room sees fewer results, never late ones. Each frame goes
through the same admission and turns as every request, so rooms take turns among themselves and with
all other work.

Every frame is scored; one in each interval of capture time is kept in the exam as well. A result
does not wait for the disk: that a frame is kept is a message of its own. A sender whose connection
broke opens another and goes on: what was kept last is said in the first message, and a frame that
is sent again is the same frame.
"""

import asyncio
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocket, WebSocketDisconnect

from service import jsonio
from service.admission import Admission
from service.engine import Engine
from service.errors import (
    AllFramesRejected,
    InvalidRequest,
    MalformedRequest,
    NotReady,
    Overloaded,
    PayloadTooLarge,
    RateLimited,
    ServiceError,
    ShuttingDown,
    problem,
)
from service.exams.exams import Exams, Taken
from service.exams.results import is_within_calendar, rfc3339
from service.exams.values import Exam
from service.forms import FrameIn, PatientIn, RequestIn
from service.guard import accepted_protocol, owner_of, rate_of
from service.intake import client_of
from service.metrics import Metrics
from service.record import note

__all__ = ["HEADER", "MAX_MESSAGE_BYTES", "Rooms", "router"]

# Of a message: when the frame was captured, microseconds since 1970; then the image file.
HEADER = struct.Struct(">q")
# A full-HD frame as PNG has 3 to 4 MB. Three of these are held for each stream at most.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
_KEEP_EVERY_MS = 1000
_LONGEST_KEEP_MS = 3_600_000
_RETRY_S = 10
# Frames that wait for the disk; while there are more, none is chosen to be kept.
_UNKEPT = 64
# And for so long when the stream ends: a database that is away must not hold up the service's end.
_LAST_S = 10.0
_OF_POSTS = "duplicate"
_DONE, _REFUSED, _RESTART, _LATER, _FAILED = 1000, 1008, 1012, 1013, 1011

router = APIRouter(prefix="/v1/exams")


class Rooms:
    """How many streams there are, and may be."""

    def __init__(self, at_most: int) -> None:
        self._at_most = at_most
        self._open = 0

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Count a stream while it is open.

        Raises:
            Overloaded: there are as many as there may be.
        """
        if self._open >= self._at_most:
            raise Overloaded(_RETRY_S)
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


@router.websocket("/{exam_id}/stream")
async def stream(socket: WebSocket, exam_id: str) -> None:
    """Take frames and send results until either side closes."""
    state = socket.app.state
    rooms: Rooms = state.rooms
    exams: Exams = state.exams
    note(task="stream")
    state.engine.check_ready()
    keep_every_ms = _keep_every(socket)
    exam = await exams.find(owner_of(socket), exam_id)
    exams.check_open(state.engine, exam)
    with rooms.enter():
        last_us = await exams.last_captured(exam)
        await socket.accept(accepted_protocol(socket.scope))
        hello = {
            "type": "open",
            "request_id": socket.state.request_id,
            "exam_id": exam.exam_id,
            "revision": exam.revision,
            "last_captured_at": None if last_us is None else rfc3339(last_us),
            "keep_every_ms": keep_every_ms,
            "max_message_bytes": MAX_MESSAGE_BYTES,
            "intended_use": state.engine.bundle.manifest.intended_use,
        }
        await _Room(socket, exam, keep_every_ms).run(hello)


def _keep_every(socket: WebSocket) -> int:
    for name in socket.query_params:
        if name != "keep_every_ms":
            raise InvalidRequest.at("/" + name[:64], "not a parameter of this request")
    text = socket.query_params.get("keep_every_ms", str(_KEEP_EVERY_MS))
    if not (text.isascii() and text.isdigit() and len(text) < 8 and int(text) <= _LONGEST_KEEP_MS):
        expected = f"expected a whole number of milliseconds, 0 to {_LONGEST_KEEP_MS}"
        raise InvalidRequest.at("/keep_every_ms", expected)
    return int(text)


@dataclass(frozen=True, slots=True)
class _Arrived:
    captured_us: int
    data: bytes
    since: float


class _Room:
    """One connection."""

    def __init__(self, socket: WebSocket, exam: Exam, keep_every_ms: int) -> None:
        self._socket, self._exam = socket, exam
        self._keep_every_us = keep_every_ms * 1000
        self._kept_in: int | None = None
        self._to_keep: asyncio.Queue[Taken] = asyncio.Queue(_UNKEPT)
        self._has_left = False
        self._next: _Arrived | None = None
        self._wake = asyncio.Event()
        self._received = 0
        self._dropped = Counter(newer=0, overloaded=0, rate_limited=0)

    async def run(self, hello: dict[str, Any]) -> None:
        """Read and work until the client leaves or an error ends it."""
        code = _DONE
        tasks: list[asyncio.Future[None]] = []
        try:
            await self._send(hello)
            parts = (self._read(), self._work(), self._keep())
            tasks = [asyncio.ensure_future(part) for part in parts]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        except (ClientDisconnect, WebSocketDisconnect):
            self._has_left = True
            await self._keep_the_rest(tasks)
            return
        except Exception as error:
            await self._keep_the_rest(tasks)
            code = _close_code(error)
            note(outcome=str(problem(error, "")[1]["code"]))
            with suppress(WebSocketDisconnect, RuntimeError):
                await self._send_problem(error)
            if code == _FAILED:
                raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        with suppress(WebSocketDisconnect, RuntimeError):
            await self._socket.close(code)

    async def _read(self) -> None:
        metrics: Metrics = self._socket.app.state.metrics
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                raise ClientDisconnect
            arrived = _arrived(message.get("bytes"))
            self._received += 1
            if self._next is not None:
                self._dropped["newer"] += 1
                metrics.count_stream("newer")
            self._next = arrived
            self._wake.set()

    async def _work(self) -> None:
        metrics: Metrics = self._socket.app.state.metrics
        while True:
            await self._wake.wait()
            self._wake.clear()
            arrived, self._next = self._next, None
            if arrived is None:
                continue
            try:
                told = await self._score(arrived)
            except (Overloaded, RateLimited) as error:
                why = "overloaded" if isinstance(error, Overloaded) else "rate_limited"
                self._dropped[why] += 1
                metrics.count_stream(why)
                told = {"type": "dropped", "captured_at": rfc3339(arrived.captured_us)}
                told |= {"reason": why, "retry_after_s": int(error.headers["Retry-After"])}
            else:
                metrics.count_stream("answered")
                metrics.observe_stream(time.perf_counter() - arrived.since)
            told |= {"received": self._received, "dropped": dict(self._dropped)}
            await self._send(told)

    async def _score(self, arrived: _Arrived) -> dict[str, Any]:
        state = self._socket.app.state
        engine: Engine = state.engine
        admission: Admission = state.admission
        engine.check_ready()
        at = rfc3339(arrived.captured_us)
        frame = FrameIn("0", arrived.data, len(arrived.data), at, named=False)
        request = RequestIn((PatientIn("0", None, (frame,)),))
        rate = rate_of(self._socket)
        rate.check()
        # One that is refused is dropped; a newer one is on its way.
        entered = admission.enter(client_of(self._socket), comes_back=False)
        with engine.used(), entered as permit:
            permit.add_bytes(len(arrived.data))
            try:
                taken: Taken = await state.exams.take(
                    engine, self._exam, request, permit, rate, keep=False
                )
            except AllFramesRejected as error:
                state.metrics.count_frames(error.patients)
                return {"type": "frame", "captured_at": at, **error.patients[0]["frames"][0]}
        state.metrics.count_frames(taken.patients)
        interval = arrived.captured_us // max(self._keep_every_us, 1)
        is_chosen = interval != self._kept_in or not self._keep_every_us
        is_kept = is_chosen and not self._to_keep.full()
        if is_kept:
            self._kept_in = interval
            self._to_keep.put_nowait(taken)
        entry = {key: value for key, value in taken.answer["frames"][0].items() if key != _OF_POSTS}
        ms = round((time.perf_counter() - arrived.since) * 1000, 1)
        return {"type": "frame", **entry, "ms": ms, "to_be_kept": is_kept}

    async def _keep_the_rest(self, tasks: list[asyncio.Future[None]]) -> None:
        """Keep what was chosen before the end, whoever ended it: its results have been seen."""
        if not tasks or tasks[-1].done():
            return
        reading, working, keeping = tasks
        for task in (reading, working):
            task.cancel()
        await asyncio.gather(reading, working, return_exceptions=True)
        rest = asyncio.ensure_future(self._to_keep.join())
        tasks.append(rest)
        await asyncio.wait((rest, keeping), timeout=_LAST_S, return_when=asyncio.FIRST_COMPLETED)

    async def _keep(self) -> None:
        """Keep what is to be kept, and say so when it is on the disk."""
        exams: Exams = self._socket.app.state.exams
        while True:
            taken = await self._to_keep.get()
            frame = taken.rows[0]
            told: dict[str, Any] = {"frame_id": frame.frame_id}
            told["captured_at"] = rfc3339(frame.captured_us or 0)
            try:
                revision = await exams.keep(self._exam, taken.rows, taken.entries)
                told |= {"type": "kept", "revision": revision}
            except PayloadTooLarge:
                # The exam is full; the room goes on seeing results.
                told |= {"type": "full"}
            # Who has left is noticed where messages are read.
            with suppress(WebSocketDisconnect):
                await self._send(told)
            self._to_keep.task_done()

    async def _send(self, told: dict[str, Any]) -> None:
        if self._has_left:
            return
        await self._socket.send_text(jsonio.write(told).decode())

    async def _send_problem(self, error: Exception) -> None:
        _, document, _ = problem(error, self._socket.state.request_id)
        # `type` says what a message is; a problem's own is told by its code as well.
        await self._send({**document, "type": "problem"})


def _arrived(data: bytes | None) -> _Arrived:
    if data is None or len(data) < HEADER.size:
        raise MalformedRequest(
            "expected binary messages: the capture time as 8 bytes, then the image file"
        )
    (captured_us,) = HEADER.unpack_from(data)
    if not is_within_calendar(captured_us):
        raise MalformedRequest("expected the capture time in microseconds since 1970, big-endian")
    return _Arrived(captured_us, data[HEADER.size :], time.perf_counter())


def _close_code(error: Exception) -> int:
    if isinstance(error, ShuttingDown):
        return _RESTART
    if isinstance(error, NotReady):
        return _LATER
    return _REFUSED if isinstance(error, ServiceError) else _FAILED
