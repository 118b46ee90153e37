"""What a site's labelled frames add to a bundle's margins: a linear probe, or a cache of frames.

Both work on the bundle's embeddings and change neither towers nor prompts. They are fitted in
training and stored in a site profile; here they are a few lines of numpy.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

__all__ = ["Adapter", "CacheAdapter", "LinearAdapter", "affinity"]

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True)
class LinearAdapter:
    """A linear probe, told as its difference from the zero-shot margin, which is linear as well.

    Attributes:
        weights: d numbers.
        bias: added to every margin.
    """

    weights: tuple[float, ...]
    bias: float

    @property
    def dimension(self) -> int:
        """Width d of the embeddings it fits."""
        return len(self.weights)

    def correction(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """Give what is added to the margins of unit embeddings (n, d): float64 (n,)."""
        return np.asarray(np.asarray(embeddings, np.float64) @ self._weights + self.bias)

    @cached_property
    def _weights(self) -> npt.NDArray[np.float64]:
        return np.array(self.weights)


@dataclass(frozen=True)
class CacheAdapter:
    """Labelled frames that are looked up by similarity, after Tip-Adapter.

    Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV
    2022: logits = alpha * exp(-beta * (1 - f F^T)) L + f W^T, with keys F and one-hot
    labels L. Here the logit of two classes is one margin, and the affinities of a class are
    averaged, not summed, so that alpha means the same for any number of keys.

    Attributes:
        keys: m unit embeddings of d numbers, both classes among them.
        positive: m flags, True where a key is of the positive label.
        alpha: weight of the cache, at least 0.
        beta: sharpness, above 0.
    """

    keys: tuple[tuple[float, ...], ...]
    positive: tuple[bool, ...]
    alpha: float
    beta: float

    @property
    def dimension(self) -> int:
        """Width d of the embeddings it fits."""
        return len(self.keys[0])

    def correction(self, embeddings: Floats) -> npt.NDArray[np.float64]:
        """Give what is added to the margins of unit embeddings (n, d): float64 (n,)."""
        near, far = (affinity(embeddings, keys, self.beta).mean(axis=1) for keys in self._sides)
        return np.asarray(self.alpha * (near - far))

    # Made once: out of tuples it takes as long as a frame's way through a small tower.
    @cached_property
    def _sides(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        keys, positive = np.array(self.keys), np.array(self.positive)
        return keys[positive], keys[~positive]


def affinity(embeddings: Floats, keys: Floats, beta: float) -> npt.NDArray[np.float64]:
    """Give exp(-beta * (1 - cosine)) of unit embeddings (n, d) to unit keys (m, d): (n, m)."""
    cosine = np.asarray(embeddings, np.float64) @ np.asarray(keys, np.float64).T
    return np.asarray(np.exp(-beta * (1.0 - cosine)))


Adapter = LinearAdapter | CacheAdapter
