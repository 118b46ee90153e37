"""Files that should not be sent as frames, made here; some of them are to be scored all the same.

Each says what becomes of it: `scored`, `abstained`, or the code it is rejected with. Nothing is
random; sizes stay small, but for what they announce.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any

from PIL import Image

from bench.frames import EXAMPLES

__all__ = ["BadFile", "bad_files", "good_jpeg"]

_TRUNCATED, _DAMAGED = "image_truncated", "image_undecodable"
_FOREIGN, _HUGE = "unsupported_format", "too_many_pixels"


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


@cache
def bad_files() -> tuple[BadFile, ...]:
    """Make the files."""
    return tuple(BadFile(*one) for one in (*_no_images(), *_broken(), *_bombs(), *_odd()))


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


def good_jpeg() -> bytes:
    """Make a small JPEG that is scored."""
    return _saved(_image((128, 96)))
