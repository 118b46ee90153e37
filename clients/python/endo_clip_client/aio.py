"""The async client: `await AsyncClient(url).polyp_detection(frames)`, in the words of `Client`."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar, Unpack

import httpx

from endo_clip_client.conversations import (
    Conversations,
    Label,
    Progress,
    Scored,
    Talk,
    TaskOptions,
    Work,
    ZeroShotOptions,
)
from endo_clip_client.errors import ClientError
from endo_clip_client.results import Answer
from endo_clip_client.retrying import Pause, Retry
from endo_clip_client.sending import FrameLike, PatientIn
from endo_clip_client.transport import http_options, send_options, zero_shot_labels

__all__ = ["AsyncClient"]

T = TypeVar("T")


class AsyncClient:
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
        self._talks = Conversations(retry or Retry(), shrink=shrink)

    async def polyp_detection(
        self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]
    ) -> Answer:
        """Ask whether there is a polyp, per frame and for the patient whose frames these are."""
        return await self._hold(self._talks.scoring("polyp-detection", frames, options))

    async def malignancy(
        self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]
    ) -> Answer:
        """Ask whether a lesion is neoplastic, per frame and for the patient."""
        return await self._hold(self._talks.scoring("malignancy", frames, options))

    async def zero_shot(
        self,
        frames: Sequence[FrameLike],
        labels: str | Sequence[Label],
        **options: Unpack[ZeroShotOptions],
    ) -> Answer:
        """Score labels of one's own (2 to 32), or a named label set; not calibrated."""
        sent = {**options, "labels": zero_shot_labels(labels)}
        return await self._hold(self._talks.scoring("zero-shot", frames, sent))

    async def embeddings(
        self,
        frames: Sequence[FrameLike] = (),
        texts: Sequence[str] = (),
        **options: Unpack[ZeroShotOptions],
    ) -> Answer:
        """Embed frames, texts or both."""
        sent = {**options, "texts": list(texts) or None}
        return await self._hold(self._talks.scoring("embeddings", frames, sent))

    async def report(
        self,
        task: str,
        frames: Sequence[FrameLike],
        dialect: str = "dicom",
        **options: Unpack[TaskOptions],
    ) -> bytes:
        """Give a named task's answer as a DICOM structured report or, by `fhir`, a FHIR bundle."""
        return await self._hold(self._talks.report(task, frames, dialect, options))

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

    async def model(self) -> Mapping[str, Any]:
        """Give the served model: manifest, card, label sets, operating points."""
        return await self._hold(self._talks.model())

    async def devices(self) -> Mapping[str, Any]:
        """Give the device profiles."""
        return await self._hold(self._talks.document("/v1/devices"))

    async def limits(self) -> Mapping[str, Any]:
        """Give what a request may hold."""
        return await self._hold(self._talks.document("/v1/limits"))

    async def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for a service that has just been started; errors as `Client`'s."""
        await self._hold(self._talks.readiness(timeout_s))

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

    async def _hold(self, talk: Talk[T]) -> T:
        """Hold a conversation, waiting on the event loop."""
        result: Any = None
        while True:
            try:
                step = talk.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    result = None
                elif isinstance(step, Work):
                    result = await asyncio.to_thread(step.run)
                else:
                    result = await self._http.request(**send_options(step))
            except httpx.TransportError as error:
                result = error
