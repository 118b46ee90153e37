"""The blocking stream: an `AsyncStream` on an event loop in a thread of its own."""

import asyncio
import threading
from collections.abc import Iterator
from datetime import datetime
from queue import SimpleQueue
from typing import Self

from endo_clip_client.messages import Message
from endo_clip_client.streaming import AsyncStream, Counts

__all__ = ["Stream"]


class Stream:
    """A room's frames, and their results as they come; `AsyncStream` says what it promises.

    >>> with exam.stream() as stream:  # doctest: +SKIP
    ...     stream.send(jpeg, captured_at)  # from any thread, at the camera's pace
    ...     for message in stream:
    ...         ...  # Opened, Result, Kept, Dropped, Full
    """

    def __init__(self, stream: AsyncStream) -> None:
        """Take the stream over; nothing is connected before `with`."""
        self._stream = stream
        self._loop = asyncio.new_event_loop()
        self._told: SimpleQueue[Message | BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="endo-clip-stream", daemon=True)
        self._pumping: asyncio.Task[None] | None = None

    @property
    def counts(self) -> Counts:
        """What became of the frames so far."""
        return self._stream.counts

    def send(self, image: bytes, captured_at: datetime | None = None) -> None:
        """Send a frame, as `AsyncStream.send`; returns at once."""
        checked = self._stream.checked(image, captured_at)
        self._loop.call_soon_threadsafe(self._stream.put, *checked)

    def finish(self) -> None:
        """Say that there are no more; iterating ends when all that were sent are answered."""
        self._loop.call_soon_threadsafe(self._stream.finish)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop)
        self._thread.join()
        self._loop.close()

    def __iter__(self) -> Iterator[Message]:
        while (told := self._told.get()) is not None:
            if isinstance(told, BaseException):
                self._told.put(None)
                raise told
            yield told
        self._told.put(None)  # whoever asks again is told the same

    def _stop(self) -> None:
        if self._pumping is not None:
            self._pumping.cancel()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._pumping = self._loop.create_task(self._pump())
        try:
            self._loop.run_until_complete(self._pumping)
        except asyncio.CancelledError:
            pass
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._told.put(None)

    async def _pump(self) -> None:
        try:
            async with self._stream:
                async for message in self._stream:
                    self._told.put(message)
        except Exception as error:  # it is raised where the caller iterates
            self._told.put(error)
