"""Who may ask for what: every path but a few needs a key, and each key has its scopes.

ASGI middleware inside of the envelope, so that a refusal costs no byte of the body and no look at
the routes: without a key nobody learns which paths there are.
"""

import ipaddress
import re

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from service import keys
from service.errors import Forbidden, Unauthenticated, code_of
from service.keys import Keyring
from service.metrics import Metrics
from service.page import PATHS as PAGE_PATHS
from service.rates import UNLIMITED, FrameRate

__all__ = ["OPEN_PATHS", "KeyGuard", "accepted_protocol", "owner_of", "rate_of", "scope_of"]

# Probes carry no keys; documentation and page are the same for every installation.
_PROBES = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready")
OPEN_PATHS = frozenset((*_PROBES, "/docs", "/openapi.json")) | PAGE_PATHS
_ADMIN = "/v1/admin"
# What a browser's handshake offers: a protocol, and the key as another, the only place for one.
_PROTOCOL, _KEY_PROTOCOL = "endo-clip", "bearer."
_PORT = re.compile(r":[0-9]*\Z")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-real-ip")


class KeyGuard:
    """Below it `scope["state"]` holds `client`, `owner` (the key's id and name) and `rate`."""

    def __init__(self, app: ASGIApp, keyring: Keyring | None, metrics: Metrics) -> None:
        """Wrap an app.

        Args:
            app: what is guarded.
            keyring: the keys; None where none are asked for.
            metrics: where refusals are counted.
        """
        self._app, self._keyring, self._metrics = app, keyring, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] in ("http", "websocket") and scope["path"] not in OPEN_PATHS:
            try:
                self._check(scope)
            except (Unauthenticated, Forbidden) as error:
                self._metrics.count_refusal(code_of(error).value)
                raise
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        wanted = scope_of(scope["path"])
        if self._keyring is None:
            if wanted is keys.Scope.ADMIN:
                _check_local(scope)
            if scope["type"] == "websocket":
                _check_own_page(scope)
            return
        caller = self._keyring.authenticate(_authorization(scope))
        state = scope.setdefault("state", {})
        state["client"], state["owner"] = caller.key.id, caller.key.name
        if wanted not in caller.key.scopes:
            raise Forbidden(f"This needs a key with the scope {wanted.value}.")
        state["rate"] = caller.rate


def scope_of(path: str) -> keys.Scope:
    """Say which scope a path needs."""
    if path == "/metrics":
        return keys.Scope.METRICS
    if path == _ADMIN or path.startswith(f"{_ADMIN}/"):
        return keys.Scope.ADMIN
    return keys.Scope.SCORE


def accepted_protocol(scope: Scope) -> str | None:
    """Say which of the protocols that a WebSocket's handshake offers is accepted, if any."""
    return _PROTOCOL if _PROTOCOL in scope.get("subprotocols", ()) else None


def rate_of(request: HTTPConnection) -> FrameRate:
    """Give the rate that a request is held to."""
    rate: FrameRate = getattr(request.state, "rate", UNLIMITED)
    return rate


def owner_of(request: HTTPConnection) -> str:
    """Name whose a request's exams are: keys of one name have them in common."""
    owner: str = getattr(request.state, "owner", "-")
    return owner


def _check_local(scope: Scope) -> None:
    """Where there are no keys, let only this machine administer, and none of its browsers.

    A web page reaches loopback through its reader's browser, under a name of its own if it has the
    name resolve to it; a proxy on this machine brings in everybody.
    """
    headers = Headers(scope=scope)
    if "origin" in headers or "sec-fetch-site" in headers:
        raise Forbidden("Without keys, nothing is administered from a browser.")
    peer = (scope.get("client") or ("", 0))[0]
    forwarded = any(name in headers for name in _FORWARDED)
    if forwarded or not _is_loopback(peer) or not _names_loopback(headers.get("host", "")):
        raise Forbidden("Without keys, only this machine administers, over loopback.")


def _check_own_page(scope: Scope) -> None:
    """Where there are no keys, let no web page but this service's own open a stream.

    A browser lets any page open a socket to anywhere, and says which one does. A page whose name
    was made to resolve to loopback is of the same origin, so the name counts as well.
    """
    headers = Headers(scope=scope)
    if "origin" not in headers:
        return
    host = headers.get("host", "")
    if headers["origin"].partition("://")[2] != host or not _names_loopback(host):
        raise Forbidden(
            "Without keys, a browser opens a stream from this service's own page alone, over "
            "loopback."
        )


def _authorization(scope: Scope) -> str:
    """Give the header, or what stands for it in a handshake of a browser, which sends none."""
    sent = Headers(scope=scope).get("authorization", "")
    offered = [one for one in scope.get("subprotocols", ()) if one.startswith(_KEY_PROTOCOL)]
    return sent if sent or not offered else f"Bearer {offered[0].removeprefix(_KEY_PROTOCOL)}"


def _names_loopback(host: str) -> bool:
    name = _PORT.sub("", host).strip("[]")
    return name == "localhost" or _is_loopback(name)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
