"""Frames in memory and their augmentation.

Frames are decoded by ``model_store.images`` - the same code that serves - to squares a little
larger than the training size, once, and kept as uint8.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.images import InputContract, decode
from training.frame_files import read_frame

__all__ = ["FrameStore", "augment", "plain"]


class FrameStore:
    """Decoded frames by path, kept in memory.

    9,000 frames of 224 px take 1.4 GB; decoding them again each epoch would cost a core.
    """

    def __init__(self, contract: InputContract) -> None:
        """Args: contract: The bundle's pixel contract; frames are stored at its size."""
        self.contract = dataclasses.replace(contract, jpeg="full")
        self._cache: dict[Path, npt.NDArray[np.uint8]] = {}

    def get(self, paths: Sequence[Path]) -> Tensor:
        """Return (b, s, s, 3) uint8.

        Raises:
            ImageRejected: A file is not a usable image.
        """
        return torch.from_numpy(np.stack([self._one(path) for path in paths]))

    def _one(self, path: Path) -> npt.NDArray[np.uint8]:
        if path not in self._cache:
            self._cache[path] = decode(read_frame(path), self.contract)
        return self._cache[path]


def plain(frames: Tensor, contract: InputContract, px: int) -> Tensor:
    """Normalise without augmentation.

    Args:
        frames: (b, s, s, 3) uint8.
        contract: Gives mean and std.
        px: Side of the result; another side than s is resampled bilinearly.

    Returns:
        (b, 3, px, px) float32, channels last in memory.
    """
    x = frames.permute(0, 3, 1, 2).float() / 255.0
    if x.shape[-1] != px:
        x = F.interpolate(x, size=(px, px), mode="bilinear", antialias=True)
    return _normalise(x, contract)


def augment(
    frames: Tensor, contract: InputContract, px: int, rng: np.random.Generator, keep_shape: bool
) -> Tensor:
    """Augment without touching hue: colour is a diagnostic attribute.

    Quarter turns, flips, small rotations and shifts (an endoscope has no up), scale 0.85-1.2,
    brightness, contrast, and now and then a slight blur. What an affine leaves empty is black, as
    an endoscope's corners are.

    Args:
        frames: (b, s, s, 3) uint8.
        contract: Gives mean and std.
        px: Side of the result.
        rng: Generator of the step.
        keep_shape: True where texts of the step state sizes or shapes: neither scale nor aspect
            change, or the texts would no longer be true of the pixels. One answer for all rows:
            were lesion rows spared and background rows not, the treatment would carry the label.

    Returns:
        (b, 3, px, px) float32, channels last in memory.
    """
    b = len(frames)
    x = frames.permute(0, 3, 1, 2).float() / 255.0
    angle = np.radians(rng.uniform(-20, 20, b) + 90.0 * rng.integers(0, 4, b))
    scale = np.exp(rng.uniform(np.log(1 / 1.2), np.log(1 / 0.85), b))
    stretch = np.exp(rng.uniform(-0.08, 0.08, b))
    if keep_shape:
        scale, stretch = np.ones(b), np.ones(b)
    flip = np.where(rng.random(b) < 0.5, -1.0, 1.0)
    cos, sin = np.cos(angle) * scale, np.sin(angle) * scale
    shift = rng.uniform(-0.06, 0.06, (b, 2))
    theta = np.stack(
        [
            np.stack([cos * flip * stretch, -sin, shift[:, 0]], -1),
            np.stack([sin * flip, cos / stretch, shift[:, 1]], -1),
        ],
        1,
    )
    grid = F.affine_grid(torch.from_numpy(theta).float(), [b, 3, px, px], align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, b)).float().reshape(b, 1, 1, 1)
    gamma = torch.from_numpy(np.exp(rng.uniform(-0.2, 0.2, b))).float().reshape(b, 1, 1, 1)
    x = (x.clamp(1e-4, 1.0) ** gamma * gain).clamp(0.0, 1.0)
    soft = torch.from_numpy(rng.random(b) < 0.15)
    if bool(soft.any()):
        x[soft] = F.avg_pool2d(F.pad(x[soft], (1, 1, 1, 1), mode="reflect"), 3, stride=1)
    return _normalise(x, contract)


def _normalise(x: Tensor, contract: InputContract) -> Tensor:
    mean = torch.tensor(contract.mean).reshape(1, 3, 1, 1)
    std = torch.tensor(contract.std).reshape(1, 3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
