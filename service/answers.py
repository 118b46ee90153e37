"""What an answer holds, as pydantic models: the documentation at `/docs`, and what tests check.

Answers are written as plain JSON; these models describe them and are not in their way.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from model_store.errors import ImageCode
from model_store.quality import AbstainReason
from service import examples
from service.errors import ErrorCode

__all__ = [
    "AdminModels",
    "Answer",
    "Cosine",
    "DecisionWord",
    "Devices",
    "Embeddings",
    "FrameError",
    "Health",
    "Heatmap",
    "Limits",
    "Model",
    "ModelDetail",
    "Models",
    "NamedTaskAnswer",
    "NamedTaskFrame",
    "NamedTaskPatient",
    "OperatingPointUsed",
    "Probability",
    "Problem",
    "Scores",
    "SiteProfileUsed",
    "ZeroShotAnswer",
]

Probability = Annotated[
    float, Field(ge=0, le=1, description="Of the positive label, calibrated.", examples=[0.97])
]
Scores = Annotated[
    dict[str, float],
    Field(
        description="Label → score; they sum to 1.",
        examples=[{"malignant": 0.97, "benign": 0.03}],
    ),
]
Cosine = Annotated[
    dict[str, float],
    Field(
        description="Label → raw similarity, -1 to 1.",
        examples=[{"malignant": 0.31, "benign": 0.12}],
    ),
]
DecisionWord = Annotated[
    Literal["positive", "negative", "abstained"],
    Field(description="`abstained`: too close to the threshold; then `reason` is low_confidence."),
]
Status = Annotated[
    Literal["scored", "abstained", "rejected"],
    Field(description="`abstained`: set aside, with `reason`; `rejected`: unreadable, `error`."),
]
Unit = Annotated[list[float], Field(description="Unit embedding, fp32.", examples=[[0.6, -0.8]])]


class Answer(BaseModel):
    """Base of the answers: nothing in them that is not described."""

    model_config = ConfigDict(extra="forbid")


class FrameError(Answer):
    """Why a frame was rejected."""

    code: ImageCode
    message: str


class Heatmap(Answer):
    """Where in the (cropped) frame a label is seen; not calibrated."""

    rows: int
    cols: int
    values: Annotated[list[float], Field(description="0-1, row-major, rows x cols of them.")]
    label: Annotated[str, Field(description="Whose heatmap it is: the positive or top label.")]


class _Frame(Answer):
    frame_id: Annotated[str, Field(examples=["0"])]
    status: Status
    reason: AbstainReason | Literal["low_confidence"] | None = None
    error: FrameError | None = None


class _ScoredFrame(_Frame):
    scores: Scores | None = None
    cosine: Cosine | None = None
    heatmap: Annotated[Heatmap | None, Field(description="With `explain`.")] = None


class NamedTaskFrame(_ScoredFrame):
    """A frame of a named task; scores only where the status is `scored`."""

    probability: Probability | None = None
    decision: DecisionWord | None = None
    attention: Annotated[
        float | None, Field(description="Weight in the patient's pooling; they sum to 1.")
    ] = None


class ZeroShotFrame(_ScoredFrame):
    """A frame of a zero-shot answer; scores only where the status is `scored`."""

    top_label: str | None = None
    calibrated: Literal[False] | None = None
    attention: Annotated[
        dict[str, float] | None, Field(description="Label → weight in the patient's pooling.")
    ] = None


class EmbeddedFrame(_Frame):
    """A frame of an embeddings answer."""

    embedding: Unit | None = None


class _Patient(Answer):
    patient_id: Annotated[str, Field(examples=["patient-17"])]
    status: Status
    frames_total: int
    frames_scored: int


class NamedTaskPatient(_Patient):
    """A patient of a named task; with one scored frame, it has that frame's figures."""

    probability: Probability | None = None
    scores: Scores | None = None
    decision: DecisionWord | None = None
    reason: Literal["low_confidence"] | None = None
    frames: list[NamedTaskFrame]


class ZeroShotPatient(_Patient):
    """A patient of a zero-shot answer."""

    scores: Scores | None = None
    cosine: Cosine | None = None
    top_label: str | None = None
    calibrated: Literal[False] | None = None
    frames: list[ZeroShotFrame]


class EmbeddedPatient(_Patient):
    """A patient of an embeddings answer."""

    frames: list[EmbeddedFrame]


class Model(Answer):
    """Which model answered, and on what it ran."""

    name: Annotated[str, Field(examples=["endo-clip-lite0"])]
    version: Annotated[str, Field(examples=["1.0.0"])]
    digest: Annotated[str, Field(description="Of the bundle's manifest.", examples=["sha256:9f…"])]
    execution_provider: Annotated[str, Field(examples=["CPUExecutionProvider"])]


class OperatingPointUsed(Answer):
    """The thresholds that made the decisions."""

    name: Annotated[str, Field(examples=["balanced"])]
    frame_threshold: Annotated[float, Field(description="Positive at or above.", examples=[0.41])]
    patient_threshold: Annotated[
        float, Field(description="For two scored frames or more.", examples=[0.52])
    ]
    frame_abstain: Annotated[
        tuple[float, float] | None, Field(description="Probabilities not decided: [low, high).")
    ]
    patient_abstain: tuple[float, float] | None


class SiteProfileUsed(Answer):
    """The site profile behind the probabilities and decisions of an answer."""

    site: Annotated[str, Field(examples=["st-elsewhere"])]
    digest: Annotated[str, Field(description="Of its file.", examples=["sha256:4c…"])]
    adapter: Annotated[
        Literal["linear", "cache"] | None,
        Field(description="What corrects the margins; null: probabilities and thresholds only."),
    ]


