"""Around every request: its id, the body's limit, the last net for errors, one log line.

Pure ASGI, so that nothing is buffered on the way. HEAD is answered as GET is, without the body, on
every path that has GET. What is logged of a request is its `Record`: ids, sizes and codes; never a
query string (it may carry a pseudonym), a name or a byte of content.
"""

import asyncio
import logging
import re
import secrets
import time
from contextlib import suppress

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import jsonio
from service.errors import ErrorCode, MalformedRequest, PayloadTooLarge, code_of, problem
from service.logs import Event, failure_fields
from service.record import Record, begin
from service.traces import Traces

__all__ = [
    "LINGER_BYTES",
    "LINGER_S",
    "METHODS",
    "PROBLEM_TYPE",
    "REFUSAL",
    "RequestEnvelope",
    "fixed_headers",
    "log_failure",
    "request_id_of",
]

PROBLEM_TYPE = "application/problem+json"
# How long a client that still sends is given to see the answer before the close, from its last
# bytes on and in all: a busy one may not get to its socket for a second or two.
LINGER_S = 5.0
_LONGEST_LINGER_S = 30.0
# And how much of what it sends is read for that: an ordinary exam, so that a client which looks up
# only when all is sent sees why it was refused; what a fast network brings in a second is 1 GiB.
LINGER_BYTES = 16 * 1024 * 1024
# Where the connection notes, in the scope's state, that it has refused the rest of a request.
REFUSAL = "refusal"
# For answers that a browser is led to. No Strict-Transport-Security: it would bind every other port
# of the host name too; where all of them speak TLS, the proxy in front can say so.
_SECURITY_HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
# Any other is the caller's own text, and as long as the caller likes.
METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
_logger = logging.getLogger(__name__)


class RequestEnvelope:
    """ASGI middleware; `scope["state"]["request_id"]` is the id below it."""

    def __init__(self, app: ASGIApp, max_body_bytes: int, traces: Traces | None = None) -> None:
        """Wrap an app.

        Args:
            app: what answers.
            max_body_bytes: of a request.
            traces: where requests are traced to, if anywhere.
        """
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._traces = traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit, traces = self._max_body_bytes, self._traces
        await _Exchange(self._app, limit, traces, scope, receive, send).run()


class _Exchange:
    """One request and its answer."""

    def __init__(
        self,
        app: ASGIApp,
        limit: int,
        traces: Traces | None,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._app, self._limit, self._traces = app, limit, traces
        self._receive, self._send = receive, send
        self._method = scope["method"]
        self._scope = {**scope, "method": "GET"} if self._method == "HEAD" else scope
        self._id = request_id_of(scope)
        self._bytes_in = 0
        self._body_ended = not _has_body(scope)
        self._record = Record(self._id, self._method if self._method in METHODS else "-")

    async def run(self) -> None:
        begin(self._record)
        try:
            self._check_framing()
            await self._app(self._scope, self._count, self._stamp)
        except asyncio.CancelledError:
            # By the server alone, when a stop has waited long enough.
            self._record.outcome = ErrorCode.SHUTTING_DOWN.value
            raise
        except Exception as error:
            self._record.outcome = code_of(error).value
            if self._record.status:
                log_failure(error, self._id)
                raise
            await self._send_problem(error)
        finally:
            self._tell()

    def _check_framing(self) -> None:
        # Where a proxy in front believes the length and this parser the coding, the end of one
        # request is the beginning of another, smuggled one. The refusal closes the connection.
        headers = Headers(scope=self._scope)
        if "transfer-encoding" in headers and "content-length" in headers:
            raise MalformedRequest("Content-Length and Transfer-Encoding exclude one another.")

    def _check_declared(self) -> None:
        declared = Headers(scope=self._scope).get("content-length")
        if declared is None:
            return
        if not (declared.isascii() and declared.isdigit()):
            raise MalformedRequest("Content-Length is not a number.")
        if len(declared) > 18 or int(declared) > self._limit:
            raise self._too_large()

    async def _count(self) -> Message:
        # Asked here and not at the start: a client that waits for 100-continue sends nothing more,
        # and whoever reads the body counts the refusal as its own.
        if not self._bytes_in:
            self._check_declared()
        message = await self._receive()
        self._bytes_in += len(message.get("body", b""))
        self._body_ended = not message.get("more_body", False)
        if self._bytes_in > self._limit:
            raise self._too_large()
        return message

    async def _stamp(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in fixed_headers(self._id).items():
                headers.setdefault(name, value)
        elif self._method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)

    def _too_large(self) -> PayloadTooLarge:
        return PayloadTooLarge(f"The body of a request may have {self._limit} bytes at most.")

    async def _send_problem(self, error: Exception) -> None:
        status, document, headers = problem(error, self._id)
        if status == 500:
            log_failure(error, self._id)
        if self._scope["path"].startswith("/v2/"):
            document["error"] = document["detail"]  # where clients of that protocol look for it
        body = jsonio.write(document)
        raw = [(b"content-type", PROBLEM_TYPE.encode()), (b"content-length", b"%d" % len(body))]
        raw += [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        if not self._body_ended:
            # Else the rest of a refused body would be read to its end, however far that is.
            raw.append((b"connection", b"close"))
        await self._stamp({"type": "http.response.start", "status": status, "headers": raw})
        await self._stamp({"type": "http.response.body", "body": body, "more_body": True})
        await self._linger()
        await self._stamp({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        """Give a client that still sends the time to see the answer before the close.

        Closing with unread bytes resets the connection, and the reset may overtake the answer.
        """
        # One that asked for 100-continue may send all the same; with the answer begun, reading on
        # no longer asks it to.
        left = LINGER_BYTES
        clock = asyncio.get_running_loop().time
        end = clock() + _LONGEST_LINGER_S
        with suppress(TimeoutError):
            while not self._body_ended:
                async with asyncio.timeout_at(min(clock() + LINGER_S, end)):
                    if left < 0:  # nothing is read while nobody receives
                        await asyncio.sleep(LINGER_S)
                    message = await self._receive()
                left -= len(message.get("body", b""))
                self._body_ended = not message.get("more_body", False)

    def _tell(self) -> None:
        record, scope = self._record, self._scope
        record.ended_ns = time.perf_counter_ns()
        # The route's template, not the path: a path is the caller's text.
        record.route = getattr(scope.get("route"), "path", "-")
        record.client = scope["state"].get("client")
        record.bytes_in = self._bytes_in
        refusal: Record | None = scope["state"].get(REFUSAL)
        if refusal is not None:
            record.status, record.outcome = refusal.status, refusal.outcome
        _logger.info(Event("request", **record.fields()))
        if self._traces is not None:
            self._traces.add(record, Headers(scope=scope).get("traceparent", ""))


def request_id_of(scope: Scope) -> str:
    """Give a request its id, as sent or made here; it stays in the scope's state."""
    state: dict[str, str] = scope.setdefault("state", {})
    if "request_id" not in state:
        given = Headers(scope=scope).get("x-request-id", "")
        state["request_id"] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
    return state["request_id"]


def fixed_headers(request_id: str) -> dict[str, str]:
    """Headers of every answer, where it has not set them itself."""
    return {"x-request-id": request_id, **_SECURITY_HEADERS}


def _has_body(scope: Scope) -> bool:
    headers = Headers(scope=scope)
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def log_failure(error: BaseException, request_id: str) -> None:
    """Log where an error came from; never what it says."""
    _logger.error(Event("failure", request_id=request_id, **failure_fields(error)))
