"""torch to ONNX, with proof: beyond tolerance nothing is written.

Every dynamic axis is traced with at least 2 (an axis of 1 gets baked in), and parity is measured
on axes that were never traced: n of 1, 2, 3, 64, 300, 1000 frames, k of 1, 2, 32 queries, padded
and unpadded, text of 3 to context_length tokens.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import torch
from torch import Tensor, nn

from training.errors import ParityError
from training.model import EndoClip, ImageTower, ModelSpec, TextTower, Unify

__all__ = [
    "PROBABILITY_TOLERANCE",
    "TOLERANCE",
    "check_parity",
    "export_graphs",
    "session",
    "unify_difference",
]

TOLERANCE = 1e-5
PROBABILITY_TOLERANCE = 1e-4
OPSET = 18
N_FRAMES = (1, 2, 3, 64, 300, 1000)
N_QUERIES = (1, 2, 32)

Pixels = npt.NDArray[np.uint8]


def export_graphs(model: EndoClip, spec: ModelSpec, folder: Path) -> None:
    """Write ``image_tower.onnx``, ``text_tower.onnx`` and ``unify.onnx`` into a folder."""
    model.eval()
    side = spec.contract.size
    pixels = torch.randint(0, 255, (2, side, side, 3), dtype=torch.uint8)
    rows = torch.export.Dim("n", min=1, max=4096)
    _export(
        ImageTower(model, spec.contract.mean, spec.contract.std),
        (pixels,),
        ["pixels"],
        ["embedding", "grid"],
        {"pixels": {0: rows}},
        folder / "image_tower.onnx",
    )
    ids = torch.randint(5, 100, (2, 7))
    ids[:, -1] = 1
    m, t = (
        torch.export.Dim("m", min=1, max=4096),
        torch.export.Dim("t", min=2, max=spec.context_length),
    )
    axes = {0: m, 1: t}
    _export(
        TextTower(model),
        (ids, torch.ones_like(ids)),
        ["ids", "mask"],
        ["embedding"],
        {"ids": axes, "mask": axes},
        folder / "text_tower.onnx",
    )
    frames = torch.nn.functional.normalize(torch.randn(3, model.dim), dim=-1)
    queries = torch.nn.functional.normalize(torch.randn(2, model.dim), dim=-1)
    n, k = torch.export.Dim("n", min=1, max=65536), torch.export.Dim("k", min=1, max=4096)
    _export(
        model.unify,
        (frames, torch.tensor([True, True, False]), queries),
        ["frames", "mask", "queries"],
        ["pooled", "attention"],
        {"frames": {0: n}, "mask": {0: n}, "queries": {0: k}},
        folder / "unify.onnx",
    )


def _export(
    module: nn.Module,
    args: tuple[Tensor, ...],
    inputs: list[str],
    outputs: list[str],
    dynamic: dict[str, dict[int, object]],
    path: Path,
) -> None:
    module.eval()
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter warns about its own internals; parity below is what decides.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module,
            args,
            input_names=inputs,
            opset_version=OPSET,
            dynamic_shapes=tuple(dynamic.values()),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError(f"the exporter returned nothing for {path.name}")
    graph = program.model.graph
    for node in graph:
        for value in node.outputs:
            if value.name in outputs:  # the token lookup of BERT is called "embedding", too
                value.name = f"inner.{value.name}"
    for value, name in zip(graph.outputs, outputs, strict=True):
        value.name = name
    program.save(str(path), external_data=False)


def check_parity(
    model: EndoClip,
    spec: ModelSpec,
    folder: Path,
    tokenize: Callable[[list[str]], Tensor],
    frames: Pixels,
    texts: Sequence[str],
    image_mean: tuple[float, float, float] | None = None,
) -> dict[str, float]:
    """Compare the exported graphs with torch.

    Args:
        model: What was exported.
        spec: Its contract; mean and std are applied here independently of the graph.
        folder: Holds the three graphs.
        tokenize: texts -> ids.
        frames: (n, s, s, 3) uint8 golden and real frames.
        texts: Sentences of several lengths.
        image_mean: Another mean, to prove that a wrong one is found (tests).

    Returns:
        Largest absolute difference by name: image, text, unify_pooled, unify_attention,
        probability.

    Raises:
        ParityError: One of them is beyond its tolerance.
    """
    model.eval()
    with torch.inference_mode():
        found = {
            "image": _image_difference(model, spec, folder, frames, image_mean),
            "text": _text_difference(model, folder, tokenize, texts),
        }
        found |= unify_difference(
            model.unify, folder / "unify.onnx", model.dim, float(model.logit_scale)
        )
    for name, difference in found.items():
        allowed = PROBABILITY_TOLERANCE if name == "probability" else TOLERANCE
        if not difference <= allowed:
            raise ParityError(difference, allowed, name)
    return found


def session(path: Path) -> ort.InferenceSession:
    """Open a graph on the CPU provider with few threads."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _image_difference(
    model: EndoClip, spec: ModelSpec, folder: Path, frames: Pixels, mean: tuple[float, ...] | None
) -> float:
    graph = session(folder / "image_tower.onnx")
    shift = torch.tensor(mean or spec.contract.mean).reshape(1, 3, 1, 1)
    spread = torch.tensor(spec.contract.std).reshape(1, 3, 1, 1)
    worst, start = 0.0, 0
    for size in (1, 2, 3, 7, 32):
        part = frames[start % len(frames) :][:size]
        start += size
        x = torch.from_numpy(part).permute(0, 3, 1, 2).float() / 255.0
        expected = model.encode_images((x - shift) / spread).numpy()
        actual = graph.run(["embedding"], {"pixels": part})[0]
        worst = max(worst, float(np.abs(actual - expected).max()))
    return worst


