"""Frames made small before they are sent, by what the bundle's input contract can still see.

A tower reads a square of `size` pixels, so more than that is decoded on the service only to be
thrown away. `Shrinker` brings the cropped part's shorter side to that, keeps the shape, writes
JPEG, and sends the original where that is smaller. Scores move a little: README.md says how much.
Metadata of the picture (EXIF, and a name that may stand in it) goes with the pixels.

Needs Pillow: `pip install 'endo-clip-client[shrink]'`.
"""

from dataclasses import dataclass
from io import BytesIO
from math import ceil
from typing import Any

from endo_clip_client.errors import ClientError

__all__ = ["Shrinker", "pillow"]

# README.md has the measurement. Twice the size moves scores as much and is 3 times as long.
_QUALITY = 95
_ORIENTATION_TAG = 0x0112
_ON_THEIR_SIDE = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Shrinker:
    """Makes frames small.

    Attributes:
        size: side of the tower's input, in pixels.
        box: the device profile's crop box, fractions of the upright frame. The whole frame is sent
            all the same: the service crops.
    """

    size: int
    box: tuple[float, ...] = (0.0, 0.0, 1.0, 1.0)

    def shrink(self, data: bytes) -> bytes:
        """Give the frame's bytes, or smaller ones of nearly the same score.

        What Pillow cannot read (DICOM, damaged files) goes as it is: the service says what is wrong
        with that frame, and scores the others.

        Raises:
            ClientError: Pillow is not installed.
        """
        image_module, ops = pillow()
        try:
            with image_module.open(BytesIO(data)) as image:
                small = self._smaller(image, image_module, ops)
        except Exception:  # hostile files raise anything; they are the service's to judge
            return data
        return data if small is None or len(small) >= len(data) else small

    def _smaller(self, image: Any, image_module: Any, ops: Any) -> bytes | None:
        if image.mode not in ("RGB", "L"):  # the service's reading of other modes is its own
            return None
        turned = image.getexif().get(_ORIENTATION_TAG, 1) in _ON_THEIR_SIDE
        width, height = image.size[::-1] if turned else image.size
        x0, y0, x1, y1 = self.box
        factor = self.size / max(1.0, min(width * (x1 - x0), height * (y1 - y0)))
        if factor >= 1.0:
            return None
        side = ceil(min(width, height) * factor)
        image.draft(None, (side, side))
        target = (max(1, round(width * factor)), max(1, round(height * factor)))
        upright = ops.exif_transpose(image).convert("RGB")
        out = BytesIO()
        upright.resize(target, image_module.Resampling.BICUBIC).save(
            out, "JPEG", quality=_QUALITY, subsampling=0
        )
        return out.getvalue()


def pillow() -> tuple[Any, Any]:
    """Give Pillow's `Image` and `ImageOps`.

    Raises:
        ClientError: it is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ClientError(
            "pictures need Pillow\nWhat to do: pip install 'endo-clip-client[shrink]'"
        ) from error
    return Image, ImageOps
