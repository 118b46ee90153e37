"""Everything that should not be sent, made here: what is no frame, and what is no request.

Each file says what becomes of it (`scored`, `abstained`, or the code it is rejected with), each
request which status and code it is answered with. Nothing is random; sizes stay small, but for what
they announce.
"""

import json
import struct
import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image

from bench.frames import EXAMPLES

__all__ = ["BadFile", "BadRequest", "bad_files", "bad_requests", "form", "malformed_bytes"]

_TRUNCATED, _DAMAGED = "image_truncated", "image_undecodable"
_FOREIGN, _HUGE = "unsupported_format", "too_many_pixels"
_BOUNDARY = "hostile"
_FORM = f"multipart/form-data; boundary={_BOUNDARY}"


@dataclass(frozen=True, slots=True)
class BadFile:
    """A file sent as a frame.

    Attributes:
        name: what is wrong with it.
        data: its bytes.
        outcome: `scored`, `abstained`, or the code that it is rejected with.
    """

    name: str
    data: bytes
    outcome: str


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
def bad_files() -> tuple[BadFile, ...]:
    """Make the files."""
    return tuple(BadFile(*one) for one in (*_no_images(), *_broken(), *_bombs(), *_odd()))


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
        "length and chunked": (post + length + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, 0),
        "chunked and identity": (post + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + hidden, 0),
        "two codings": (post + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + hidden, 0),
        "unknown coding": (post + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + hidden, 0),
        "two lengths": (post + length + b"Content-Length: 0\r\n\r\n" + hidden, 0),
        "list of lengths": (post + b"Content-Length: 0, %d\r\n\r\n" % len(hidden) + hidden, 0),
        "signed length": (post + b"Content-Length: +0\r\n\r\n" + hidden, 0),
        "hexadecimal length": (post + b"Content-Length: 0x0\r\n\r\n" + hidden, 0),
        "space before a colon": (post + b"Content-Length : 0\r\n\r\n" + hidden, 0),
        "line break in a name": (post + b"X\rY: 1\r\n\r\n" + hidden, 0),
        "zero byte in a value": (post + b"X-Request-ID: a\0b\r\n\r\n", 0),
        "chunk size with a sign": (post + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n" + hidden, 0),
        "chunk size too long": (post + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n", 0),
        "chunk longer than told": (post + b"Transfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n" + hidden, 0),
        "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 0),
        "two hosts": (b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 0),
        "head of 200 kB": (b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n", 0),
        "hello of TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n", 0),
        "garbage after a request": (b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" + b"\0garbage\r\n\r\n", 1),
    }  # fmt: skip


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


def _image(size: tuple[int, int] = (96, 80)) -> Image.Image:
    with Image.open(EXAMPLES[-1]) as example:
        return example.convert("RGB").resize(size)


def _saved(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png(width: int, height: int, depth: int, colour: int, packed: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def _tiff(width: int, height: int, coding: int, data: bytes, more: bytes = b"") -> bytes:
    """Write a grey TIFF of one strip; `more` are further directory entries of 12 bytes."""
    entries = [(256, width), (257, height), (258, 8), (259, coding), (262, 1), (273, -1), (277, 1)]
    entries += [(278, height), (279, len(data))]
    count = len(entries) + len(more) // 12
    at = 8 + 2 + 12 * count + 4
    rows = (struct.pack("<HHII", tag, 4, 1, at if one < 0 else one) for tag, one in entries)
    head = b"II*\0" + struct.pack("<IH", 8, count) + b"".join(rows) + more + bytes(4)
    return head + data


def _many_tags(count: int, octets: int) -> bytes:
    """Directory entries that all point at the same bytes."""
    rows = (struct.pack("<HHII", 1000 + one, 1, octets, 200) for one in range(count))
    return b"".join(rows)


def _scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all its pixels."""
    data = _saved(Image.new("L", (4000, 4000), 128), progressive=True, quality=50)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    return data[:-2] + data[tables:-2] * count + b"\xff\xd9"


def _with_side(kind: str, side: int) -> bytes:
    """A small file whose header announces side x side pixels."""
    if kind == "PNG":
        return _png(side, side, 8, 2, b"")
    if kind == "TIFF":
        return _tiff(side, side, 8, b"x")
    if kind == "WEBP":
        body = b"\x02\0\0\0" + (side - 1).to_bytes(3, "little") * 2
        chunks = b"WEBPVP8X" + struct.pack("<I", 10) + body
        return b"RIFF" + struct.pack("<I", len(chunks)) + chunks
    data = bytearray(_saved(_image(), kind))
    if kind == "BMP":
        data[18:26] = struct.pack("<ii", side, side)
    else:
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


def _no_images() -> Iterator[tuple[str, bytes, str]]:
    yield "nothing", b"", "empty"
    for name, data in {
        "a zero byte": b"\0",
        "text named .jpg": b"hello, I am named frame.jpg",
        "half of a mark": b"\xff\xd8",
        "PDF": b"%PDF-1.7\n%%EOF",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        "HEIC": b"\0\0\0\x18ftypheic" + bytes(100),
        "ZIP": b"PK\x03\x04" + bytes(100),
        "ELF": b"\x7fELF" + bytes(100),
        "sound": b"RIFF\x24\0\0\0WAVEfmt ",
        "GIF": _saved(_image(), "GIF"),
        "animated GIF": _saved(_image(), "GIF", save_all=True, append_images=[_image()] * 3),
        "TIFF of floats": _saved(_image().convert("F"), "TIFF"),
        "TIFF of 32 bits": _saved(_image().convert("I"), "TIFF"),
    }.items():
        yield name, data, _FOREIGN


def _broken() -> Iterator[tuple[str, bytes, str]]:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
        data = _saved(_image(), kind, **options)
        yield f"{kind} cut off", data[: len(data) * 6 // 10], _TRUNCATED
    yield "JPEG of rubbish", b"\xff\xd8\xff\xe0" + b"rubbish" * 30 + b"\xff\xd9", _DAMAGED
    data = bytearray(_saved(_image(), "PNG"))
    at = data.index(b"IDAT") + 40
    data[at : at + 20] = b"\xff" * 20
    yield "PNG with a hole", bytes(data), _DAMAGED
    yield "PNG with a wrong sum", bytes(data[:29] + b"\0\0\0\0" + data[33:]), _DAMAGED
    yield "TIFF with a huge strip", _tiff(96, 80, 8, b"x"), _DAMAGED


def _bombs() -> Iterator[tuple[str, bytes, str]]:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        for side in (9_000, 16_383):
            yield f"{kind} that announces {side} px", _with_side(kind, side), _HUGE
    yield "20,000 x 20,000", _png(20_000, 20_000, 1, 0, zlib.compress(bytes(2501 * 20_000))), _HUGE
    much = zlib.compress(bytes(100_000_000), 9)
    yield "PNG that inflates to 100 MB", _png(96, 80, 8, 2, much), "abstained"
    yield "TIFF that inflates to 100 MB", _tiff(96, 80, 8, much), "abstained"
    head, rest = (data := _saved(_image(), "PNG"))[:33], data[33:]
    for name in (b"zTXt", b"iCCP"):
        chunk = _chunk(name, b"k\0\0" + much)
        yield f"{name.decode()} that inflates to 100 MB", head + chunk + rest, _DAMAGED
    yield "JPEG of 400 scans", _scans(400), _DAMAGED
    for count, outcome in ((900, "abstained"), (5000, _DAMAGED)):
        bad = _tiff(96, 80, 1, b"\x80" * 60_000, _many_tags(count, 60_000))
        yield f"TIFF of {count} tags over the same bytes", bad, outcome
    tags = _tiff(96, 80, 1, b"\x80" * 60_000, _many_tags(4000, 60_000))
    yield "PNG with such EXIF", head + _chunk(b"eXIf", tags) + rest, "scored"


def _odd() -> Iterator[tuple[str, bytes, str]]:
    yield "1 x 1", _saved(Image.new("RGB", (1, 1))), "too_small"
    yield "63 px high", _saved(_image((500, 63))), "too_small"
    yield "black", _saved(Image.new("RGB", (96, 80)), "PNG"), "abstained"
    yield "long as a strip", _saved(_image((20_000, 64))), "scored"
    good = _image((320, 256))
    yield "CMYK", _saved(good.convert("CMYK")), "scored"
    yield "palette", _saved(good.convert("P", palette=Image.Palette.ADAPTIVE), "PNG"), "scored"
    yield "transparency", _saved(good.convert("RGBA"), "PNG"), "scored"
    still = {"save_all": True, "append_images": [Image.new("RGB", good.size)] * 3}
    yield "animated WebP", _saved(good, "WEBP", lossless=True, **still), "scored"
    yield "animated PNG", _saved(good, "PNG", **still), "scored"
    yield "pages of TIFF", _saved(good, "TIFF", **still), "scored"
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "turned by EXIF", _saved(good.transpose(Image.Transpose.ROTATE_90), exif=exif), "scored"
    broken = b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 40
    yield "broken EXIF", _saved(good, exif=broken), "scored"
    grey = good.convert("L").point(lambda value: value * 257, "I").convert("I;16")
    yield "16 bits of grey", _saved(grey, "PNG"), "abstained"
    yield "behind its end", _saved(good) + b"GIF89a" * 1000, "scored"


def _good() -> bytes:
    return _saved(_image((128, 96)))


def _json(document: Any, name: str, code: str, status: int = 422, **more: Any) -> BadRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return BadRequest(name, {"Content-Type": "application/json"}, body, status, code, **more)


def _one(**frame: Any) -> dict[str, Any]:
    image = {"image": b64encode(_good()).decode()}
    return {"patients": [{"frames": [image | frame]}]}


def _wrong_types() -> Iterator[BadRequest]:
    for kind in ("text/plain", "image/gif", "application/octet-stream", "text/json", "", "image/*"):
        headers = {"Content-Type": kind} if kind else {}
        yield BadRequest(f"type {kind}", headers, _good(), 415, "unsupported_media_type")
    packed = {"Content-Type": "image/jpeg", "Content-Encoding": "gzip"}
    bomb = zlib.compress(bytes(10_000_000))
    yield BadRequest("gzip", packed, bomb, 415, "unsupported_media_type")
    yield BadRequest("JPEG as PNG", {"Content-Type": "image/png"}, _good(), 200, "")
    yield BadRequest("JPEG as JSON", {"Content-Type": "application/json"}, _good(), 400, "malformed_request")  # fmt: skip
    yield BadRequest("JPEG as a form", {"Content-Type": _FORM}, _good(), 400, "malformed_request")
    yield BadRequest("no image", {"Content-Type": "image/jpeg"}, b"", 422, "all_frames_rejected")
    other = {"Content-Type": "application/json; charset=utf-16"}
    yield BadRequest("UTF-16", other, json.dumps(_one()).encode("utf-16"), 415, "unsupported_media_type")  # fmt: skip
    for path in ("/v1/../etc/passwd", "/v1/malignancy/", "/V1/malignancy", "/v1/%2e%2e/healthz"):
        yield BadRequest(path, {"Content-Type": "image/jpeg"}, _good(), 404, "not_found", path)


def _wrong_forms() -> Iterator[BadRequest]:
    _, good = form(_good())

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
    yield bad("bad options", form(_good(), request="{")[1], 400, "malformed_request")
    yield bad(
        "5 MB of options", form(_good(), request=" " * 5_000_000)[1], 413, "payload_too_large"
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
    good = b64encode(_good()).decode()
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
        yield _json(document, f"patient id {value[:8]!r}", "invalid_request", pointer="/patients/0/patient_id")  # fmt: skip
    yield _json(_one() | {"device": "none"}, "device", "unknown_device", pointer="/device")
    yield _json(_one() | {"operating_point": "x"}, "point", "unknown_operating_point", pointer="/operating_point")  # fmt: skip
    yield _json(_one() | {"labels": "x"}, "labels of a named task", "invalid_request", pointer="/labels")  # fmt: skip
    yield _json(_one() | {"labels": "x"}, "label set", "unknown_label_set", path="/v1/zero-shot", pointer="/labels")  # fmt: skip
    yield _json(_one() | {"explain": "yes"}, "explain", "invalid_request", pointer="/explain")
    yield _json({"patients": _one()["patients"] * 65}, "65 patients", "payload_too_large", 413)
    kind = {"Content-Type": "image/jpeg"}
    for query, at in {"device=%00": "", "x=1": "/x", "device=a&device=b": "/device"}.items():
        code = "unknown_device" if not at else "invalid_request"
        yield BadRequest(f"query {query}", kind, _good(), 422, code, f"/v1/malignancy?{query}", at or "/device")  # fmt: skip
    yield BadRequest("query of no UTF-8", kind, _good(), 400, "malformed_request", "/v1/malignancy?device=%ff")  # fmt: skip
