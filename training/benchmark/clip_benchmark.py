"""A bundle inside LAION's ``clip_benchmark``, and its figures beside those of ``evaluate``.

    python -m training.benchmark.clip_benchmark eval --model_type endo_clip --model endo-clip \
        --pretrained model_store/bundles/endo-clip-lite0-0.5.0 --task zeroshot_classification \
        --dataset wds/polyp_detection --dataset_root DIR --custom_template_file DIR/prompts.json

is its own command line with one model type more; other models run on the same folder by the same
command. ``compare`` asks the same functions of it and adds the AUROC, which it does not report.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.encoder import Encoder
from model_store.scoring import cosines
from training.benchmark.handle import TorchHandle, load
from training.benchmark.webdataset import PROMPTS, read_webdataset
from training.evaluate import probabilities, truth
from training.items import embed
from training.metrics import auroc

__all__ = ["MODEL_TYPE", "compare", "register"]

MODEL_TYPE = "endo_clip"
_BATCH = 32


def register() -> None:
    """Make the model type known to ``clip_benchmark``, which has no other way to add one.

    Its release 1.6.2 takes ``float()`` of an array with one element, which numpy 2.4 refuses: its
    top-k accuracy is exchanged for one that does not.
    """
    from clip_benchmark import models
    from clip_benchmark.metrics import zeroshot_classification

    zeroshot_classification.accuracy = _accuracy
    models.TYPE2FUNC[MODEL_TYPE] = _load
    if MODEL_TYPE not in models.MODEL_TYPES:
        models.MODEL_TYPES.append(MODEL_TYPE)


def compare(bundle: Path, folder: Path) -> dict[str, Any]:
    """Measure a bundle on a WebDataset by ``clip_benchmark`` and as ``evaluate`` does.

    Args:
        bundle: The bundle's folder.
        folder: As ``write_webdataset`` made it.

    Returns:
        ``task``, ``items``, ``set_aside`` (by the quality gate, which no CLIP has: ``evaluate``
        counts them as 0.5), and by ``evaluate``, ``clip_benchmark`` (with the bundle's class
        embeddings, as its ``--load_clfs`` takes them) and ``clip_benchmark_prompts`` (with the
        prompts, through the text graph that ships: int8 where the class embeddings are fp32)
        ``accuracy``, ``mean_per_class_recall`` and ``auroc``.

    Raises:
        StaleInput: The folder was not made by ``write_webdataset``.
    """
    task, items = read_webdataset(folder)
    register()
    from clip_benchmark.datasets.builder import build_dataset
    from clip_benchmark.metrics import zeroshot_classification as zero_shot
    from clip_benchmark.models import load_clip

    model, transform, tokenizer = load_clip(MODEL_TYPE, "endo-clip", str(bundle), "", "cpu")
    with warnings.catch_warnings():
        # It leaves webdataset's order of shards at a default that webdataset warns of.
        warnings.filterwarnings("ignore", message=".*shardshuffle", category=UserWarning)
        dataset = build_dataset(
            f"wds/{task}",
            root=str(folder),
            transform=transform,
            task="zeroshot_classification",
            custom_template_file=str(folder / PROMPTS),
        )
    loader = torch.utils.data.DataLoader(dataset.batched(_BATCH), batch_size=None)
    own: Encoder = model.handle.encoder
    label_set = own.bundle.label_set(task)
    stored = own.class_embeddings(label_set)
    asked = zero_shot.zero_shot_classifier(
        model, tokenizer, dataset.classes, dataset.templates, "cpu", amp=False
    ).numpy()
    # One pass over the frames serves both classifiers.
    both = torch.from_numpy(np.concatenate([stored.T, asked], axis=1))
    logits, target = zero_shot.run_classification(model, both, loader, "cpu", amp=False)
    theirs = target.numpy() == 0
    found = embed(own, items)
    y, _ = truth(task, items)
    cosine = cosines(found.embeddings, stored)
    return {
        "task": task,
        "items": len(items),
        "set_aside": int((~found.scored).sum()),
        "evaluate": _figures(y, cosine, probabilities(own, task, found)),
        "clip_benchmark": _figures(theirs, *_scores(logits[:, :2])),
        "clip_benchmark_prompts": _figures(theirs, *_scores(logits[:, 2:])),
    }


def _scores(logits: torch.Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    classes = logits.numpy()
    return classes, classes[:, 0] - classes[:, 1]


def _figures(y: NDArray[np.bool_], classes: NDArray[Any], score: NDArray[Any]) -> dict[str, float]:
    """Figures of n items by the nearest of two classes (n, 2), the positive one first."""
    called = classes.argmax(axis=1) == 0
    return {
        "accuracy": float((called == y).mean()),
        "mean_per_class_recall": float((called[y].mean() + (~called[~y]).mean()) / 2),
        "auroc": auroc(y, score),
    }


def _accuracy(
    output: torch.Tensor, target: torch.Tensor, topk: Sequence[int] = (1,)
) -> list[float]:
    """Share of n items whose class is among the k largest of the outputs (n, c), for each k."""
    hits = output.topk(max(topk), dim=1).indices == target[:, None]
    return [float(hits[:, :k].any(dim=1).float().mean()) for k in topk]


def _load(
    pretrained: str, device: str | torch.device = "cpu", **_: str
) -> tuple[TorchHandle, Any, Any]:
    """What ``clip_benchmark`` calls; ``pretrained`` is the bundle's folder."""
    return load(pretrained, device)


if __name__ == "__main__":
    register()
    from clip_benchmark.cli import main

    sys.exit(main())
