"""A bundle as other CLIP models are handed over: model, preprocess, tokenizer, as `open_clip` does.

    model, preprocess, tokenizer = load("model_store/bundles/endo-clip-lite0-0.5.0")
    image = model.encode_image(np.stack([preprocess(Image.open(name)) for name in names]))
    text = model.encode_text(tokenizer(["a polyp in the colon", "normal colonic mucosa"]))
    scores = softmax(np.exp(model.logit_scale) * image @ text.T)

Arrays are numpy's; `training.benchmark.handle` gives the same in torch tensors. What the service
does around the towers is not part of it: no quality gate, no cross-attention, no calibration.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats
from model_store.errors import EncodeFailed
from model_store.images import InputContract, Pixels, preprocess, upright_rgb
from model_store.tokenizer import Ids

__all__ = ["Handle", "Preprocess", "TextTokenizer", "load"]

Preprocess = Callable[[Image.Image], Pixels]
TextTokenizer = Callable[[str | Sequence[str]], Ids]


class Handle:
    """The two towers of a bundle under open_clip's names.

    Attributes:
        encoder: what runs them; its `bundle` holds the label sets and their prompts.
        logit_scale: natural logarithm of the scale of cosines, as open_clip keeps it.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.logit_scale = log(encoder.bundle.manifest.logit_scale)

    def encode_image(
        self,
        pixels: npt.NDArray[Any],
        normalize: bool = True,  # noqa: ARG002 - open_clip's signature
    ) -> Floats:
        """Encode pictures.

        Args:
            pixels: uint8 (n, size, size, 3), rows from `preprocess`; mean and deviation are inside
                the graph.
            normalize: there for open_clip's sake; rows have length 1 either way.

        Returns:
            float32 (n, d).

        Raises:
            EncodeFailed: the pixels are not uint8, or the graph did not run.
        """
        if pixels.dtype != np.uint8:
            raise EncodeFailed(
                f"expected uint8 pixels as `preprocess` gives them; found {pixels.dtype}"
            )
        return self.encoder.encode_images(pixels)

    def encode_text(self, ids: Ids, normalize: bool = True) -> Floats:  # noqa: ARG002
        """Encode sentences.

        Args:
            ids: int64 (m, t) from the tokenizer.
            normalize: as for `encode_image`.

        Returns:
            float32 (m, d).

        Raises:
            EncodeFailed: the graph did not run.
        """
        return self.encoder.encode_tokens(ids)


def load(path: Path | str, **options: Any) -> tuple[Handle, Preprocess, TextTokenizer]:
    """Open a bundle as (model, preprocess, tokenizer).

    Args:
        path: the bundle's folder.
        options: of `Encoder`: `provider`, `allow_fallback`, `threads`.

    Returns:
        The model; a function picture → uint8 (size, size, 3), which may be sent to worker
        processes; a function sentence or sentences → int64 (m, context length).

    Raises:
        BundleError: the bundle cannot be opened, or the provider cannot be had.
    """
    encoder = Encoder(Bundle.open(Path(path)), **options)
    return (
        Handle(encoder),
        partial(_pixels, contract=encoder.bundle.manifest.input),
        lambda texts: encoder.tokenize([texts] if isinstance(texts, str) else list(texts)),
    )


def _pixels(image: Image.Image, *, contract: InputContract) -> Pixels:
    return preprocess(upright_rgb(image), contract)
