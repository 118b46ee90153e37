"""Live frames over a WebSocket: the newest frame wins, a line that broke is taken up again.

Needs websockets: `pip install 'endo-clip-client[stream]'`.
"""

import asyncio
import json
import struct
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from endo_clip_client.errors import ClientError, TooLarge, UnexpectedAnswer, Unreachable, refusal
from endo_clip_client.exam_results import ExamFrame
from endo_clip_client.lines import Line, refused, websockets
from endo_clip_client.messages import Dropped, Full, Kept, Message, Opened, Result

__all__ = ["AsyncStream", "Counts"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEADER = struct.Struct(">q")
# Frames on their way. A slow line holds so many, not the megabytes that sockets would let pile up.
_UNANSWERED = 8
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_DONE = 1000
# The service or a proxy goes away; without a word; restarts; is not ready.
_MAY_PASS = (1001, 1006, 1012, 1013)
_BUSY = (429, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the frames so far.

    Attributes:
        sent: handed to `send`.
        answered: those with a result.
        replaced: dropped here, as a newer one came before there was room on the line.
        dropped: by the service, reason → how many (`newer`, `overloaded`, `rate_limited`).
        kept: part of the exam now.
        reconnects: how often the connection broke and was taken up again.
    """

    sent: int = 0
    answered: int = 0
    replaced: int = 0
    dropped: Mapping[str, int] | None = None
    kept: int = 0
    reconnects: int = 0


class AsyncStream:
    """A room's frames, and their results as they come.

    >>> async with exam.stream() as stream:  # doctest: +SKIP
    ...     stream.send(jpeg, captured_at)  # from any task, at the camera's pace
    ...     async for message in stream:
    ...         ...  # Opened, Result, Kept, Dropped, Full

    Nothing is connected before it is iterated. `send` never waits: of frames that the line has no
    room for the newest stays. A connection that broke is opened again, and the newest frame, if it
    was not answered yet, is sent again: the service knows it as the same frame. Iterating ends
    after `finish`; it raises what the service refuses, and `Unreachable` when the line stays
    broken.
    """

    def __init__(self, line: Line, path: str, keep_every_ms: int, reconnect_s: float) -> None:
        self._line, self._path = line, path
        self._keep_every_ms, self._reconnect_s = keep_every_ms, reconnect_s
        self._next: tuple[int, bytes] | None = None
        self._on_line: tuple[int, bytes] | None = None
        self._ready = asyncio.Event()
        self._finishing = False
        self._sent_at: OrderedDict[int, float] = OrderedDict()
        self._here = self._there = self._largest = 0
        self._unkept = 0  # a frame may be kept before its result is here
        self._counts = Counts()
        self._dropped: dict[str, int] = {}
        self._before: dict[str, int] = {}
        self._messages = self._run()

    @property
    def counts(self) -> Counts:
        """What became of the frames so far."""
        return replace(self._counts, dropped=dict(self._dropped))

    def send(self, image: bytes, captured_at: datetime | None = None) -> None:
        """Send a frame; returns at once.

        Args:
            image: the file's bytes.
            captured_at: with a time zone; None: now. Two frames of one time are one to the exam.

        Raises:
            ValueError: the time has no zone.
            TooLarge: the service takes no message of that size.
        """
        self.put(*self.checked(image, captured_at))

    def checked(self, image: bytes, captured_at: datetime | None) -> tuple[int, bytes, float]:
        """Give what `put` takes; for another thread than the loop's. Raises as `send`."""
        moment = captured_at or datetime.now(UTC)
        if moment.tzinfo is None:
            raise ValueError("captured_at: expected a time with a time zone")
        if self._largest and len(image) + _HEADER.size > self._largest:
            raise TooLarge(413, "payload_too_large", f"a frame of {len(image)} bytes")
        return _microseconds(moment), image, time.perf_counter()

    def put(self, captured_us: int, image: bytes, now: float) -> None:
        """Let a frame wait for the line, in place of an older one."""
        self._count(sent=1, replaced=int(self._next is not None))
        self._next = (captured_us, image)
        self._sent_at[captured_us] = now
        self._ready.set()

    def finish(self) -> None:
        """Say that there are no more; iterating ends when all are answered, and kept if chosen."""
        self._finishing = True
        self._ready.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._messages.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        return await anext(self._messages)

    async def _run(self) -> AsyncGenerator[Message, None]:
        """Hold one connection after another."""
        library = websockets()
        broken_since: float | None = None
        pause = _FIRST_PAUSE_S
        while True:
            options = self._line.options(self._path, self._keep_every_ms)
            cause: Exception = ConnectionError("the service closed the stream")
            try:
                async with library.connect(**options) as socket, self._talk(socket) as messages:
                    async for message in messages:
                        broken_since, pause = None, _FIRST_PAUSE_S
                        yield message
                if socket.close_code == _DONE and self._finishing:
                    return
            except library.ConnectionClosed as error:
                cause = error
                if error.rcvd and error.rcvd.code not in _MAY_PASS:
                    raise _closed(error.rcvd.code) from error
            except library.InvalidStatus as error:
                cause, told = error, refused(error.response)
                if told.status not in _BUSY:
                    raise told from error
                pause = max(pause, told.retry_after_s or 0.0)
            except (OSError, library.WebSocketException) as error:
                cause = error
            now = time.monotonic()
            broken_since = now if broken_since is None else broken_since
            if now + pause - broken_since > self._reconnect_s:
                raise self._given_up(cause) from cause
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
            self._take_up_again()

    def _talk(self, socket: Any) -> aclosing[AsyncGenerator[Message, None]]:
        return aclosing(self._converse(socket))

    async def _converse(self, socket: Any) -> AsyncGenerator[Message, None]:
        """Send and receive over one connection until it closes."""
        sending = asyncio.ensure_future(self._send_all(socket))
        try:
            async for text in socket:
                message = self._read(_document(text))
                self._ready.set()
                if message is not None:
                    yield message
        finally:
            sending.cancel()
            # What broke the sending broke the receiving as well, which says so.
            await asyncio.gather(sending, return_exceptions=True)

    async def _send_all(self, socket: Any) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            on_line = self._here - self._there
            if self._next is not None and self._largest and on_line < _UNANSWERED:
                self._on_line, self._next = self._next, None
                self._here += 1
                captured_us, image = self._on_line
                await socket.send(_HEADER.pack(captured_us) + image)
                self._ready.set()
            elif self._finishing and self._is_done():
                await socket.close(_DONE)
                return

    def _is_done(self) -> bool:
        return self._next is None and self._on_line is None and self._unkept <= 0

    def _read(self, document: dict[str, Any]) -> Message | None:
        kind = document.get("type")
        if kind == "problem":
            if document.get("code") in ("shutting_down", "not_ready"):
                return None  # the service closes next, and is back soon
            raise refusal(int(document.get("status", 500)), document)
        try:
            return self._reader(str(kind))(document)
        except (KeyError, TypeError, ValueError) as error:
            raise UnexpectedAnswer(
                f"expected a stream's message; found another shape ({error!r})"
            ) from error

    def _reader(self, kind: str) -> Callable[[dict[str, Any]], Message]:
        readers: dict[str, Callable[[dict[str, Any]], Message]]
        readers = {"open": self._opened, "frame": self._result, "dropped": self._no_room}
        return {**readers, "kept": self._kept, "full": self._full}[kind]

    def _opened(self, document: dict[str, Any]) -> Opened:
        self._largest = int(document["max_message_bytes"])
        at = document["last_captured_at"]
        last = datetime.fromisoformat(at) if at else None
        count, use = self._counts.reconnects, document["intended_use"]
        return Opened(document["revision"], last, self._largest, use, count, document)

    def _result(self, document: dict[str, Any]) -> Result:
        at = self._answered(document)
        self._count(answered=1)
        self._unkept += bool(document.get("to_be_kept"))
        begun = self._sent_at.pop(at, None)
        for older in [one for one in self._sent_at if one < at]:
            del self._sent_at[older]
        latency_s = None if begun is None else time.perf_counter() - begun
        frame = ExamFrame.read({"frame_id": None, **document})
        ms = document.get("ms")
        moment = _EPOCH + timedelta(microseconds=at)
        return Result(frame, moment, None if ms is None else ms / 1000, latency_s, document)

    def _no_room(self, document: dict[str, Any]) -> Dropped:
        moment = _EPOCH + timedelta(microseconds=self._answered(document))
        return Dropped(moment, document["reason"], document)

    def _kept(self, document: dict[str, Any]) -> Kept:
        self._count(kept=1)
        self._unkept -= 1
        at = datetime.fromisoformat(document["captured_at"])
        return Kept(document["frame_id"], at, document["revision"], document)

    def _full(self, document: dict[str, Any]) -> Full:
        self._unkept -= 1
        at = datetime.fromisoformat(document["captured_at"])
        return Full(document["frame_id"], at, document)

    def _answered(self, document: dict[str, Any]) -> int:
        """Take in how far the service is; gives the frame's time, microseconds since 1970."""
        at = _microseconds(datetime.fromisoformat(document["captured_at"]))
        # Those that came meanwhile and were no longer the newest need no answer of their own.
        self._there = document["received"]
        if self._on_line is not None and self._on_line[0] == at:
            self._on_line = None
        told = document["dropped"].items()
        self._dropped = {why: count + self._before.get(why, 0) for why, count in told}
        return at

    def _take_up_again(self) -> None:
        """Count anew for another connection, and send again what may have been lost."""
        self._count(reconnects=1)
        self._here = self._there = self._largest = self._unkept = 0
        self._before = dict(self._dropped)
        if self._next is None:
            self._next = self._on_line
        self._on_line = None
        self._ready.set()

    def _given_up(self, cause: Exception) -> ClientError:
        if hasattr(cause, "response"):
            return refused(cause.response)
        return Unreachable(
            f"{self._line.url}: the stream broke and could not be taken up again within "
            f"{self._reconnect_s:g} s ({cause or type(cause).__name__})\nWhat to do: check that "
            "the service runs (`curl URL/healthz`), that a proxy between lets WebSockets pass, and "
            "the URL"
        )

    def _count(self, **more: int) -> None:
        now = self._counts
        self._counts = replace(now, **{name: getattr(now, name) + n for name, n in more.items()})


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _closed(code: int) -> ClientError:
    return refusal(500, {"code": "internal", "detail": f"The stream was closed with {code}"})


def _document(text: str | bytes) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise UnexpectedAnswer("expected a stream's messages in JSON; found something else")
    return document
