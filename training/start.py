"""Start from a packed bundle: a site's training goes on from what is served, not from ImageNet.

A bundle holds graphs, no torch weights, and its image graph has batch-norm folded into the
convolutions. What is put back together computes the same to rounding, which is checked on pixels
and sentences before anything is trained, but is not the very parameters that were exported: of a
channel only the product of its weights and its batch-norm factor is known. We choose the factor
that gives the channel the norm of its initial weights, so that a learning rate means what it means
for a run from those.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleError
from training.config import ModelConfig
from training.errors import ConfigError, ParityError
from training.export import TOLERANCE
from training.model import EndoClip, ModelSpec

__all__ = ["MOST_TEXT_DISTANCE", "mean_with", "open_start", "start_from"]

MOST_TEXT_DISTANCE = 1e-3
"""Of a sentence's embedding by the bundle from that by the package's transformer, as 1 - cosine:
what int8 weights may cost (`training.precision`). Beyond it the transformer was trained."""
_PROBES = 8
_TEXTS = (
    "a colonoscopy frame with a polyp",
    "normal colonic mucosa",
    "a large pedunculated polyp with an ulcerated surface in the sigmoid",
)

Arrays = Mapping[str, "np.ndarray[Any, Any]"]


def open_start(config: ModelConfig, spec: ModelSpec) -> Bundle | None:
    """Open the bundle that a recipe starts from, if it names one.

    Args:
        config: Its ``weights`` are the bundle's folder where ``spec`` has a text transformer from a
            package; elsewhere they are CLIP's, and nothing is opened.
        spec: The recipe's towers.

    Raises:
        ConfigError: There is no sound bundle, or it has other towers or another pixel contract.
    """
    if not (config.pretrained and config.weights and spec.text_source):
        return None
    try:
        bundle = Bundle.open(Path(config.weights))
    except BundleError as error:
        raise ConfigError(f"model.weights: {error}") from error
    dim = spec.open_clip["embed_dim"]
    if bundle.manifest.input != spec.contract or bundle.manifest.embedding_dim != dim:
        raise ConfigError(
            f"model.weights = {bundle.path.name}: expected a bundle of the towers {spec.name}, "
            f"with their pixel contract and {dim} dimensions"
        )
    return bundle


def start_from(
    model: EndoClip, spec: ModelSpec, tokenize: Callable[[list[str]], Tensor], bundle: Bundle
) -> None:
    """Set towers, scales and unify to a bundle's.

    Args:
        model: From ``training.model.build`` with its package weights; changed in place.
        spec: Its towers. Their text transformer is the package's own: the bundle must have been
            trained with it frozen, as the default recipe does.
        tokenize: texts -> ids.
        bundle: From ``open_start``.

    Raises:
        ConfigError: The bundle's graphs are of other towers, or its text transformer was trained.
        ParityError: The towers do not give what the bundle gives.
    """
    folder, manifest = bundle.path, bundle.manifest
    told = f"model.weights = {folder.name}"
    try:
        _set_image(model.clip.visual, _constants(folder / "image_tower.onnx"))
        _set(model.clip.text.proj, _constants(folder / "text_tower.onnx"), "text.proj.")
        unify = _constants(folder / "unify.onnx")
        for name in ("query", "key"):
            _copy(getattr(model.unify, name).weight, unify, f"{name}.weight")
    except KeyError as error:
        raise ConfigError(
            f"{told}: expected a bundle of the towers {spec.name}; {error.args[0]}"
        ) from error
    with torch.no_grad():
        model.unify.log_scale.fill_(math.log(manifest.attention_scale))
        model.clip.logit_scale.fill_(math.log(manifest.logit_scale))
    _compare(model, spec, tokenize, bundle, told)


def mean_with(model: EndoClip, start: EndoClip, share: float) -> None:
    """Average the towers with what they started from, weight by weight, and keep its ``unify``.

    Robust fine-tuning (Wortsman et al., CVPR 2022): between the two the loss has no barrier, and
    what a short training forgot comes back. The paper does not do this; we may, because one more
    round gains on single frames and, its attention's scale having fallen again, loses one lesion
    among two hundred frames (training/LOG.md).

    Args:
        model: Of the last stage; changed in place.
        start: As the stages began.
        share: Of the start's towers, above 0 and up to 1.
    """
    before = start.state_dict()
    mean = {
        name: torch.lerp(value, before[name], share) if value.is_floating_point() else value
        for name, value in model.state_dict().items()
    }
    model.load_state_dict(mean)
    model.unify.load_state_dict(start.unify.state_dict())


def _constants(path: Path) -> Arrays:
    """The constants of a graph by name."""
    graph = onnx.load(path).graph
    return {one.name: numpy_helper.to_array(one) for one in graph.initializer}


def _copy(parameter: Tensor, found: Arrays, name: str) -> None:
    if name not in found:
        raise KeyError(f"found no {name}")
    value = torch.from_numpy(np.array(found[name], np.float32))
    if value.shape != parameter.shape:
        raise KeyError(f"{name} has the shape {tuple(value.shape)}")
    with torch.no_grad():
        parameter.copy_(value)


def _set(module: nn.Module, found: Arrays, prefix: str) -> None:
    for name, parameter in module.named_parameters():
        _copy(parameter, found, prefix + name)


def _set_image(visual: nn.Module, found: Arrays) -> None:
    _set(visual.head, found, "visual.head.")
    for name, convolution, norm in _pairs(visual.trunk):
        start = convolution.weight.detach().clone()
        _copy(convolution.weight, found, f"visual.trunk.{name}.weight")
        folded = torch.empty_like(norm.bias)
        _copy(folded, found, f"visual.trunk.{name}.weight_bias")
        with torch.no_grad():
            _unfold(convolution, norm, start, folded)


def _pairs(trunk: nn.Module) -> Iterator[tuple[str, nn.Conv2d, nn.BatchNorm2d]]:
    """Every convolution of a timm trunk, its name, and the batch-norm behind it."""
    last: tuple[str, nn.Conv2d] | None = None
    for name, module in trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            last = (name, module)
        elif isinstance(module, nn.BatchNorm2d) and last is not None:
            yield (*last, module)
            last = None


def _unfold(convolution: nn.Conv2d, norm: nn.BatchNorm2d, start: Tensor, folded: Tensor) -> None:
    """Divide folded weights into a convolution's and its batch-norm's, statistics as they are.

    Args:
        convolution: Holds the folded weights (o, i, h, w).
        norm: Its batch-norm; running mean m and deviation s of the package.
        start: Initial weights, whose norms by output channel the convolution gets.
        folded: Bias (o,) behind both.
    """
    assert norm.running_mean is not None  # for the type checker
    assert norm.running_var is not None
    deviation = (norm.running_var + norm.eps).sqrt()
    wanted, found = start.flatten(1).norm(dim=1), convolution.weight.flatten(1).norm(dim=1)
    # A channel that is switched off stays so: initial weights behind a factor of 0.
    ratio = torch.where(found > 0, wanted / found.clamp(min=1e-30), torch.ones_like(found))
    weights = convolution.weight * ratio[:, None, None, None]
    convolution.weight.copy_(torch.where((found > 0)[:, None, None, None], weights, start))
    norm.weight.copy_(torch.where(found > 0, deviation / ratio, torch.zeros_like(ratio)))
    norm.bias.copy_(folded + norm.running_mean * norm.weight / deviation)


def _compare(
    model: EndoClip,
    spec: ModelSpec,
    tokenize: Callable[[list[str]], Tensor],
    bundle: Bundle,
    told: str,
) -> None:
    """See that the towers give what the bundle gives, on pixels and on sentences."""
    encoder = Encoder(bundle)
    side = spec.contract.size
    pixels = np.random.default_rng(0).integers(0, 256, (_PROBES, side, side, 3), np.uint8)
    mean, std = (
        torch.tensor(values).reshape(1, 3, 1, 1)
        for values in (spec.contract.mean, spec.contract.std)
    )
    x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255.0 - mean) / std
    training = model.training
    model.eval()
    with torch.inference_mode():
        images = model.encode_images(x).numpy()
        texts = model.encode_ids(tokenize(list(_TEXTS))).numpy()
    model.train(training)
    difference = float(np.abs(images - encoder.encode_images(pixels)).max())
    if not difference <= TOLERANCE:
        raise ParityError(difference, TOLERANCE, f"{told}: image")
    cosine = float((texts * encoder.encode_texts(list(_TEXTS))).sum(axis=1).min())
    encoder.close()
    if not 1 - cosine <= MOST_TEXT_DISTANCE:
        raise ConfigError(
            f"{told}: its text transformer was trained (cosine {cosine:.4f} with the package's); "
            "training can only go on from a bundle in which it was frozen"
        )
