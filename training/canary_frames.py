"""Choose a bundle's canaries: drawn frames from both ends of the score, and one at the threshold.

What lies at the threshold shows a drift first; ends alone would hide one that only scales.
"""

from __future__ import annotations

import io
import logging

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.encoder import Encoder
from model_store.quality import QualityLimits, assess
from model_store.scoring import cosines, margin
from training.errors import ConfigError
from training.phantom import draw_frame, random_lesion, random_spec

__all__ = ["canary_images", "check_count"]

log = logging.getLogger(__name__)

TASK = "polyp_detection"
DRAWN = 24
MOST_DRAWN = 240
"""Drawn at most, until both sides of the threshold have a frame."""
NEAR = 0.02
"""How near the threshold the frame at it should be: inside the abstention band."""
BLENDS = 16

Pixels = npt.NDArray[np.uint8]


def check_count(count: int) -> None:
    """Refuse a recipe without a canary: a bundle could never pass its self-test.

    Raises:
        ConfigError: Fewer than 1.
    """
    if count < 1:
        raise ConfigError(f"bundle.canaries: expected at least 1, found {count}")


def canary_images(encoder: Encoder, count: int, seed: int) -> dict[str, bytes]:
    """Choose the frame at the balanced threshold, and the rest from both ends of the score.

    Args:
        encoder: Of the calibrated bundle.
        count: Canaries, at least 1; more than were drawn gives all.
        seed: Of the drawing.

    Returns:
        ``canaries/<name>.png`` -> PNG bytes; the first is the one at the threshold.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    check_count(count)
    threshold = encoder.bundle.calibrations[TASK].operating_point("balanced").frame_threshold
    frames, p = _drawn(encoder, threshold, np.random.default_rng([seed, 13]))
    order = np.argsort(p)
    others = count - 1
    top = others // 2
    # Slices from the front only: [-0:] would be everything.
    ends = [*order[::-1][:top].tolist(), *order[: max(0, min(others, len(order)) - top)].tolist()]
    chosen = [_near(encoder, frames, p, threshold), *(frames[i] for i in dict.fromkeys(ends))]
    return {f"canaries/drawn_{i}.png": _png(pixels) for i, pixels in enumerate(chosen)}


def _drawn(
    encoder: Encoder, threshold: float, rng: np.random.Generator
) -> tuple[list[Pixels], npt.NDArray[np.float64]]:
    """Draw frames that pass the gate, until both sides of the threshold have one."""
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    side = encoder.bundle.manifest.input.size
    frames: list[Pixels] = []
    p = np.zeros(0)
    for start in range(0, MOST_DRAWN, DRAWN):
        fresh = []
        for i in range(start, start + DRAWN):
            lesions = (random_lesion(rng),) if i % 2 else ()
            pixels = np.asarray(draw_frame(random_spec(rng, lesions), rng, (side, side)))
            if assess(pixels, limits) is None:
                fresh.append(pixels)
        if fresh:
            frames += fresh
            p = np.concatenate([p, _probabilities(encoder, np.stack(fresh))])
        if len(p) and p.min() < threshold <= p.max():
            break
    return frames, p


def _near(
    encoder: Encoder, frames: list[Pixels], p: npt.NDArray[np.float64], threshold: float
) -> Pixels:
    """The drawn frame nearest the threshold, or a blend of its neighbours that is nearer."""
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    best = int(np.argmin(np.abs(p - threshold)))
    found, away = frames[best], abs(float(p[best]) - threshold)
    below, above = np.flatnonzero(p < threshold), np.flatnonzero(p >= threshold)
    if len(below) and len(above):
        ends = frames[below[np.argmax(p[below])]], frames[above[np.argmin(p[above])]]
        low, high = 0.0, 1.0
        for _ in range(BLENDS):
            share = (low + high) / 2
            mixed = np.rint((1 - share) * ends[0].astype(np.float64) + share * ends[1])
            pixels = mixed.astype(np.uint8)
            here = float(_probabilities(encoder, pixels[None])[0])
            if abs(here - threshold) < away and assess(pixels, limits) is None:
                found, away = pixels, abs(here - threshold)
            low, high = (share, high) if here < threshold else (low, share)
    if away > NEAR:
        log.warning("canary at the threshold: expected within %.2f, nearest is %.3f", NEAR, away)
    return found


def _probabilities(encoder: Encoder, pixels: Pixels) -> npt.NDArray[np.float64]:
    label_set = encoder.bundle.label_set(TASK)
    cosine = cosines(encoder.encode_images(pixels), encoder.class_embeddings(label_set))
    z = margin(cosine, label_set.positive_index or 0, encoder.bundle.manifest.logit_scale)
    return np.asarray(encoder.bundle.calibrations[TASK].frame.probability(z), np.float64)


def _png(pixels: Pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
