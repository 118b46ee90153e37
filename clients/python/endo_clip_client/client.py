"""The blocking client: `Client(url).polyp_detection(frames)`."""

import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from secrets import token_hex
from typing import Any, Unpack

import httpx

from endo_clip_client.conversations import Conversations, Progress, Scored, TaskOptions
from endo_clip_client.errors import ClientError
from endo_clip_client.exam_talks import ExamOptions, ExamTalks
from endo_clip_client.lines import Line
from endo_clip_client.retrying import Retry
from endo_clip_client.said import Blocking
from endo_clip_client.sending import PatientIn
from endo_clip_client.stream import Stream
from endo_clip_client.streaming import AsyncStream
from endo_clip_client.transport import http_options
from endo_clip_client.words import ExamWords, Words

__all__ = ["Client", "Exam"]


class Exam(Blocking, ExamWords):
    """An exam of a service: `open`, `send`, `result`, `close`, `delete`, `report`, `stream`."""

    _talks: ExamTalks

    def __init__(self, http: httpx.Client, talks: ExamTalks, line: Line) -> None:
        self._http, self._talks, self._line = http, talks, line

    @property
    def exam_id(self) -> str:
        """Its name, by which any client of the same key finds it."""
        return self._talks.exam_id

    def stream(self, *, keep_every_ms: int = 1000, reconnect_s: float = 120.0) -> Stream:
        """Send live frames and receive their results; see `Stream`. The exam must be open.

        Args:
            keep_every_ms: one frame in each such interval becomes part of the exam; 0: every one.
            reconnect_s: how long to try to get a broken connection back; 0: not at all.
        """
        return Stream(AsyncStream(self._line, self._talks.path, keep_every_ms, reconnect_s))

    def __repr__(self) -> str:
        return f"Exam({self.exam_id!r})"


class Client(Blocking, Words):
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
        self._line = Line(self.url, options["headers"], verify)
        self._talks = Conversations(retry or Retry(), shrink=shrink)

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

    def exam(self, exam_id: str | None = None, **options: Unpack[ExamOptions]) -> Exam:
        """Give an exam to be opened, or one that is open already; nothing is sent yet.

        Args:
            exam_id: `[A-Za-z0-9._-]{1,64}`; None: a new one's.
            options: what is fixed when it is opened.
        """
        talks = ExamTalks(self._talks, exam_id or token_hex(16), options)
        return Exam(self._http, talks, self._line)

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
