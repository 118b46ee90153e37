"""Evaluation items and patients of an ingested archive: its own exams, nothing composed.

What is known of them comes from people. A frame shows a lesion or does not where somebody labelled
it (``labelled_sample.jsonl``), and shows none where the whole exam's report tells of none and
pathology does not contradict it. A lesion is neoplastic by that label, else by pathology where
pathology says the same of every lesion of the exam. A patient holds a lesion where the report tells
of one, and a neoplastic one by pathology.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from training.attributes import extract, polyp_mentioned, strip_pathology
from training.errors import ArchiveRefused
from training.evaluate import Patient
from training.items import Item
from training.records import Record, components, read
from training.sample import SAMPLE, Label, read_labels

__all__ = ["check_known", "exam_items", "exam_patients", "is_ingested", "read_outcomes"]

LEAST = 3
"""Frames, and patients, of each class that calibration needs at least. Three fit a line, no more:
the card's intervals say how little that is worth."""
LEAST_FREE = 50
"""Frames of polyp-free exams used at least, where there are as many."""


def is_ingested(archive: Path) -> bool:
    """Whether an archive holds a hospital's exams rather than composed or drawn ones."""
    try:
        header = json.loads((archive / "archive.json").read_text("utf-8"))
    except FileNotFoundError:
        return False
    return bool(header.get("kind") == "ingested")


def read_outcomes(archive: Path) -> dict[str, bool | None]:
    """By record id, what pathology says: neoplastic, not, or neither for all lesions (None)."""
    path = archive / "pathology.jsonl"
    if not path.is_file():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]
    return {row["record_id"]: row["neoplastic"] for row in rows}


def exam_items(archive: Path, part: str) -> list[Item]:
    """Every frame of the part's exams, with what is known of it.

    As many frames of polyp-free exams count as known as there are labelled ones (at least
    ``LEAST_FREE``), drawn over all such exams: counted all, they would outnumber lesions a
    hundredfold, and the probability map would be fitted to that prevalence.
    """
    root = archive.resolve()
    records = read(root).part(part)
    units = _units(records)
    labels = {root / x.frame: x for x in _labels(root)}
    outcomes, sizes = read_outcomes(root), _sizes(root)
    told = sum(frame in labels for r in records for frame in r.frames)
    without = [r for r in records if _free(r, outcomes)]
    free = _drawn_free(without, max(told, LEAST_FREE))
    items = []
    for record in records:
        outcome = _of_every_lesion(record, outcomes.get(record.record_id))
        for frame in record.frames:
            label = labels.get(frame)
            polyp = label.lesion if label else (False if frame in free else None)
            neoplastic = None
            if label and label.lesion:
                neoplastic = outcome if label.neoplastic is None else label.neoplastic
            items.append(
                Item(
                    path=frame,
                    kind="exam",
                    polyp=polyp,
                    neoplastic=neoplastic,
                    group=units[record.patient_id],
                    source=record.source,
                    dims=sizes.get(frame.relative_to(root).as_posix(), ""),
                    image=frame.relative_to(root).as_posix(),
                )
            )
    return items


def exam_patients(archive: Path, part: str) -> tuple[list[Patient], list[Patient], list[Patient]]:
    """The part's exams as patients; rows are those of ``exam_items``.

    Returns:
        Those with a lesion and a known outcome (positive = neoplastic), those whose report tells
        of a lesion (positive), and those whose report tells of none. Neither of the latter holds
        an exam whose report tells of no lesion while its pathology may tell of one.
    """
    root = archive.resolve()
    outcomes = read_outcomes(root)
    records = read(root).part(part)
    units = _units(records)
    judged: list[Patient] = []
    holding: list[Patient] = []
    without: list[Patient] = []
    start = 0
    for record in records:
        rows = tuple(range(start, start + len(record.frames)))
        start += len(record.frames)
        unit = (units[record.patient_id],)
        told = _tells(record)
        if told:
            holding.append(Patient(rows, True, False, 0, unit))
        elif _free(record, outcomes):
            without.append(Patient(rows, False, False, 0, unit))
        outcome = outcomes.get(record.record_id)
        if told and outcome is not None:
            judged.append(Patient(rows, outcome, False, 0, unit))
    return judged, holding, without


def check_known(archive: Path) -> None:
    """See, before hours of training, that the archive can be calibrated at the end.

    Raises:
        ArchiveRefused: With everything that the ``calibrate`` part lacks, and what to do.
    """
    items = exam_items(archive, "calibrate")
    judged, holding, without = exam_patients(archive, "calibrate")
    polyp, neoplastic = Counter(i.polyp for i in items), Counter(i.neoplastic for i in items)
    outcome = Counter(p.positive for p in judged)
    found = {
        "labelled frames with a lesion": polyp[True],
        "frames without one": polyp[False],
        "labelled lesion frames known to be neoplastic": neoplastic[True],
        "labelled lesion frames known not to be": neoplastic[False],
        "exams whose report tells of a lesion": len(holding),
        "exams whose report tells of none": len(without),
        "exams with neoplastic pathology": outcome[True],
        "exams with non-neoplastic pathology": outcome[False],
    }
    lacking = [f"  {name}: {count}" for name, count in found.items() if count < LEAST]
    if lacking:
        raise ArchiveRefused(
            f"the part calibrate needs at least {LEAST} of each to set probabilities and "
            "thresholds; found\n" + "\n".join(lacking) + "\nPathology comes with ingestion; label "
            f"frames with\n  python -m training sample --archive {archive}"
        )


def _labels(archive: Path) -> list[Label]:
    return read_labels(archive) if (archive / SAMPLE).is_file() else []


def _sizes(archive: Path) -> dict[str, str]:
    """``widthxheight`` by frame, as ingestion measured it."""
    path = archive / "frames.jsonl"
    if not path.is_file():
        return {}
    with path.open("r", encoding="utf-8") as file:
        rows = (json.loads(line) for line in file)
        return {row["path"]: f"{row['width']}x{row['height']}" for row in rows}


def _drawn_free(records: Sequence[Record], count: int) -> set[Path]:
    frames = [frame for record in records for frame in record.frames]
    order = np.random.default_rng(len(frames)).permutation(len(frames))[:count]
    return {frames[i] for i in order}


def _of_every_lesion(record: Record, outcome: bool | None) -> bool | None:
    """The exam's outcome, where it holds for each of its lesions."""
    if outcome and len(extract(strip_pathology(record.report))) != 1:
        return None  # one of several is neoplastic: which, pathology of the exam does not say
    return outcome


def _tells(record: Record) -> bool:
    return polyp_mentioned(strip_pathology(record.report))


def _free(record: Record, outcomes: Mapping[str, bool | None]) -> bool:
    """Whether an exam is known to show no lesion.

    A report may pass over a lesion that was sent in, or tell of it in words the rules do not know.
    Pathology that is neoplastic, or does not say ("sessile serrated lesion"), shows that.
    """
    return not _tells(record) and outcomes.get(record.record_id, False) is False


def _units(records: Sequence[Record]) -> dict[str, str]:
    """By patient what is resampled: all patients who share frames, through whomever, are one."""
    found = {}
    for members in components(records):
        patients = sorted(name for kind, name in members if kind == "patient")
        found.update(dict.fromkeys(patients, patients[0]))
    return found
