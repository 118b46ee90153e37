"""Requests that should not be sent, made here; files that are no frames are `bench.hostile_files`.

Each says which status and code it is answered with. Nothing is random.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from bench.hostile_files import good_jpeg

__all__ = ["BadRequest", "bad_requests", "form", "malformed_bytes"]

_BOUNDARY = "hostile"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"


@dataclass(frozen=True, slots=True)
class BadRequest:
    """A request.

    Attributes:
        name: what is wrong with it.
        headers: Content-Type and others.
        body: as sent.
        status: that it is answered with.
        code: of the problem document; empty for 200.
        path: of the URL, query included.
        pointer: to the fault, where it has one.
    """

    name: str
    headers: dict[str, str]
    body: bytes
    status: int
    code: str
    path: str = "/v1/malignancy"
    pointer: str | None = None


@cache
def bad_requests() -> tuple[BadRequest, ...]:
    """Make the requests; each is good HTTP."""
    return (*_wrong_types(), *_wrong_forms(), *_wrong_json(), *_wrong_rules())


def malformed_bytes() -> dict[str, tuple[bytes, int]]:
    """Make what is no good HTTP, or two requests in one's clothes: name → bytes, answers at most.

    Each connection is closed with 400 after that many answers of 200 at most: a second, smuggled
    request is never answered.
    """
    post = b"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\n"
    hidden = b"GET /v1/limits HTTP/1.1\r\nHost: x\r\n\r\n"
    length = b"Content-Length: %d\r\n" % len(hidden)
    return {
        "length and chunked": (
            post + length + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden,
            0,
        ),
        "chunked and identity": (
            post + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden,
            0,
        ),
        "two codings": (
            post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hidden,
            0,
        ),
        "unknown coding": (post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 0),
        "two lengths": (post + length + b"Content-Length: 0\r\n\r\n" + hidden, 0),
        "list of lengths": (post + b"Content-Length: 0, %d\r\n\r\n" % len(hidden) + hidden, 0),
        "signed length": (post + b"Content-Length: +0\r\n\r\n" + hidden, 0),
        "hexadecimal length": (post + b"Content-Length: 0x0\r\n\r\n" + hidden, 0),
        "space before a colon": (post + b"Content-Length : 0\r\n\r\n" + hidden, 0),
        "line break in a name": (post + b"X\rY: 1\r\n\r\n" + hidden, 0),
        "zero byte in a value": (post + b"X-Request-ID: a\0b\r\n\r\n", 0),
        "chunk size with a sign": (post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden, 0),
        "chunk size too long": (
            post + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n",
            0,
        ),
        "chunk longer than told": (
            post + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + hidden,
            0,
        ),
        "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 0),
        "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 0),
        "head of 200 kB": (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
            0,
        ),
        "hello of TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 0),
        "garbage after a request": (
            b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0garbage\r\n\r\n",
            1,
        ),
    }


def form(*files: bytes, request: str | bytes | None = None) -> tuple[dict[str, str], bytes]:
    """Write a form's headers and body."""
    parts = [("frames", b'; filename="a.jpg"', data) for data in files]
    if request is not None:
        data = request.encode() if isinstance(request, str) else request
        parts.append(("request", b"", data))
    body = b"".join(
        b'--hostile\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
        % (name.encode(), more, data)
        for name, more, data in parts
    )
    return {"Content-Type": _FORM}, body + b"--hostile--\r\n"


def _json(document: Any, name: str, code: str, status: int = 422, **more: Any) -> BadRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return BadRequest(name, {"Content-Type": "application/json"}, body, status, code, **more)


def _one(**frame: Any) -> dict[str, Any]:
    image = {"image": b64encode(good_jpeg()).decode()}
    return {"patients": [{"frames": [image | frame]}]}


