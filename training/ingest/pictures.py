"""A raw frame made fit for the archive: metadata off, cropped, checked, hashed.

JPEG and PNG files that need no crop keep their compressed pixels: only the parts that hold pixels
are copied (what a camera, a viewer or a person wrote beside them is left behind), and a file that
has nothing else keeps its bytes. Everything else is decoded and encoded anew. What is stored has
been decoded to its end.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from io import BytesIO

import imagehash
import numpy as np
from PIL import Image

from model_store.errors import ImageCode, ImageRejected
from model_store.images import ImageLimits, crop_to, open_rgb, sniff

__all__ = ["HASH_BITS", "Picture", "prepare", "strip"]

HASH_BITS = 256
_LIMITS = ImageLimits()
_JPEG_QUALITY = 95
# A side that a JPEG decoder may shrink to on the way to the 64 x 64 px that are hashed.
_HASH_COVER_PX = 128
# Deviation of grey values (of 255) under which a picture has nothing to be recognised by: black
# screens and lens caps are below 3, the flattest red-out of the development frames is at 8.
_FLAT = 5.0
_ORIENTATION = 0x0112
# SOF 0-15 without the reserved C8, DHT, DAC, DQT, DNL, DRI: what a decoder needs.
_JPEG_KEPT = frozenset([*range(0xC0, 0xC8), *range(0xC9, 0xD0), 0xDB, 0xDC, 0xDD])
_SCAN_END = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")
_PNG_KEPT = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))


@dataclass(frozen=True)
class Picture:
    """A frame as it is stored.

    Attributes:
        data: The file's bytes.
        suffix: ``.jpg`` or ``.png``.
        width: Upright, in pixels.
        height: Upright, in pixels.
        phash: Perceptual hash, 64 hexadecimal digits; "" of a picture without features.
    """

    data: bytes
    suffix: str
    width: int
    height: int
    phash: str


def prepare(
    source: bytes | Image.Image, crop: tuple[float, ...] | None, encode: str = "jpeg"
) -> Picture:
    """Make a frame fit for the archive.

    Args:
        source: An image file's bytes, or a picture that was decoded already (RGB).
        crop: Box (x0, y0, x1, y1) to keep: fractions, or pixels when any is above 1; None = all.
        encode: ``jpeg`` or ``png``, for what cannot keep its bytes.

    Raises:
        ImageRejected: The file is damaged, no image, or too large or small.
        ValueError: The box does not fit the picture.
    """
    if isinstance(source, bytes) and crop is None and sniff(source) in ("JPEG", "PNG"):
        data = strip(source)
        shown = open_rgb(data, cover_px=_HASH_COVER_PX)
        with Image.open(BytesIO(data)) as header:
            size = header.size[::-1] if _orientation(header) >= 5 else header.size
        suffix = ".jpg" if sniff(data) == "JPEG" else ".png"
        return Picture(data, suffix, *size, _hash(shown))
    image = open_rgb(source) if isinstance(source, bytes) else source
    if crop is not None:
        image = crop_to(image, _fractions(crop, image.size))
    if min(image.size) < _LIMITS.min_side_px or image.width * image.height > _LIMITS.max_pixels:
        raise ImageRejected(ImageCode.TOO_SMALL, f"found {image.width}x{image.height} px")
    suffix, data = _encoded(image, encode)
    return Picture(data, suffix, *image.size, _hash(image))


def strip(data: bytes) -> bytes:
    """Copy a JPEG or PNG file without its metadata, pixels untouched.

    Kept are the segments that decoding needs, JFIF's and Adobe's headers (without a thumbnail), and
    of EXIF the orientation alone. EXIF, XMP, comments, colour profiles, text chunks, further
    pictures and whatever follows the end are left behind.

    Raises:
        ImageRejected: The file ends early or its parts do not follow each other.
    """
    kind = sniff(data)
    try:
        if kind == "JPEG":
            return _strip_jpeg(data, _orientation_of(data))
        if kind == "PNG":
            return _strip_png(data, _orientation_of(data))
    except (IndexError, struct.error) as error:
        raise ImageRejected(
            ImageCode.IMAGE_TRUNCATED, f"expected a whole {kind} file; found one that ends early"
        ) from error
    raise ImageRejected(ImageCode.UNSUPPORTED_FORMAT, f"expected JPEG or PNG; found {kind}")


def _strip_jpeg(data: bytes, orientation: int) -> bytes:
    pieces, at = [b"\xff\xd8"], 2
    if orientation != 1:
        exif = b"Exif\0\0" + _tiff(orientation)
        pieces.append(b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    while True:
        while data[at] != 0xFF:  # libjpeg skips such bytes too
            at += 1
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if marker == 0xD9:
            return b"".join([*pieces, b"\xff\xd9"])
        if marker == 0x01 or 0xD0 <= marker <= 0xD8 or marker == 0:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        segment, at = data[at + 2 : at + length], at + length
        if marker == 0xDA:
            end = _SCAN_END.search(data, at)
            if end is None:
                raise IndexError
            pieces += [_segment(marker, segment), data[at : end.start()]]
            at = end.start()
        elif marker in _JPEG_KEPT:
            pieces.append(_segment(marker, segment))
        elif marker == 0xE0 and segment[:5] == b"JFIF\0" and len(segment) >= 14:
            pieces.append(_segment(marker, segment[:12] + b"\0\0"))
        elif marker == 0xEE and segment[:5] == b"Adobe" and len(segment) >= 12:
            pieces.append(_segment(marker, segment[:12]))


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body


def _strip_png(data: bytes, orientation: int) -> bytes:
    pieces, at, ended = [data[:8]], 8, False
    while not ended:
        length, name = struct.unpack_from(">I4s", data, at)
        chunk = data[at : at + length + 12]
        if len(chunk) < length + 12:
            raise IndexError
        if name in _PNG_KEPT:
            pieces.append(chunk)
        if name == b"IHDR" and orientation != 1:
            body = b"eXIf" + _tiff(orientation)
            pieces.append(struct.pack(">I", len(body) - 4) + body + _crc(body))
        at, ended = at + length + 12, name == b"IEND"
    return b"".join(pieces)


def _crc(body: bytes) -> bytes:
    import zlib

    return struct.pack(">I", zlib.crc32(body))


def _tiff(orientation: int) -> bytes:
    """The smallest EXIF block: one directory, one entry, the orientation."""
    entry = struct.pack(">HHIHH", _ORIENTATION, 3, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 0)


def _orientation_of(data: bytes) -> int:
    try:
        with Image.open(BytesIO(data), formats=[sniff(data) or ""]) as image:
            return _orientation(image)
    except Exception:  # decoding, which comes next, says what is wrong
        return 1


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1-8; a broken block counts as none, as in model_store.images."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _fractions(crop: tuple[float, ...], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = crop
    if max(crop) > 1:
        x0, y0, x1, y1 = x0 / size[0], y0 / size[1], x1 / size[0], y1 / size[1]
    return x0, y0, x1, y1


def _encoded(image: Image.Image, encode: str) -> tuple[str, bytes]:
    file = BytesIO()
    # A fresh picture: Pillow would write the comment and profile of the one it came from.
    plain = Image.fromarray(np.asarray(image))
    if encode == "jpeg":
        plain.save(file, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
        return ".jpg", file.getvalue()
    plain.save(file, "PNG")
    return ".png", file.getvalue()


def _hash(image: Image.Image) -> str:
    """Perceptual hash (imagehash.phash, 16 x 16 lowest DCT coefficients against their median)."""
    small = image.convert("L").resize((64, 64), Image.Resampling.LANCZOS)
    if np.asarray(small).std() < _FLAT:
        return ""
    bits = imagehash.phash(small, hash_size=16).hash
    return np.packbits(bits).tobytes().hex()
