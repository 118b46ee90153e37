"""From the bytes of an image file to the pixels a tower reads: the only pixel code there is.

Training, export, evaluation and serving all come through here, so a score cannot depend on which of
them prepared the frame. What is done is data (`InputContract`, kept in the bundle), how is here.

`decode` either returns the right RGB pixels or raises `ImageRejected` with a code; nothing else
leaves it. The format is sniffed from the bytes (names and content types lie), the header's
dimensions are held against the limit before a pixel is decoded, and of several pages or animation
frames the first is taken. Colour profiles are not applied: training did not apply them either.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.costly import costly
from model_store.errors import ImageCode, ImageRejected
from model_store.jpeg_header import jpeg_size

__all__ = [
    "FORMATS",
    "Box",
    "ImageLimits",
    "InputContract",
    "Pixels",
    "check_dimensions",
    "count_pixels",
    "crop_to",
    "decode",
    "open_rgb",
    "preprocess",
    "sniff",
    "upright_rgb",
]

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF")
_FULL: Box = (0.0, 0.0, 1.0, 1.0)
# Beyond it a picture is no frame, and resizing it as such would take many times its own memory.
_MAX_ASPECT = 16
_ORIENTATION_TAG = 0x0112
_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class InputContract:
    """How a frame becomes tower input; part of the manifest.

    Attributes:
        size: side of the square tower input, in pixels.
        resize: `squash` stretches both sides to `size`; `shortest` brings the shorter side to
            `size` and crops the centre, by torchvision's rounding. Of a picture more than 16 times
            as long as wide, `shortest` first cuts the ends off.
        interpolation: resampling filter.
        mean: per channel (R, G, B), of values in 0-1. Baked into the image tower graph, which
            takes uint8; recorded here so that export parity can prove it.
        std: like `mean`.
        jpeg: `dct_scaled` lets the JPEG decoder shrink by 2, 4 or 8 while the result still covers
            the input (a 1280x1024 frame of quality 90 then takes 5.7 ms on one core, down from
            15.4 ms, resizing to 224 px included); `full` decodes every pixel.
    """

    size: int
    resize: Literal["squash", "shortest"]
    interpolation: Literal["bicubic"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    jpeg: Literal["full", "dct_scaled"]


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What a frame may be at most (bytes, pixels) and at least (shorter side, px)."""

    max_bytes: int = 32 * 1024 * 1024
    max_pixels: int = 64_000_000
    min_side_px: int = 64


def decode(
    data: bytes,
    contract: InputContract,
    *,
    limits: ImageLimits | None = None,
    crop: Box | None = None,
) -> Pixels:
    """Decode an image file into tower input.

    Args:
        data: a whole JPEG, PNG, WebP, BMP or TIFF file.
        contract: the bundle's input contract.
        limits: refusals; the defaults of `ImageLimits` when None.
        crop: box (x0, y0, x1, y1) to keep, as fractions 0-1 of the upright image.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ImageRejected: with the code of the first rule that was broken.
    """
    box = crop or _FULL
    image = open_rgb(data, limits=limits, cover_px=_cover_px(contract, box))
    return preprocess(crop_to(image, box), contract)


def count_pixels(data: bytes | bytearray, limits: ImageLimits) -> int:
    """Give the pixels that decoding a file would cost, by its header alone.

    Args:
        data: a whole image file.
        limits: refusals.

    Returns:
        Width times height; 0 for a file that is refused before a pixel is decoded.
    """
    try:
        kind = _checked_format(data, limits)
        size = jpeg_size(data)
        if size is None:
            with _rejecting(data, kind), Image.open(BytesIO(data), formats=[kind]) as image:
                size = image.size
        check_dimensions(size, limits)
        return size[0] * size[1]
    except ImageRejected:
        return 0


def open_rgb(
    data: bytes, *, limits: ImageLimits | None = None, cover_px: int | None = None
) -> Image.Image:
    """Open an image file as upright 8-bit RGB.

    Args:
        data: a whole image file.
        limits: refusals; the defaults of `ImageLimits` when None.
        cover_px: when given, a JPEG may be decoded at 1/2, 1/4 or 1/8 as long as both sides stay
            at least this long. None decodes every pixel.

    Returns:
        Image of mode RGB, orientation applied, transparency laid over black.

    Raises:
        ImageRejected: with the code of the first rule that was broken.
    """
    limits = limits or ImageLimits()
    kind = _checked_format(data, limits)
    with _rejecting(data, kind), Image.open(BytesIO(data), formats=[kind]) as image:
        check_dimensions(image.size, limits)
        if cover_px is not None and kind == "JPEG":
            image.draft(None, (cover_px, cover_px))
        image.load()
        return upright_rgb(image)


