"""Does smoothing over neighbouring frames help? An experiment on CVC sequences; nothing serves it.

A CVC sequence shows one polyp in every frame, so each frame gives two windows of one size
(``training.evidence.normals``): one with the polyp, one without. In the order of the frames they
make a track that should raise an alarm and one that should not. CVC's frames are stills taken out
of a video at unknown gaps and its polyp-free windows jump within the frame; both make neighbours
less alike than those of a video at 25 frames a second, so runs are short here and smoothing is
worth less. The clip among the sources kept for tests is a true order without a polyp, at one frame
a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.scoring import Decision
from training.evaluate import frame_margins
from training.evidence.decided import Scorer, apart
from training.evidence.normals import WATERMARK, normal_frames, window_pairs
from training.items import Embedded
from training.metrics import auroc_draws, interval

__all__ = ["FRAMES_PER_SECOND", "RUN_FRAMES", "SMOOTHINGS", "runs", "sequence_figures"]

Floats = npt.NDArray[np.float64]
SOURCE = "cvc"
FRAMES_PER_SECOND = 25
RUN_FRAMES = 13
"""Frames of half a second: what a viewer would notice as one alarm."""
POINTS = ("balanced", "sensitivity_first")


def trailing_mean(width: int) -> Callable[[Floats], Floats]:
    """Mean of a frame's margin and those of the frames before it, ``width`` in all."""

    def smooth(z: Floats) -> Floats:
        sums = np.concatenate([[0.0], np.cumsum(z)])
        end = np.arange(1, len(z) + 1)
        start = np.maximum(end - width, 0)
        return np.asarray((sums[end] - sums[start]) / (end - start))

    return smooth


def fading_mean(share: float) -> Callable[[Floats], Floats]:
    """Exponentially fading mean: ``share`` of the frame, the rest of what was before."""

    def smooth(z: Floats) -> Floats:
        out = z.copy()
        for i in range(1, len(z)):
            out[i] = share * z[i] + (1 - share) * out[i - 1]
        return out

    return smooth


SMOOTHINGS: Mapping[str, Callable[[Floats], Floats]] = {
    "none": lambda z: z,
    "mean of 3": trailing_mean(3),
    "mean of 5": trailing_mean(5),
    "mean of 13": trailing_mean(13),
    "fading, 0.5": fading_mean(0.5),
    "fading, 0.2": fading_mean(0.2),
}
"""Of margins, none of which looks ahead."""


def sequence_figures(
    scorer: Scorer, archive: Path, data: Path, parts: Sequence[str]
) -> dict[str, Any]:
    """Compare smoothings on the sequences of some parts and on the clip.

    Args:
        scorer: Of the bundle.
        archive: Gives the split.
        data: Folder of real frames with an index.
        parts: Whose sequences are used; one part holds two to four.

    Returns:
        By smoothing: AUROC of frames with and without the polyp, its lead over none, and by
        operating point ``alarms`` (of the tracks with the polyp), ``false_alarms`` and ``clip``,
        as ``runs`` gives them summed over tracks.
    """
    pairs = [
        item
        for part in parts
        for item in window_pairs(data, archive, part, scorer.work, 0.0, (SOURCE,))
    ]
    found = scorer(pairs)
    tracks = _tracks(scorer, found)
    frames = [i for i in normal_frames(data, archive, scorer.work) if i.source == WATERMARK[0]]
    clip = scorer(sorted(frames, key=lambda item: item.path.stem))
    clip_z = frame_margins(scorer.encoder, "polyp_detection", clip.where(clip.scored))
    figures: dict[str, Any] = {
        "parts": list(parts),
        "sequences": len({group for group, _ in tracks}),
        "frames": len(pairs) // 2,
        "clip_frames": len(clip_z),
        "smoothings": {},
    }
    plain: Floats | None = None
    for name, smooth in SMOOTHINGS.items():
        smoothed = {key: smooth(z) for key, z in tracks.items()}
        y = np.concatenate([np.full(len(z), polyp) for (_, polyp), z in smoothed.items()])
        groups = [group for (group, _), z in smoothed.items() for _ in z]
        score = np.concatenate(list(smoothed.values()))
        draws = auroc_draws(y, score, groups)
        plain = draws if plain is None else plain
        low, high = interval(draws - plain)
        figures["smoothings"][name] = {
            "apart": apart(y, score, groups),
            "lead_low": low,
            "lead_high": high,
        } | {
            point: {
                "alarms": _summed(scorer, point, [z for (_, p), z in smoothed.items() if p]),
                "false_alarms": _summed(
                    scorer, point, [z for (_, p), z in smoothed.items() if not p]
                ),
                "clip": _summed(scorer, point, [smooth(clip_z)] if len(clip_z) else []),
            }
            for point in POINTS
        }
    return figures


def runs(alarm: npt.NDArray[np.bool_]) -> list[int]:
    """Lengths of the runs of True, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], alarm.astype(np.int8), [0]])))
    return [int(n) for n in edges[1::2] - edges[::2]]


def _tracks(scorer: Scorer, found: Embedded) -> dict[tuple[str, bool], Floats]:
    """Margins by sequence and whether the polyp is shown, in the order of the frames."""
    usable = found.where(found.scored)
    z = frame_margins(scorer.encoder, "polyp_detection", usable)
    rows: dict[tuple[str, bool], list[tuple[int, float]]] = {}
    for item, value in zip(usable.items, z, strict=True):
        number = int(re.findall(r"\d+", item.image)[-1])
        rows.setdefault((item.group, bool(item.polyp)), []).append((number, float(value)))
    return {key: np.array([v for _, v in sorted(told)]) for key, told in sorted(rows.items())}


def _summed(scorer: Scorer, name: str, tracks: Sequence[Floats]) -> dict[str, Any]:
    """Frames and runs of alarms over some tracks."""
    calibration = scorer.encoder.bundle.calibrations["polyp_detection"]
    point = calibration.operating_point(name)
    found: list[int] = []
    for z in tracks:
        p = calibration.frame.probability(z)
        found += runs(np.array([point.decide_frame(float(v)) is Decision.POSITIVE for v in p]))
    frames = sum(len(z) for z in tracks)
    return {
        "frames": frames,
        "share": sum(found) / frames if frames else None,
        "runs": len(found),
        "long_runs": sum(n >= RUN_FRAMES for n in found),
        "longest": max(found, default=0),
    }
