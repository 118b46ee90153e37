"""Which patients a folder holds, and their results as a table, CSV or JSON.

Pictures that lie in the folder itself are one patient; each subfolder that holds pictures is
another. Names of files and folders stay on this machine: they are put back beside the results.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

from endo_clip_client.conversations import Scored
from endo_clip_client.errors import AllFramesRejected
from endo_clip_client.results import Frame, Patient
from endo_clip_client.sending import PatientIn

__all__ = ["FolderPatient", "as_csv", "as_json", "as_table", "patients_in"]

_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".dcm"}
_COLUMNS = ("patient", "frame", "status", "decision", "probability", "attention", "reason")
# A cell that begins so is a formula to a spreadsheet, and a file's name may be anybody's.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class FolderPatient:
    """A patient of a folder: its name here, and its frames in natural order of their names."""

    name: str
    paths: tuple[Path, ...]

    def to_send(self, device: str | None) -> PatientIn:
        """Give what goes to the service: frames, and no name."""
        return PatientIn(self.paths, device=device, tag=self)


def patients_in(folder: Path) -> list[FolderPatient]:
    """Find the patients of a folder, in natural order of their names.

    Raises:
        NotADirectoryError: it is no folder.
    """
    if not folder.is_dir():
        raise NotADirectoryError(folder)
    by_folder: dict[Path, list[Path]] = {}
    for path in folder.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.suffix.lower() in _SUFFIXES and path.is_file() and not hidden:
            by_folder.setdefault(path.parent, []).append(path)
    found = [
        FolderPatient(_name(place, folder), tuple(sorted(paths, key=_by_name)))
        for place, paths in by_folder.items()
    ]
    return sorted(found, key=lambda one: _natural(one.name))


def as_table(results: Sequence[Scored]) -> str:
    """Give a line per patient, with what stands out among its frames."""
    head = ("patient", "decision", "probability", "frames", "strongest frame", "remarks")
    rows = [[_shown(text) for text in row] for row in (head, *map(_line, results))]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines) + "\n"


def as_csv(results: Sequence[Scored]) -> str:
    """Give a row per patient, without a frame, and then one per frame of it."""
    out = StringIO()
    writer = csv.DictWriter(out, (*_COLUMNS, "model", "digest"), lineterminator="\n")
    writer.writeheader()
    for one in results:
        patient = _patient(one)
        model = one.answer.model if one.answer else None
        about = {
            "model": f"{model.name} {model.version}" if model else "",
            "digest": model.digest if model else "",
        }
        name = _cell(one.tag.name)
        if patient is None:
            reason = str(one.error).splitlines()[0]
            writer.writerow({"patient": name, "status": "failed", "reason": reason, **about})
            continue
        writer.writerow({"patient": name, **_figures(patient), **about})
        for path, frame in zip(one.tag.paths, patient.frames, strict=True):
            row = {"patient": name, "frame": _cell(path.name), **_figures(frame), **about}
            writer.writerow(row)
    return out.getvalue()


def as_json(results: Sequence[Scored]) -> str:
    """Give the service's answers as they came, each with the names that it was asked for here."""
    documents: list[dict[str, Any]] = []
    for one in results:
        files = [path.name for path in one.tag.paths]
        document: dict[str, Any] = {"patient": one.tag.name, "files": files}
        if one.answer:
            document["answer"] = one.answer.document
        else:
            document["error"] = str(one.error)
        documents.append(document)
    return json.dumps(documents, indent=1, ensure_ascii=False) + "\n"


def _line(one: Scored) -> tuple[str, ...]:
    patient = _patient(one)
    if patient is None:
        reason = str(one.error).splitlines()[0]
        return (one.tag.name, "failed", "", f"0/{len(one.tag.paths)}", "", reason)
    scored = [
        (frame.probability, path.name)
        for path, frame in zip(one.tag.paths, patient.frames, strict=True)
        if frame.probability is not None
    ]
    strongest = max(scored, default=None)
    remarks: dict[str, int] = {}
    for frame in patient.frames:
        if frame.status != "scored":
            word = frame.error.code if frame.error else frame.reason or frame.status
            remarks[word] = remarks.get(word, 0) + 1
    if patient.reason:
        remarks = {patient.reason: 0, **remarks}
    return (
        one.tag.name,
        patient.decision or patient.status,
        "" if patient.probability is None else f"{patient.probability:.3f}",
        f"{patient.frames_scored}/{len(patient.frames)}",
        f"{strongest[1]} {strongest[0]:.3f}" if strongest else "",
        ", ".join(f"{count} {word}" if count else word for word, count in remarks.items()),
    )


def _patient(one: Scored) -> Patient | None:
    if one.answer:
        return one.answer.patient
    return one.error.patients[0] if isinstance(one.error, AllFramesRejected) else None


def _figures(one: Patient | Frame) -> dict[str, Any]:
    error = one.error if isinstance(one, Frame) else None
    return {
        "status": one.status,
        "decision": one.decision or "",
        "probability": "" if one.probability is None else one.probability,
        "attention": one.attention if isinstance(one, Frame) and one.attention is not None else "",
        "reason": error.code if error else one.reason or "",
    }


def _shown(text: str) -> str:
    """Take out what would move a terminal's cursor; names of files may hold anything."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _cell(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def _name(place: Path, folder: Path) -> str:
    return folder.resolve().name if place == folder else place.relative_to(folder).as_posix()


def _by_name(path: Path) -> list[tuple[int, str]]:
    return _natural(path.name)


def _natural(name: str) -> list[tuple[int, str]]:
    """Order img_2 before img_10."""
    parts = re.split(r"(\d+)", name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]