def upright_rgb(image: Image.Image) -> Image.Image:
    """Bring an opened picture into the form that `preprocess` takes.

    Args:
        image: of any mode, as Pillow opened it.

    Returns:
        Image of mode RGB, orientation applied, transparency laid over black.

    Raises:
        ImageRejected: the mode has no one right 8-bit reading.
    """
    return _upright(_to_rgb(image), image)


def preprocess(image: Image.Image, contract: InputContract) -> Pixels:
    """Resize (and centre crop) an RGB image as the contract says.

    Args:
        image: mode RGB, any size.
        contract: the bundle's input contract.

    Returns:
        uint8 (size, size, 3).
    """
    size = contract.size
    if contract.resize == "squash":
        if image.height > _MAX_ASPECT * image.width:
            # Pillow widens first: 64 x 200,000 px would pass through 224 x 200,000.
            image = image.resize((image.width, size), Image.Resampling.BICUBIC)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    image = _without_ends(image)
    width, height = image.size
    short = min(width, height)
    # torchvision truncates the longer side and rounds (half to even) the crop's corner. Truncating
    # both would move the crop by a pixel for a quarter of all sizes.
    wide = size if width == short else int(size * width / short)
    high = size if height == short else int(size * height / short)
    left, top = round((wide - size) / 2.0), round((high - size) / 2.0)
    resized = image.resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + size, top + size)))


def crop_to(image: Image.Image, box: Box) -> Image.Image:
    """Keep a box of an image.

    Args:
        image: any image.
        box: (x0, y0, x1, y1) as fractions 0-1, x0 < x1 and y0 < y1.

    Returns:
        The part, at least one pixel wide and high; the image itself for the full box.

    Raises:
        ValueError: the box is empty or leaves the image.
    """
    x0, y0, x1, y1 = box
    if not (0.0 <= x0 < x1 <= 1.0 and 0.0 <= y0 < y1 <= 1.0):
        raise ValueError(f"expected fractions 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1; found {box}")
    if box == _FULL:
        return image
    width, height = image.size
    left, top = min(round(x0 * width), width - 1), min(round(y0 * height), height - 1)
    right, bottom = max(round(x1 * width), left + 1), max(round(y1 * height), top + 1)
    return image.crop((left, top, right, bottom))


def sniff(data: bytes | bytearray) -> str | None:
    """Name the format of an image file by its first bytes: one of `FORMATS`, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM"):
        return "BMP"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "TIFF"
    return None


def _without_ends(image: Image.Image) -> Image.Image:
    """Cut the longer side to 16 times the shorter, keeping the middle."""
    width, height = image.size
    most = _MAX_ASPECT * min(width, height)
    wide, high = min(width, most), min(height, most)
    left, top = (width - wide) // 2, (height - high) // 2
    return image.crop((left, top, left + wide, top + high)) if max(width, height) > most else image


def _cover_px(contract: InputContract, box: Box) -> int | None:
    """Side that the decoded image must keep so that the cropped part is never enlarged by it."""
    if contract.jpeg == "full":
        return None
    x0, y0, x1, y1 = box
    return ceil(contract.size / max(min(x1 - x0, y1 - y0), 1e-6))


def _checked_format(data: bytes | bytearray, limits: ImageLimits) -> str:
    if not data:
        raise ImageRejected(ImageCode.EMPTY, "expected an image file; found 0 bytes")
    if len(data) > limits.max_bytes:
        raise ImageRejected(
            ImageCode.TOO_MANY_BYTES,
            f"expected at most {limits.max_bytes} bytes; found {len(data)}",
        )
    kind = sniff(data)
    if kind is None:
        raise ImageRejected(
            ImageCode.UNSUPPORTED_FORMAT,
            f"expected one of {', '.join(FORMATS)}; found a file that begins like none of them",
        )
    if kind == "WEBP":
        _check_webp_canvas(data, limits)
    if (fault := costly(data, kind)) is not None:
        raise ImageRejected(ImageCode.IMAGE_UNDECODABLE, fault)
    return kind


def _check_webp_canvas(data: bytes | bytearray, limits: ImageLimits) -> None:
    """Refuse a huge WebP canvas by its header; Pillow's reader allocates it while opening."""
    size: tuple[int, int] | None = None
    if data[12:16] == b"VP8X" and len(data) >= 30:
        wide = int.from_bytes(data[24:27], "little") + 1
        size = wide, int.from_bytes(data[27:30], "little") + 1
    elif data[12:16] == b"VP8L" and len(data) >= 25:
        bits = int.from_bytes(data[21:25], "little")
        size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif data[12:16] == b"VP8 " and len(data) >= 30:
        wide, high = struct.unpack("<HH", data[26:30])
        size = wide & 0x3FFF, high & 0x3FFF
    if size is not None:
        check_dimensions(size, limits)


