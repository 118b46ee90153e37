"""Where a stream's connections lead, and what is said when one is refused."""

import json
import secrets
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx

from endo_clip_client.errors import ClientError, Refused, refusal

__all__ = ["Line", "refused", "websockets"]

# A pulled cable is noticed after one of these without a sign, and one more.
_PING_S = 5.0


@dataclass(frozen=True, slots=True)
class Line:
    """Where streams lead, and with which headers and trust; the same as requests have."""

    url: str
    headers: Mapping[str, str]
    verify: bool | ssl.SSLContext

    def options(self, path: str, keep_every_ms: int) -> dict[str, Any]:
        """Give the arguments of websockets' `connect`."""
        scheme, rest = self.url.split("://", 1)
        secure = scheme == "https"
        place = f"{'wss' if secure else 'ws'}://{rest}{path}/stream"
        return {
            "uri": f"{place}?keep_every_ms={keep_every_ms}",
            "additional_headers": {**self.headers, "X-Request-ID": secrets.token_hex(16)},
            "user_agent_header": None,
            "compression": None,
            "ping_interval": _PING_S,
            "ping_timeout": _PING_S,
            "ssl": httpx.create_ssl_context(self.verify) if secure else None,
        }


def refused(response: Any) -> Refused:
    """Make the error of a handshake that was answered with something else."""
    try:
        document = json.loads(response.body or b"")
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"detail": f"a proxy answers {response.status_code} to the stream's handshake"}
    text = response.headers.get("Retry-After", "")
    retry_after_s = float(text) if text.isascii() and text.isdigit() else None
    return refusal(response.status_code, document, retry_after_s=retry_after_s)


def websockets() -> SimpleNamespace:
    """Give what is used of the library.

    Raises:
        ClientError: it is not installed.
    """
    try:
        from websockets.asyncio.client import connect
        from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
    except ImportError as error:
        raise ClientError(
            "streams need websockets\nWhat to do: pip install 'endo-clip-client[stream]'"
        ) from error
    return SimpleNamespace(
        connect=connect,
        ConnectionClosed=ConnectionClosed,
        InvalidStatus=InvalidStatus,
        WebSocketException=WebSocketException,
    )
