"""What is taken for a polyp, drawn over frames: glare, stool, bubbles, an instrument; and folds.

The data labels stool and bubbles on a few frames of other sources, and none of the others. Train
exams show some of their frames with such a disturbance, lesions and backgrounds alike
(``training.weave``); ``training.evidence`` looks at the very same frame with it and without. Folds
are drawn as a whole frame (``training.phantom_render``): no part of a real frame can be bent into
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from training.phantom_render import draw_frame, random_spec
from training.spoil import bubbles, noise_field, stool

__all__ = ["OVERLAYS", "drawn_folds", "glare", "instrument", "some_bubbles", "some_stool"]

Frame = Image.Image

PATCH_SHARE = (0.06, 0.25)
"""Of a frame, that stool or foam covers: the mucosa can still be judged."""
SPOTS = (8, 26)
SPOT_RADIUS = (0.006, 0.045)
"""Highlights: number, and half long axis as a share of the shorter side."""
SHAFT = (0.05, 0.10)
"""Half width of an instrument, as a share of the shorter side."""
FOLDS = (4, 6)
BORDER = 10.0
"""Luma under which a place is the black around the field of view."""


def glare(frame: Frame, rng: np.random.Generator) -> Frame:
    """Wet highlights: white ellipses with a soft rim, in clusters, where the mucosa is lit."""
    pixels = np.asarray(frame.convert("RGB"), np.float32)
    height, width = pixels.shape[:2]
    side = min(height, width)
    lit = noise_field(rng, (height, width), 4) + 2.0 * (pixels.mean(axis=2) > 40)
    places = np.argwhere(lit > np.quantile(lit, 0.85))
    shine = np.zeros((height, width), np.float32)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    for _ in range(int(rng.integers(*SPOTS))):
        cy, cx = places[int(rng.integers(len(places)))]
        long = side * float(np.exp(rng.uniform(*np.log(SPOT_RADIUS))))
        short, angle = long * rng.uniform(0.25, 0.9), rng.uniform(0, np.pi)
        along = (x - cx) * np.cos(angle) + (y - cy) * np.sin(angle)
        across = -(x - cx) * np.sin(angle) + (y - cy) * np.cos(angle)
        np.maximum(shine, np.clip(1.6 - np.hypot(along / long, across / short), 0, 1), out=shine)
    return _image(pixels + (252.0 - pixels) * shine[..., None])


def some_stool(frame: Frame, rng: np.random.Generator) -> Frame:
    """Remains of stool on a part of the wall, as ``training.spoil`` draws it on all of it."""
    return _in_part(frame, stool(frame, rng), rng)


def some_bubbles(frame: Frame, rng: np.random.Generator) -> Frame:
    """Foam on a part of the wall, as ``training.spoil`` draws it on all of it."""
    return _in_part(frame, bubbles(frame, rng), rng)


def instrument(frame: Frame, rng: np.random.Generator) -> Frame:
    """A closed forceps: a steel shaft from the rim of the frame that ends in two jaws."""
    image = frame.convert("RGB")
    width, height = image.size
    side = min(width, height)
    half = side * rng.uniform(*SHAFT)
    # Instruments leave the scope's channel, at the lower rim of most endoscopes' pictures.
    angle = rng.uniform(np.pi * 1.2, np.pi * 1.8)
    start = np.array([width / 2 - np.cos(angle) * width, height / 2 - np.sin(angle) * height])
    tip = np.array([rng.uniform(0.35, 0.65) * width, rng.uniform(0.35, 0.6) * height])
    direction = (tip - start) / float(np.linalg.norm(tip - start))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    along = (x - tip[0]) * direction[0] + (y - tip[1]) * direction[1]
    across = -(x - tip[0]) * direction[1] + (y - tip[1]) * direction[0]
    # The last third tapers to the jaws, with a slit between them.
    wide = half * np.clip(1.0 - (along + 3 * half) / (3.2 * half), 0.0, 1.0) ** 0.6
    wide = np.where(along < -3 * half, half, wide)
    body = (np.abs(across) < wide) & (along < 0)
    body &= ~((np.abs(across) < 0.06 * half) & (along > -2.4 * half))
    round_up = np.sqrt(np.clip(1.0 - (across / np.maximum(wide, 1e-3)) ** 2, 0.0, 1.0))
    steel = 38.0 + 120.0 * round_up + 70.0 * np.exp(-(((across / half - 0.3) / 0.12) ** 2))
    steel *= 1.0 - 0.12 * ((along / half) % 0.8 < 0.15) * (along < -3 * half)
    colour = steel[..., None] * np.array((0.97, 1.0, 1.03), np.float32)
    mask = Image.fromarray((body * 255).astype(np.uint8)).filter(
        ImageFilter.GaussianBlur(0.003 * side)
    )
    return Image.composite(_image(colour), image, mask)


OVERLAYS: Mapping[str, Callable[[Frame, np.random.Generator], Frame]] = {
    "glare": glare,
    "stool": some_stool,
    "bubbles": some_bubbles,
    "instrument": instrument,
}


def drawn_folds(rng: np.random.Generator, side: int, many: bool) -> Frame:
    """A normal frame of the phantom renderer, without a fold or with many.

    Args:
        rng: Of all it draws; the same state gives the same mucosa and light in both forms.
        side: Pixels.
        many: Draw folds.
    """
    spec = random_spec(rng)
    count = int(rng.integers(FOLDS[0], FOLDS[1] + 1))
    return draw_frame(replace(spec, folds=count if many else 0), rng, (side, side))


def _in_part(frame: Frame, whole: Frame, rng: np.random.Generator) -> Frame:
    """Show the disturbed frame in some soft-edged patches of the undisturbed one, on mucosa."""
    shape = (frame.height, frame.width)
    lit = np.asarray(frame.convert("L").filter(ImageFilter.BoxBlur(2)), np.float32) > BORDER
    field = noise_field(rng, shape, 2) + 0.35 * noise_field(rng, shape, 7)
    field = field - np.quantile(field, 1.0 - rng.uniform(*PATCH_SHARE))
    mask = Image.fromarray((np.clip(field / 0.15, 0.0, 1.0) * lit * 255).astype(np.uint8))
    return Image.composite(whole.convert("RGB"), frame.convert("RGB"), mask)


def _image(pixels: npt.NDArray[np.float32]) -> Frame:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
