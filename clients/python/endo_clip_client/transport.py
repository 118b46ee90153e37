"""What the two clients tell httpx, and what they take from their caller."""

import ipaddress
import ssl
import warnings
from typing import Any

import httpx

from endo_clip_client.sending import Call

__all__ = ["http_options", "send_options"]

_CONNECT_S = 5.0


def http_options(
    url: str, key: str | None, timeout_s: float, verify: bool | ssl.SSLContext
) -> tuple[str, dict[str, Any]]:
    """Give the service's root and the arguments of httpx's client.

    Raises:
        ValueError: the URL or the key is none.
    """
    parsed = httpx.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise ValueError(
            "url: expected http://HOST:PORT or https://HOST, without a user or a password"
        )
    headers = {"User-Agent": "endo-clip-client"}
    if key is not None:
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise ValueError("key: expected the one line that `service keys add` printed")
        headers["Authorization"] = f"Bearer {key}"
        if parsed.scheme == "http" and not _is_loopback(parsed.host):
            warnings.warn(
                f"the key goes to {parsed.host} over plain http, readable on the way; use https",
                stacklevel=3,
            )
    root = str(parsed.copy_with(query=None, fragment=None)).rstrip("/")
    timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
    limits = httpx.Limits(max_connections=64)
    return root, {
        "base_url": root,
        "headers": headers,
        "timeout": timeout,
        "limits": limits,
        "verify": verify,
    }


def send_options(call: Call) -> dict[str, Any]:
    """Give the arguments of httpx's `request` for a call."""
    return {
        "method": call.method,
        "url": call.path,
        "headers": {**call.headers, "X-Request-ID": call.request_id},
        "files": list(call.parts) or None,
        "json": call.document,
    }


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
