"""Everything that can go wrong between a caller and the service, each with what to do about it.

    ClientError
    ├── FrameUnreadable         a file of the caller's cannot be read, or is no image (shrink)
    ├── Unreachable             nobody answers there, or the connection broke; retries are spent
    ├── TimedOut                no answer in the time that the client waits
    ├── ArchiveFailed           the DICOMweb archive does not give or take what it should
    ├── UnexpectedAnswer        something answers, but not as this service does
    └── Refused                 the service says no: status, code, detail, pointer, request_id
        ├── NeedsKey            401 and 403: no key, a dead one, or one for something else
        ├── NotFound            404
        ├── TooLarge            413: `GET /v1/limits` says how much may be sent
        ├── InvalidRequest      400, 409, 415, 422: the request breaks a rule; `pointer` says where
        │   └── AllFramesRejected   no frame could be read; `patients` says why for each
        ├── Busy                429 and 503, and retries are spent; retry_after_s
        ├── TooSlow             408 and 504: body or answer did not come in time
        └── ServiceFailed       500: the request_id finds the reason in the service's log

The text of an error names what was asked, what came and what to do. It holds no key and no frame.
"""

from collections.abc import Mapping
from typing import Any

from endo_clip_client.results import Patient

__all__ = [
    "AllFramesRejected",
    "ArchiveFailed",
    "Busy",
    "ClientError",
    "FrameUnreadable",
    "InvalidRequest",
    "NeedsKey",
    "NotFound",
    "Refused",
    "ServiceFailed",
    "TimedOut",
    "TooLarge",
    "TooSlow",
    "UnexpectedAnswer",
    "Unreachable",
    "refusal",
]


class ClientError(Exception):
    """The root of all errors of this package."""


class FrameUnreadable(ClientError):
    """A frame cannot be read on this side; nothing was sent."""


class Unreachable(ClientError):
    """Nobody answers at the address, or the connection broke each time."""


class ArchiveFailed(ClientError):
    """The archive cannot be reached, refuses, or has no images of the study that can be scored."""


class TimedOut(ClientError):
    """The answer did not come in the time that the client waits."""


class UnexpectedAnswer(ClientError):
    """What answers does not speak as the service does: a proxy's page, another service."""


class Refused(ClientError):
    """The service answered with an error.

    Attributes:
        status: of HTTP.
        code: from the contract's closed table; "" where a proxy answered.
        detail: in the service's words.
        pointer: JSON pointer to the part of the request at fault, or None.
        request_id: finds the request in the service's log, or None.
        advice: what to do.
    """

    advice = "see the detail"

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        pointer: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        document: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.pointer = pointer
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.document = dict(document or {})
        place = f" (at {pointer})" if pointer else ""
        number = f", request {request_id}" if request_id else ""
        advice = _ADVICE.get(code, self.advice)
        super().__init__(f"{detail}{place} [{status} {code}{number}]\nWhat to do: {advice}")


class NeedsKey(Refused):
    """No key, one that is not in force, or one without the scope."""

    advice = "ask the operator for a key with the scope `score`"


class NotFound(Refused):
    """No such path or model."""

    advice = "check the URL: it is the service's root, without a path of the API"


class TooLarge(Refused):
    """Over a limit of the service."""

    advice = (
        "`endo-clip info` shows the limits; send frames made smaller (shrink), fewer patients at "
        "once, or have the operator raise ENDOCLIP_MAX_BODY_BYTES or ENDOCLIP_MAX_FRAMES"
    )


class InvalidRequest(Refused):
    """The request breaks a rule of the contract."""

    advice = "mend what the detail names; sending it again as it is gives the same answer"


class AllFramesRejected(InvalidRequest):
    """No frame of the request could be read.

    Attributes:
        patients: the rejected frames, each with its error.
    """

    advice = "look at each frame's error: `patients` of this exception has them"

    @property
    def patients(self) -> tuple[Patient, ...]:
        """The patients with their rejected frames."""
        return tuple(Patient.read(one) for one in self.document.get("patients", ()))


class Busy(Refused):
    """The service has no room or is not ready, and waiting any longer was not allowed."""

    advice = "try again later, or let the client wait longer: Retry(attempts=…, longest_s=…)"


class TooSlow(Refused):
    """The body came in too slowly, or the answer was not ready in the time set."""

    advice = "allow more time, or send less at once"


class ServiceFailed(Refused):
    """An error inside the service, or of a proxy before it."""

    advice = "give the operator the request's id: the service's log says where it failed"


_ADVICE = {
    "unauthenticated": (
        "give a key: Client(url, key=…), or the variable ENDO_CLIP_KEY or --key-file for the "
        "command; the operator makes one with `python -m service keys add`"
    ),
    "forbidden": "use a key that has the scope named above",
    "unknown_device": "`endo-clip info` lists the device profiles",
    "unknown_operating_point": "use one of the names above",
    "unknown_model": "`endo-clip info` names the model that is served",
    "rate_limited": "the key has sent its frames for now: wait, or ask for a higher rate",
    "not_ready": (
        "the operator's `/readyz` says why; `Client.wait_until_ready` waits for a service that "
        "has just been started"
    ),
    "client_too_slow": "send over a faster connection, or make the frames small first (shrink)",
    "deadline_exceeded": "give a longer deadline_s, or send fewer frames at once",
}
_BY_CODE: Mapping[str, type[Refused]] = {"all_frames_rejected": AllFramesRejected}
_BY_STATUS: Mapping[int, type[Refused]] = {
    400: InvalidRequest,
    401: NeedsKey,
    403: NeedsKey,
    404: NotFound,
    408: TooSlow,
    409: InvalidRequest,
    413: TooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: Busy,
    503: Busy,
    504: TooSlow,
}


def refusal(
    status: int, document: Mapping[str, Any], *, retry_after_s: float | None = None
) -> Refused:
    """Make the error for a problem document.

    Args:
        status: of HTTP, 400 or above.
        document: RFC 9457; empty where a proxy answered in its own words.
        retry_after_s: of the header Retry-After, if any.

    Returns:
        The error, of the class that its code or status has.
    """
    code = str(document.get("code", ""))
    kind = _BY_CODE.get(code) or _BY_STATUS.get(status) or ServiceFailed
    return kind(
        status,
        code,
        str(document.get("detail") or document.get("title") or "The service gave no reason"),
        pointer=_text(document.get("pointer")),
        request_id=_text(document.get("request_id")),
        retry_after_s=retry_after_s,
        document=document,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
