"""What is no HTTP at all is answered like every other error: the problem document, with an id.

uvicorn's parser refuses such requests (a bad or second Content-Length, a missing Host, a broken
chunk, garbage) before the app sees them, and would answer with plain text.
"""

import logging
import secrets
from typing import cast

import h11
from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from service import jsonio
from service.errors import MalformedRequest, problem
from service.middleware import LINGER_S, PROBLEM_TYPE, fixed_headers, request_id_of

__all__ = ["HttpProtocol"]

_logger = logging.getLogger(__name__)


class HttpProtocol(H11Protocol):
    """One connection; `python -m service` hands it to uvicorn."""

    _refused = False

    def data_received(self, data: bytes) -> None:
        """Take in bytes; those that follow a refusal are dropped."""
        if not self._refused:
            super().data_received(data)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser refused, and close."""
        self._refused = True
        request_id = self._drop_request() or secrets.token_hex(16)
        _logger.info("request method=- route=- status=400 request_id=%s", request_id)
        # An answer that has begun ends here; no second one can follow it.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._send_problem(MalformedRequest(msg), request_id)
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

    def _send_problem(self, error: MalformedRequest, request_id: str) -> None:
        status, document, _ = problem(error, request_id)
        body = jsonio.write(document)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", PROBLEM_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *((name.encode(), value.encode()) for name, value in fixed_headers(request_id).items()),
        ]
        response = h11.Response(status_code=status, headers=headers, reason=b"Bad Request")
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