def _wrong_types() -> Iterator[BadRequest]:
    for kind in ("text/plain", "image/gif", "application/octet-stream", "text/json", "", "image/*"):
        headers = {"Content-Type": kind} if kind else {}
        yield BadRequest(f"type {kind}", headers, good_jpeg(), 415, "unsupported_media_type")
    packed = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    bomb = zlib.compress(bytes(10_000_000))
    yield BadRequest("gzip", packed, bomb, 415, "unsupported_media_type")
    yield BadRequest("JPEG as PNG", {"Content-Type": "image/png"}, good_jpeg(), 200, "")
    yield BadRequest(
        "JPEG as JSON", {"Content-Type": "application/json"}, good_jpeg(), 400, "malformed_request"
    )
    yield BadRequest(
        "JPEG as a form", {"Content-Type": _FORM}, good_jpeg(), 400, "malformed_request"
    )
    yield BadRequest("no image", {"Content-Type": "image/jpeg"}, b"", 422, "all_frames_rejected")
    other = {"Content-Type": "application/json; charset=utf-16"}
    yield BadRequest(
        "UTF-16", other, json.dumps(_one()).encode("utf-16"), 415, "unsupported_media_type"
    )
    for path in ("/v1/../etc/passwd", "/v1/malignancy/", "/V1/malignancy", "/v1/%2e%2e/healthz"):
        yield BadRequest(path, {"Content-Type": "image/jpeg"}, good_jpeg(), 404, "not_found", path)


def _wrong_forms() -> Iterator[BadRequest]:
    _, good = form(good_jpeg())

    def bad(name: str, body: bytes, status: int, code: str, kind: str = _FORM) -> BadRequest:
        return BadRequest(name, {"Content-Type": kind}, body, status, code)

    yield bad("no boundary", good, 400, "malformed_request", "multipart/form-data")
    yield bad("other boundary", good, 400, "malformed_request", "multipart/form-data; boundary=x")
    yield bad("form cut off", good[:-20], 400, "malformed_request")
    yield bad("form without parts", b"--hostile--\r\n", 422, "invalid_request")
    yield bad("10,000 frames", form(*[b"x"] * 10_000)[1], 413, "payload_too_large")
    part = b'--hostile\r\nContent-Disposition: form-data; name="request"\r\n\r\n{}\r\n'
    yield bad("10,000 requests", part * 10_000 + good, 422, "invalid_request")
    yield bad("unknown part", good.replace(b'"frames"', b'"files"'), 422, "invalid_request")
    yield bad(
        "part without a name", good.replace(b' name="frames";', b""), 400, "malformed_request"
    )
    long = good.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", 1)
    yield bad("part with a head of 1 MB", long, 400, "malformed_request")
    many = good.replace(b"\r\n\r\n", b"\r\nX: y" * 50_000 + b"\r\n\r\n", 1)
    yield bad("part with 50,000 headers", many, 400, "malformed_request")
    yield bad("bad options", form(good_jpeg(), request="{")[1], 400, "malformed_request")
    yield bad(
        "5 MB of options", form(good_jpeg(), request=" " * 5_000_000)[1], 413, "payload_too_large"
    )


