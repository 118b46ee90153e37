"""The small labelled sample that prevalence and thresholds are estimated from.

On a hospital's archive somebody looks at about 300 frames of positive exams in each part; on a
composed one the labels are drawn from the truth, which no stage reads. Either way the archive then
holds ``labelled_sample.jsonl``: ``{"frame": "frames/…", "lesion": true|false}`` a line, and
optionally ``"neoplastic": true|false|null``.
"""

from __future__ import annotations

import json
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.attributes import polyp_mentioned, strip_pathology
from training.errors import ConfigError, RecordError
from training.metrics import wilson
from training.records import read, read_truth, write_jsonl

__all__ = ["SAMPLE", "Label", "Share", "read_labels", "read_share", "write_labelled_sample"]

SAMPLE = "labelled_sample.jsonl"


@dataclass(frozen=True)
class Label:
    """What somebody saw on one frame.

    Attributes:
        frame: Path within the archive.
        lesion: A lesion is visible.
        neoplastic: Judgement of that lesion; None = not given.
    """

    frame: str
    lesion: bool
    neoplastic: bool | None = None


@dataclass(frozen=True)
class Share:
    """Lesion share among the positive exams' frames.

    Attributes:
        value: Point estimate, 0-1.
        low: Lower end of the 95 % Wilson interval.
        high: Upper end.
        sample: Labelled frames it rests on; 0 = given by the recipe.
    """

    value: float
    low: float
    high: float
    sample: int


def read_share(archive: Path, given: float, frames: Container[str] | None = None) -> Share:
    """The share to keep: the recipe's, or estimated from the labelled sample.

    Args:
        archive: The archive's folder.
        given: ``cleansing.share`` of the recipe; 0 = from the sample.
        frames: Frames the share is of, as paths within the archive; labels of others are left
            out. None takes every label.

    Raises:
        ConfigError: Neither is there.
        RecordError: A line of the sample is not as expected, or no label is of those frames.
    """
    if given > 0:
        return Share(given, given, given, 0)
    if not (archive / SAMPLE).is_file():
        raise ConfigError(
            f"cleansing.share is 0 and the archive has no {SAMPLE}: label about 300 "
            'random frames of positive exams, one {"frame": "frames/…", "lesion": true|false} '
            "a line, or set cleansing.share"
        )
    labels = [x.lesion for x in read_labels(archive) if frames is None or x.frame in frames]
    if not labels:
        raise RecordError(
            archive / SAMPLE, 0, "expected labels of the train part's positive exams, found none"
        )
    low, high = wilson(sum(labels), len(labels))
    return Share(sum(labels) / len(labels), low, high, len(labels))


def read_labels(archive: Path) -> list[Label]:
    """Read the sample, which somebody may have written by hand.

    Raises:
        RecordError: A line is not as expected, or there is none.
    """
    path = archive / SAMPLE
    labels = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            label = Label(entry["frame"], entry["lesion"], entry.get("neoplastic"))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError):
            label = Label("", False)
        sound = isinstance(label.frame, str) and label.frame and isinstance(label.lesion, bool)
        if not sound or not isinstance(label.neoplastic, bool | None):
            shown = line if len(line) < 80 else line[:77] + "..."
            raise RecordError(
                path, number, f'expected {{"frame": …, "lesion": true|false}}, found {shown}'
            )
        if label.neoplastic and not label.lesion:
            raise RecordError(
                path, number, "expected neoplastic of a lesion only, found it without a lesion"
            )
        labels.append(label)
    if not labels:
        raise RecordError(path, 0, "expected one label a line, found none")
    return labels


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
    write_jsonl(archive / SAMPLE, rows)
    return len(rows)
