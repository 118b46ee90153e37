"""A WebSocket as RFC 6455 has it, as much as the lines about live streams need."""

import base64
import hashlib
import json
import os
import secrets
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx

__all__ = ["Stream", "streaming"]

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 1, 2, 8, 9, 10


@contextmanager
def streaming(url: str, key: str | None, path: str, timeout_s: float) -> Iterator["Stream"]:
    """Ask for a stream; what was refused has its answer in `refused`."""
    parts = urlsplit(url)
    secure = parts.scheme == "https"
    place = (parts.hostname or "", parts.port or (443 if secure else 80))
    with socket.create_connection(place, timeout=timeout_s) as plain:
        wire: socket.socket = plain
        if secure:
            wire = ssl.create_default_context().wrap_socket(plain, server_hostname=place[0])
        try:
            yield Stream(wire, parts.netloc, parts.path.rstrip("/") + path, key)
        finally:
            wire.close()


class Stream:
    """One connection.

    Attributes:
        refused: the answer, where it was another than 101.
        code: with which the other side has closed, once it has.
    """

    def __init__(self, wire: socket.socket, host: str, path: str, key: str | None) -> None:
        self._wire, self._read = wire, b""
        self.code: int | None = None
        nonce = base64.b64encode(os.urandom(16)).decode()
        head = [f"GET {path} HTTP/1.1", f"Host: {host}", "Upgrade: websocket"]
        head += ["Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {nonce}"]
        head += [f"Authorization: Bearer {key}"] if key else []
        wire.sendall(("\r\n".join(head) + "\r\n\r\n").encode())
        self.refused = self._shaken(nonce)

    def send(self, *messages: bytes | str) -> None:
        """Send messages, all of them in one go."""
        frames = [
            _frame(_TEXT, one.encode()) if isinstance(one, str) else _frame(_BINARY, one)
            for one in messages
        ]
        self._wire.sendall(b"".join(frames))

    def messages(self) -> Iterator[dict[str, Any]]:
        """Give what comes, until the other side closes."""
        whole = b""
        while True:
            try:
                first, size = self._take(2)
            except ConnectionError:
                return
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            data, kind = self._take(size), first & 15
            if kind == _CLOSE:
                self.code = struct.unpack(">H", data[:2])[0] if data else 1005
                return
            if kind == _PING:
                self._wire.sendall(_frame(_PONG, data))
            elif kind != _PONG:
                whole += data
                if first & 128:
                    yield json.loads(whole)
                    whole = b""

    def _shaken(self, nonce: str) -> httpx.Response | None:
        while b"\r\n\r\n" not in self._read:
            self._more()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = httpx.Headers([tuple(one.split(":", 1)) for one in lines])
        headers = httpx.Headers({name: text.strip() for name, text in headers.items()})
        status = int(first.split()[1])
        if status != 101:
            body = self._take(int(headers.get("content-length", 0)))
            return httpx.Response(status, headers=headers, content=body)
        due = hashlib.sha1((nonce + _GUID).encode(), usedforsecurity=False).digest()
        if headers.get("sec-websocket-accept") != base64.b64encode(due).decode():
            raise AssertionError("expected Sec-WebSocket-Accept to answer the key")
        return None

    def _take(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        taken, self._read = self._read[:size], self._read[size:]
        return taken

    def _more(self) -> None:
        data = self._wire.recv(65536)
        if not data:
            raise ConnectionError("the connection was closed")
        self._read += data


def _frame(kind: int, data: bytes) -> bytes:
    mask = secrets.token_bytes(4)
    if len(data) < 126:
        size = bytes([128 | len(data)])
    elif len(data) < 65536:
        size = bytes([128 | 126]) + struct.pack(">H", len(data))
    else:
        size = bytes([128 | 127]) + struct.pack(">Q", len(data))
    hidden = int.from_bytes(data, "big") ^ int.from_bytes(
        (mask * (len(data) // 4 + 1))[: len(data)], "big"
    )
    return bytes([128 | kind]) + size + mask + hidden.to_bytes(len(data), "big")
