"""Pictures and files that the image tests share."""

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from model_store.images import InputContract

SQUASH = InputContract(224, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, "full")


def scene(width: int = 96, height: int = 80) -> Image.Image:
    """Smooth, and different in each quarter, so that turns and shifts show."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = (60 + 180 * x, 30 + 140 * y, 40 + 60 * x * y)
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        total = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", total)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )
