"""Augmentation: what texts speak of is not changed, and no row is treated unlike another."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.batches import augment  # noqa: E402
from training.model import load_spec  # noqa: E402

CONTRACT = load_spec("lite0-minilm").contract


def _discs(count: int) -> torch.Tensor:
    y, x = np.mgrid[0:96, 0:96]
    disc = np.hypot(x - 47.5, y - 47.5) < 24
    frame = np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, axis=-1)
    return torch.from_numpy(np.stack([frame] * count))


def _areas(keep_shape: bool) -> np.ndarray:
    rng = np.random.default_rng(0)
    pixels = augment(_discs(32), CONTRACT, 96, rng, keep_shape)
    lit = (pixels[:, 0] * CONTRACT.std[0] + CONTRACT.mean[0]) > 0.4
    return lit.float().mean((1, 2)).numpy() * 96 * 96 / (np.pi * 24**2)


def test_sizes_and_shapes_stay_where_texts_state_them() -> None:
    assert np.abs(_areas(True) - 1.0).max() < 0.06
    assert np.ptp(_areas(False)) > 0.3


def test_the_same_generator_gives_the_same_pixels() -> None:
    first, second = (
        augment(_discs(4), CONTRACT, 64, np.random.default_rng(7), True) for _ in range(2)
    )
    assert torch.equal(first, second)
