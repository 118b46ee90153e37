"""Frames through a stage's weights, before anything is exported.

The figures of a bundle never come from here; a stage in the middle of a run has no other form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model_store.images import decode
from training.batches import plain
from training.errors import StaleInput
from training.frame_files import read_frame
from training.model import build, load_spec

__all__ = ["stage_embeddings"]

_BATCH = 32
_IMAGES = "clip.visual."


def stage_embeddings(
    weights: Path, model_config: str, frames: Sequence[Path]
) -> npt.NDArray[np.float32]:
    """Encode frames with the image tower of a stage's weights.

    Args:
        weights: ``weights.pt``.
        model_config: Name of the towers.
        frames: n frames.

    Returns:
        (n, d) float32 unit rows.

    Raises:
        StaleInput: The weights are not of these towers.
        ImageRejected: A frame is not a usable image.
    """
    spec = load_spec(model_config)
    model, _ = build(spec, None, pretrained=False)
    stored: dict[str, Any] = torch.load(weights, map_location="cpu", weights_only=True)
    tower = {k.removeprefix(_IMAGES): v for k, v in stored.items() if k.startswith(_IMAGES)}
    try:
        model.clip.visual.load_state_dict(tower)
    except RuntimeError as error:
        raise StaleInput(f"{weights.parent.name}/{weights.name}: not of {model_config}") from error
    model.eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(frames), _BATCH):
            pixels = [decode(read_frame(f), spec.contract) for f in frames[start : start + _BATCH]]
            batch = torch.from_numpy(np.stack(pixels))
            rows.append(
                model.encode_images(plain(batch, spec.contract, spec.contract.size)).numpy()
            )
    return np.concatenate(rows)
