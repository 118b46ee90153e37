"""Cut views out of frames and crops: lesion and background windows of one geometry.

Windows lie wholly inside the field of view: no black border, no device text, no green box.
Background windows touch no lesion box, dilated; both kinds are squashed to the same square by
the same resampling and stored with the same JPEG quality.
"""

import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from training.sources import Box, SourceImage

__all__ = [
    "SIDE_PX",
    "Window",
    "background_windows",
    "encode",
    "field_of_view",
    "lesion_windows",
    "place",
    "render",
]

SIDE_PX = 256
JPEG_QUALITY = 90
ASPECTS = (1.0, 1.35)
MIN_SIDE = 60.0
"""Shortest geometric mean side of a window, in pixels of a stored frame (384 px wide)."""
DILATION = 0.12
"""Lesion boxes are widened by this share of their size, at least 8 px, before "touches"."""


@dataclass(frozen=True)
class Window:
    """A box in the pixels of a file.

    Attributes:
        box: x0, y0, x1, y1 in pixels.
        lesion: index of the lesion box it shows, or None.
        cover: share of the lesion box inside the window; 1 for background.
    """

    box: tuple[int, int, int, int]
    lesion: int | None = None
    cover: float = 1.0

    @property
    def side(self) -> float:
        """Geometric mean of width and height in pixels."""
        x0, y0, x1, y1 = self.box
        return float(np.sqrt((x1 - x0) * (y1 - y0)))

    @property
    def aspect(self) -> float:
        """Width over height."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) / (y1 - y0)


def field_of_view(image: SourceImage, pixels: np.ndarray) -> np.ndarray:
    """Find where the image shows mucosa.

    A pixel belongs to the field if it lies between the first and last bright pixel of both its
    row and its column: dark lumen counts, corners and inset boxes do not. Known places of
    device text are taken out.

    Args:
        image: where the pixels come from.
        pixels: uint8 (h, w, 3).

    Returns:
        Bool (h, w).
    """
    height, width = pixels.shape[:2]
    if image.kind == "crop":
        return np.ones((height, width), dtype=bool)
    # Half of each axis is enough for borders, and four times as fast.
    small = pixels[::2, ::2].max(axis=2).astype(np.float32)
    bright = ndimage.binary_opening(ndimage.uniform_filter(small, 3) > 48, iterations=2)
    labels, count = ndimage.label(bright)
    if count == 0:
        return np.zeros((height, width), dtype=bool)
    largest = np.bincount(labels.ravel())[1:].argmax() + 1
    half = _between(labels == largest) & _between((labels == largest).T).T
    half = ndimage.binary_erosion(half, iterations=2, border_value=1)
    field = half.repeat(2, axis=0).repeat(2, axis=1)[:height, :width].copy()
    for x0, y0, x1, y1 in _text_places(image):
        field[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = False
    field[:3], field[-3:], field[:, :3], field[:, -3:] = False, False, False, False
    return field


def background_windows(
    image: SourceImage, field: np.ndarray, rng: np.random.Generator, count: int
) -> list[Window]:
    """Draw windows without lesion, large ones preferred.

    Returns:
        Up to ``count`` windows; none where no window is free.
    """
    boxes = _candidates(field, rng, 1500)
    for lesion in image.boxes:
        boxes = boxes[~_touch(boxes, _dilated(lesion))]
    boxes = np.unique(boxes, axis=0)
    if len(boxes) == 0:
        return []
    area = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).astype(np.float64)
    chosen = rng.choice(
        len(boxes), size=min(count, len(boxes)), replace=False, p=area**2 / (area**2).sum()
    )
    return [Window(tuple(int(v) for v in boxes[i])) for i in chosen]  # type: ignore[arg-type]


def lesion_windows(
    image: SourceImage,
    field: np.ndarray,
    lesion: int,
    rng: np.random.Generator,
    sides: list[float],
) -> list[Window]:
    """Draw windows that show a lesion, one for each wanted side.

    The whole box is inside where the field allows it; a lesion cut by the border may lose up to
    half of its box, since its box reaches outside the field.

    Args:
        image: the frame or crop.
        field: its field of view.
        lesion: index into ``image.boxes``.
        rng: source of the draw.
        sides: wanted geometric mean sides in pixels; the nearest feasible side is taken.

    Returns:
        Windows in the order of ``sides``, or none where the lesion cannot be shown.
    """
    target = image.boxes[lesion]
    boxes = _candidates(field, rng, 2600, around=target)
    if len(boxes) == 0:
        return []
    cover = _covered(boxes, target)
    for least in (0.999, 0.85, 0.66, 0.5):
        ok = cover >= least
        if ok.sum() >= 3:
            break
    else:
        return []
    boxes, cover = boxes[ok], cover[ok]
    have = np.sqrt((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]))
    windows = []
    for side in sides:
        # A draw among near sides keeps the offsets varied.
        off = np.abs(np.log(have / side))
        near = np.nonzero(off <= off.min() + 0.03)[0]
        pick = int(rng.choice(near))
        windows.append(
            Window(
                tuple(int(v) for v in boxes[pick]),  # type: ignore[arg-type]
                lesion,
                round(float(cover[pick]), 3),
            )
        )
    return windows


def place(box: Box, window: Window) -> Box:
    """Return a box of the file in the pixels of the rendered view, clipped to it."""
    x0, y0, x1, y1 = window.box
    across, down = SIDE_PX / (x1 - x0), SIDE_PX / (y1 - y0)
    moved = (
        (box[0] - x0) * across,
        (box[1] - y0) * down,
        (box[2] - x0) * across,
        (box[3] - y0) * down,
    )
    a, b, c, d = (float(np.clip(v, 0, SIDE_PX)) for v in moved)
    return a, b, c, d


def render(pixels: Image.Image, window: Window) -> Image.Image:
    """Cut and squash a window to ``SIDE_PX`` square, bicubic."""
    return pixels.crop(window.box).resize((SIDE_PX, SIDE_PX), Image.Resampling.BICUBIC)


def encode(view: Image.Image) -> bytes:
    """Encode a view as every view is encoded."""
    out = io.BytesIO()
    view.save(out, format="JPEG", quality=JPEG_QUALITY)
    return out.getvalue()


def _candidates(
    field: np.ndarray, rng: np.random.Generator, count: int, around: Box | None = None
) -> np.ndarray:
    """Draw boxes (n, 4) that lie wholly in the field; around a lesion when one is given."""
    height, width = field.shape
    longest = float(min(height, width))
    shortest = min(MIN_SIDE, 0.8 * longest)
    aspect = np.exp(rng.uniform(np.log(ASPECTS[0]), np.log(ASPECTS[1]), count))
    if around is None:
        side = rng.uniform(shortest, longest, count)
        wide, high = side * np.sqrt(aspect), side / np.sqrt(aspect)
        left, top = (
            rng.uniform(0, 1, count) * (width - wide),
            rng.uniform(0, 1, count) * (height - high),
        )
    else:
        x0, y0, x1, y1 = around
        need = max(x1 - x0, y1 - y0)
        side = np.exp(
            rng.uniform(
                np.log(max(shortest, min(0.8 * need, 0.9 * longest))), np.log(longest), count
            )
        )
        wide, high = side * np.sqrt(aspect), side / np.sqrt(aspect)
        left = (x0 + x1) / 2 - wide / 2 + rng.uniform(-0.5, 0.5, count) * wide * 0.9
        top = (y0 + y1) / 2 - high / 2 + rng.uniform(-0.5, 0.5, count) * high * 0.9
        left, top = np.clip(left, 0, width - wide), np.clip(top, 0, height - high)
    boxes = np.round(np.stack((left, top, left + wide, top + high), axis=1)).astype(int)
    fits = (
        (boxes[:, 0] >= 0) & (boxes[:, 1] >= 0) & (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    )
    boxes = boxes[fits]
    sums = np.pad(np.cumsum(np.cumsum(~field, axis=0), axis=1), ((1, 0), (1, 0)))
    x0, y0, x1, y1 = boxes.T
    outside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    return boxes[outside == 0]


def _covered(boxes: np.ndarray, target: Box) -> np.ndarray:
    x0, y0, x1, y1 = target
    across = np.clip(np.minimum(boxes[:, 2], x1) - np.maximum(boxes[:, 0], x0), 0, None)
    down = np.clip(np.minimum(boxes[:, 3], y1) - np.maximum(boxes[:, 1], y0), 0, None)
    return across * down / max((x1 - x0) * (y1 - y0), 1.0)


def _touch(boxes: np.ndarray, other: Box) -> np.ndarray:
    x0, y0, x1, y1 = other
    return (boxes[:, 0] < x1) & (boxes[:, 2] > x0) & (boxes[:, 1] < y1) & (boxes[:, 3] > y0)


def _dilated(box: Box) -> Box:
    x0, y0, x1, y1 = box
    dx, dy = max(8.0, DILATION * (x1 - x0)), max(8.0, DILATION * (y1 - y0))
    return x0 - dx, y0 - dy, x1 + dx, y1 + dy


def _between(mask: np.ndarray) -> np.ndarray:
    """Fill each row from its first to its last true pixel."""
    return np.asarray(
        np.logical_or.accumulate(mask, axis=1)
        & np.logical_or.accumulate(mask[:, ::-1], axis=1)[:, ::-1]
    )


def _text_places(image: SourceImage) -> tuple[Box, ...]:
    """Places of on-screen text over mucosa, in shares of width and height."""
    if image.source == "kvasir":
        return (0.0, 0.16, 0.175, 0.74), (0.95, 0.68, 1.0, 0.92)
    if image.source == "bkai":
        return (0.0, 0.955, 1.0, 1.0), (0.0, 0.72, 0.10, 1.0)
    return ()
