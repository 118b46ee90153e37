"""Make a view non-informative: six ways, the same for lesion and background views.

Blur, motion, darkness and over-exposure are the defects of ``training.defects``, which the
quality gate is measured on as well; stool and bubbles hide the mucosa instead.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from training.defects import darkened, defocused, moved, overexposed

__all__ = ["SPOILS", "bubbles", "noise_field", "spoil", "stool"]


def noise_field(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Draw smooth noise with about ``cells`` blobs along the shorter side.

    Returns:
        Float32 (h, w), about normal with mean 0 and deviation 1.
    """
    height, width = shape
    step = min(shape) / cells
    grid = rng.standard_normal((int(height / step) + 3, int(width / step) + 3)).astype(np.float32)
    field = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    values = np.asarray(field, dtype=np.float32)
    return (values - values.mean()) / max(float(values.std()), 1e-6)


def stool(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cover 60-95 % of the view with lumpy matter or turbid fluid of stool colour."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    shape = pixels.shape[:2]
    field = noise_field(rng, shape, 3) + 0.5 * noise_field(rng, shape, 9)
    cover = _soft(field - np.quantile(field, 1.0 - rng.uniform(0.65, 0.97)), 0.8)
    colour = np.array(rng.uniform((105, 75, 20), (185, 140, 60)), dtype=np.float32)
    lumps = noise_field(rng, shape, 18) + 0.6 * noise_field(rng, shape, 45)
    shade = 1.0 + rng.uniform(0.03, 0.13) * lumps
    light = pixels.mean(axis=2) / max(float(pixels.mean()), 1.0)
    matter = colour * (shade * (0.45 + 0.55 * np.clip(light, 0.3, 1.6)))[..., None]
    opacity = (rng.uniform(0.86, 1.0) * cover)[..., None]
    return _image(pixels * (1.0 - opacity) + matter * opacity)


def bubbles(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cover the view with foam: some hundred bright-rimmed bubbles over blurred mucosa."""
    side = min(image.size)
    soft = image.convert("RGB").filter(ImageFilter.GaussianBlur(0.012 * side))
    pixels = np.asarray(soft, dtype=np.float32)
    height, width = pixels.shape[:2]
    foam = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(rng.integers(160, 320))):
        radius = side * float(rng.uniform(0.012, 0.075))
        _add_bubble(foam, rng.uniform(0, width), rng.uniform(0, height), radius)
    veil = rng.uniform(0.12, 0.35)
    tint = np.array(rng.uniform((205, 195, 150), (245, 240, 225)), dtype=np.float32)
    opacity = np.clip(veil + foam, 0.0, 0.95)[..., None]
    foamy = _image(pixels * (1.0 - opacity) + tint * opacity)
    return foamy.filter(ImageFilter.GaussianBlur(0.006 * side))


SPOILS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "blurred": defocused,
    "motion": moved,
    "dark": darkened,
    "overexposed": overexposed,
    "stool": stool,
    "bubbles": bubbles,
}


def spoil(image: Image.Image, kind: str, rng: np.random.Generator) -> Image.Image:
    """Return a non-informative variant of the same size.

    Args:
        image: RGB view.
        kind: a key of ``SPOILS``.
        rng: source of strength and shapes.
    """
    return SPOILS[kind](image, rng)


def _add_bubble(foam: np.ndarray, cx: float, cy: float, radius: float) -> None:
    height, width = foam.shape
    x0, x1 = int(max(0, cx - radius - 2)), int(min(width, cx + radius + 3))
    y0, y1 = int(max(0, cy - radius - 2)), int(min(height, cy + radius + 3))
    if x0 >= x1 or y0 >= y1:
        return
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    reach = np.hypot(x - cx, y - cy)
    rim = np.exp(-(((reach - radius) / (0.12 * radius + 0.6)) ** 2)) * 0.34
    spot = np.exp(-((np.hypot(x - cx + 0.4 * radius, y - cy + 0.4 * radius) / (0.2 * radius)) ** 2))
    inside = (reach < radius) * 0.14
    patch = foam[y0:y1, x0:x1]
    np.maximum(patch, rim + inside + 0.55 * spot, out=patch)


def _soft(values: np.ndarray, width: float) -> np.ndarray:
    return np.clip(values / width + 0.5, 0.0, 1.0)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
