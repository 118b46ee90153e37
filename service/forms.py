"""The three request forms, read into one meaning: patients with frames, and options.

What comes out does not say which form it was, so the answer cannot depend on it.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from starlette.requests import Request

from model_store.dicom import MEDIA_TYPE, DicomFrame
from model_store.errors import ImageRejected
from service import jsonio
from service.errors import (
    InvalidRequest,
    MalformedRequest,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from service.multipart import FrameBytes, MultipartForm, read_multipart
from service.schemas import (
    EmbeddingsBody,
    EmbeddingsOptions,
    EmbeddingsQuery,
    ExamFramesBody,
    ExamFramesOptions,
    ExamFramesQuery,
    FrameOptions,
    NamedTaskBody,
    NamedTaskOptions,
    NamedTaskQuery,
    Strict,
    ZeroShotBody,
    ZeroShotOptions,
    ZeroShotQuery,
)

__all__ = [
    "EMBEDDINGS",
    "EXAM_FRAMES",
    "IMAGE_TYPES",
    "NAMED_TASK",
    "ZERO_SHOT",
    "FormLimits",
    "FrameIn",
    "PatientIn",
    "RequestIn",
    "RequestModels",
    "read_document",
    "read_request",
]

IMAGE_TYPES = (
    *("image/jpeg", "image/jpg", "image/pjpeg", "image/png", "image/webp"),
    *("image/bmp", "image/x-ms-bmp", "image/tiff", MEDIA_TYPE),
)
M = TypeVar("M", bound=Strict)
# Above this, parsing would hold the event loop for longer than a thread hop costs.
_INLINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What a request may hold: frames, patients, and bytes of one frame's file."""

    max_frames: int
    max_patients: int
    max_frame_bytes: int


@dataclass(frozen=True, slots=True)
class FrameIn:
    """A frame as sent.

    Attributes:
        frame_id: unique within its patient.
        data: the image file of `length` bytes; None when it was longer than the limit.
        captured_at: RFC 3339, where it was told.
        named: whether the id is the caller's; else it is the index.
        dicom: which frame of a DICOM file, once `service.frames` has looked.
    """

    frame_id: str
    data: bytes | bytearray | None
    length: int
    captured_at: str | None = None
    named: bool = True
    dicom: DicomFrame | ImageRejected | None = None


@dataclass(frozen=True, slots=True)
class PatientIn:
    """A patient as sent.

    Attributes:
        patient_id: unique within the request.
        device: a device profile, or None for the default.
        frames: in order.
        device_at: JSON pointer to where the device was named.
    """

    patient_id: str
    device: str | None
    frames: tuple[FrameIn, ...]
    device_at: str = "/device"


@dataclass(frozen=True, slots=True)
class RequestIn:
    """A whole request; options that the task does not have are None.

    Attributes:
        patients: in the caller's order; empty only for embeddings of texts alone.
        operating_point: its name.
        labels: name of a set, or `{label, prompts}` objects.
        texts: to embed.
        explain: whether heatmaps are wanted.
        operating_point_at: JSON pointer to where the operating point was named.
    """

    patients: tuple[PatientIn, ...]
    operating_point: str | None = None
    labels: str | tuple[Mapping[str, Any], ...] | None = None
    texts: tuple[str, ...] = ()
    explain: bool = False
    operating_point_at: str = "/operating_point"

    @property
    def frames(self) -> int:
        """Frames of all patients."""
        return sum(len(patient.frames) for patient in self.patients)

    @property
    def pieces(self) -> int:
        """What is to be encoded: frames, texts and the prompts of free labels."""
        labels = self.labels if isinstance(self.labels, tuple) else ()
        return self.frames + len(self.texts) + sum(len(label["prompts"]) for label in labels)


@dataclass(frozen=True, slots=True)
class RequestModels:
    """The models of one task's forms: JSON body, multipart `request`, query."""

    body: type[Strict]
    options: type[Strict]
    query: type[Strict]
    frames_required: bool = True


NAMED_TASK = RequestModels(NamedTaskBody, NamedTaskOptions, NamedTaskQuery)
ZERO_SHOT = RequestModels(ZeroShotBody, ZeroShotOptions, ZeroShotQuery)
EMBEDDINGS = RequestModels(
    EmbeddingsBody, EmbeddingsOptions, EmbeddingsQuery, frames_required=False
)
EXAM_FRAMES = RequestModels(ExamFramesBody, ExamFramesOptions, ExamFramesQuery)


