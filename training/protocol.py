"""Evaluation items of a part: an archive's views, a folder's own images, and patients.

A composed archive gives views and composed patients; an ingested one its own exams
(``training.real_exams``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.evaluate import Patient
from training.items import Item
from training.patients import patients, read_views
from training.real_exams import exam_items, exam_patients, is_ingested
from training.sources import dev_items, read_split

__all__ = [
    "CALIBRATION_BACKGROUNDS",
    "HISTOLOGY",
    "PRESENCE_SEEDS",
    "PartPatients",
    "archive_items",
    "archive_patients",
    "data_items",
    "lesion_free_twins",
    "part_patients",
    "presence",
]

HISTOLOGY = {"neoplastic": True, "non-neoplastic": False}
CALIBRATION_BACKGROUNDS = (1, 190)
"""Background views of a calibration patient: with its lesion views it has 2 to about 200 frames,
what a request may bring. The protocol of the figures, 10 to 40, would leave n to chance outside."""
PRESENCE_SEEDS = 2
"""Seeds of the composed patients with and without a lesion: 400 of each."""


@dataclass(frozen=True)
class PartPatients:
    """Patients of a part, by what is asked of them.

    Attributes:
        items: What their rows count.
        malignancy: With a lesion; positive = a neoplastic one.
        holding: With a lesion, for polyp detection; all positive.
        without: Without one; none positive.
    """

    items: list[Item]
    malignancy: list[Patient]
    holding: list[Patient]
    without: list[Patient]


def part_patients(
    archive: Path, part: str, seeds: int = 5, backgrounds: tuple[int, int] | None = None
) -> PartPatients:
    """The patients of a part: composed ones, or the exams of an ingested archive.

    Args:
        archive: Archive folder.
        part: select, calibrate or report.
        seeds: As for ``archive_patients``; an ingested archive has its exams once.
        backgrounds: As for ``archive_patients``.
    """
    if is_ingested(archive):
        return PartPatients(exam_items(archive, part), *exam_patients(archive, part))
    views, composed = archive_patients(archive, part, seeds, backgrounds)
    return PartPatients(views, composed, *presence(archive, part, composed, PRESENCE_SEEDS))


def presence(
    archive: Path, part: str, composed: Sequence[Patient], seeds: int
) -> tuple[list[Patient], list[Patient]]:
    """Patients for polyp detection: all that hold a lesion, and a twin of each without one."""
    some = [p for p in composed if p.seed < seeds]
    holding = [dataclasses.replace(p, positive=True, mixed=False) for p in some]
    return holding, lesion_free_twins(archive, part, some)


def archive_items(archive: Path, part: str) -> list[Item]:
    """The informative views of a part, or all frames of an ingested archive's."""
    if is_ingested(archive):
        return exam_items(archive, part)
    return [_view_item(row) for row in read_views(archive) if row["part"] == part]


def data_items(data: Path, archive: Path, part: str) -> list[Item]:
    """A data folder's own crops and frames, exactly as they are, of the source groups of a part.

    Args:
        data: Folder of index.csv.
        archive: Gives the split.
        part: Also "test": the sources that are never trained, calibrated or thresholded on.
    """
    split = read_split(archive / "source_split.json")
    return [
        Item(
            path=item.path,
            kind=item.kind,
            polyp={"polyp": True, "normal": False}.get(item.label),
            neoplastic=HISTOLOGY.get(item.histology),
            group=item.group,
            source=item.source,
            dims=item.dims,
            image=item.pair or item.path.stem,
        )
        for item in dev_items(data, split, part)
    ]


def archive_patients(
    archive: Path, part: str, seeds: int = 5, backgrounds: tuple[int, int] | None = None
) -> tuple[list[Item], list[Patient]]:
    """The part's windows and the patients composed of them.

    Args:
        archive: Archive folder.
        part: select, calibrate or report.
        seeds: Independent draws of 200 patients.
        backgrounds: As for ``patients``; None is the fixed protocol.
    """
    rows = _windows(archive, part)
    place = {row["view"]: i for i, row in enumerate(rows)}
    composed = [
        Patient(
            rows=tuple(place[view] for view in patient.views),
            positive=patient.positive,
            mixed=patient.positive and "non-neoplastic" in patient.histologies,
            seed=patient.seed,
            groups=tuple(sorted(set(patient.lesion_groups))),
        )
        for patient in patients(rows, part, seeds, backgrounds=backgrounds)
    ]
    return [_view_item(row) for row in rows], composed


def lesion_free_twins(
    archive: Path, part: str, composed: Sequence[Patient], seed: int = 0
) -> list[Patient]:
    """Give every patient a twin without a lesion and with as many frames.

    Its lesion views are exchanged for further background views of the part, of the same source
    as long as there are any: number of frames and mix of sources tell nothing. A part with too
    few background views repeats some.

    Args:
        archive: Archive folder.
        part: Of the patients.
        composed: From ``archive_patients`` of this archive and part.
        seed: Of the exchange.

    Returns:
        Patients that are not positive, in the same order, resampled with their twins.
    """
    rows = _windows(archive, part)
    background = [i for i, row in enumerate(rows) if row["kind"] == "background"]
    rng = np.random.default_rng([seed, 0xE0C1])
    return [
        Patient(_exchanged(rows, background, one.rows, rng), False, False, one.seed, one.groups)
        for one in composed
    ]


def _exchanged(
    rows: Sequence[Mapping[str, Any]],
    background: Sequence[int],
    own: Sequence[int],
    rng: np.random.Generator,
) -> tuple[int, ...]:
    taken = {i for i in own if rows[i]["kind"] == "background"}
    kept = []
    for i in own:
        if i in taken:
            kept.append(i)
            continue
        free = [j for j in background if j not in taken] or list(background)
        mine = [j for j in free if rows[j]["source"] == rows[i]["source"]] or free
        weight = np.array([max(rows[j].get("weight", 1.0), 1e-3) for j in mine])
        kept.append(mine[int(rng.choice(len(mine), p=weight / weight.sum()))])
        taken.add(kept[-1])
    return tuple(kept)


def _windows(archive: Path, part: str) -> list[dict[str, Any]]:
    return [r for r in read_views(archive) if r["part"] == part and not r.get("scope")]


def _view_item(row: dict[str, Any]) -> Item:
    return Item(
        path=row["path"],
        kind="scope" if row.get("scope") else "view",
        polyp=row["kind"] == "lesion",
        neoplastic=HISTOLOGY.get(row["histology"] or ""),
        group=row["group"],
        source=row["source"],
        dims=row["dims"],
        image=(row["lesion_id"] or "").partition("|")[2].partition("#")[0],
        view=row["view"],
    )
