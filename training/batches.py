"""Frames in memory, decoded ahead of the step that needs them, and their augmentation.

Frames are decoded by ``model_store.images`` - the same code that serves - to squares a little
larger than the training size, and kept as uint8 as far as memory was given.
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from model_store.errors import ImageRejected
from model_store.images import InputContract, Pixels, decode
from training.errors import ArchiveRefused, FrameUnreadable
from training.frame_files import read_frame

__all__ = ["Augmentation", "FrameStore", "plain"]

CACHE_MB = 6144


class FrameStore:
    """Decoded frames by path: the most recently used stay in memory, the rest is decoded again.

    9,000 frames of 224 px take 1.4 GB; decoding them again each epoch would cost a core. One of
    1280 x 1024 px takes 10 to 15 ms, during which the interpreter is free: threads decode ahead.
    """

    def __init__(self, contract: InputContract, cache_mb: int = CACHE_MB, workers: int = 0) -> None:
        """Prepare an empty store.

        Args:
            contract: The bundle's pixel contract; frames are stored at its size.
            cache_mb: Decoded frames kept, MB (10^6 bytes).
            workers: Threads that decode what ``ahead`` names; 0 = none.
        """
        self.contract = dataclasses.replace(contract, jpeg="full")
        self._room = int(cache_mb * 1e6 // (3 * contract.size**2))
        self._kept: OrderedDict[Path, Pixels] = OrderedDict()
        self._coming: dict[Path, Future[Pixels]] = {}
        self._pool = ThreadPoolExecutor(workers, "decode") if workers else None

    def get(self, paths: Sequence[Path]) -> Tensor:
        """Return (b, s, s, 3) uint8, in order; (0, s, s, 3) for no paths.

        Raises:
            FrameUnreadable: A file is missing or not a usable image, whoever decoded it.
        """
        side = self.contract.size
        rows = np.empty((len(paths), side, side, 3), dtype=np.uint8)
        for row, path in zip(rows, paths, strict=True):
            row[:] = self._one(path)
        return torch.from_numpy(rows)

    def ahead(self, paths: Sequence[Path]) -> None:
        """Have workers decode these; ``get`` waits for them and tells their errors.

        Args:
            paths: All that will be needed next, soonest first; what was named before and is no
                longer is forgotten.
        """
        if self._pool is None:
            return
        self._coming = {
            path: self._coming.get(path) or self._pool.submit(self._decode, path)
            for path in dict.fromkeys(paths)
            if path not in self._kept
        }

    def _one(self, path: Path) -> Pixels:
        coming = self._coming.pop(path, None)
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        pixels = self._decode(path) if coming is None else coming.result()
        if self._room:
            self._kept[path] = pixels
            if len(self._kept) > self._room:
                self._kept.popitem(last=False)
        return pixels

    def _decode(self, path: Path) -> Pixels:
        try:
            return decode(read_frame(path), self.contract)
        except (OSError, ArchiveRefused, ImageRejected) as error:
            reason = getattr(error, "strerror", None) or str(error)  # without the path's folders
            raise FrameUnreadable(path, reason) from error


@dataclass(frozen=True)
class Augmentation:
    """What happens to each of b frames: drawn for a whole step, applied to any of its rows.

    So a step looks the same however many ranks and pieces its rows are dealt out to. Hue is left
    alone: colour is a diagnostic attribute. Quarter turns, flips, small rotations and shifts (an
    endoscope has no up), scale 0.85-1.2, brightness, contrast, and now and then a slight blur. What
    an affine leaves empty is black, as an endoscope's corners are.

    Attributes:
        theta: (b, 2, 3) affine maps from output to input coordinates in -1..1.
        gain: (b,) brightness factors.
        gamma: (b,) exponents.
        soft: (b,) bool, True = blurred.
    """

    theta: npt.NDArray[np.float64]
    gain: npt.NDArray[np.float64]
    gamma: npt.NDArray[np.float64]
    soft: npt.NDArray[np.bool_]

    @classmethod
    def draw(cls, b: int, rng: np.random.Generator, keep_shape: bool) -> Augmentation:
        """Draw for b frames.

        Args:
            b: Number of frames.
            rng: Generator of the step.
            keep_shape: True where texts of the step state sizes or shapes: neither scale nor aspect
                change, or the texts would no longer be true of the pixels. One answer for all rows:
                were lesion rows spared and background rows not, the treatment would carry the
                label.
        """
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
        gain = rng.uniform(0.8, 1.2, b)
        gamma = np.exp(rng.uniform(-0.2, 0.2, b))
        return cls(theta, gain, gamma, rng.random(b) < 0.15)

    def rows(self, which: range) -> Augmentation:
        """Of some rows."""
        cut = slice(which.start, which.stop)
        return Augmentation(self.theta[cut], self.gain[cut], self.gamma[cut], self.soft[cut])

    def apply(self, frames: Tensor, contract: InputContract, px: int) -> Tensor:
        """Augment and normalise, on the device of the frames.

        Args:
            frames: (b, s, s, 3) uint8.
            contract: Gives mean and std.
            px: Side of the result.

        Returns:
            (b, 3, px, px) float32, channels last in memory.
        """

        def here(values: npt.NDArray[np.float64]) -> Tensor:
            return torch.from_numpy(values).float().to(frames.device)

        b = len(frames)
        x = frames.permute(0, 3, 1, 2).float() / 255.0
        grid = F.affine_grid(here(self.theta), [b, 3, px, px], align_corners=False)
        x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        gain, gamma = (here(values).reshape(b, 1, 1, 1) for values in (self.gain, self.gamma))
        x = (x.clamp(1e-4, 1.0) ** gamma * gain).clamp(0.0, 1.0)
        if self.soft.any():
            soft = torch.from_numpy(self.soft.nonzero()[0]).to(frames.device)
            x[soft] = F.avg_pool2d(F.pad(x[soft], (1, 1, 1, 1), mode="reflect"), 3, stride=1)
        return _normalise(x, contract)


def plain(frames: Tensor, contract: InputContract, px: int) -> Tensor:
    """Normalise without augmentation, on the device of the frames.

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


def _normalise(x: Tensor, contract: InputContract) -> Tensor:
    mean = torch.tensor(contract.mean, device=x.device).reshape(1, 3, 1, 1)
    std = torch.tensor(contract.std, device=x.device).reshape(1, 3, 1, 1)
    return ((x - mean) / std).contiguous(memory_format=torch.channels_last)
