"""A bundle's towers as a torch module, for tools that expect ``open_clip``'s models.

    model, preprocess, tokenizer = load("model_store/bundles/endo-clip-lite0-0.5.0")
    rows = model.encode_text(tokenizer(["a polyp in the colon"]))

Numbers are those of ``model_store.handle``, which is numpy alone; here they are tensors. The graphs
are fixed: nothing can be trained through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from model_store.handle import Handle, Preprocess
from model_store.handle import load as load_numpy

__all__ = ["TorchHandle", "load"]


class TorchHandle(nn.Module):
    """The two towers of a bundle; ``logit_scale.exp()`` is the scale, as in open_clip."""

    def __init__(self, handle: Handle) -> None:
        super().__init__()
        self.handle = handle
        self.logit_scale = nn.Parameter(torch.tensor(handle.logit_scale), requires_grad=False)

    def encode_image(self, images: Tensor, normalize: bool = True) -> Tensor:
        """Pictures uint8 (n, size, size, 3), from the transform, to float32 (n, d) of length 1.

        Raises:
            EncodeFailed: The pictures are not what the transform gives.
        """
        rows = self.handle.encode_image(images.cpu().numpy(), normalize)
        return torch.from_numpy(rows).to(images.device)

    def encode_text(self, text: Tensor, normalize: bool = True) -> Tensor:
        """Ids int64 (m, t), from the tokenizer, to float32 (m, d) of length 1."""
        rows = self.handle.encode_text(text.cpu().numpy(), normalize)
        return torch.from_numpy(rows).to(text.device)

    def forward(
        self, image: Tensor | None = None, text: Tensor | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor]:
        """Both embeddings and the scale, as open_clip's models return them."""
        return (
            None if image is None else self.encode_image(image),
            None if text is None else self.encode_text(text),
            self.logit_scale.exp(),
        )


def load(
    path: Path | str, device: str | torch.device = "cpu"
) -> tuple[TorchHandle, Callable[[Image.Image], Tensor], Callable[[str | Sequence[str]], Tensor]]:
    """Open a bundle as (model, transform, tokenizer) of tensors.

    Args:
        path: The bundle's folder.
        device: Where tensors of the caller are; on ``cuda`` the image tower runs there as well
            where the runtime can, and on the CPU where it cannot.

    Raises:
        BundleError: The bundle cannot be opened.
    """
    cuda = torch.device(device).type == "cuda"
    options = {"provider": "CUDAExecutionProvider", "allow_fallback": True} if cuda else {}
    handle, preprocess, tokenizer = load_numpy(path, **options)
    model = TorchHandle(handle).to(device)
    return model, partial(_tensor, preprocess), lambda texts: torch.from_numpy(tokenizer(texts))


def _tensor(preprocess: Preprocess, image: Image.Image) -> Tensor:
    return torch.tensor(preprocess(image))
