"""Draw the example frames of the README: `python examples/draw.py`, in the training environment.

Every frame is drawn from a written specification and a seed; none is, or derives from, a photograph
of a patient.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from training.phantom_render import PhantomLesion, PhantomSpec, draw_frame

SIZE = (1280, 1024)
JPEG_QUALITY = 90

FRAMES = {
    "polyp_1": PhantomSpec(
        lesions=(
            PhantomLesion(x=0.42, y=0.55, size_band="20-29", texture="lobulated", pedicle=True),
        ),
        lumen=(0.78, 0.3),
    ),
    "polyp_2": PhantomSpec(
        lesions=(
            PhantomLesion(x=0.58, y=0.5, colour="dark-red", texture="granular", shape="oval"),
        ),
        lumen=(0.2, 0.25),
        mucosa="orange",
        folds=2,
    ),
    "polyp_3": PhantomSpec(
        lesions=(PhantomLesion(x=0.5, y=0.45, colour="pale", neoplastic=False),),
        lumen=None,
        folds=2,
        vessels=0.8,
    ),
    "normal_1": PhantomSpec(lumen=(0.5, 0.4), folds=4),
    # One fold: with this seed a second one closes to a ring, which reads as a small sessile polyp.
    "normal_2": PhantomSpec(lumen=None, folds=1, vessels=0.9, mucosa="orange"),
    "normal_3": PhantomSpec(lumen=(0.3, 0.65), folds=3, light=0.9),
}


def draw(name: str) -> Image.Image:
    """Draw one of `FRAMES`; the same pixels every time."""
    return draw_frame(FRAMES[name], np.random.default_rng(zlib.crc32(name.encode())), SIZE)


def main() -> None:
    """Write every frame beside this file, or into `--out`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent)
    out = parser.parse_args().out
    for name in FRAMES:
        path = out / f"{name}.jpg"
        draw(name).save(path, quality=JPEG_QUALITY)
        print(f"{path}: {path.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
