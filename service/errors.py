"""Every error an HTTP caller can meet, and the one table that gives each its status and code.

    EndoClipError (model_store)
    └── ServiceError                    detail; pointers to the parts of the request at fault
        ├── SettingsInvalid             at the start only, never over HTTP
        ├── Unauthenticated             no key, or none that is in force
        ├── Forbidden                   the key lacks the scope
        ├── RateLimited                 the key's frames per second; Retry-After
        ├── MalformedRequest            not HTTP, JSON or multipart as announced
        ├── NotFound                    no such path, or not with this method
        │   └── UnknownModel
        ├── PayloadTooLarge             body, frames or patients over a limit
        ├── UnsupportedMediaType
        ├── ExamClosed                  it takes no more frames
        ├── Conflict                    something else stands under this id
        ├── ClientTooSlow               head or body of a request lags behind
        ├── DeadlineExceeded            X-Deadline-Ms ran out
        ├── BundleRefused               reason: a word; what was served is served on
        ├── InvalidRequest              well-formed, but breaks a rule of the contract
        │   └── AllFramesRejected       patients: the rejected frames, in the answer's shape
        ├── NotReady                    reason: a word; Retry-After
        │   ├── StoreUnavailable        the exams' database
        │   └── TowersUnreachable       the encoder replicas, of a cluster
        ├── Overloaded                  Retry-After, from the measured rate
        └── ShuttingDown                Retry-After

What is not in the table is `internal`: a fixed sentence goes out, and the exception's own text
stays inside the process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from model_store.errors import (
    EncodeFailed,
    EndoClipError,
    InvalidInput,
    LabelSetInvalid,
    UnknownDevice,
    UnknownLabelSet,
    UnknownOperatingPoint,
)

__all__ = [
    "STATUS",
    "TABLE",
    "AllFramesRejected",
    "BundleRefused",
    "ClientTooSlow",
    "Conflict",
    "DeadlineExceeded",
    "ErrorCode",
    "ExamClosed",
    "Fault",
    "Forbidden",
    "InvalidRequest",
    "MalformedRequest",
    "NotFound",
    "NotReady",
    "Overloaded",
    "PayloadTooLarge",
    "RateLimited",
    "ServiceError",
    "SettingsInvalid",
    "ShuttingDown",
    "StoreUnavailable",
    "TowersUnreachable",
    "Unauthenticated",
    "UnknownModel",
    "UnsupportedMediaType",
    "code_of",
    "problem",
]


class ErrorCode(StrEnum):
    """The closed table of codes; a client may switch on them."""

    MALFORMED_REQUEST = "malformed_request"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    UNKNOWN_MODEL = "unknown_model"
    CLIENT_TOO_SLOW = "client_too_slow"
    EXAM_CLOSED = "exam_closed"
    CONFLICT = "conflict"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_REQUEST = "invalid_request"
    ALL_FRAMES_REJECTED = "all_frames_rejected"
    UNKNOWN_LABEL_SET = "unknown_label_set"
    UNKNOWN_OPERATING_POINT = "unknown_operating_point"
    UNKNOWN_DEVICE = "unknown_device"
    RATE_LIMITED = "rate_limited"
    INTERNAL = "internal"
    OVERLOADED = "overloaded"
    NOT_READY = "not_ready"
    SHUTTING_DOWN = "shutting_down"
    DEADLINE_EXCEEDED = "deadline_exceeded"


STATUS: Mapping[ErrorCode, tuple[int, str]] = {
    ErrorCode.MALFORMED_REQUEST: (400, "The request is malformed"),
    ErrorCode.UNAUTHENTICATED: (401, "A valid key is needed"),
    ErrorCode.FORBIDDEN: (403, "Not allowed with this key"),
    ErrorCode.NOT_FOUND: (404, "Nothing here"),
    ErrorCode.UNKNOWN_MODEL: (404, "Unknown model"),
    ErrorCode.CLIENT_TOO_SLOW: (408, "The request came in too slowly"),
    ErrorCode.EXAM_CLOSED: (409, "The exam is closed"),
    ErrorCode.CONFLICT: (409, "In conflict with an earlier request"),
    ErrorCode.PAYLOAD_TOO_LARGE: (413, "The request is too large"),
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: (415, "Unsupported media type"),
    ErrorCode.INVALID_REQUEST: (422, "The request breaks a rule"),
    ErrorCode.ALL_FRAMES_REJECTED: (422, "Every frame was rejected"),
    ErrorCode.UNKNOWN_LABEL_SET: (422, "Unknown label set"),
    ErrorCode.UNKNOWN_OPERATING_POINT: (422, "Unknown operating point"),
    ErrorCode.UNKNOWN_DEVICE: (422, "Unknown device"),
    ErrorCode.RATE_LIMITED: (429, "Too many requests"),
    ErrorCode.INTERNAL: (500, "Internal error"),
    ErrorCode.OVERLOADED: (503, "Overloaded"),
    ErrorCode.NOT_READY: (503, "Not ready"),
    ErrorCode.SHUTTING_DOWN: (503, "Shutting down"),
    ErrorCode.DEADLINE_EXCEEDED: (504, "Deadline exceeded"),
}
_INTERNAL_DETAIL = "The service failed; the request_id finds the reason in its log."


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a request.

    Attributes:
        pointer: RFC 6901 pointer into the JSON document (form 1: the `request` part; form 3: the
            query as an object; names of multipart parts count as keys).
        detail: the rule that was broken.
    """

    pointer: str
    detail: str


