"""Measure a lesion's attributes from the pixels of its view and its box, never from its label.

Everything is measured in the view the model will see, so that what a report says is visible.
The cut-offs are our choice: each band holds a fair share of the dev lesions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.sources import Box

__all__ = ["Measures", "lab", "mean_measures", "measure", "size_band", "values_of"]

# Square root of box area over view area. Relative to the view: true millimetres are unknown.
SIZE_CUTS = (0.32, 0.48, 0.66, 0.84)
SIZE_BANDS = ("<=5", "6-9", "10-19", "20-29", ">=30")
ROUND_BELOW, OVAL_BELOW = 1.18, 1.55
# CIELAB units; 3.5 is somewhat above a just noticeable difference in textured images.
COLOUR_JUST = 3.5
# What stands up is nearer the lamp: half of all lesions are 7 L* brighter than their ring.
LIGHTER = 7.0
TEXTURE_FINE, TEXTURE_COARSE = 1.5, 2.2
MARGIN_CONTRAST = 8.5


@dataclass(frozen=True)
class Measures:
    """Raw measures of one lesion in one view.

    Attributes:
        size: square root of box area over view area, 0-1.
        elongation: long over short side of the box in the view, >= 1.
        lightness: mean L* of the lesion minus that of the ring around it.
        redness: mean a* of the lesion minus that of the ring.
        fine: deviation of L* below about 3 px, highlights left out.
        coarse: deviation of L* between about 3 and 9 px.
        contrast: mean Lab distance between just inside and just outside the box's ellipse.
    """

    size: float
    elongation: float
    lightness: float
    redness: float
    fine: float
    coarse: float
    contrast: float


def measure(pixels: np.ndarray, box: Box) -> Measures:
    """Measure one lesion.

    Args:
        pixels: uint8 (h, w, 3) of the view.
        box: x0, y0, x1, y1 of the lesion in the view.
    """
    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    half_x, half_y = max((x1 - x0) / 2, 2.0), max((y1 - y0) / 2, 2.0)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    reach = np.hypot((x - (x0 + x1) / 2) / half_x, (y - (y0 + y1) / 2) / half_y)
    calm = ~_highlights(pixels)
    # Colour does not need every pixel; half of each axis is four times as fast.
    image, near, plain = lab(pixels[::2, ::2]), reach[::2, ::2], calm[::2, ::2]
    inner, ring = _zones(near, plain)
    difference = image[inner].mean(axis=0) - image[ring].mean(axis=0)
    # Luma of sRGB is close to L* / 100 * 255: both follow perceived lightness.
    light = pixels @ np.array((0.299, 0.587, 0.114), dtype=np.float32) * (100.0 / 255.0)
    soft = ndimage.gaussian_filter(light, 1.5, truncate=2.5)
    softer = ndimage.gaussian_filter(soft[::2, ::2], 2.1, truncate=2.5)
    body = (reach < 0.8) & calm
    body = body if body[::2, ::2].sum() > 12 else reach <= max(0.9, float(near.min()))
    return Measures(
        size=float(np.sqrt((x1 - x0) * (y1 - y0) / (height * width))),
        elongation=float(max(half_x, half_y) / min(half_x, half_y)),
        lightness=float(difference[0]),
        redness=float(difference[1]),
        fine=float((light - soft)[body].std()),
        coarse=float((soft[::2, ::2] - softer)[body[::2, ::2]].std()),
        contrast=_contrast(image, near, plain),
    )


def mean_measures(found: Sequence[Measures]) -> Measures:
    """Average the measures of several views of one lesion."""
    rows = np.array([list(vars(one).values()) for one in found])
    return Measures(*(float(v) for v in rows.mean(axis=0)))


def size_band(size: float) -> str:
    """Return the band of a relative size, the square root of box area over view area."""
    return SIZE_BANDS[int(np.searchsorted(SIZE_CUTS, size))]


def values_of(found: Measures) -> dict[str, str]:
    """Turn measures into attribute values (vocabulary of ``ATTRIBUTES`` and ``SHAPES``)."""
    long = found.elongation
    shape = "round" if long < ROUND_BELOW else "oval" if long < OVAL_BELOW else "elongated"
    return {
        "size_band": size_band(found.size),
        "colour": _colour(found.lightness, found.redness),
        "surface_texture": _texture(found.fine, found.coarse),
        "margin": "well-defined" if found.contrast >= MARGIN_CONTRAST else "indistinct",
        "shape": shape,
    }


def lab(pixels: np.ndarray) -> np.ndarray:
    """Convert sRGB to CIELAB (D65).

    Args:
        pixels: uint8 (..., 3).

    Returns:
        Float32 (..., 3): L* 0-100, a*, b*.
    """
    values = pixels.astype(np.float32) / 255.0
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    matrix = np.array(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]],
        dtype=np.float32,
    )
    xyz = linear @ matrix.T / np.array((0.9505, 1.0, 1.089), dtype=np.float32)
    curve = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(curve, -1, 0)
    return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1).astype(np.float32)


def _zones(reach: np.ndarray, calm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return masks of the lesion's body and of the ring around it, never empty."""
    inner, ring = (reach < 0.8) & calm, (reach > 1.15) & (reach < 1.7) & calm
    if inner.sum() < 12:
        inner = reach <= max(0.9, float(reach.min()))
    for near, far in ((1.05, 2.2), (1.0, 9.0)):
        if ring.sum() < 12:
            ring = (reach > near) & (reach < far)
    return inner, ring if ring.any() else np.ones_like(ring)


def _colour(lightness: float, redness: float) -> str:
    if redness >= COLOUR_JUST:
        return "dark-red" if lightness < 0 else "red"
    if lightness >= LIGHTER and redness < COLOUR_JUST / 2:
        return "pale"
    return "dark-red" if lightness < -COLOUR_JUST else "isochromatic"


def _texture(fine: float, coarse: float) -> str:
    if fine < TEXTURE_FINE and coarse < TEXTURE_COARSE:
        return "smooth"
    if coarse < TEXTURE_COARSE:
        return "granular"
    return "nodular" if fine < TEXTURE_FINE else "irregular"


def _contrast(image: np.ndarray, reach: np.ndarray, calm: np.ndarray) -> float:
    """Compare the bands on both sides of the ellipse in eight sectors."""
    y, x = np.nonzero((reach > 0.6) & (reach < 1.4) & calm)
    if len(x) < 40:
        return 0.0
    near = reach[y, x]
    sector = ((np.arctan2(y - y.mean(), x - x.mean()) + np.pi) / (2 * np.pi) * 8).astype(int) % 8
    steps = []
    for index in range(8):
        here = sector == index
        inside, outside = here & (near < 0.92), here & (near > 1.08)
        if inside.sum() >= 5 and outside.sum() >= 5:
            gap = image[y[inside], x[inside]].mean(0) - image[y[outside], x[outside]].mean(0)
            steps.append(float(np.sqrt((gap * gap).sum())))
    return float(np.mean(steps)) if steps else 0.0


def _highlights(pixels: np.ndarray) -> np.ndarray:
    bright = (pixels[..., 0] > 200) & (pixels[..., 1] > 200) & (pixels[..., 2] > 200)
    return np.asarray(ndimage.binary_dilation(bright, iterations=2))
