"""What HTTP itself asks of a connection: when a request began, and what is none.

uvicorn's parser refuses what is no HTTP (a bad or second Content-Length, a missing Host, a broken
chunk, garbage) before the app sees it, and would answer with plain text; here it is answered like
every other error, with the problem document and an id. A head that never ends, for which uvicorn
would wait for ever, is 408. Bytes that nobody will read (behind a refusal, or the body of a request
that was answered without it) are not taken in for ever.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.wsproto_impl import WSProtocol

from service import jsonio
from service.errors import ClientTooSlow, MalformedRequest, ServiceError, code_of, problem
from service.intake import BEGAN, LEAST_BYTES_PER_S
from service.logs import Event
from service.middleware import (
    LINGER_BYTES,
    LINGER_S,
    PROBLEM_TYPE,
    REFUSAL,
    fixed_headers,
    request_id_of,
)
from service.record import Record

__all__ = ["HttpProtocol", "SocketProtocol"]

# What is read of a connection at once: before anybody has asked for a body, or when nobody will
# any more, and when it is wanted. With 256 KiB throughout, 600 callers of exams who came at once
# and were refused put 95 MiB into memory; so it is 26.
_GLANCE_BYTES = 16 * 1024
_READ_BYTES = 256 * 1024
# What a stream's client leaves unread, at most. Results stop at 64 KiB; pongs, which are written
# whether it reads or not, do not: 60 MB of pings put 97 MiB into memory.
_MOST_UNREAD_BYTES = 1024 * 1024
_logger = logging.getLogger(__name__)


class _Flow(FlowControl):
    """Reads as much at once as is wanted of a connection at the moment."""

    def __init__(self, transport: asyncio.Transport, at_once: Callable[[], int]) -> None:
        super().__init__(transport)
        self._at_once = at_once
        self.set_read_size()

    def resume_reading(self) -> None:
        if self.read_paused:
            self.set_read_size()
        super().resume_reading()

    def set_read_size(self) -> None:
        if hasattr(self._transport, "max_size"):  # of asyncio's for plain sockets
            self._transport.max_size = self._at_once()


class HttpProtocol(H11Protocol):
    """One connection; `python -m service` hands it to uvicorn.

    Attributes:
        patience_s: how long the head of a request may take, and how far a client may lag behind
            32 KiB a second in reading; `configure` sets it on a subclass.
    """

    patience_s = 20.0
    flow: _Flow
    _refused = False
    _unread = 0
    _head_begun = False
    _head_timer: asyncio.TimerHandle | None = None
    _read_timer: asyncio.TimerHandle | None = None

    # uvicorn narrows asyncio's signature in the same way.
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self.flow = _Flow(transport, self._at_once)
        # Its own copy; each request's scope is given a copy of it in turn.
        self.app_state = dict(self.app_state)
        self._head_timer = self.loop.call_later(self.patience_s, self._refuse_slow_head)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._end_head()
        self._end_reading()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in bytes; those that follow a refusal are dropped."""
        if self._refused:
            self._drop(data)
            return
        if self._between_requests() and not self._head_begun:
            if self.conn.our_state is not h11.DONE:  # else: the rest of a body that nobody reads
                self._end_head()
                self._head_begun = True
                self.app_state[BEGAN] = self.loop.time()
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(self.patience_s, self._refuse_slow_head)
        super().data_received(data)
        if not self._between_requests():
            self._end_head()
            if self.cycle.body:
                self.flow.pause_reading()  # the app may refuse the rest; receiving goes on
        if self.conn.our_state is h11.DONE and self.conn.their_state is h11.SEND_BODY:
            self._drop(data)
        else:
            self._unread = 0

    def pause_writing(self) -> None:
        """Begin to watch how the client reads: more waits for it than the transport wants to."""
        super().pause_writing()
        self._end_reading()
        self._watch_reading(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Stop watching."""
        self._end_reading()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Go on to a request that came in behind this one: it waited until now."""
        self.app_state[BEGAN] = self.loop.time()
        self.flow.set_read_size()
        super().on_response_complete()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand the connection over; its head has ended."""
        self._end_head()
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused, and close."""
        self._refuse(MalformedRequest(msg))

    def _at_once(self) -> int:
        wanted = not self._between_requests() and not self.cycle.response_started
        return _READ_BYTES if wanted else _GLANCE_BYTES

    def _drop(self, data: bytes) -> None:
        """Count bytes that nobody reads; too many end the connection."""
        self._unread += len(data)
        if self._unread > LINGER_BYTES:
            self.transport.close()

    def _between_requests(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _end_head(self) -> None:
        self._head_begun = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _watch_reading(self, unread: int) -> None:
        self._read_timer = self.loop.call_later(self.patience_s, self._check_reading, unread)

    def _check_reading(self, before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if before - unread < LEAST_BYTES_PER_S * self.patience_s:
            self.transport.abort()  # `close` would wait for the client, too
        else:
            self._watch_reading(unread)

    def _end_reading(self) -> None:
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None

    def _refuse_slow_head(self) -> None:
        if self._head_begun:
            self._refuse(ClientTooSlow())
        else:
            self.transport.close()

    def _refuse(self, error: ServiceError) -> None:
        self._refused = True
        self._end_head()
        dropped = self._drop_request()
        request_id = dropped or secrets.token_hex(16)
        status, document, _ = problem(error, request_id)
        record = Record(request_id, "-", status=status, outcome=code_of(error).value)
        if dropped:
            # The app has begun on it, and writes its one line.
            cast(Scope, self.scope)["state"][REFUSAL] = record
        else:
            record.ended_ns = record.began_ns
            _logger.info(Event("request", **record.fields()))
        # An answer that has begun ends here; no second one can follow it.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send_problem(status, jsonio.write(document), request_id)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        # Closing with unread bytes resets the connection, and the reset may overtake the answer.
        self.loop.call_later(LINGER_S, self.transport.close)

    def _drop_request(self) -> str | None:
        """Tell the app that the request it is reading is over; gives that request's id."""
        if self.cycle is None or self.cycle.response_complete:
            return None
        self.cycle.disconnected = True
        self.cycle.waiting_for_100_continue = False
        self.cycle.message_event.set()
        return request_id_of(cast(Scope, self.scope))

    def _send_problem(self, status: int, body: bytes, request_id: str) -> None:
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in fixed_headers(request_id).items()),
        ]
        reason = HTTPStatus(status).phrase.encode()
        response = h11.Response(status_code=status, headers=headers, reason=reason)
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")


class SocketProtocol(WSProtocol):
    """One WebSocket; `python -m service` hands it to uvicorn."""

    def data_received(self, data: bytes) -> None:
        """Take in bytes, from a client that reads what it is sent."""
        super().data_received(data)
        if self.transport.get_write_buffer_size() > _MOST_UNREAD_BYTES:
            self.transport.abort()
