"""Frames that measurements and tests send: drawn ones in every format, each unlike the others.

The examples' drawn frames are turned, cut and tinted by number, so that a score belongs to one
frame alone and an answer that was given to the wrong caller shows.
"""

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from itertools import cycle

from PIL import Image, ImageEnhance, ImageOps

from bench.frames import EXAMPLES

__all__ = ["MEDIA_TYPES", "PoolFrame", "large_frames", "small_frames"]

MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "TIFF": "image/tiff",
}
LARGE = (1280, 1024)
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True, slots=True, eq=False)
class PoolFrame:
    """One frame.

    Attributes:
        data: the file.
        media_type: what it is.
        large: whether it has the size of a video processor's frame.
    """

    data: bytes
    media_type: str
    large: bool


def small_frames(count: int) -> list[PoolFrame]:
    """Make frames of 96 to 224 px, in the five formats in turn; cheap to send and to decode."""
    kinds = cycle(MEDIA_TYPES)
    frames = []
    for number, kind in zip(range(count), kinds, strict=False):
        wide = 96 + 32 * (number * 7 % 5)
        image = _variant(number).resize((wide, 96 + 16 * (number % 5)))
        frames.append(PoolFrame(_saved(image, kind), MEDIA_TYPES[kind], large=False))
    return frames


def large_frames(count: int) -> list[PoolFrame]:
    """Make JPEG frames of 1280 x 1024 at quality 90; every third is stored turned (EXIF)."""
    frames = []
    for number in range(count):
        image = _variant(1000 + number).resize(LARGE)
        options = {}
        if number % 3 == 0:
            exif = Image.Exif()
            exif[_ORIENTATION_TAG] = 6
            options = {"exif": exif.tobytes()}
        data = _saved(image, "JPEG", quality=90, **options)
        frames.append(PoolFrame(data, MEDIA_TYPES["JPEG"], large=True))
    return frames


@cache
def _example(number: int) -> Image.Image:
    with Image.open(EXAMPLES[number]) as example:
        return example.convert("RGB")


def _variant(number: int) -> Image.Image:
    """Turn, cut and tint one of the examples: another picture for each number."""
    image = _example(number % len(EXAMPLES))
    step = number // len(EXAMPLES)
    left, top = 40 * (step % 5), 40 * (step // 5 % 4)
    image = image.crop((left, top, left + 1000 + 16 * (number % 7), top + 820))
    if step % 2:
        image = ImageOps.mirror(image)
    image = ImageEnhance.Color(image).enhance(0.6 + 0.2 * (number % 5))
    return ImageEnhance.Brightness(image).enhance(0.8 + 0.05 * (number % 9))


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, kind, **({"lossless": True} if kind == "WEBP" else {}), **options)
    return out.getvalue()
