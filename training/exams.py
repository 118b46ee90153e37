"""What composed and drawn exams share: the plan of an exam and the folder it is written to."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ArchiveRefused
from training.records import FORMAT, write_jsonl, write_split

__all__ = ["ExamPlan", "plan_exam", "start_archive", "write_archive"]

LESION_SHARE = (0.02, 0.70)
"""Range of the hidden share of lesion frames in exams with lesions; drawn log-uniformly."""


@dataclass(frozen=True)
class ExamPlan:
    """How many frames of which kind an exam gets.

    Attributes:
        views: views per lesion, each 1-3; empty for an exam without lesions.
        background: number of background frames.
        spoiled_lesion: non-informative frames made from lesion views.
        spoiled_background: non-informative frames made from background views.
    """

    views: tuple[int, ...]
    background: int
    spoiled_lesion: int
    spoiled_background: int


def plan_exam(rng: np.random.Generator, lesions: int, longest: int = 20) -> ExamPlan:
    """Draw the plan of one exam.

    Args:
        rng: source of the draw.
        lesions: number of lesions, 0 for none.
        longest: most frames of an ordinary exam; one exam in twelve may have 2.5 times as many,
            because a lesion share near 2 % needs some fifty frames.
    """
    views = tuple(int(v) for v in rng.integers(1, 4, lesions))
    shown = sum(views)
    limit = round(2.5 * longest) if rng.random() < 1 / 12 else longest
    if shown:
        share = float(np.exp(rng.uniform(*np.log(LESION_SHARE))))
        total = int(np.clip(round(shown / share), max(6, round(shown / LESION_SHARE[1])), limit))
        total = max(total, shown + 2)
    else:
        total = int(rng.integers(8, limit + 1))
    spoiled = int(np.clip(round(rng.uniform(0.05, 0.3) * total), 0, total - shown - 1))
    from_lesions = int(rng.binomial(spoiled, 0.65)) if shown else 0
    return ExamPlan(views, total - shown - spoiled, from_lesions, spoiled - from_lesions)


def start_archive(out: Path) -> Path:
    """Make the folder of a new archive.

    Raises:
        ArchiveRefused: it exists and holds something.
    """
    if out.exists() and any(out.iterdir()):
        raise ArchiveRefused(f"{out.name}: expected a new or empty folder, found files in it")
    out.mkdir(parents=True, exist_ok=True)
    return out


def write_archive(
    out: Path,
    kind: str,
    rows: Iterable[Mapping[str, Any]],
    parts: Mapping[str, str],
    truth: Iterable[Mapping[str, Any]],
    views: Iterable[Mapping[str, Any]],
) -> str:
    """Write the lists of an archive whose frames are in place; the header comes last.

    Returns:
        Digest of the split.
    """
    write_jsonl(out / "records.jsonl", rows)
    write_jsonl(out / "truth.jsonl", truth)
    (out / "views").mkdir(exist_ok=True)
    write_jsonl(out / "views" / "views.jsonl", views)
    digest = write_split(out / "split.json", parts)
    header = json.dumps({"format": FORMAT, "kind": kind}) + "\n"
    (out / "archive.json").write_text(header, encoding="utf-8")
    return digest