def check_dimensions(size: tuple[int, int], limits: ImageLimits) -> None:
    """Raise `ImageRejected` for a picture (width, height in px) outside of the limits."""
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRejected(
            ImageCode.TOO_MANY_PIXELS,
            f"expected at most {limits.max_pixels} pixels; found {width} x {height}",
        )
    if min(width, height) < limits.min_side_px:
        raise ImageRejected(
            ImageCode.TOO_SMALL,
            f"expected a shorter side of at least {limits.min_side_px} px; found {width}x{height}",
        )


@contextmanager
def _rejecting(data: bytes | bytearray, kind: str) -> Iterator[None]:
    """Translate whatever Pillow raises; the one place where that happens."""
    try:
        yield
    except ImageRejected:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageRejected(ImageCode.TOO_MANY_PIXELS, f"{kind} header: {error}") from error
    # Pillow's readers meet hostile bytes with OSError, SyntaxError, ValueError, struct.error,
    # KeyError, TypeError, EOFError, MemoryError ...: there is no closed list to name.
    except Exception as error:
        if _is_truncated(data, kind, error):
            message = f"expected a whole {kind} file; found one that ends early"
            raise ImageRejected(ImageCode.IMAGE_TRUNCATED, message) from error
        message = f"expected a readable {kind} file; found damaged data"
        raise ImageRejected(ImageCode.IMAGE_UNDECODABLE, message) from error


def _is_truncated(data: bytes | bytearray, kind: str, error: Exception) -> bool:
    """Tell a file that was cut off from one that is damaged inside."""
    if kind == "JPEG":
        return b"\xff\xd9" not in data[-64:]
    if kind == "PNG":
        return b"IEND" not in data[-64:]
    if kind == "WEBP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if kind == "BMP" and len(data) >= 6:
        return int.from_bytes(data[2:6], "little") > len(data)
    if kind == "TIFF" and len(data) >= 8 and data[2:4] in (b"*\0", b"\0*"):
        # Writers that stream put the directory of the picture at the end of the file.
        order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        if int.from_bytes(data[4:8], order) >= len(data):
            return True
    return "truncated" in str(error).lower() or isinstance(error, EOFError)


def _to_rgb(image: Image.Image) -> Image.Image:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image
    if mode.startswith("I;16") or (mode == "I" and image.format == "PNG"):
        # Pillow's own conversion clips at 255, which turns a 16-bit picture white.
        wide = np.asarray(image).astype(np.uint32)
        wide += 128
        wide //= 257
        return Image.fromarray(wide.astype(np.uint8)).convert("RGB")
    if mode in ("I", "F", "LAB", "HSV"):
        raise ImageRejected(
            ImageCode.UNSUPPORTED_FORMAT,
            f"expected 8 or 16 bits a channel, grey, RGB, palette or CMYK; found mode {mode}",
        )
    if image.has_transparency_data:
        # Black is what surrounds an endoscope's picture; the colour under a fully transparent
        # pixel is arbitrary and must not come to light.
        shown = image if mode == "RGBA" else image.convert("RGBA")
        # Bit for bit what alpha_composite gives, in two thirds of the memory.
        alpha, shown = shown.getchannel("A"), shown.convert("RGB")
        ground = Image.new("RGB", shown.size)
        ground.paste(shown, mask=alpha)
        return ground
    return image.convert("RGB")


def _upright(image: Image.Image, source: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of `source`; a broken EXIF block counts as none."""
    try:
        orientation = source.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # hostile EXIF raises anything; the pixels are still good
        return image
    method = _TRANSPOSE.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)
