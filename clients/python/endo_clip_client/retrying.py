"""When a request is sent again, without a socket or a clock in it.

A conversation is a generator: it yields what is to be done (send a call, wait) and is sent what
came of it. The two clients drive the same conversation, one blocking, one not.

Scoring changes nothing in the service, so a call may be sent again after any failure. It is, where
that can help: 429 and 503 after the time that `Retry-After` names, a refused or broken connection
and a proxy's 502 after a growing pause. Not after a timeout: what was too slow once is as slow the
next time, and the service would have it to do twice.
"""

import json
import random
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from endo_clip_client.errors import (
    ClientError,
    TimedOut,
    UnexpectedAnswer,
    Unreachable,
    refusal,
)
from endo_clip_client.sending import Call

__all__ = ["Conversation", "Outcome", "Pause", "Retry", "converse", "document_of"]

_BUSY = (429, 503)
_PROXY = (502, 504)
_MAY_PASS = (
    *(httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.RemoteProtocolError),
    *(httpx.CloseError, httpx.ReadError, httpx.WriteError),
)


@dataclass(frozen=True, slots=True)
class Retry:
    """How patient the client is.

    Attributes:
        attempts: how often a call is sent at most; 1 never sends it again.
        longest_s: of waiting between attempts, all together. A `Retry-After` beyond what is left of
            it is an error at once, not a wait for nothing.
        first_s: the first pause after a broken connection; each further one is twice as long.
    """

    attempts: int = 6
    longest_s: float = 120.0
    first_s: float = 0.1


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait so long."""

    seconds: float


Outcome = httpx.Response | httpx.TransportError | None
Conversation = Generator[Call | Pause, Outcome, httpx.Response]


def converse(call: Call, retry: Retry) -> Conversation:
    """Send a call until it is answered, or patience is over.

    Args:
        call: what to send.
        retry: how patient to be.

    Yields:
        The call to send, to be answered with a response or the transport's error; or a pause.

    Returns:
        The response, of a status below 400.

    Raises:
        Refused, Unreachable, TimedOut, UnexpectedAnswer: the last attempt's failure.
    """
    waited = 0.0
    for attempt in range(1, retry.attempts + 1):
        outcome = yield call
        if isinstance(outcome, httpx.Response) and outcome.status_code < 400:
            return outcome
        wait = _wait_after(outcome, attempt, retry)
        if wait is None or attempt == retry.attempts or waited + wait > retry.longest_s:
            raise _failure(outcome, attempt)
        waited += wait
        yield Pause(wait)
    raise ValueError(f"Retry.attempts: expected 1 or more; found {retry.attempts}")


def document_of(response: httpx.Response) -> Mapping[str, Any]:
    """Read the JSON object of an answer.

    Raises:
        UnexpectedAnswer: it is none.
    """
    try:
        document = response.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _unexpected(response)
    return document


def _unexpected(response: httpx.Response) -> UnexpectedAnswer:
    kind = response.headers.get("content-type", "no content type")
    return UnexpectedAnswer(
        f"{_place(response)}: expected JSON of an Endo-CLIP service; found {response.status_code} "
        f"with {kind[:80]}\nWhat to do: check the URL, and what stands between (a proxy's log-in "
        "page answers like this)"
    )


def _wait_after(outcome: Outcome, attempt: int, retry: Retry) -> float | None:
    """Seconds to wait before the next attempt; None where another one cannot help."""
    # Those who were refused together shall not come back together.
    jitter = random.uniform(1.0, 1.5)  # nosec B311  # spreads clients, keeps no secret
    growing = retry.first_s * float(2 ** (attempt - 1)) * jitter
    if isinstance(outcome, httpx.Response):
        if outcome.status_code in _BUSY:
            told = _retry_after(outcome)
            return growing if told is None else told + (jitter - 1.0) * (0.1 + 0.1 * told)
        if outcome.status_code in _PROXY and not _is_problem(outcome):
            return growing
        return None
    return growing if isinstance(outcome, _MAY_PASS) else None


def _failure(outcome: Outcome, attempts: int) -> ClientError:
    if isinstance(outcome, httpx.Response):
        return _refused(outcome)
    if outcome is None:
        raise TypeError("a call is answered with a response or an error")
    place = _root(outcome.request.url)
    tried = f"after {attempts} attempts" if attempts > 1 else "at the first attempt"
    if isinstance(outcome, httpx.TimeoutException) and not isinstance(
        outcome, httpx.ConnectTimeout | httpx.PoolTimeout
    ):
        error: ClientError = TimedOut(
            f"{place} gave no answer in time\nWhat to do: allow more, Client(timeout_s=…); or send "
            "fewer frames at once"
        )
    else:
        error = Unreachable(
            f"{place} cannot be reached {tried} ({_reason(outcome)})\nWhat to do: check that the "
            "service runs (`curl URL/healthz`), and host, port and http or https in the URL"
        )
    error.__cause__ = outcome
    return error


def _refused(response: httpx.Response) -> ClientError:
    if not _is_problem(response):
        if response.status_code in (401, 403, 413, 502, 503, 504):
            title = f"{_place(response)}: a proxy answers {response.status_code}"
            return refusal(response.status_code, {"detail": title})
        return _unexpected(response)
    document = document_of(response)
    return refusal(response.status_code, document, retry_after_s=_retry_after(response))


def _is_problem(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "")
    if kind.partition(";")[0].strip() != "application/problem+json":
        return False
    try:
        return isinstance(json.loads(response.content), dict)
    except ValueError:
        return False


def _retry_after(response: httpx.Response) -> float | None:
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def _place(response: httpx.Response) -> str:
    return _root(response.request.url)


def _root(url: httpx.URL) -> str:
    port = f":{url.port}" if url.port else ""
    return f"{url.scheme}://{url.host}{port}"


def _reason(error: httpx.TransportError) -> str:
    return str(error) or type(error).__name__