def _text_difference(
    model: EndoClip, folder: Path, tokenize: Callable[[list[str]], Tensor], texts: Sequence[str]
) -> float:
    graph = session(folder / "text_tower.onnx")
    worst = 0.0
    for text in texts:
        ids = tokenize([text, texts[0]])
        length = int((ids != 0).sum(1).max())
        expected = model.encode_ids(ids).numpy()
        for width in sorted({length, min(length + 5, ids.shape[1]), ids.shape[1]}):
            cut = ids[:, :width].numpy()
            mask = (cut != 0).astype(np.int64)
            actual = graph.run(["embedding"], {"ids": cut, "mask": mask})[0]
            worst = max(worst, float(np.abs(actual - expected).max()))
    return worst


def unify_difference(module: Unify, path: Path, dim: int, logit_scale: float) -> dict[str, float]:
    """Largest differences of pooled vectors, attention and probabilities, over n, k, masks."""
    graph = session(path)
    generator = torch.Generator().manual_seed(0)
    worst = {"unify_pooled": 0.0, "unify_attention": 0.0, "probability": 0.0}

    def unit(rows: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(rows, dim, generator=generator), dim=-1)

    for n in N_FRAMES:
        for k in N_QUERIES:
            frames, queries = unit(n), unit(k)
            for hidden in {0, n // 3, n - 1, n}:
                mask = torch.arange(n) >= hidden
                pooled, attention = module(frames, mask, queries)
                feed = {"frames": frames.numpy(), "mask": mask.numpy(), "queries": queries.numpy()}
                actual = graph.run(["pooled", "attention"], feed)
                scores = [
                    torch.softmax(logit_scale * torch.as_tensor(p) @ queries.T, -1)
                    for p in (pooled, actual[0])
                ]
                for name, difference in (
                    ("unify_pooled", pooled - torch.as_tensor(actual[0])),
                    ("unify_attention", attention - torch.as_tensor(actual[1])),
                    ("probability", scores[0] - scores[1]),
                ):
                    worst[name] = max(worst[name], float(difference.abs().max()))
    return worst
