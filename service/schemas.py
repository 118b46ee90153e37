"""What a request may hold, as pydantic models: the options of each task in the three forms.

Unknown keys are refused everywhere; a typing error in an option must not pass for its default.
`null` counts as absent. Types are strict: "1" is not 1, and 1 is not true.
"""

import re
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from model_store.label_sets import MAX_LABEL_CHARS, MAX_LABELS, MAX_PROMPT_CHARS, MAX_PROMPTS

__all__ = [
    "MAX_TEXTS",
    "MAX_TEXT_CHARS",
    "Device",
    "EmbeddingsBody",
    "EmbeddingsOptions",
    "EmbeddingsQuery",
    "ExamBody",
    "ExamFramesBody",
    "ExamFramesOptions",
    "ExamFramesQuery",
    "FrameOptions",
    "NamedTaskBody",
    "NamedTaskOptions",
    "NamedTaskQuery",
    "OperatingPointName",
    "PatientId",
    "Strict",
    "ZeroShotBody",
    "ZeroShotOptions",
    "ZeroShotQuery",
]

_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.\d{1,9})?(?:[Zz]|[+-](\d\d):(\d\d))", re.ASCII
)
# Spelt out, and not as a property: many readers of JSON Schema know none.
_CONTROLS = r"\x00-\x1f\x7f-\x9f"
MAX_TEXT_CHARS = 4096
MAX_TEXTS = 256
_IMAGE_EXAMPLE = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA…"


def _check_rfc3339(value: str) -> str:
    match = _RFC3339.fullmatch(value)
    if match is not None and _is_calendar_day(match[1]):
        hour, minute, second = int(match[2]), int(match[3]), int(match[4])
        offset = match[5] is None or (int(match[5]) <= 23 and int(match[6]) <= 59)
        if hour <= 23 and minute <= 59 and second <= 60 and offset:  # 60 is a leap second
            return value
    raise PydanticCustomError("rfc3339", "expected an RFC 3339 date-time with an offset")


def _is_calendar_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_not_blank(value: str) -> str:
    if not value.strip():
        raise PydanticCustomError("blank", "expected more than white space")
    return value


def _check_is_no_step(value: str) -> str:
    # `/v1/exams/..` is another path to most clients and proxies.
    if value in (".", ".."):
        raise PydanticCustomError("step", "expected more than dots")
    return value


def _check_distinct(value: list[str] | None) -> list[str] | None:
    if value is not None and len(set(value)) < len(value):
        raise PydanticCustomError("distinct", "expected each once")
    return value


def _labels_kind(value: Any) -> str:
    return "name" if isinstance(value, str) else "list"


PatientId = Annotated[
    str,
    Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Opaque pseudonym; never a name or a hospital number.",
        examples=["patient-17"],
    ),
]
ExamId = Annotated[
    str,
    AfterValidator(_check_is_no_step),
    Field(
        pattern=r"^[A-Za-z0-9._-]{1,64}$",
        description="Opaque; never a name or a hospital number. Default: one is made.",
        examples=["exam-17"],
    ),
]
FrameId = Annotated[
    str,
    Field(
        # Control characters (Cc) only: the joiners among the others (C) are part of spelling.
        pattern=rf"^[^{_CONTROLS}]{{1,128}}$",
        description="Unique within the patient; no control characters. Default: decimal index.",
        examples=["0"],
    ),
]
CapturedAt = Annotated[
    str,
    AfterValidator(_check_rfc3339),
    Field(description="RFC 3339, with an offset.", examples=["2025-03-01T09:30:00Z"]),
]
Name = Annotated[str, Field(min_length=1, max_length=64)]
Device = Annotated[
    Name, Field(description="A profile of `GET /v1/devices`.", examples=["full_frame"])
]
OperatingPointName = Annotated[
    Name,
    Field(
        description="`sensitivity_first`, `balanced` (default) or `specificity_first`.",
        examples=["balanced"],
    ),
]
Explain = Annotated[bool, Field(description="Add a heatmap to each scored frame.")]
Prompt = Annotated[
    str, Field(min_length=1, max_length=MAX_PROMPT_CHARS), AfterValidator(_check_not_blank)
]
Text = Annotated[
    str, Field(min_length=1, max_length=MAX_TEXT_CHARS), AfterValidator(_check_not_blank)
]
Texts = Annotated[
    list[Text],
    Field(min_length=1, max_length=MAX_TEXTS, examples=[["A pedunculated polyp of 12 mm."]]),
]


