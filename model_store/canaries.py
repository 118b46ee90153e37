"""Canaries: drawn frames and a sentence, in the bundle with what they gave when it was packed."""

from dataclasses import dataclass
from math import isfinite

from model_store.errors import BundleCorrupt
from model_store.schema import parse_json, read_as, write_json

__all__ = [
    "HEAD_LENGTH",
    "Canaries",
    "CanaryFrame",
    "CanaryText",
    "read_canaries",
    "write_canaries",
]

HEAD_LENGTH = 8


@dataclass(frozen=True, slots=True)
class CanaryFrame:
    """One frame and its recorded numbers.

    Attributes:
        file: `canaries/<name>.png` in the bundle.
        probability: of the positive label, 0-1, by calibrated label set.
        embedding_head: first `HEAD_LENGTH` numbers of the unit embedding (all, where it has fewer).
    """

    file: str
    probability: dict[str, float]
    embedding_head: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class CanaryText:
    """One sentence and the first numbers of its unit embedding, as many as of a frame's."""

    sentence: str
    embedding_head: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Canaries:
    """All canaries of a bundle.

    Attributes:
        tolerance: largest difference that still counts as equal, of any probability or number.
        frames: in order.
        patient: probability of the positive label of one patient made of all frames, by set.
        text: the sentence; None in bundles that were packed before there was one.
    """

    tolerance: float
    frames: tuple[CanaryFrame, ...]
    patient: dict[str, float]
    text: CanaryText | None = None


def read_canaries(data: bytes, where: str = "canaries.json") -> Canaries:
    """Read canaries.json.

    Raises:
        BundleCorrupt: not the expected JSON, a frame twice, or a tolerance that would let anything
            through.
    """
    value = parse_json(data, where)
    if isinstance(value, dict):
        value.setdefault("text", None)
    canaries = read_as(Canaries, value, where)
    if not (isfinite(canaries.tolerance) and 0 < canaries.tolerance < 0.1):
        raise BundleCorrupt(f"{where}: /tolerance", "above 0, below 0.1", str(canaries.tolerance))
    files = [frame.file for frame in canaries.frames]
    if len(set(files)) != len(files):
        raise BundleCorrupt(f"{where}: /frames", "each file once", ", ".join(files))
    return canaries


def write_canaries(canaries: Canaries) -> bytes:
    """Write canaries.json."""
    return write_json(canaries)
