"""Generated defects: what a quality gate has to catch, drawn with a known strength.

Two families, both seeded by the generator that is passed in and needing numpy and Pillow only:

* :data:`SPOILERS` spoil a real frame (blur, motion, darkening, over-exposure). Strengths are
  relative to the shorter side, so a 96 px crop and a 1280x1024 frame are spoiled alike once both
  are resized to the input of the model.
* :data:`STRANGERS` draw an image that was never taken by an endoscope.

The strengths are chosen so that a reader of endoscopies would not judge a lesion on the result.
Weaker forms of the same defects are not defects: screening frames are soft, unevenly lit and full
of highlights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

__all__ = [
    "SPOILERS",
    "STRANGERS",
    "darkened",
    "defocused",
    "drawn_colour_bars",
    "drawn_document",
    "drawn_landscape",
    "drawn_noise",
    "drawn_radiograph",
    "drawn_screenshot",
    "moved",
    "overexposed",
]

DEFOCUS_SIGMA = (0.02, 0.045)
"""Standard deviation of the Gaussian, as a share of the shorter side: 4.5-10 px at 224 px."""
MOTION_LENGTH = (0.10, 0.25)
"""Length of the straight smear, as a share of the shorter side: 22-56 px at 224 px."""
DARK_MEAN = (4.0, 14.0)
"""Mean luma (0-255) that a darkened frame is scaled to, before sensor noise of 1.5 grey levels."""
OVEREXPOSED_SHARE = (0.45, 0.85)
"""Share of pixels whose luma is driven to white."""

_Frame = Image.Image


def defocused(frame: _Frame, rng: np.random.Generator) -> _Frame:
    """Blur like a lens out of focus: Gaussian, sigma by :data:`DEFOCUS_SIGMA`."""
    return frame.convert("RGB").filter(
        ImageFilter.GaussianBlur(rng.uniform(*DEFOCUS_SIGMA) * min(frame.size))
    )


def moved(frame: _Frame, rng: np.random.Generator) -> _Frame:
    """Smear along a straight line of any direction, its length by :data:`MOTION_LENGTH`."""
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float32)
    length = rng.uniform(*MOTION_LENGTH) * min(frame.size)
    angle = rng.uniform(0.0, np.pi)
    steps = int(np.ceil(length)) + 1
    offsets = np.linspace(-length / 2, length / 2, steps)
    shifts = sorted({(round(o * np.sin(angle)), round(o * np.cos(angle))) for o in offsets})
    margin = int(np.ceil(length / 2)) + 1
    padded = np.pad(pixels, ((margin, margin), (margin, margin), (0, 0)), mode="edge")
    height, width = pixels.shape[:2]
    total = np.zeros_like(pixels)
    for dy, dx in shifts:
        top, left = margin + dy, margin + dx
        total += padded[top : top + height, left : left + width]
    return _image(total / len(shifts))


def darkened(frame: _Frame, rng: np.random.Generator) -> _Frame:
    """Dim to a mean luma in :data:`DARK_MEAN` and add the sensor noise that such a frame shows."""
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float32)
    target = rng.uniform(*DARK_MEAN)
    dim = pixels * (target / max(float(_luma(pixels).mean()), target))
    return _image(dim + rng.normal(0.0, 1.5, pixels.shape))


def overexposed(frame: _Frame, rng: np.random.Generator) -> _Frame:
    """Raise the gain until the share of burnt-out pixels reaches :data:`OVEREXPOSED_SHARE`."""
    pixels = np.asarray(frame.convert("RGB"), dtype=np.float32)
    share = rng.uniform(*OVEREXPOSED_SHARE)
    # The weakest channel decides when a pixel is white, so the gain is set by it.
    weakest = pixels.min(axis=2)
    lit = weakest[_luma(pixels) > 24.0]
    level = float(np.quantile(lit, 1.0 - share)) if lit.size else 1.0
    return _image(pixels * (250.0 / max(level, 1.0)))


def drawn_document(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """A typed page: pale paper, dark lines of words, perhaps a ruled table."""
    width, height = size
    paper = int(rng.integers(225, 256))
    tint = rng.integers(-6, 1, 3) if rng.random() < 0.5 else np.zeros(3, dtype=int)
    page = Image.new("RGB", size, tuple(int(np.clip(paper + t, 0, 255)) for t in tint))
    pen = ImageDraw.Draw(page)
    ink = int(rng.integers(0, 70))
    line = int(rng.integers(14, 30))
    for top in range(line, height - line, line):
        left = width // 16
        right = int(width * rng.uniform(0.5, 0.95))
        while left < right:
            word = int(rng.integers(10, 60))
            pen.rectangle((left, top, left + word, top + line // 3), fill=(ink, ink, ink))
            left += word + int(rng.integers(5, 12))
    if rng.random() < 0.4:
        pen.rectangle(
            (width // 8, height // 3, width * 7 // 8, height // 2), outline=(ink, ink, ink), width=2
        )
    return page


def drawn_screenshot(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """A desktop: coloured ground, title bars, panels and buttons in the usual greys and blues."""
    width, height = size
    grounds = ((36, 41, 51), (240, 240, 243), (0, 99, 177), (22, 110, 90), (58, 58, 60))
    page = Image.new("RGB", size, grounds[int(rng.integers(len(grounds)))])
    pen = ImageDraw.Draw(page)
    for _ in range(int(rng.integers(2, 5))):
        left, top = int(rng.integers(0, width // 2)), int(rng.integers(0, height // 2))
        right, bottom = (
            left + int(rng.integers(width // 4, width // 2)),
            top + int(rng.integers(height // 4, height // 2)),
        )
        body = int(rng.choice((30, 45, 235, 250)))
        pen.rectangle(
            (left, top, right, bottom), fill=(body, body, body + 3), outline=(120, 120, 125)
        )
        pen.rectangle(
            (left, top, right, top + 18),
            fill=tuple(int(c) for c in rng.integers((40, 80, 120), (90, 150, 230))),
        )
        text = 255 - body
        for row in range(top + 28, bottom - 8, 14):
            pen.line(
                (left + 8, row, left + 8 + int(rng.integers(20, max(21, right - left - 16))), row),
                fill=(text, text, text),
                width=3,
            )
    return page


def drawn_noise(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """Static: independent pixels or blocks of 2-4 px, coloured or grey: an unplugged input."""
    width, height = size
    block = int(rng.integers(1, 5))
    channels = 3 if rng.random() < 0.6 else 1
    cells = rng.integers(
        0, 256, (height // block + 1, width // block + 1, channels), dtype=np.uint8
    )
    pixels = cells.repeat(block, axis=0).repeat(block, axis=1)[:height, :width]
    return Image.fromarray(np.ascontiguousarray(np.broadcast_to(pixels, (height, width, 3))))


def drawn_colour_bars(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """The test card of a video processor: vertical bars, full or three-quarter amplitude."""
    width, height = size
    level = int(rng.choice((191, 255)))
    bars = [(1, 1, 1), (1, 1, 0), (0, 1, 1), (0, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 0, 0)]
    if rng.random() < 0.5:
        bars = bars[:7]
    page = Image.new("RGB", size)
    pen = ImageDraw.Draw(page)
    for index, bar in enumerate(bars):
        box = (width * index // len(bars), 0, width * (index + 1) // len(bars) - 1, height)
        pen.rectangle(box, fill=tuple(level * channel for channel in bar))
    if rng.random() < 0.5:
        pen.rectangle((0, height * 3 // 4, width, height), fill=(16, 16, 16))
    return page


def drawn_landscape(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """A view out of doors: graded sky above a ragged horizon, green to brown ground with grain."""
    width, height = size
    sky_top, sky_low = (
        rng.uniform((60, 110, 190), (110, 160, 240)),
        rng.uniform((170, 190, 215), (225, 235, 250)),
    )
    land_top, land_low = (
        rng.uniform((50, 90, 40), (110, 140, 80)),
        rng.uniform((40, 60, 25), (110, 105, 60)),
    )
    horizon = rng.uniform(0.3, 0.65) * height + np.cumsum(rng.normal(0.0, 1.2, width))
    rows = np.arange(height, dtype=np.float64)[:, None]
    above = np.clip(rows / np.maximum(horizon, 1.0), 0.0, 1.0)[..., None]
    below = np.clip((rows - horizon) / np.maximum(height - horizon, 1.0), 0.0, 1.0)[..., None]
    sky, land = sky_top * (1 - above) + sky_low * above, land_top * (1 - below) + land_low * below
    grain = rng.normal(0.0, 12.0, (height, width, 1))
    return _image(np.where((rows < horizon)[..., None], sky, land + grain))


def drawn_radiograph(rng: np.random.Generator, size: tuple[int, int] = (640, 512)) -> _Frame:
    """A greyscale film: soft bright bodies on black, ribs, a little noise; no colour at all."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    film = np.full((height, width), 10.0, dtype=np.float32)
    for _ in range(int(rng.integers(3, 7))):
        cx, cy = rng.uniform(0.2, 0.8) * width, rng.uniform(0.2, 0.8) * height
        rx, ry = rng.uniform(0.15, 0.4) * width, rng.uniform(0.15, 0.4) * height
        film += rng.uniform(40, 110) * np.exp(-(((x - cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
    ribs = np.sin(y / height * rng.uniform(25, 60) + 2.0 * np.cos(x / width * 3.0))
    film += rng.uniform(8, 25) * np.maximum(ribs, 0.0) + rng.normal(0.0, 4.0, film.shape)
    return _image(np.repeat(film[..., None], 3, axis=2))


SPOILERS: Mapping[str, Mapping[str, Callable[[_Frame, np.random.Generator], _Frame]]] = (
    MappingProxyType(
        {
            "blurred": MappingProxyType({"defocused": defocused, "moved": moved}),
            "dark": MappingProxyType({"darkened": darkened}),
            "overexposed": MappingProxyType({"overexposed": overexposed}),
        }
    )
)
"""Reason of the quality gate → defect → function of a frame. The result has the frame's size."""

STRANGERS: Mapping[str, Callable[..., _Frame]] = MappingProxyType(
    {
        "colour_bars": drawn_colour_bars,
        "document": drawn_document,
        "landscape": drawn_landscape,
        "noise": drawn_noise,
        "radiograph": drawn_radiograph,
        "screenshot": drawn_screenshot,
    }
)
"""Kind → function of (generator, size in px) drawing an image that is ``not_endoscopic``."""


def _luma(pixels: np.ndarray) -> np.ndarray:
    return pixels @ np.array([0.299, 0.587, 0.114], dtype=np.float32)


def _image(pixels: np.ndarray) -> _Frame:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
