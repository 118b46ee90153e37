"""Canaries: drawn frames that ride in the bundle with the scores they had when it was packed."""

from dataclasses import dataclass
from math import isfinite

from model_store.errors import BundleCorrupt
from model_store.schema import parse_json, read_as, write_json

__all__ = ["Canaries", "CanaryFrame", "read_canaries", "write_canaries"]


@dataclass(frozen=True, slots=True)
class CanaryFrame:
    """One frame and its recorded numbers.

    Attributes:
        file: `canaries/<name>.png` in the bundle.
        probability: of the positive label, 0-1, by calibrated label set.
        embedding_head: first numbers of the unit embedding.
    """

    file: str
    probability: dict[str, float]
    embedding_head: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Canaries:
    """All canary frames of a bundle.

    Attributes:
        tolerance: largest difference that still counts as equal, of any probability or number.
        frames: in order.
        patient: probability of the positive label of one patient made of all frames, by set.
    """

    tolerance: float
    frames: tuple[CanaryFrame, ...]
    patient: dict[str, float]


def read_canaries(data: bytes, where: str = "canaries.json") -> Canaries:
    """Read canaries.json.

    Raises:
        BundleCorrupt: not the expected JSON, or a tolerance that would let anything through.
    """
    canaries = read_as(Canaries, parse_json(data, where), where)
    if not (isfinite(canaries.tolerance) and 0 < canaries.tolerance < 0.1):
        raise BundleCorrupt(f"{where}: /tolerance", "above 0, below 0.1", str(canaries.tolerance))
    return canaries


def write_canaries(canaries: Canaries) -> bytes:
    """Write canaries.json."""
    return write_json(canaries)
