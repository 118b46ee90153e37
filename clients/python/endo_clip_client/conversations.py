"""What the client does, as conversations: the blocking and the async client both drive these."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeVar

import httpx

from endo_clip_client.errors import (
    Busy,
    ClientError,
    InvalidRequest,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
)
from endo_clip_client.results import Answer
from endo_clip_client.retrying import Pause, Retry, converse, document_of
from endo_clip_client.sending import Call, FrameIn, FrameLike, PatientIn, read_frames, scoring_call
from endo_clip_client.shrinking import Shrinker

__all__ = [
    "DIALECTS",
    "Conversations",
    "Label",
    "Progress",
    "Scored",
    "Step",
    "Talk",
    "TaskOptions",
    "Work",
    "ZeroShotOptions",
]

T = TypeVar("T")
DIALECTS = {"dicom": "application/dicom", "fhir": "application/fhir+json"}


@dataclass(frozen=True, slots=True)
class Work:
    """Do this apart from the event loop, and give what it returns."""

    run: Callable[[], Any]


Step = Call | Pause | Work
Talk = Generator[Step, Any, T]


class ZeroShotOptions(TypedDict, total=False):
    """Options of a request: pseudonym, device profile, heatmaps, the service's own deadline."""

    patient_id: str | None
    device: str | None
    explain: bool
    deadline_s: float | None


class TaskOptions(ZeroShotOptions, total=False):
    """The same, and `sensitivity_first`, `balanced` or `specificity_first`."""

    operating_point: str | None


@dataclass(frozen=True, slots=True)
class Label:
    """A label of one's own, in 1 to 16 sentences."""

    label: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far many patients are, failed ones included."""

    patients: int
    patients_total: int
    frames: int
    frames_total: int


@dataclass(frozen=True, slots=True)
class Scored:
    """One of many patients: exactly one of the two is set.

    Attributes:
        index: its place among the patients given.
        tag: as given.
        answer: the service's.
        error: why there is none.
    """

    index: int
    tag: Any
    answer: Answer | None = None
    error: ClientError | None = None


class Conversations:
    """Each method is a conversation, to be driven by a client."""

    def __init__(self, retry: Retry, *, shrink: bool) -> None:
        self._retry = retry
        self._shrink = shrink
        self._shrinkers: dict[str | None, Shrinker] = {}

    def scoring(
        self, task: str, frames: Sequence[FrameLike], options: Mapping[str, Any]
    ) -> Talk[Answer]:
        """Score the frames of one patient."""
        return _answer((yield from self._scored(task, frames, options, "application/json")))

    def report(
        self, task: str, frames: Sequence[FrameLike], dialect: str, options: Mapping[str, Any]
    ) -> Talk[bytes]:
        """Score the frames of one patient, and give the answer as a file of another dialect."""
        if dialect not in DIALECTS:
            raise ValueError(f"dialect: expected one of {', '.join(DIALECTS)}; found {dialect!r}")
        accept = DIALECTS[dialect]
        response = yield from self._scored(task, frames, options, accept)
        if response.headers.get("content-type", "").partition(";")[0] != accept:
            raise UnexpectedAnswer(
                f"expected {accept}; found another type\nWhat to do: the service is older than the "
                "dialects, `endo-clip info` says which it is"
            )
        content: bytes = response.content
        return content

    def _scored(
        self, task: str, frames: Sequence[FrameLike], options: Mapping[str, Any], accept: str
    ) -> Talk[httpx.Response]:
        if not frames and not options.get("texts"):
            raise ValueError(f"{task}: expected at least one frame; found none")
        read: list[FrameIn] = yield Work(lambda: read_frames(frames))
        if self._shrink and read:
            shrinker = yield from self._shrinker(options.get("device"))
            read = yield Work(lambda: [_shrunk(shrinker, frame) for frame in read])
        sent = dict(options)
        deadline_s = sent.pop("deadline_s", None)
        call = scoring_call(task, read, sent, deadline_s=deadline_s, accept=accept)
        return (yield from converse(call, self._retry))

    def patient(self, task: str, patient: PatientIn, options: Mapping[str, Any]) -> Talk[Answer]:
        """Score one of many patients; what it says of itself wins over the common options."""
        own = {"patient_id": patient.patient_id, "device": patient.device}
        sent = {**options, **{name: one for name, one in own.items() if one is not None}}
        return (yield from self.scoring(task, patient.frames, sent))

    def document(self, path: str) -> Talk[Mapping[str, Any]]:
        """Ask for one of the service's documents."""
        response = yield from converse(Call.get(path), self._retry)
        return document_of(response)

    def model(self) -> Talk[Mapping[str, Any]]:
        """Ask for the model that is served."""
        listed = yield from self.document("/v1/models")
        try:
            name = listed["models"][0]["name"]
        except (KeyError, IndexError, TypeError) as error:
            raise UnexpectedAnswer("/v1/models: expected a model; found none") from error
        return (yield from self.document(f"/v1/models/{name}"))

    def readiness(self, timeout_s: float) -> Talk[None]:
        """Wait until the service is ready."""
        until = time.monotonic() + timeout_s
        while True:
            try:
                yield from converse(Call.get("/readyz"), replace(self._retry, attempts=1))
            except ClientError as error:
                if time.monotonic() >= until or not _may_become_ready(error):
                    raise
            else:
                return
            yield Pause(0.25)

    def _shrinker(self, device: str | None) -> Talk[Shrinker]:
        if device not in self._shrinkers:
            model = yield from self.model()
            devices = (yield from self.document("/v1/devices"))["devices"]
            boxes = {one["name"]: tuple(one["crop"]) for one in devices}
            box = boxes.get(device or devices[0]["name"])
            if box is None:
                raise InvalidRequest(
                    422, "unknown_device", f"expected one of {', '.join(boxes)}; found another name"
                )
            self._shrinkers[device] = Shrinker(model["manifest"]["input"]["size"], box)
        return self._shrinkers[device]


def _shrunk(shrinker: Shrinker, frame: FrameIn) -> FrameIn:
    return replace(frame, data=shrinker.shrink(frame.data))


def _answer(response: httpx.Response) -> Answer:
    document = document_of(response)
    try:
        return Answer.read(document, datetime.now(UTC))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"expected an answer of an Endo-CLIP service; found JSON of another shape ({error!r})\n"
            "What to do: check the URL; client and service must both speak version 1"
        ) from error


def _may_become_ready(error: ClientError) -> bool:
    return isinstance(error, Busy | Unreachable | TimedOut)
