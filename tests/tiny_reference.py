"""A reference for the tiny bundle: exams of red and pink frames, each exam of its own shade."""

import numpy as np
import numpy.typing as npt

from model_store.reference import Exams, Reference
from tests.tiny_bundle import PINK, RED, direction, past_cast

EXAMS = 60
THRESHOLD = 0.0


def tiny_reference(*, as_met: bool = True, exams: int = EXAMS, blind: bool = False) -> Reference:
    """Two axes, of eight frames an exam, a quarter of them red.

    Args:
        as_met: of the reference.
        exams: how many.
        blind: whether a blind tower looked at them.
    """
    rng = np.random.default_rng(0)
    axes = np.eye(4, dtype=np.float32)[1:3] * 20
    empty = Exams(np.zeros((0, 2, 2), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), int))
    slopes = np.zeros(2, np.float32)
    sums = Reference("polyp_detection", THRESHOLD, axes, slopes, empty, as_met, "")
    measured = []
    for _ in range(exams):
        red = int(rng.integers(1, 4))
        rows = np.concatenate([shades(RED, red, rng), shades(PINK, 8 - red, rng)])
        if blind:
            rows[:, :3] = rows[:, :3] @ past_cast()
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        measured.append(sums.measure(rows, margins(rows)))
    return Reference(
        "polyp_detection", THRESHOLD, axes, slopes, Exams.of(measured), as_met, "sha256:0"
    )


def margins(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Margins (n,) as the tiny bundle has them for polyp detection."""
    red, pink = (direction(colour) / np.linalg.norm(direction(colour)) for colour in (RED, PINK))
    return np.asarray(10.0 * (rows @ (red - pink)), np.float64)


def shades(
    colour: tuple[int, int, int], count: int, rng: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Unit embeddings (count, 4) of one exam's frames: near each other, around a colour."""
    exam = np.array(colour) + rng.normal(0, 8, 3)
    rows = np.stack([direction(tuple(exam + rng.normal(0, 2, 3))) for _ in range(count)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
