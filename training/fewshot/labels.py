"""Read a site's labels: a CSV of ``file``, ``label`` and perhaps ``patient_id``, and its pictures.

A label is a label's name in one of the bundle's two named sets (``polyp``, ``no_polyp``,
``malignant``, ``benign``) and counts for that task alone; a file may have one line for each task.
A mistake in the table is refused, for it is mended in a minute; a file that cannot be read, or that
was labelled before under another name, is left out by name and costs nothing else.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import ImageRejected
from model_store.images import decode
from training.errors import RecordError
from training.evaluate import TASKS
from training.items import Embedded, Item, embed

__all__ = ["Labelled", "embed_labelled", "read_labelled"]

FIELDS = {"polyp_detection": "polyp", "malignancy": "neoplastic"}


@dataclass(frozen=True)
class Labelled:
    """Labelled pictures.

    Attributes:
        items: One a picture; its group is the patient, or the file where no patient is named.
        left_out: File → why it is not among them.
        by_patient: Every line names a patient.
    """

    items: list[Item]
    left_out: Mapping[str, str]
    by_patient: bool


def read_labelled(path: Path, images: Path, bundle: Bundle) -> Labelled:
    """Read the table and look at every file.

    Args:
        path: CSV in UTF-8.
        images: Folder that ``file`` starts from.
        bundle: Knows the labels.

    Raises:
        RecordError: A column, a label or a name is missing or wrong, or a file has two labels of
            one task; the line is named, and how many more there are.
    """
    words = _words(bundle)
    items: dict[str, Item] = {}
    faults: list[RecordError] = []
    named = []
    for number, row in enumerate(_rows(path), start=2):
        name, label, patient = (
            (row.get(column) or "").strip() for column in ("file", "label", "patient_id")
        )
        try:
            item = items.get(name) or _new_item(path, number, name, images, patient)
            items[name] = _told(path, number, item, patient, label, words)
        except RecordError as error:
            faults.append(error)
        named.append(bool(patient))
    if not named:
        raise RecordError(path, 0, "expected labels, found none")
    if faults:
        more = f" (and {len(faults) - 1} more lines)" if len(faults) > 1 else ""
        raise RecordError(path, faults[0].line, faults[0].reason + more)
    left_out = _unusable(items)
    found = [item for name, item in items.items() if name not in left_out]
    return Labelled(found, left_out, all(named))


def embed_labelled(encoder: Encoder, labelled: Labelled) -> tuple[Embedded, dict[str, str]]:
    """Encode the pictures; gives those that are pictures, and all that was left out with why."""
    found = embed(encoder, labelled.items)
    rejected = [reason == "rejected" for reason in found.reasons]
    left_out = dict(labelled.left_out)
    for item, bad in zip(found.items, rejected, strict=True):
        if bad:
            left_out[item.image] = _why(encoder, item)
    return found.where([not bad for bad in rejected]), left_out


def _words(bundle: Bundle) -> dict[str, tuple[str, bool]]:
    """Label → task and truth."""
    words = {}
    for task in TASKS:
        label_set = bundle.label_set(task)
        for name in label_set.names:
            words[name.lower()] = (task, name == label_set.positive)
    return words


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [str(name).strip() for name in reader.fieldnames or ()]
            if not {"file", "label"} <= set(columns):
                found = ", ".join(columns)[:80] or "none"
                raise RecordError(
                    path, 1, f"expected the columns file, label, perhaps patient_id; found {found}"
                )
            reader.fieldnames = columns
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(path, 0, f"cannot be read as CSV in UTF-8: {error}") from error


def _new_item(path: Path, number: int, name: str, images: Path, patient: str) -> Item:
    if not name:
        raise RecordError(path, number, "expected a file, found none")
    # A patient called like a file must not be that file's.
    group = f"patient {patient}" if patient else f"file {name}"
    return Item(images / name, "labelled", None, None, group, path.stem, "", name)


def _told(
    path: Path,
    number: int,
    item: Item,
    patient: str,
    label: str,
    words: Mapping[str, tuple[str, bool]],
) -> Item:
    if label.lower() not in words:
        raise RecordError(path, number, f"expected a label of {', '.join(words)}; found {label!r}")
    if item.group != (f"patient {patient}" if patient else f"file {item.image}"):
        raise RecordError(path, number, "expected one patient for a file, found another above")
    task, positive = words[label.lower()]
    before: bool | None = getattr(item, FIELDS[task])
    if before is not None and before is not positive:
        raise RecordError(path, number, f"expected one label of {task} for a file, found two")
    if task == "malignancy":
        return replace(item, neoplastic=positive)
    return replace(item, polyp=positive)


def _unusable(items: Mapping[str, Item]) -> dict[str, str]:
    """Files that cannot be opened, and pictures that were there before."""
    left_out: dict[str, str] = {}
    first: dict[str, str] = {}
    for name, item in items.items():
        try:
            digest = hashlib.sha256(item.path.read_bytes()).hexdigest()
        except (OSError, ValueError) as error:
            left_out[name] = getattr(error, "strerror", None) or "no such file"
            continue
        if digest in first:
            left_out[name] = f"the same picture as {first[digest]}"
        first.setdefault(digest, name)
    return left_out


def _why(encoder: Encoder, item: Item) -> str:
    try:
        decode(item.path.read_bytes(), encoder.bundle.manifest.input)
    except (ImageRejected, OSError) as error:
        return str(error)
    return "unreadable"
