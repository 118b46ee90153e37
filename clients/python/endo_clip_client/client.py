"""The blocking client: `Client(url).polyp_detection(frames)`."""

import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
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

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Asks an Endo-CLIP service; may be shared by threads. Use it as a context manager.

    >>> with Client("http://localhost:8000") as client:  # doctest: +SKIP
    ...     answer = client.polyp_detection(["a.jpg", "b.jpg"], patient_id="p-17")
    ...     print(answer.patient.decision, answer.patient.probability)
    """

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
        """Prepare to ask; nothing is sent yet.

        Args:
            url: the service's root.
            key: API key, where the service wants one.
            timeout_s: how long to wait for an answer, each attempt.
            retry: how often and how long to try again.
            shrink: make frames small before they are sent (needs Pillow); see README.md.
            verify: an `ssl.SSLContext` for an authority or a client certificate of your own.

        Raises:
            ValueError: the URL is none.
        """
        self.url, options = http_options(url, key, timeout_s, verify)
        self._http = httpx.Client(**options)
        self._talks = Conversations(retry or Retry(), shrink=shrink)

    def polyp_detection(
        self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]
    ) -> Answer:
        """Ask whether there is a polyp, per frame and for the patient whose frames these are."""
        return self._hold(self._talks.scoring("polyp-detection", frames, options))

    def malignancy(self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]) -> Answer:
        """Ask whether a lesion is neoplastic, per frame and for the patient."""
        return self._hold(self._talks.scoring("malignancy", frames, options))

    def zero_shot(
        self,
        frames: Sequence[FrameLike],
        labels: str | Sequence[Label],
        **options: Unpack[ZeroShotOptions],
    ) -> Answer:
        """Score labels of one's own (2 to 32), or a named label set; not calibrated."""
        sent = {**options, "labels": zero_shot_labels(labels)}
        return self._hold(self._talks.scoring("zero-shot", frames, sent))

    def embeddings(
        self,
        frames: Sequence[FrameLike] = (),
        texts: Sequence[str] = (),
        **options: Unpack[ZeroShotOptions],
    ) -> Answer:
        """Embed frames, texts or both."""
        sent = {**options, "texts": list(texts) or None}
        return self._hold(self._talks.scoring("embeddings", frames, sent))

    def report(
        self,
        task: str,
        frames: Sequence[FrameLike],
        dialect: str = "dicom",
        **options: Unpack[TaskOptions],
    ) -> bytes:
        """Give a named task's answer as a DICOM structured report or, by `fhir`, a FHIR bundle."""
        return self._hold(self._talks.report(task, frames, dialect, options))

    def score_patients(
        self,
        task: str,
        patients: Sequence[PatientIn],
        *,
        concurrency: int = 4,
        progress: Callable[[Progress], None] | None = None,
        **options: Unpack[TaskOptions],
    ) -> Iterator[Scored]:
        """Score many patients, a request each, and give each as soon as it is done.

        One patient's failure is in its `Scored` and does not end the others. No more than
        `concurrency` patients are in memory.

        Args:
            task: `polyp-detection` or `malignancy`.
            patients: in any number.
            concurrency: requests at a time.
            progress: told after each patient.
            options: of every request.
        """
        total = sum(len(patient.frames) for patient in patients)
        frames = done = 0
        rest = iter(enumerate(patients))
        with ThreadPoolExecutor(concurrency) as pool:
            running: set[Future[Scored]] = set()
            try:
                while True:
                    for index, patient in islice(rest, concurrency - len(running)):
                        running.add(pool.submit(self._scored, task, index, patient, options))
                    if not running:
                        return
                    finished, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in finished:
                        one = future.result()
                        done, frames = done + 1, frames + len(patients[one.index].frames)
                        if progress:
                            progress(Progress(done, len(patients), frames, total))
                        yield one
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def model(self) -> Mapping[str, Any]:
        """Give the served model: manifest, card, label sets, operating points."""
        return self._hold(self._talks.model())

    def devices(self) -> Mapping[str, Any]:
        """Give the device profiles."""
        return self._hold(self._talks.document("/v1/devices"))

    def limits(self) -> Mapping[str, Any]:
        """Give what a request may hold."""
        return self._hold(self._talks.document("/v1/limits"))

    def wait_until_ready(self, timeout_s: float = 60.0) -> None:
        """Wait for a service that has just been started.

        Raises:
            Busy, Unreachable, TimedOut: it is not ready in time; the error says why.
        """
        self._hold(self._talks.readiness(timeout_s))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def _scored(
        self, task: str, index: int, patient: PatientIn, options: Mapping[str, Any]
    ) -> Scored:
        try:
            answer = self._hold(self._talks.patient(task, patient, options))
        except ClientError as error:
            return Scored(index, patient.tag, error=error)
        return Scored(index, patient.tag, answer=answer)

    def _hold(self, talk: Talk[T]) -> T:
        """Hold a conversation, blocking."""
        result: Any = None
        while True:
            try:
                step = talk.send(result)
            except StopIteration as end:
                value: T = end.value
                return value
            try:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    result = None
                elif isinstance(step, Work):
                    result = step.run()
                else:
                    result = self._http.request(**send_options(step))
            except httpx.TransportError as error:
                result = error
