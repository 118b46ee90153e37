"""What the checks are made of: frames, requests, and the list of contract lines."""

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

__all__ = ["LINES", "Kit", "Line", "Skipped", "line", "need", "png"]

FRAME = Path(__file__).with_name("frame.jpg").read_bytes()


class Skipped(Exception):
    """The deployment cannot be asked this; the text says why."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the contract, and what checks it."""

    text: str
    run: Callable[["Kit"], None]


LINES: list[Line] = []


def line(text: str) -> Callable[[Callable[["Kit"], None]], Callable[["Kit"], None]]:
    """Register a check under the line of the contract that it proves."""

    def registered(run: Callable[["Kit"], None]) -> Callable[["Kit"], None]:
        LINES.append(Line(text, run))
        return run

    return registered


def need(holds: object, said: str) -> None:
    """Fail a check, unlike `assert` also under `python -O`."""
    if not holds:
        raise AssertionError(said)


def png(colour: tuple[int, int, int] = (180, 60, 50), side: int = 96) -> bytes:
    """A flat PNG, written by hand: the kit needs httpx and nothing else."""
    rows = (b"\0" + bytes(colour) * side) * side

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


class Kit:
    """Asks one deployment."""

    def __init__(self, url: str, key: str | None, timeout_s: float = 120.0) -> None:
        self.key = key
        self.url = url.rstrip("/")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.http = httpx.Client(base_url=self.url, headers=headers, timeout=timeout_s)

    def get(self, path: str, **more: Any) -> httpx.Response:
        """Ask for a document."""
        return self.http.get(path, **more)

    def form(
        self, task: str, frames: list[bytes], request: Any = None, **headers: str
    ) -> httpx.Response:
        """Send the multipart form."""
        parts: list[Any] = [("frames", ("frame", data)) for data in frames]
        if request is not None:
            parts.append(("request", (None, json.dumps(request))))
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(f"/v1/{task}", files=parts, headers=sent)

    def json(self, task: str, body: Any) -> httpx.Response:
        """Send the JSON form."""
        return self.http.post(f"/v1/{task}", json=body)

    def one(self, task: str, data: bytes, kind: str = "image/jpeg", **query: str) -> httpx.Response:
        """Send a frame as the body."""
        headers = {"Content-Type": kind}
        return self.http.post(f"/v1/{task}", content=data, headers=headers, params=query)

    def scored(self, task: str, frames: list[bytes], request: Any = None) -> dict[str, Any]:
        """Send the multipart form and give the answer, which must be 200."""
        answer = self.form(task, frames, request)
        need(answer.status_code == 200, f"expected 200; found {answer.status_code}")
        document: dict[str, Any] = answer.json()
        return document

    @staticmethod
    def patient(*frames: bytes, **more: Any) -> dict[str, Any]:
        """A patient of the JSON form."""
        return {"frames": [{"image": b64encode(data).decode()} for data in frames], **more}

    @staticmethod
    def problem(answer: httpx.Response, status: int, *codes: str) -> dict[str, Any]:
        """Check that an answer is the problem document it should be, and give it."""
        found = answer.status_code
        need(found == status, f"expected {status}; found {found}")
        kind = answer.headers.get("content-type", "")
        need(kind.startswith("application/problem+json"), f"expected problem+json; found {kind!r}")
        document: dict[str, Any] = answer.json()
        for name in ("type", "title", "status", "detail", "code", "request_id"):
            need(name in document, f"expected the member {name}")
        need(document["status"] == status, "expected `status` to be that of HTTP")
        need(
            not codes or document["code"] in codes,
            f"expected the code {' or '.join(codes)}; found {document['code']}",
        )
        return document
