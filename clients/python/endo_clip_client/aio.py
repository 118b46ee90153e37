"""The async client: `await AsyncClient(url).polyp_detection(frames)`, in the words of `Client`."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from secrets import token_hex
from typing import Any, Unpack

import httpx

from endo_clip_client.conversations import Conversations, Progress, Scored, TaskOptions
from endo_clip_client.errors import ClientError
from endo_clip_client.exam_talks import ExamOptions, ExamTalks
from endo_clip_client.lines import Line
from endo_clip_client.retrying import Retry
from endo_clip_client.said import Awaiting
from endo_clip_client.sending import PatientIn
from endo_clip_client.streaming import AsyncStream
from endo_clip_client.transport import http_options
from endo_clip_client.words import ExamWords, Words

__all__ = ["AsyncClient", "AsyncExam"]


class AsyncExam(Awaiting, ExamWords):
    """An exam of a service, in the words of `Exam`."""

    _talks: ExamTalks

    def __init__(self, http: httpx.AsyncClient, talks: ExamTalks, line: Line) -> None:
        self._http, self._talks, self._line = http, talks, line

    @property
    def exam_id(self) -> str:
        """Its name, by which any client of the same key finds it."""
        return self._talks.exam_id

    def stream(self, *, keep_every_ms: int = 1000, reconnect_s: float = 120.0) -> AsyncStream:
        """Send live frames and receive their results, as `Exam.stream`."""
        return AsyncStream(self._line, self._talks.path, keep_every_ms, reconnect_s)

    def __repr__(self) -> str:
        return f"AsyncExam({self.exam_id!r})"


class AsyncClient(Awaiting, Words):
    """Asks an Endo-CLIP service from an event loop; a cancelled call is dropped by the service."""

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        *,
        key: str | None = None,
        timeout_s: float = 120.0,
        retry: Retry | None = None,
        shrink: bool = False,
        verify: bool | ssl.SSLContext = True,
    ) -> None:
        """Prepare to ask; arguments and errors as `Client`'s."""
        self.url, options = http_options(url, key, timeout_s, verify)
        self._http = httpx.AsyncClient(**options)
        self._line = Line(self.url, options["headers"], verify)
        self._talks = Conversations(retry or Retry(), shrink=shrink)

    async def score_patients(
        self,
        task: str,
        patients: Sequence[PatientIn],
        *,
        concurrency: int = 4,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[TaskOptions],
    ) -> AsyncIterator[Scored]:
        """Score many patients as `Client.score_patients` does."""
        total = sum(len(patient.frames) for patient in patients)
        frames = done = 0
        rest = iter(enumerate(patients))
        running: set[asyncio.Task[Scored]] = set()
        try:
            while True:
                for index, patient in islice(rest, concurrency - len(running)):
                    running.add(asyncio.create_task(self._scored(task, index, patient, options)))
                if not running:
                    return
                finished, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                for one in (task_done.result() for task_done in finished):
                    done, frames = done + 1, frames + len(patients[one.index].frames)
                    if progress:
                        progress(Progress(done, len(patients), frames, total))
                    yield one
        finally:
            for left in running:
                left.cancel()
            await asyncio.gather(*running, return_exceptions=True)

    def exam(self, exam_id: str | None = None, **options: Unpack[ExamOptions]) -> AsyncExam:
        """Give an exam as `Client.exam` does."""
        talks = ExamTalks(self._talks, exam_id or token_hex(16), options)
        return AsyncExam(self._http, talks, self._line)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self.url!r})"

    async def _scored(
        self, task: str, index: int, patient: PatientIn, options: Mapping[str, Any]
    ) -> Scored:
        try:
            answer = await self._hold(self._talks.patient(task, patient, options))
        except ClientError as error:
            return Scored(index, patient.tag, error=error)
        return Scored(index, patient.tag, answer=answer)