def _wrong_json() -> Iterator[BadRequest]:
    malformed, much = (400, "malformed_request"), (413, "payload_too_large")
    for name, body, (status, code) in (
        ("nothing as JSON", b"", malformed),
        ("half of JSON", b'{"patients": [', malformed),
        ("deep lists", b'{"patients": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", much),
        ("deep enough to recurse", b"[" * 20_000 + b"]" * 20_000, malformed),
        ("deep objects", b'{"a":' * 20_000 + b"1" + b"}" * 20_000, malformed),
        ("2 million values", b"[" + b"1," * 2_000_000 + b"1]", much),
        ("NaN", b'{"patients": [{"frames": [{"image": NaN}]}]}', malformed),
        ("Infinity", b'{"explain": -Infinity, "patients": []}', malformed),
        ("a number of 10,000 digits", b'{"explain": ' + b"9" * 10_000 + b"}", malformed),
        ("a key twice", b'{"explain": true, "explain": false}', malformed),
        ("Latin-1", '{"device": "Müller"}'.encode("latin-1"), malformed),
        ("UTF-16 called UTF-8", json.dumps(_one()).encode("utf-16-le"), malformed),
        ("behind the end", json.dumps(_one()).encode() + b"{}", malformed),
    ):
        yield _json(body, name, code, status)
    for document in (None, [], 1, "x", {}, {"patients": []}, {"patients": {}}, {"patients": [1]}):
        yield _json(document, f"JSON {document}", "invalid_request")


def _wrong_rules() -> Iterator[BadRequest]:
    image = "/patients/0/frames/0/image"
    good = b64encode(good_jpeg()).decode()
    for name, text in {
        "line ends in base64": good[:76] + "\n" + good[76:],
        "base64 for URLs": "_-" + good[2:],
        "data URI": f"data:image/jpeg;base64,{good}",
        "base64 without its end": good[:101],
        "base64 behind its end": good + "====",
        "no ASCII": "é" * 8,
    }.items():
        yield _json(_one(image=text), name, "invalid_request", pointer=image)
    twice = {"patients": [{"frames": [{"image": good, "frame_id": "a"}] * 2}]}
    at = "/patients/0/frames/1/frame_id"
    yield _json(twice, "a frame id twice", "invalid_request", pointer=at)
    hidden = {"patients": [{"frames": [{"image": good, "frame_id": "1"}, {"image": good}]}]}
    yield _json(hidden, "a default id twice", "invalid_request", pointer=at)
    people = {"patients": _one()["patients"] * 2}
    people["patients"] = [one | {"patient_id": "p"} for one in people["patients"]]
    at = "/patients/1/patient_id"
    yield _json(people, "a patient id twice", "invalid_request", pointer=at)
    for shown, value in {
        "line break": "a\r\nX-Evil: 1",
        "zero": "a\0",
        "too long": "x" * 129,
    }.items():
        at = "/patients/0/frames/0/frame_id"
        yield _json(_one(frame_id=value), f"frame id: {shown}", "invalid_request", pointer=at)
    yield _json(_one(frame_id="Жёлтый-ﷺ-👩🏽‍⚕️"), "frame id of signs", "", 200)
    yield _json(_one(frame_id="\ud800"), "half of a surrogate pair", "invalid_request")
    for value in ("Müller", "a b", "../x", "x" * 65, "", "a\n"):
        document = _one()
        document["patients"][0]["patient_id"] = value
        yield _json(
            document,
            f"patient id {value[:8]!r}",
            "invalid_request",
            pointer="/patients/0/patient_id",
        )
    yield _json(_one() | {"device": "none"}, "device", "unknown_device", pointer="/device")
    yield _json(
        _one() | {"operating_point": "x"},
        "point",
        "unknown_operating_point",
        pointer="/operating_point",
    )
    yield _json(
        _one() | {"labels": "x"}, "labels of a named task", "invalid_request", pointer="/labels"
    )
    yield _json(
        _one() | {"labels": "x"},
        "label set",
        "unknown_label_set",
        path="/v1/zero-shot",
        pointer="/labels",
    )
    yield _json(_one() | {"explain": "yes"}, "explain", "invalid_request", pointer="/explain")
    yield _json({"patients": _one()["patients"] * 65}, "65 patients", "payload_too_large", 413)
    kind = {"Content-Type": "image/jpeg"}
    for query, at in {"device=%00": "", "x=1": "/x", "device=a&device=b": "/device"}.items():
        code = "unknown_device" if not at else "invalid_request"
        yield BadRequest(
            f"query {query}",
            kind,
            good_jpeg(),
            422,
            code,
            f"/v1/malignancy?{query}",
            at or "/device",
        )
    yield BadRequest(
        "query of no UTF-8",
        kind,
        good_jpeg(),
        400,
        "malformed_request",
        "/v1/malignancy?device=%ff",
    )
