"""Around every WebSocket: its id, errors as problem documents, one log line.

An error before the handshake is an HTTP answer like any other; after it the socket is closed, and
whoever runs it has said why in a message of its own.
"""

import asyncio
import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import jsonio
from service.errors import ErrorCode, NotFound, code_of, problem
from service.logs import Event
from service.middleware import PROBLEM_TYPE, fixed_headers, log_failure, request_id_of
from service.record import Record, begin

__all__ = ["SocketEnvelope"]

_FAILED = 1011
_ACCEPTED = 101
_logger = logging.getLogger(__name__)


class SocketEnvelope:
    """ASGI middleware; everything but a WebSocket passes through."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap an app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await _Socket(scope, send).run(self._app, receive)
        else:
            await self._app(scope, receive, send)


class _Socket:
    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope, self._send = scope, send
        self._id = request_id_of(scope)
        self._record = Record(self._id, "GET")

    async def run(self, app: ASGIApp, receive: Receive) -> None:
        begin(self._record)
        try:
            await app(self._scope, receive, self._stamp)
        except asyncio.CancelledError:
            self._record.outcome = ErrorCode.SHUTTING_DOWN.value
            raise
        except Exception as error:
            self._record.outcome = code_of(error).value
            await self._fail(error)
        finally:
            record, scope = self._record, self._scope
            record.ended_ns = time.perf_counter_ns()
            record.route = getattr(scope.get("route"), "path", "-")
            record.client = scope["state"].get("client")
            _logger.info(Event("socket", **record.fields()))

    async def _stamp(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            self._record.status = _ACCEPTED
            headers = MutableHeaders(raw=list(message.get("headers", [])))
            headers["x-request-id"] = self._id
            message = {**message, "headers": headers.raw}
        elif message["type"] == "websocket.close" and not self._record.status:
            # The router's word for a path that is not there.
            raise NotFound("No such path; /docs lists those there are.")
        await self._send(message)

    async def _fail(self, error: Exception) -> None:
        status, document, headers = problem(error, self._id)
        if status == 500:
            log_failure(error, self._id)
        if self._record.status:
            await self._send({"type": "websocket.close", "code": _FAILED})
            return
        self._record.status = status
        body = jsonio.write(document)
        headers = {**fixed_headers(self._id), **headers, "connection": "close"}
        headers |= {"content-type": PROBLEM_TYPE, "content-length": str(len(body))}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self._send(
            {"type": "websocket.http.response.start", "status": status, "headers": raw}
        )
        await self._send({"type": "websocket.http.response.body", "body": body})
