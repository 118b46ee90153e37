"""Who may ask for what: every path but a few needs a key, and each key has its scopes.

ASGI middleware inside of the envelope, so that a refusal costs no byte of the body and no look at
the routes: without a key nobody learns which paths there are.
"""

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service import keys
from service.errors import Forbidden, Unauthenticated, code_of
from service.keys import Keyring
from service.metrics import Metrics
from service.rates import UNLIMITED, FrameRate

__all__ = ["OPEN_PATHS", "KeyGuard", "owner_of", "rate_of", "scope_of"]

# Probes carry no keys, and the documentation is the same for every installation.
OPEN_PATHS = frozenset(("/healthz", "/readyz", "/docs", "/openapi.json"))
_ADMIN = "/v1/admin"


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
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            try:
                self._check(scope)
            except (Unauthenticated, Forbidden) as error:
                self._metrics.count_refusal(code_of(error).value)
                raise
        await self._app(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        wanted = scope_of(scope["path"])
        if self._keyring is None:
            _refuse_browsers(scope, wanted)
            return
        caller = self._keyring.authenticate(Headers(scope=scope).get("authorization", ""))
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


def rate_of(request: Request) -> FrameRate:
    """Give the rate that a request is held to."""
    rate: FrameRate = getattr(request.state, "rate", UNLIMITED)
    return rate


def owner_of(request: Request) -> str:
    """Name whose a request's exams are: keys of one name have them in common."""
    owner: str = getattr(request.state, "owner", "-")
    return owner


def _refuse_browsers(scope: Scope, wanted: keys.Scope) -> None:
    """Keep web pages, which reach loopback through their reader's browser, from administering."""
    headers = Headers(scope=scope)
    if wanted is keys.Scope.ADMIN and ("origin" in headers or "sec-fetch-site" in headers):
        raise Forbidden("Without keys, nothing is administered from a browser.")