class _Envelope(Answer):
    request_id: Annotated[str, Field(description="As sent in X-Request-ID, or made here.")]
    task: str
    model: Model
    intended_use: Annotated[str, Field(examples=["Research use only. Not a medical device."])]


class _Labelled(_Envelope):
    labels: Annotated[list[str], Field(description="In order, the positive one first.")]
    label_definitions: Annotated[
        dict[str, str], Field(description="What each label means; empty for free labels.")
    ]


class NamedTaskAnswer(_Labelled):
    """Polyp detection or malignancy."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.NAMED_TASK]})

    site_profile: Annotated[
        SiteProfileUsed | None,
        Field(description="Only where a site profile is set that holds this task."),
    ] = None
    operating_point: OperatingPointUsed
    patients: Annotated[list[NamedTaskPatient], Field(description="In the caller's order.")]


class ZeroShotAnswer(_Labelled):
    """Zero-shot: softmax scores over the asked labels; no probability, no decision."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.ZERO_SHOT]})

    label_set: Annotated[str | None, Field(description="Name of the set; null for free labels.")]
    calibrated: Literal[False]
    patients: list[ZeroShotPatient]


class EmbeddedText(Answer):
    """The embedding of one of the texts."""

    index: int
    embedding: Unit


class Embeddings(_Envelope):
    """Unit embeddings of frames and texts in the joint space."""

    model_config = ConfigDict(json_schema_extra={"examples": [examples.EMBEDDINGS]})

    dimension: int
    patients: list[EmbeddedPatient]
    texts: list[EmbeddedText]


class ProblemPart(Answer):
    """One fault of a request."""

    pointer: Annotated[str, Field(description="RFC 6901 pointer into the request document.")]
    detail: str


class Problem(BaseModel):
    """An RFC 9457 problem document; `code` is from a closed table."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"examples": [examples.PROBLEM]})

    type: Annotated[str, Field(examples=["urn:endo-clip:problem:invalid_request"])]
    title: str
    status: int
    detail: str
    code: ErrorCode
    request_id: str
    pointer: Annotated[str | None, Field(description="The first of `errors`.")] = None
    errors: list[ProblemPart] | None = None
    reason: Annotated[str | None, Field(description="not_ready, conflict: why, as a word.")] = None
    patients: Annotated[
        list[dict[str, Any]] | None, Field(description="all_frames_rejected: the frames, and why.")
    ] = None


class Health(Answer):
    """The process is alive, or the service is ready."""

    status: Literal["alive", "ready"]


class ModelListed(Model):
    """A served model."""

    created: str
    intended_use: str


class Models(Answer):
    """The served models."""

    models: list[ModelListed]


class ModelDetail(ModelListed):
    """Everything a bundle says of itself."""

    card: Annotated[str, Field(description="MODEL_CARD.md")]
    manifest: dict[str, Any]
    label_sets: dict[str, Any]
    operating_points: Annotated[
        dict[str, Any],
        Field(description="In force here: a site profile's where it holds the task."),
    ]
    site_profile: Annotated[
        dict[str, Any] | None,
        Field(description="Site, digest, and by task what was labelled, used and measured."),
    ] = None


class BundleFound(Answer):
    """A bundle's folder, as its manifest has it."""

    folder: str
    name: str
    version: str
    digest: str


class BundleActive(BundleFound):
    """The bundle that is served."""

    ready: Annotated[bool, Field(description="As /readyz has it.")]


class Agreement(Answer):
    """How a shadow bundle and the served one decided, as counts, for one task."""

    compared: Annotated[int, Field(description="Answers that were scored again.")]
    dropped: Annotated[int, Field(description="Answers for which there was no time.")]
    failed: int
    patients: dict[Literal["same", "other"], int]
    frames: dict[Literal["same", "other"], int]


class BundleShadow(BundleFound):
    """The bundle that scores beside the one that is served."""

    agreement: Annotated[dict[str, Agreement], Field(description="By task, since it began.")]


class AdminModels(Answer):
    """The bundles of a running service."""

    active: BundleActive
    previous: Annotated[BundleFound | None, Field(description="What a rollback leads to.")]
    shadow: BundleShadow | None
    configured: Annotated[BundleFound, Field(description="What a restart would serve.")]
    available: Annotated[
        list[BundleFound], Field(description="Below ENDOCLIP_BUNDLES; not verified yet.")
    ]


class Device(Answer):
    """A device profile."""

    name: str
    crop: Annotated[
        tuple[float, float, float, float],
        Field(description="Kept box [x0, y0, x1, y1], fractions of the upright frame."),
    ]


class Devices(Answer):
    """The device profiles; the first is the default."""

    devices: list[Device]


class Limits(Answer):
    """What a request may hold at most (`min_side_px`: at least), and all of them together.

    A request that alone is over a `max_pending_` is refused as too large, not as too much now.
    """

    max_body_bytes: int
    max_frames: int
    max_patients: int
    max_frame_bytes: int
    max_frame_pixels: int
    min_side_px: int
    max_texts: int
    max_labels: int
    max_prompts: int
    max_prompt_chars: int
    max_text_chars: int
    max_pending_frames: int
    max_pending_bytes: int
    max_pending_pixels: int
    max_queue_s: float
    max_exams: int
    max_exam_frames: int
    exam_retention_h: float
    max_streams: int
    formats: Annotated[list[str], Field(description="That frames may have.", examples=[["JPEG"]])]