async def read_request(request: Request, models: RequestModels, limits: FormLimits) -> RequestIn:
    """Read a request of any form.

    Args:
        request: the HTTP request, its body not yet read.
        models: the task's models.
        limits: counts and sizes.

    Returns:
        The request, validated.

    Raises:
        UnsupportedMediaType: none of the three forms.
        MalformedRequest: not what the content type says.
        InvalidRequest: a rule is broken; with pointers.
        PayloadTooLarge: too many frames or patients.
    """
    content_type = request.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    _check_coding(request, content_type, media_type)
    if media_type == "application/json":
        _refuse_query(request)
        body = await _collect(request.stream())
        return await _run(len(body), _from_json, body, models, limits)
    if media_type == "multipart/form-data":
        _refuse_query(request)
        form = await read_multipart(
            request.stream(),
            content_type,
            max_frames=limits.max_frames,
            max_frame_bytes=limits.max_frame_bytes,
        )
        return await _run(len(form.request or b""), _from_multipart, form, models)
    if media_type in IMAGE_TYPES:
        query = jsonio.validate(models.query, _query_document(request), "query")
        frame = FrameBytes()
        async for chunk in request.stream():
            frame.add(chunk, limits.max_frame_bytes)
        return _from_image(frame, query)
    raise UnsupportedMediaType(
        "expected Content-Type multipart/form-data, application/json or one of "
        f"{', '.join(IMAGE_TYPES)}"
    )