class Strict(BaseModel):
    """Base of the request models."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class LabelJson(Strict):
    """A label of a free label set."""

    label: Annotated[
        str,
        Field(pattern=rf"^[^{_CONTROLS}]{{1,{MAX_LABEL_CHARS}}}$", examples=["pedunculated"]),
        AfterValidator(_check_not_blank),
    ]
    prompts: Annotated[
        list[Prompt],
        Field(
            min_length=1,
            max_length=MAX_PROMPTS,
            examples=[["a polyp on a stalk", "a pedunculated polyp"]],
        ),
    ]


Labels = Annotated[
    Annotated[Name, Tag("name")]
    | Annotated[list[LabelJson], Field(min_length=2, max_length=MAX_LABELS), Tag("list")],
    Discriminator(_labels_kind),
    Field(description="Name of a label set of the bundle, or 2-32 labels with their prompts."),
]


class FrameOptions(Strict):
    """What may be said of a frame besides its image."""

    frame_id: FrameId | None = None
    captured_at: CapturedAt | None = None


class FrameJson(FrameOptions):
    """A frame of form 2."""

    image: Annotated[
        str,
        Field(
            description="The image file in base64 (RFC 4648 section 4; no data URI, no line ends).",
            examples=[_IMAGE_EXAMPLE],
        ),
    ]


class PatientJson(Strict):
    """A patient of form 2."""

    patient_id: PatientId | None = None
    device: Device | None = None
    frames: Annotated[list[FrameJson], Field(min_length=1)]


class _Device(Strict):
    device: Device | None = None


class _Body(_Device):
    patients: Annotated[list[PatientJson], Field(min_length=1)]


class _Options(_Device):
    patient_id: PatientId | None = None
    frames: Annotated[list[FrameOptions], Field(min_length=1)] | None = None


class _Query(_Device):
    patient_id: PatientId | None = None
    frame_id: FrameId | None = None


class _NamedTask(Strict):
    operating_point: OperatingPointName | None = None
    explain: Explain | None = None


class _ZeroShot(Strict):
    labels: Labels
    explain: Explain | None = None


class _Embeddings(Strict):
    texts: Texts | None = None


class NamedTaskBody(_Body, _NamedTask):
    """Polyp detection or malignancy, form 2."""


class NamedTaskOptions(_Options, _NamedTask):
    """Polyp detection or malignancy, the `request` part of form 1."""


class NamedTaskQuery(_Query, _NamedTask):
    """Polyp detection or malignancy, the query of form 3."""


class ZeroShotBody(_Body, _ZeroShot):
    """Zero-shot, form 2."""


class ZeroShotOptions(_Options, _ZeroShot):
    """Zero-shot, the `request` part of form 1."""


class ZeroShotQuery(_Query):
    """Zero-shot, the query of form 3."""

    labels: Annotated[Name, Field(description="Name of a label set of the bundle.")]
    explain: Explain | None = None


class EmbeddingsBody(_Device, _Embeddings):
    """Embeddings, form 2; frames, texts or both."""

    patients: Annotated[list[PatientJson], Field(min_length=1)] | None = None


class EmbeddingsOptions(_Options, _Embeddings):
    """Embeddings, the `request` part of form 1."""


class EmbeddingsQuery(_Query):
    """Embeddings, the query of form 3."""


class ExamBody(Strict):
    """What is fixed when an exam is opened."""

    exam_id: Annotated[
        ExamId | None,
        Field(description="Opening again with the same id and options finds the same exam."),
    ] = None
    patient_id: PatientId | None = None
    tasks: Annotated[
        list[Literal["polyp_detection", "malignancy"]] | None,
        Field(min_length=1, max_length=2, description="Default: both."),
        AfterValidator(_check_distinct),
    ] = None
    device: Device | None = None
    operating_point: OperatingPointName | None = None


class _ExamFrames(Strict):
    explain: Explain | None = None


class ExamFramesBody(_ExamFrames):
    """Frames of an exam, form 2: all of one patient, so without `patients`."""

    frames: Annotated[list[FrameJson], Field(min_length=1)]


class ExamFramesOptions(_ExamFrames):
    """Frames of an exam, the `request` part of form 1."""

    frames: Annotated[list[FrameOptions], Field(min_length=1)] | None = None


class ExamFramesQuery(_ExamFrames):
    """A frame of an exam, the query of form 3."""

    frame_id: FrameId | None = None
    captured_at: CapturedAt | None = None
