"""Evaluation items of a part: an archive's views, a folder's own images, and patients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.evaluate import Patient
from training.items import Item
from training.patients import patients, read_views
from training.sources import dev_items, read_split

__all__ = ["archive_items", "archive_patients", "data_items"]

HISTOLOGY = {"neoplastic": True, "non-neoplastic": False}


def archive_items(archive: Path, part: str) -> list[Item]:
    """The informative views of a part."""
    return [_view_item(row) for row in read_views(archive) if row["part"] == part]


def data_items(data: Path, archive: Path, part: str) -> list[Item]:
    """A data folder's own crops and frames, exactly as they are, of the source groups of a part."""
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
        )
        for item in dev_items(data, split, part)
    ]


def archive_patients(archive: Path, part: str) -> tuple[list[Item], list[Patient]]:
    """The part's views and the patients composed of them, five seeds."""
    rows = [row for row in read_views(archive) if row["part"] == part]
    place = {row["view"]: i for i, row in enumerate(rows)}
    composed = [
        Patient(
            rows=tuple(place[view] for view in patient.views),
            positive=patient.positive,
            mixed=patient.positive and "non-neoplastic" in patient.histologies,
            seed=patient.seed,
            group=patient.lesion_groups[0],
        )
        for patient in patients(rows, part)
    ]
    return [_view_item(row) for row in rows], composed


def _view_item(row: dict[str, Any]) -> Item:
    return Item(
        path=row["path"],
        kind="view",
        polyp=row["kind"] == "lesion",
        neoplastic=HISTOLOGY.get(row["histology"] or ""),
        group=row["group"],
        source=row["source"],
        dims=row["dims"],
        view=row["view"],
    )
