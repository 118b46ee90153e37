"""What the client does, as conversations: the blocking and the async client both drive these."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypedDict, TypeVar, Unpack

import httpx

from endo_clip_client.errors import (
    Busy,
    ClientError,
    InvalidRequest,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
)
from endo_clip_client.heatmaps import Painter
from endo_clip_client.results import Answer, Heatmap
from endo_clip_client.retrying import Pause, Retry, converse, document_of
from endo_clip_client.sending import Call, FrameIn, FrameLike, PatientIn, frames_call, read_frames
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
    "accepted",
    "file_of",
    "read_answer",
]

T = TypeVar("T")
DIALECTS = {
    "json": "application/json",
    "dicom": "application/dicom",
    "fhir": "application/fhir+json",
}


@dataclass(frozen=True, slots=True)
class Work:
    """Do this apart from the event loop, and give what it returns."""

    run: Callable[[], Any]


Step = Call | Pause | Work
Talk = Generator[Step, Any, T]
View = tuple[Mapping[str, Any], tuple[float, ...]]


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

    def told(self) -> dict[str, Any]:
        """Give it as the contract has it."""
        return {"label": self.label, "prompts": list(self.prompts)}


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
        self.shrink = shrink
        self._views: dict[str | None, View] = {}

    def polyp_detection(
        self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]
    ) -> Talk[Answer]:
        """Ask whether there is a polyp, per frame and for the patient whose frames these are."""
        return self.scoring("polyp-detection", frames, options)

    def malignancy(
        self, frames: Sequence[FrameLike], **options: Unpack[TaskOptions]
    ) -> Talk[Answer]:
        """Ask whether a lesion is neoplastic, per frame and for the patient."""
        return self.scoring("malignancy", frames, options)

    def zero_shot(
        self,
        frames: Sequence[FrameLike],
        labels: str | Sequence[Label],
        **options: Unpack[ZeroShotOptions],
    ) -> Talk[Answer]:
        """Score labels of one's own (2 to 32), or a named label set; not calibrated."""
        own = labels if isinstance(labels, str) else [one.told() for one in labels]
        return self.scoring("zero-shot", frames, {**options, "labels": own})

    def embeddings(
        self,
        frames: Sequence[FrameLike] = (),
        texts: Sequence[str] = (),
        **options: Unpack[ZeroShotOptions],
    ) -> Talk[Answer]:
        """Embed frames, texts or both."""
        return self.scoring("embeddings", frames, {**options, "texts": list(texts) or None})

    def report(
        self,
        task: str,
        frames: Sequence[FrameLike],
        dialect: str = "dicom",
        **options: Unpack[TaskOptions],
    ) -> Talk[bytes]:
        """Give a named task's answer as a DICOM structured report or, by `fhir`, a FHIR bundle."""
        accept = accepted(dialect)
        response = yield from self._scored(task, frames, options, accept)
        return file_of(response, accept)

    def scoring(
        self, task: str, frames: Sequence[FrameLike], options: Mapping[str, Any]
    ) -> Talk[Answer]:
        """Score the frames of one patient."""
        response = yield from self._scored(task, frames, options, "application/json")
        return read_answer(response, lambda told: Answer.read(told, datetime.now(UTC)))

    def _scored(
        self, task: str, frames: Sequence[FrameLike], options: Mapping[str, Any], accept: str
    ) -> Talk[httpx.Response]:
        if not frames and not options.get("texts"):
            raise ValueError(f"{task}: expected at least one frame; found none")
        read = yield from self.read(frames, options.get("device"))
        sent = dict(options)
        deadline_s = sent.pop("deadline_s", None)
        call = frames_call(f"/v1/{task}", read, sent, deadline_s=deadline_s, accept=accept)
        return (yield from self.ask(call))

    def read(self, frames: Sequence[FrameLike], device: str | None) -> Talk[list[FrameIn]]:
        """Read frames, and make them small where that is wanted."""
        read: list[FrameIn] = yield Work(lambda: read_frames(frames))
        if self.shrink and read:
            seen, box = yield from self._view(device)
            shrinker = Shrinker(seen["size"], box)
            read = yield Work(lambda: [_shrunk(shrinker, frame) for frame in read])
        return read

    def ask(self, call: Call) -> Talk[httpx.Response]:
        """Send a call until it is answered."""
        return (yield from converse(call, self._retry))

    def patient(self, task: str, patient: PatientIn, options: Mapping[str, Any]) -> Talk[Answer]:
        """Score one of many patients; what it says of itself wins over the common options."""
        own = {"patient_id": patient.patient_id, "device": patient.device}
        sent = {**options, **{name: one for name, one in own.items() if one is not None}}
        return (yield from self.scoring(task, patient.frames, sent))

    def document(self, path: str) -> Talk[Mapping[str, Any]]:
        """Ask for one of the service's documents."""
        return document_of((yield from self.ask(Call.get(path))))

    def devices(self) -> Talk[Mapping[str, Any]]:
        """Give the device profiles."""
        return self.document("/v1/devices")

    def limits(self) -> Talk[Mapping[str, Any]]:
        """Give what a request may hold."""
        return self.document("/v1/limits")

    def model(self) -> Talk[Mapping[str, Any]]:
        """Give the served model: manifest, card, label sets, operating points."""
        listed = yield from self.document("/v1/models")
        try:
            name = listed["models"][0]["name"]
        except (KeyError, IndexError, TypeError) as error:
            raise UnexpectedAnswer("/v1/models: expected a model; found none") from error
        return (yield from self.document(f"/v1/models/{name}"))

    def wait_until_ready(self, timeout_s: float = 60.0) -> Talk[None]:
        """Wait for a service that has just been started.

        Raises:
            Busy, Unreachable, TimedOut: it is not ready in time; the error says why.
        """
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

    def overlay(
        self, frame: FrameLike, heatmap: Heatmap, *, device: str | None = None
    ) -> Talk[bytes]:
        """Lay a heat map of `explain` over its frame, as PNG; needs Pillow.

        Args:
            frame: as it was scored.
            heatmap: of its answer.
            device: the profile it was scored with: the map covers its crop box.

        Raises:
            FrameUnreadable: the frame is no picture (DICOM, damaged files).
        """
        (read,) = yield Work(lambda: read_frames([frame]))
        seen, box = yield from self._view(device)
        painter = Painter(seen["resize"], box)
        painted: bytes = yield Work(lambda: painter.paint(read.data, heatmap))
        return painted

    def _view(self, device: str | None) -> Talk[View]:
        """Ask what the service looks at of a frame: input contract and crop box; once."""
        if device not in self._views:
            model = yield from self.model()
            devices = (yield from self.document("/v1/devices"))["devices"]
            boxes = {one["name"]: tuple(one["crop"]) for one in devices}
            box = boxes.get(device or devices[0]["name"])
            if box is None:
                raise InvalidRequest(
                    422, "unknown_device", f"expected one of {', '.join(boxes)}; found another name"
                )
            self._views[device] = (model["manifest"]["input"], box)
        return self._views[device]


