"""The small labelled sample that prevalence is estimated from.

On a hospital's archive somebody looks at about 300 frames; on a composed one the labels are drawn
from the truth, which no stage reads. Either way the archive then holds ``labelled_sample.jsonl``.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from training.attributes import polyp_mentioned, strip_pathology
from training.records import read, read_truth, write_jsonl

__all__ = ["write_labelled_sample"]


def write_labelled_sample(archive: Path, count: int = 300, seed: int = 0) -> int:
    """Draw frames of the train part's positive exams and write their labels.

    Args:
        archive: With ``truth.jsonl``.
        count: Frames drawn at most.
        seed: Of the draw.

    Returns:
        Frames written.
    """
    truth = read_truth(archive)
    frames = [
        frame
        for record in read(archive).part("train")
        if polyp_mentioned(strip_pathology(record.report))
        for frame in truth[record.record_id]["frames"]
    ]
    order = np.random.default_rng([seed, 300]).permutation(len(frames))[:count]
    rows = [
        {"frame": frames[i]["file"], "lesion": frames[i]["kind"] == "lesion"} for i in sorted(order)
    ]
    write_jsonl(archive / "labelled_sample.jsonl", rows)
    return len(rows)