async def read_document(request: Request, model: type[M], max_bytes: int) -> M:
    """Read a request that is a JSON object and no frames; no body is an empty object.

    Raises:
        UnsupportedMediaType, MalformedRequest, InvalidRequest: as `read_request`.
        PayloadTooLarge: longer than `max_bytes`.
    """
    _refuse_query(request)
    content_type = request.headers.get("content-type", "application/json")
    media_type = content_type.partition(";")[0].strip().lower()
    _check_coding(request, content_type, media_type)
    if media_type != "application/json":
        raise UnsupportedMediaType("expected Content-Type application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise PayloadTooLarge(f"This request may have {max_bytes} bytes at most.")
    return jsonio.validate(model, jsonio.parse(body) if body else {}, "request")


async def _run(size: int, function: Any, *arguments: Any) -> RequestIn:
    if size <= _INLINE_BYTES:
        result: RequestIn = function(*arguments)
        return result
    return await asyncio.to_thread(function, *arguments)


async def _collect(chunks: AsyncIterator[bytes]) -> bytearray:
    body = bytearray()
    async for chunk in chunks:
        body += chunk
    return body


def _check_coding(request: Request, content_type: str, media_type: str) -> None:
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise UnsupportedMediaType("expected a body without Content-Encoding")
    parameters = content_type.lower().replace('"', "").replace(" ", "").split(";")[1:]
    charsets = [text[8:] for text in parameters if text.startswith("charset=")]
    if media_type == "application/json" and charsets not in ([], ["utf-8"], ["utf8"], ["us-ascii"]):
        raise UnsupportedMediaType("expected JSON in UTF-8")


def _refuse_query(request: Request) -> None:
    # A query beside a form that does not read it would be an option silently ignored.
    for name in request.query_params:
        raise InvalidRequest.at(
            jsonio.pointer(name),
            "query parameters are options of the single-image form only; here they go into the "
            "request document",
        )


def _query_document(request: Request) -> dict[str, Any]:
    try:
        unquote_to_bytes(request.scope["query_string"]).decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest("The query is not in UTF-8.") from None
    document: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in document:
            raise InvalidRequest.at(jsonio.pointer(name), "expected this query parameter once")
        document[name] = value
    if document.get("explain") in ("true", "false"):
        document["explain"] = document["explain"] == "true"
    return document


def _from_json(body: bytearray, models: RequestModels, limits: FormLimits) -> RequestIn:
    document = jsonio.parse(body)
    body.clear()
    _check_counts(document, limits)
    sent: Any = jsonio.validate(models.body, document, "request")
    if models is EXAM_FRAMES:
        return _options((PatientIn("0", None, _frames_of(sent.frames, "", limits)),), sent)
    patients = sent.patients or ()
    ids = _ids([patient.patient_id for patient in patients], "patients/{}/patient_id")
    read = tuple(
        PatientIn(
            patient_id=patient_id,
            device=patient.device or sent.device,
            frames=_frames_of(patient.frames, f"/patients/{number}", limits),
            device_at=f"/patients/{number}/device" if patient.device else "/device",
        )
        for number, (patient_id, patient) in enumerate(zip(ids, patients, strict=True))
    )
    return _request(read, sent, models, "/patients")


def _from_multipart(form: MultipartForm, models: RequestModels) -> RequestIn:
    document = jsonio.parse(form.request) if form.request is not None else {}
    told = document.get("frames") if isinstance(document, dict) else None
    if isinstance(told, list) and len(told) != len(form.frames):
        raise InvalidRequest.at(
            "/frames",
            f"expected one entry for each of the {len(form.frames)} parts named frames; "
            f"found {len(told)}",
        )
    sent: Any = jsonio.validate(models.options, document, "request")
    told = sent.frames or [FrameOptions()] * len(form.frames)
    ids = _ids([frame.frame_id for frame in told], "frames/{}/frame_id")
    frames = tuple(map(_frame, ids, form.frames, told))
    return _request(_one_patient(sent, frames), sent, models, "/frames")


def _from_image(frame: FrameBytes, query: Any) -> RequestIn:
    frames = (_frame(query.frame_id or "0", frame, query),)
    return _options(_one_patient(query, frames), query)


def _one_patient(sent: Any, frames: tuple[FrameIn, ...]) -> tuple[PatientIn, ...]:
    named, device = getattr(sent, "patient_id", None), getattr(sent, "device", None)
    return (PatientIn(named or "0", device, frames),) if frames else ()


def _request(
    patients: tuple[PatientIn, ...], sent: Any, models: RequestModels, place: str
) -> RequestIn:
    request = _options(patients, sent)
    if not patients and models.frames_required:
        raise InvalidRequest.at(place, "expected at least one frame")
    if not patients and not request.texts:
        raise InvalidRequest.at(place, "expected at least one frame or text")
    return request


def _options(patients: tuple[PatientIn, ...], sent: Any) -> RequestIn:
    labels = getattr(sent, "labels", None)
    if isinstance(labels, list):
        labels = tuple({"label": item.label, "prompts": tuple(item.prompts)} for item in labels)
    return RequestIn(
        patients=patients,
        operating_point=getattr(sent, "operating_point", None),
        labels=labels,
        texts=tuple(getattr(sent, "texts", None) or ()),
        explain=bool(getattr(sent, "explain", None)),
    )


def _check_counts(document: Any, limits: FormLimits) -> None:
    """Refuse too many patients or frames before each of them is looked at."""
    patients = document.get("patients", [document]) if isinstance(document, dict) else None
    if not isinstance(patients, list):
        return
    if len(patients) > limits.max_patients:
        raise PayloadTooLarge(f"A request may have {limits.max_patients} patients at most.")
    lists = [patient.get("frames") for patient in patients if isinstance(patient, dict)]
    if sum(len(frames) for frames in lists if isinstance(frames, list)) > limits.max_frames:
        raise PayloadTooLarge(f"A request may have {limits.max_frames} frames at most.")


def _ids(given: Sequence[str | None], place: str) -> list[str]:
    """Fill in missing ids with the decimal index; refuse an id that stands twice."""
    ids = [str(index) if one is None else one for index, one in enumerate(given)]
    seen: dict[str, int] = {}
    for index, one in enumerate(ids):
        if one in seen:
            raise InvalidRequest.at(
                "/" + place.format(index), f"expected distinct ids; entry {seen[one]} has this one"
            )
        seen[one] = index
    return ids


def _frames_of(frames: Iterable[Any], patient: str, limits: FormLimits) -> tuple[FrameIn, ...]:
    frames = list(frames)
    ids = _ids([frame.frame_id for frame in frames], f"{patient}/frames/{{}}/frame_id".lstrip("/"))
    read = []
    for number, (frame_id, frame) in enumerate(zip(ids, frames, strict=True)):
        length = len(frame.image) // 4 * 3 - frame.image[-2:].count("=")
        data = None
        if length <= limits.max_frame_bytes:
            data = jsonio.decode_base64(frame.image, f"{patient}/frames/{number}/image")
        named = frame.frame_id is not None
        read.append(FrameIn(frame_id, data, length, frame.captured_at, named))
    return tuple(read)


def _frame(frame_id: str, frame: FrameBytes, told: Any) -> FrameIn:
    kept = len(frame.data) == frame.length
    captured_at, named = getattr(told, "captured_at", None), told.frame_id is not None
    return FrameIn(frame_id, frame.data if kept else None, frame.length, captured_at, named)