def _shrunk(shrinker: Shrinker, frame: FrameIn) -> FrameIn:
    return replace(frame, data=shrinker.shrink(frame.data))


def accepted(dialect: str) -> str:
    """Give a dialect's media type.

    Raises:
        ValueError: there is no such dialect.
    """
    if dialect not in DIALECTS:
        raise ValueError(f"dialect: expected one of {', '.join(DIALECTS)}; found {dialect!r}")
    return DIALECTS[dialect]


def file_of(response: httpx.Response, accept: str) -> bytes:
    """Give the file that was asked for.

    Raises:
        UnexpectedAnswer: it is of another type.
    """
    if response.headers.get("content-type", "").partition(";")[0] != accept:
        raise UnexpectedAnswer(
            f"expected {accept}; found another type\nWhat to do: the service is older than the "
            "dialects, `endo-clip info` says which it is"
        )
    return response.content


def read_answer(response: httpx.Response, read: Callable[[Mapping[str, Any]], T]) -> T:
    """Read an answer's document as a typed value.

    Raises:
        UnexpectedAnswer: it has another shape.
    """
    document = document_of(response)
    try:
        return read(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UnexpectedAnswer(
            f"expected an answer of an Endo-CLIP service; found JSON of another shape ({error!r})\n"
            "What to do: check the URL; client and service must both speak version 1"
        ) from error


def _may_become_ready(error: ClientError) -> bool:
    return isinstance(error, Busy | Unreachable | TimedOut)
