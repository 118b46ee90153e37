"""What DCT-scaled JPEG decoding changes in a bundle's answers, against full decoding.

    python -m training decode-change --bundle B --archive A --data D

The data's frames are small (384 px), so DCT scaling would not set in; they are enlarged to the
sizes that endoscopy software sends and stored as JPEG again, quality 90. No native frames of those
sizes are at hand: texture finer than the data's own is not tested.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.progress import track

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats
from model_store.images import decode
from model_store.scoring import cosines, margin
from training.items import Item
from training.metrics import auroc
from training.protocol import data_items

__all__ = ["SIZES", "decode_change"]

SIZES = ((1280, 1024), (1920, 1080))
LARGEST_LOSS, LARGEST_FLIPS = 0.002, 0.005
"""Design limits: AUROC lost, and share of decisions that change."""


def decode_change(bundle: Path, archive: Path, data: Path, part: str) -> dict[str, Any]:
    """Compare both ways of decoding on a part's whole frames (malignancy) and crops (polyps).

    Args:
        bundle: A packed bundle.
        archive: Gives the split of the source groups.
        data: Folder of real frames with an index.
        part: Part of the split.

    Returns:
        By size and task: items, AUROC of full and of scaled decoding, share of changed decisions
        at the balanced point, largest and mean change of the probability, within limits or not.
    """
    encoder = Encoder(Bundle.open(bundle))
    items = data_items(data, archive, part)
    chosen = {
        "polyp_detection": [i for i in items if i.kind == "crop" and i.polyp is not None],
        "malignancy": [i for i in items if i.kind == "frame" and i.neoplastic is not None],
    }
    return {
        f"{width}x{height} {task}": _compare(encoder, task, mine, (width, height))
        for width, height in SIZES
        for task, mine in chosen.items()
    }


def _compare(
    encoder: Encoder, task: str, items: Sequence[Item], size: tuple[int, int]
) -> dict[str, Any]:
    truth = [i.polyp if task == "polyp_detection" else i.neoplastic for i in items]
    y = np.array(truth, dtype=bool)
    full, scaled = _embeddings(encoder, items, size, task)
    p = [_probabilities(encoder, task, rows) for rows in (full, scaled)]
    point = encoder.bundle.calibrations[task].operating_point("balanced")
    flips = float(np.mean((p[0] >= point.frame_threshold) != (p[1] >= point.frame_threshold)))
    loss = auroc(y, p[0]) - auroc(y, p[1])
    return {
        "items": len(items),
        "auroc_full": auroc(y, p[0]),
        "auroc_scaled": auroc(y, p[1]),
        "flips": flips,
        "largest_change": float(np.abs(p[0] - p[1]).max()),
        "mean_change": float(np.abs(p[0] - p[1]).mean()),
        "within_limits": loss <= LARGEST_LOSS and flips <= LARGEST_FLIPS,
    }


def _embeddings(
    encoder: Encoder, items: Sequence[Item], size: tuple[int, int], task: str
) -> tuple[Floats, Floats]:
    contracts = [
        dataclasses.replace(encoder.bundle.manifest.input, jpeg=jpeg)
        for jpeg in ("full", "dct_scaled")
    ]
    found: tuple[list[Floats], list[Floats]] = ([], [])
    for item in track(items, description=f"{size[0]}x{size[1]} {task}"):
        # A square crop stays one: enlarged to the height of the frame.
        shape = (size[1], size[1]) if item.kind == "crop" else size
        with Image.open(item.path) as image:
            large = image.convert("RGB").resize(shape, Image.Resampling.BICUBIC)
        buffer = io.BytesIO()
        large.save(buffer, "JPEG", quality=90)
        pixels = np.stack([decode(buffer.getvalue(), contract) for contract in contracts])
        for rows, row in zip(found, encoder.encode_images(pixels), strict=True):
            rows.append(row)
    return np.stack(found[0]), np.stack(found[1])


def _probabilities(encoder: Encoder, task: str, rows: Floats) -> npt.NDArray[np.float64]:
    label_set = encoder.bundle.label_set(task)
    cosine = cosines(rows, encoder.class_embeddings(label_set))
    z = margin(cosine, label_set.positive_index or 0, encoder.bundle.manifest.logit_scale)
    return np.asarray(encoder.bundle.calibrations[task].frame.probability(z), np.float64)
