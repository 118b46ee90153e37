"""Whole-frame views, with the lesions and without them: honest negatives at the scale of a frame.

The data holds no normal whole frame of the endoscopes that its lesions were filmed with, so a
view of a whole frame would mean "polyp" and a window "perhaps". Here a frame's lesions are covered
by mucosa of the same frame (the lesion-free view), and as many patches of the same sizes are
copied over lesion-free places of the frame (the lesion view): the treatment carries no label.

What lies outside the field of view - border, device text, inset boxes - is black, and a random
field shape is laid over it, so that neither the endoscope nor the size of its frame shows; BKAI's
histology goes with that size.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from training.sources import Box, SourceImage
from training.views import Window

__all__ = ["Patch", "Patches", "cloned", "plan_patches", "scope_view"]

SWELL = 0.22
"""A patch is wider than the lesion's box by this share, at least 5 px each side."""
LARGEST = 0.30
"""Lesions whose boxes cover a larger share of the field leave nothing to cover them with."""
TRIES = 400
FEATHER_PX = 3.0
EXPONENTS = (2.0, 6.0)
"""Superellipse of the field shape: 2 is an ellipse, 6 nearly the rectangle."""


@dataclass(frozen=True)
class Patch:
    """A rectangle of mucosa copied within a frame, whole pixels.

    Attributes:
        target: x0, y0, x1, y1 of what is covered.
        source: x0, y0 of what is copied there, of the same size.
    """

    target: tuple[int, int, int, int]
    source: tuple[int, int]


@dataclass(frozen=True)
class Patches:
    """What makes a frame's two kinds of whole-frame views.

    Attributes:
        covers: one patch per lesion, over it.
        decoys: as many of the same sizes, over lesion-free places.
    """

    covers: tuple[Patch, ...]
    decoys: tuple[Patch, ...]


def plan_patches(
    image: SourceImage, field: np.ndarray, pixels: np.ndarray, rng: np.random.Generator
) -> Patches | None:
    """Find places for both kinds of patches.

    Args:
        image: a whole frame with lesion boxes.
        field: its field of view, bool (h, w).
        pixels: uint8 (h, w, 3).
        rng: source of the choice among places that fit.

    Returns:
        None where a lesion is too large, or any of the patches finds no place: then the frame
        serves neither kind.
    """
    boxes = [_swollen(box, field.shape) for box in image.boxes]
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)
    if not boxes or area > LARGEST * field.sum():
        return None
    free = field.copy()
    for x0, y0, x1, y1 in boxes:
        free[y0:y1, x0:x1] = False
    covers, decoys = [], []
    taken = free.copy()
    for box in boxes:
        source = _match(pixels, free, box, rng)
        place = _place(taken, (box[2] - box[0], box[3] - box[1]), rng)
        if source is None or place is None:
            return None
        x0, y0 = place
        target = (x0, y0, x0 + box[2] - box[0], y0 + box[3] - box[1])
        taken[target[1] : target[3], target[0] : target[2]] = False
        decoy = _match(pixels, taken, target, rng)
        if decoy is None:
            return None
        covers.append(Patch(box, source))
        decoys.append(Patch(target, decoy))
    return Patches(tuple(covers), tuple(decoys))


def cloned(pixels: np.ndarray, patches: tuple[Patch, ...]) -> np.ndarray:
    """Copy patches within a frame, their brightness and colour bent to the new surroundings.

    The difference at the rim is carried inwards by normalised convolution and added, a cheap
    form of Poisson editing (Perez 2003); an elliptic edge is feathered.

    Args:
        pixels: uint8 (h, w, 3).
        patches: from ``plan_patches``, copied from the untouched frame.

    Returns:
        A new uint8 (h, w, 3).
    """
    out = pixels.astype(np.float32)
    for patch in patches:
        x0, y0, x1, y1 = patch.target
        wide, high = x1 - x0, y1 - y0
        left, top = patch.source
        copy = pixels[top : top + high, left : left + wide].astype(np.float32)
        here = pixels[y0:y1, x0:x1].astype(np.float32)
        reach = _reach(high, wide)
        rim = (reach > 0.92).astype(np.float32)
        sigma = 0.25 * min(wide, high)
        weight = ndimage.gaussian_filter(rim, sigma, mode="nearest") + 1e-4
        bend = np.stack(
            [
                ndimage.gaussian_filter((here - copy)[..., c] * rim, sigma, mode="nearest") / weight
                for c in range(3)
            ],
            axis=-1,
        )
        inside = ndimage.gaussian_filter((reach < 0.94).astype(np.float32), FEATHER_PX)[..., None]
        region = out[y0:y1, x0:x1]
        region += inside * (copy + bend - region)
    return np.clip(np.rint(out), 0, 255).astype(np.uint8)


