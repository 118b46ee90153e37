"""Which folder or file below the data folder is whose: two rows' at once, no row's, or one's."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from training.ingest.raw import PathOutside, exam_path

__all__ = ["Claims", "claims"]


@dataclass(frozen=True)
class Claims:
    """What the rows of a table lay claim to, and what is left.

    Attributes:
        shared: Records whose folder or file another row names too, or whose folder holds those of
            other exams: taken whole, it would bring other patients' frames into one record.
        strays: Folders, and where exams may be files also files, that no row names.
    """

    shared: set[str]
    strays: list[Path]


def claims(data: Path, kind: str, places: Mapping[str, str], own: set[Path]) -> Claims:
    """Compare what rows name with what is there.

    A folder holds those of other exams if it holds one that another row names (links followed), or
    if most rows name folders that lie deeper and it has several folders. A folder of several exams
    none of which any row names, in a table that names folders of all depths, goes unseen.

    Args:
        data: Folder of the raw data, absolute.
        kind: ``folders``, ``dicom`` or ``video``.
        places: By record: folder or file, as ``exam_path`` takes it.
        own: Files below the data folder that are no exams', absolute.
    """
    paths = {record: path for record, name in places.items() if (path := _path(data, name))}
    real = {record: Path(os.path.realpath(path)) for record, path in paths.items()}
    times = Counter(real.values())
    holders = {above for path in times for above in path.parents}
    depths = {record: len(path.relative_to(data).parts) for record, path in paths.items()}
    usual = sorted(depths.values())[len(depths) // 2] if depths else 1
    wide = {r for r, path in paths.items() if depths[r] < usual and len(_folders(path)) > 1}
    shared = {record for record, path in real.items() if times[path] > 1 or path in holders}
    named = own | {path for record, path in paths.items() if record not in wide}
    above = {folder for path in (*paths.values(), *own) for folder in path.parents}
    return Claims(shared | wide, list(_strays(data, kind, (named, above), usual)))


def _path(data: Path, name: str) -> Path | None:
    try:
        return exam_path(data, name)
    except PathOutside:
        return None  # told where the exam is read


def _strays(
    folder: Path, kind: str, known: tuple[set[Path], set[Path]], levels: int
) -> Iterator[Path]:
    """What no row names, down to the level where most exams lie."""
    named, above = known
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        folders = _folders(path)
        if path in above or (levels > 1 and folders and not _has_files(path)):
            yield from _strays(path, kind, known, levels - 1)
        elif path.is_dir():
            if path not in named:
                yield path
        elif kind != "folders" and not {path, path.with_suffix("")} & named:
            yield path


def _folders(path: Path) -> list[Path]:
    try:
        return [p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".")]
    except OSError:
        return []


def _has_files(path: Path) -> bool:
    return any(p.is_file() and not p.name.startswith(".") for p in path.iterdir())