class ServiceError(EndoClipError):
    """An error the service answers with; `detail` is written for the caller and goes out."""

    def __init__(
        self, detail: str, *, faults: Sequence[Fault] = (), headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.faults = tuple(faults)
        self.headers = dict(headers or {})

    def members(self) -> dict[str, Any]:
        """Further members of the problem document."""
        return {}


class SettingsInvalid(ServiceError):
    """The service cannot start with these settings; the detail is one line."""


class Unauthenticated(ServiceError):
    """The request carries no key that is in force."""

    def __init__(self, detail: str, *, token_given: bool = False) -> None:
        challenge = 'Bearer realm="endo-clip"'
        if token_given:
            challenge += ', error="invalid_token"'
        super().__init__(detail, headers={"WWW-Authenticate": challenge})


class Forbidden(ServiceError):
    """The key is in force, but not for this."""


class RateLimited(ServiceError):
    """The key has sent its frames for now."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"The key has sent as many frames as it may; try again in {retry_after_s} s.",
            headers={"Retry-After": str(retry_after_s)},
        )


class MalformedRequest(ServiceError):
    """The bytes are not what their content type says."""


class NotFound(ServiceError):
    """No such path, or not with this method."""


class UnknownModel(NotFound):
    """No model of that name is served here."""


class PayloadTooLarge(ServiceError):
    """The request is over a limit of `GET /v1/limits`."""


class UnsupportedMediaType(ServiceError):
    """The body's content type or coding is not one of the three request forms."""


class InvalidRequest(ServiceError):
    """The request breaks a rule of the contract; its faults say where."""

    @classmethod
    def at(cls, pointer: str, detail: str) -> "InvalidRequest":
        """Make the error for a single fault."""
        return cls(detail, faults=[Fault(pointer, detail)])


class AllFramesRejected(InvalidRequest):
    """No frame of the request could be read."""

    def __init__(self, patients: Sequence[Mapping[str, Any]]) -> None:
        super().__init__("No frame of the request could be scored; patients says why for each.")
        self.patients = list(patients)

    def members(self) -> dict[str, Any]:
        """The patients and their rejected frames."""
        return {"patients": self.patients}


class ExamClosed(ServiceError):
    """The exam takes no more frames."""

    def __init__(self) -> None:
        super().__init__("The exam is closed; its result is final.")


class Conflict(ServiceError):
    """Something else stands under this id, or the exam is another bundle's."""

    @classmethod
    def at(cls, pointer: str, detail: str) -> "Conflict":
        """Make the error for a single fault."""
        return cls(detail, faults=[Fault(pointer, detail)])


class BundleRefused(ServiceError):
    """The bundles stay as they are; the reason says what stands against the change."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail)
        self.reason = reason

    def members(self) -> dict[str, Any]:
        """The reason, as a word."""
        return {"reason": self.reason}


class ClientTooSlow(ServiceError):
    """A request comes in more slowly than the service waits for."""

    def __init__(self) -> None:
        super().__init__("The request comes in too slowly; send it again over a faster connection.")


class DeadlineExceeded(ServiceError):
    """The request's own deadline ran out; what was left of its work is dropped."""

    def __init__(self) -> None:
        super().__init__("The answer was not ready within X-Deadline-Ms.")


class NotReady(ServiceError):
    """The service runs but must not answer yet, or not any more."""

    def __init__(self, detail: str, reason: str) -> None:
        super().__init__(detail, headers={"Retry-After": "5"})
        self.reason = reason

    def members(self) -> dict[str, Any]:
        """The reason, as a word."""
        return {"reason": self.reason}


class TowersUnreachable(NotReady):
    """No replica of the encoders answers now."""

    def __init__(self) -> None:
        super().__init__("The encoders cannot be reached now.", "towers_unreachable")


class StoreUnavailable(NotReady):
    """The database of the exams cannot be asked; nothing else is touched by that.

    Attributes:
        why: for the operator alone, at the start.
    """

    def __init__(self, why: str) -> None:
        super().__init__("The exams cannot be read or written now.", "exam_store")
        self.why = why


class Overloaded(ServiceError):
    """There is no room for the request now."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(
            f"The service has more work than it can do in time; try again in {retry_after_s} s.",
            headers={"Retry-After": str(retry_after_s)},
        )


class ShuttingDown(ServiceError):
    """The service takes no new work."""

    def __init__(self) -> None:
        super().__init__("The service is shutting down.", headers={"Retry-After": "5"})


TABLE: Mapping[type[Exception], ErrorCode] = {
    AllFramesRejected: ErrorCode.ALL_FRAMES_REJECTED,
    BundleRefused: ErrorCode.CONFLICT,
    ClientTooSlow: ErrorCode.CLIENT_TOO_SLOW,
    Conflict: ErrorCode.CONFLICT,
    DeadlineExceeded: ErrorCode.DEADLINE_EXCEEDED,
    EncodeFailed: ErrorCode.INTERNAL,
    ExamClosed: ErrorCode.EXAM_CLOSED,
    Forbidden: ErrorCode.FORBIDDEN,
    InvalidRequest: ErrorCode.INVALID_REQUEST,
    LabelSetInvalid: ErrorCode.INVALID_REQUEST,
    MalformedRequest: ErrorCode.MALFORMED_REQUEST,
    NotFound: ErrorCode.NOT_FOUND,
    NotReady: ErrorCode.NOT_READY,
    Overloaded: ErrorCode.OVERLOADED,
    PayloadTooLarge: ErrorCode.PAYLOAD_TOO_LARGE,
    RateLimited: ErrorCode.RATE_LIMITED,
    ShuttingDown: ErrorCode.SHUTTING_DOWN,
    Unauthenticated: ErrorCode.UNAUTHENTICATED,
    UnknownDevice: ErrorCode.UNKNOWN_DEVICE,
    UnknownLabelSet: ErrorCode.UNKNOWN_LABEL_SET,
    UnknownModel: ErrorCode.UNKNOWN_MODEL,
    UnknownOperatingPoint: ErrorCode.UNKNOWN_OPERATING_POINT,
    UnsupportedMediaType: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
}


def code_of(error: Exception) -> ErrorCode:
    """Look an error up in the table by its class, then its bases; else `internal`."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return ErrorCode.INTERNAL


def problem(error: Exception, request_id: str) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Describe an error for the caller, as RFC 9457 has it.

    Args:
        error: any exception.
        request_id: the id that the answer carries.

    Returns:
        HTTP status, problem document, further headers.
    """
    code = code_of(error)
    status, title = STATUS[code]
    document: dict[str, Any] = {
        "type": f"urn:endo-clip:problem:{code.value}",
        "title": title,
        "status": status,
        "detail": _detail(error, code),
        "code": code.value,
        "request_id": request_id,
    }
    faults = _faults(error)
    if faults:
        document["pointer"] = faults[0].pointer
        document["errors"] = [{"pointer": one.pointer, "detail": one.detail} for one in faults]
    if not isinstance(error, ServiceError):
        return status, document, {}
    document.update(error.members())
    return status, document, error.headers


def _faults(error: Exception) -> Sequence[Fault]:
    if isinstance(error, InvalidInput) and error.pointer:
        return [Fault(error.pointer, _words(error))]
    return error.faults if isinstance(error, ServiceError) else ()


def _detail(error: Exception, code: ErrorCode) -> str:
    if code is ErrorCode.INTERNAL:
        return _INTERNAL_DETAIL
    return error.detail if isinstance(error, ServiceError) else _words(error)


def _words(error: Exception) -> str:
    """Say what was expected, without the caller's own words: the pointer shows where they stand."""
    if isinstance(error, UnknownDevice | UnknownLabelSet | UnknownOperatingPoint):
        return f"expected {error.kind} out of {', '.join(error.known)}; found another name"
    return str(error)