def scope_view(
    field: np.ndarray, rng: np.random.Generator, lesion: tuple[int, Box] | None = None
) -> tuple[Window, np.ndarray] | None:
    """Draw how much of the frame is shown, and in which field shape.

    Args:
        field: field of view, bool (h, w).
        rng: source of the draw.
        lesion: index and box of the lesion that must stay in view; None for a lesion-free view.

    Returns:
        The window in pixels of the frame and the visible pixels, bool (h, w); None where no draw
        shows four fifths of the lesion's box.
    """
    ys, xs = np.flatnonzero(field.any(axis=1)), np.flatnonzero(field.any(axis=0))
    height, width = field.shape
    frame = np.array([xs[0], ys[0], xs[-1] + 1, ys[-1] + 1], dtype=np.float64)
    span = np.array([frame[2] - frame[0], frame[3] - frame[1]])
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(20):
        grow = rng.uniform(-0.05, 0.05, 4) * np.tile(span, 2) * (-1, -1, 1, 1)
        x0, y0, x1, y1 = np.rint(frame + grow).astype(int)
        box = (max(0, int(x0)), max(0, int(y0)), min(width, int(x1)), min(height, int(y1)))
        half = rng.uniform(0.92, 1.15, 2) * span / 2
        centre = (frame[:2] + frame[2:]) / 2 + rng.uniform(-0.03, 0.03, 2) * span
        power = rng.uniform(*EXPONENTS)
        shape = (np.abs(x - centre[0]) / half[0]) ** power
        shape += (np.abs(y - centre[1]) / half[1]) ** power
        seen = field & (shape <= 1.0)
        if lesion is None:
            return Window(box), seen
        cover = _seen_share(seen, box, lesion[1])
        if cover >= 0.8:
            return Window(box, lesion[0], round(cover, 3)), seen
    return None


def _swollen(box: Box, shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = box
    dx, dy = max(5.0, SWELL * (x1 - x0)), max(5.0, SWELL * (y1 - y0))
    return (
        max(0, int(x0 - dx)),
        max(0, int(y0 - dy)),
        min(shape[1], int(np.ceil(x1 + dx))),
        min(shape[0], int(np.ceil(y1 + dy))),
    )


def _place(
    free: np.ndarray, size: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int] | None:
    """Draw the upper left corner of a rectangle that is wholly free."""
    corners = _corners(free, size, rng)
    return None if len(corners) == 0 else (int(corners[0, 0]), int(corners[0, 1]))


def _match(
    pixels: np.ndarray,
    free: np.ndarray,
    target: tuple[int, int, int, int],
    rng: np.random.Generator,
) -> tuple[int, int] | None:
    """Choose the free place whose rim looks most like the target's."""
    x0, y0, x1, y1 = target
    corners = _corners(free, (x1 - x0, y1 - y0), rng)
    if len(corners) == 0:
        return None
    rows, columns = np.nonzero(_reach(y1 - y0, x1 - x0) > 0.92)
    some = rng.permutation(len(rows))[:160]
    rows, columns = rows[some], columns[some]
    want = pixels[y0 + rows, x0 + columns].astype(np.float32)
    have = pixels[corners[:, 1:] + rows, corners[:, :1] + columns].astype(np.float32)
    best = np.argsort(np.abs(have - want).mean(axis=(1, 2)))[:3]
    return tuple(int(v) for v in corners[rng.choice(best)])  # type: ignore[return-value]


def _corners(free: np.ndarray, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Upper left corners (n, 2) of rectangles that are wholly free, in drawn order."""
    wide, high = size
    height, width = free.shape
    if wide >= width or high >= height:
        return np.zeros((0, 2), dtype=int)
    x = rng.integers(0, width - wide, TRIES)
    y = rng.integers(0, height - high, TRIES)
    sums = np.pad(np.cumsum(np.cumsum(~free, axis=0), axis=1), ((1, 0), (1, 0)))
    blocked = sums[y + high, x + wide] - sums[y, x + wide] - sums[y + high, x] + sums[y, x]
    return np.stack((x, y), axis=1)[blocked == 0]


def _reach(high: int, wide: int) -> np.ndarray:
    """Distance from the middle of a rectangle, 1 on the ellipse that touches its sides."""
    y, x = np.mgrid[0:high, 0:wide]
    return np.asarray(np.hypot((x + 0.5) / wide * 2 - 1, (y + 0.5) / high * 2 - 1))


def _seen_share(seen: np.ndarray, box: tuple[int, int, int, int], lesion: Box) -> float:
    x0, y0, x1, y1 = (round(v) for v in lesion)
    whole = max((x1 - x0) * (y1 - y0), 1)
    inside = seen[max(y0, box[1]) : min(y1, box[3]), max(x0, box[0]) : min(x1, box[2])]
    return float(inside.sum() / whole)
