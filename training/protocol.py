"""Evaluation items of a part: an archive's views, a data folder's own images, and patients of the fixed protocol."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from training.evaluate import Patient
from training.items import Item
from training.sources import dev_items, read_split

__all__ = ["archive_items", "archive_patients", "data_items"]

HISTOLOGY = {"neoplastic": True, "non-neoplastic": False}


def archive_items(archive: Path, part: str) -> list[Item]:
    """The informative views of a part."""
    return [_view_item(archive, row) for row in _rows(archive) if row["part"] == part]


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


def _rows(archive: Path) -> list[dict[str, Any]]:
    lines = (archive / "views" / "views.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _view_item(archive: Path, row: dict[str, Any]) -> Item:
    return Item(
        path=archive / row["file"],
        kind="view",
        polyp=row["kind"] == "lesion",
        neoplastic=HISTOLOGY.get(row["histology"] or ""),
        group=row["group"],
        source=row["source"],
        dims=row["dims"],
        view=row["view"],
    )
