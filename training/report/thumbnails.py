"""Frames as small pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from model_store.errors import ImageRejected
from model_store.images import InputContract, decode
from training.frame_files import read_frame
from training.report.blocks import Thumb

__all__ = ["thumbnail"]

# Large enough to see what a frame shows, small enough for 400 of them in 2 MB.
_PIXELS = InputContract(
    size=144,
    resize="squash",
    interpolation="bicubic",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    jpeg="dct_scaled",
)


def thumbnail(path: Path, alt: str, lines: Sequence[str] = (), mark: str = "") -> Thumb:
    """Make a thumbnail; a frame that cannot be read gives an empty one that says so.

    Args:
        path: The frame.
        alt: What it is, in words.
        lines: Caption.
        mark: Outline, as in ``Thumb``.
    """
    buffer = io.BytesIO()
    try:
        pixels = decode(read_frame(path), _PIXELS)
    except (ImageRejected, OSError):
        return Thumb("", f"{alt} (cannot be read)", lines, mark)
    Image.fromarray(pixels).save(buffer, "WEBP", quality=66, method=4)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Thumb(f"data:image/webp;base64,{data}", alt, lines, mark)
