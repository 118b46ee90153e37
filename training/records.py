"""Archives of records on disk: written whole, read with every bad line named, split once.

An archive is a folder:

    archive.json    {"format": 1, "kind": "composed" | "phantom" | "ingested"}
    records.jsonl   one record a line: {"record_id", "patient_id", "report", "frames": [...],
                    "groups": [...], "source": ...}; frames are paths inside the folder; groups
                    (optional) name the sources whose pixels were used, source (optional) the
                    data set or imaging system they come from
    split.json      {"parts": {patient_id: part}, "digest": "sha256:..."}
    truth.jsonl     (composer only) never read by a stage, only by reports about stages

Patients and groups that share a record belong together: a connected set of them lies in one
part, or the reader refuses the archive.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from training.errors import ArchiveRefused, RecordError
from training.frame_files import frame_exists

__all__ = [
    "FORMAT",
    "KINDS",
    "PARTS",
    "Archive",
    "Record",
    "components",
    "parts_digest",
    "read",
    "read_truth",
    "split",
    "write_jsonl",
    "write_split",
]

FORMAT = 1
KINDS = ("composed", "phantom", "ingested")
PARTS = ("train", "select", "calibrate", "report")
_REQUIRED = {"record_id": str, "patient_id": str, "report": str, "frames": list}
_OPTIONAL = {"groups": list, "source": str}


@dataclass(frozen=True)
class Record:
    """One examination: one report and its frames.

    Attributes:
        record_id: unique within the archive.
        patient_id: pseudonymous id; the unit of splitting together with ``groups``.
        report: free text, not empty.
        frames: absolute paths of the frames, in order, at least one.
        groups: ids of the sources the frames came from; records that share one are kept together.
        part: train, select, calibrate or report.
        source: data set or imaging system, "" where unknown.
    """

    record_id: str
    patient_id: str
    report: str
    frames: tuple[Path, ...]
    groups: tuple[str, ...] = ()
    part: str = ""
    source: str = ""


@dataclass(frozen=True)
class Archive:
    """What could be read of an archive, and every line that could not.

    Attributes:
        path: the folder.
        kind: one of ``KINDS``.
        records: good records in file order.
        errors: one entry a bad line; empty for a sound archive.
        split: part by patient id.
        digest: digest of the split, ``sha256:...``.
    """

    path: Path
    kind: str
    records: list[Record]
    errors: list[RecordError]
    split: dict[str, str]
    digest: str

    @property
    def composed(self) -> bool:
        """Its reports were written from measured values, by this package."""
        return self.kind != "ingested"

    def part(self, name: str) -> list[Record]:
        """Return the records of one part, in file order."""
        return [record for record in self.records if record.part == name]


def read(archive: Path, strict: bool = False, check_frames: bool = True) -> Archive:
    """Read an archive folder.

    Args:
        archive: the folder.
        strict: raise the first bad line instead of collecting it.
        check_frames: a record one of whose frames does not exist is a bad line.

    Returns:
        The good records and every bad line.

    Raises:
        ArchiveRefused: the folder, its header or its split cannot be used, or connected
            patients and groups lie in different parts.
        RecordError: with ``strict``, the first bad line.
    """
    archive = archive.resolve()
    kind = _read_header(archive)
    parts, digest = _read_split(archive)
    records: list[Record] = []
    errors: list[RecordError] = []
    seen: dict[str, int] = {}
    path = archive / "records.jsonl"
    if not path.is_file():
        raise ArchiveRefused(f"{archive.name}: expected records.jsonl, found no such file")
    for number, line in _lines(path):
        try:
            record = _parse(archive, path, number, line, parts, check_frames)
            if record.record_id in seen:
                first = seen[record.record_id]
                raise RecordError(
                    path, number, f"record_id {record.record_id!r} was already used on line {first}"
                )
        except RecordError as error:
            if strict:
                raise
            errors.append(error)
            continue
        seen[record.record_id] = number
        records.append(record)
    _refuse_crossing(records, archive.name)
    return Archive(archive, kind, records, errors, parts, digest)


def read_truth(archive: Path) -> dict[str, dict[str, Any]]:
    """Read the composer's truth by record id; for reports about stages, never for training.

    Raises:
        RecordError: a line is not a JSON object with a record_id.
    """
    truth: dict[str, dict[str, Any]] = {}
    path = archive / "truth.jsonl"
    for number, line in _lines(path):
        entry = _object(path, number, line)
        if "record_id" not in entry:
            raise RecordError(path, number, "expected the key 'record_id', found none")
        truth[str(entry["record_id"])] = entry
    return truth


def split(
    records: Iterable[Record],
    fractions: Mapping[str, float],
    seed: int,
    *,
    existing: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Assign each patient to a part, once.

    Connected patients (through shared groups) get one keyed hash, that of their smallest name,
    so the result does not depend on record order nor on unrelated new records.

    Args:
        records: the records to split.
        fractions: share by part, adding up to 1.
        seed: key of the hash.
        existing: parts given earlier; they are kept, and what is connected to them follows.

    Returns:
        Part by patient id.

    Raises:
        ArchiveRefused: the fractions do not add up to 1, or a new record connects patients
            that are already in different parts.
    """
    if abs(sum(fractions.values()) - 1.0) > 1e-6:
        raise ArchiveRefused(f"expected fractions that add up to 1, found {dict(fractions)}")
    existing = existing or {}
    parts: dict[str, str] = {}
    for members in components(records):
        patients = sorted(name for kind, name in members if kind == "patient")
        taken = {existing[name] for name in patients if name in existing}
        if len(taken) > 1:
            raise ArchiveRefused(
                f"patients {patients[:5]} are connected but were split into {sorted(taken)}"
            )
        part = taken.pop() if taken else _draw(min(members)[1], fractions, seed)
        parts.update(dict.fromkeys(patients, part))
    return parts


def components(records: Iterable[Record]) -> list[set[tuple[str, str]]]:
    """Group patients and source groups that are connected through records.

    Returns:
        Sets of ("patient" | "group", name), each a connected component.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def find(node: tuple[str, str]) -> tuple[str, str]:
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for record in records:
        root = find(("patient", record.patient_id))
        for group in record.groups:
            parent[find(("group", group))] = root
    found: dict[tuple[str, str], set[tuple[str, str]]] = {}
    for node in list(parent):
        found.setdefault(find(node), set()).add(node)
    return list(found.values())


def parts_digest(parts: Mapping[str, str]) -> str:
    """Return the digest of a split, independent of the order of its keys."""
    body = json.dumps(dict(sorted(parts.items())), separators=(",", ":"), ensure_ascii=False)
    return "sha256:" + hashlib.sha256(body.encode("utf-8")).hexdigest()


def write_split(path: Path, parts: Mapping[str, str]) -> str:
    """Write a split with its digest and return the digest."""
    digest = parts_digest(parts)
    body = {"parts": dict(sorted(parts.items())), "digest": digest}
    path.write_text(json.dumps(body, indent=0, ensure_ascii=False) + "\n", encoding="utf-8")
    return digest


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, UTF-8."""
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        entry = json.loads(line.decode("utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise RecordError(path, number, f"expected JSON in UTF-8, found: {error}") from error
    if not isinstance(entry, dict):
        raise RecordError(path, number, f"expected an object, found {type(entry).__name__}")
    return entry


def _parse(
    archive: Path, path: Path, number: int, line: bytes, parts: dict[str, str], check_frames: bool
) -> Record:
    entry = _object(path, number, line)
    _check_keys(entry, path, number)
    for key in ("record_id", "patient_id", "report"):
        if not entry[key].strip():
            raise RecordError(path, number, f"{key}: expected text, found an empty string")
    patient = entry["patient_id"]
    if patient not in parts:
        raise RecordError(path, number, f"patient_id {patient!r} has no part in split.json")
    if not entry["frames"]:
        raise RecordError(path, number, "frames: expected at least one, found none")
    frames = tuple(_frame(archive, name, path, number, check_frames) for name in entry["frames"])
    groups = entry.get("groups", [])
    if not all(isinstance(group, str) and group for group in groups):
        raise RecordError(path, number, f"groups: expected non-empty strings, found {groups!r}")
    # The composer names a group <source>_<id>.
    source = entry.get("source") or (groups[0].split("_", 1)[0] if groups else "")
    return Record(
        entry["record_id"], patient, entry["report"], frames, tuple(groups), parts[patient], source
    )


def _check_keys(entry: dict[str, Any], path: Path, number: int) -> None:
    known = _REQUIRED | _OPTIONAL
    if unknown := sorted(entry.keys() - known.keys()):
        raise RecordError(path, number, f"unknown keys {unknown}; known are {sorted(known)}")
    if missing := sorted(_REQUIRED.keys() - entry.keys()):
        raise RecordError(path, number, f"missing keys {missing}")
    for key, value in entry.items():
        if not isinstance(value, known[key]):
            raise RecordError(
                path, number, f"{key}: expected {known[key].__name__}, found {type(value).__name__}"
            )


def _frame(archive: Path, name: object, path: Path, number: int, check: bool) -> Path:
    if not isinstance(name, str):
        raise RecordError(path, number, f"frames: expected paths, found {name!r}")
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name:
        raise RecordError(path, number, f"frame {name!r} leaves the archive")
    frame = archive / pure
    if check and not frame_exists(frame):
        raise RecordError(path, number, f"frame {name!r} does not exist")
    return frame


def _read_header(archive: Path) -> str:
    body = _json_file(archive / "archive.json")
    if body.get("format") != FORMAT:
        raise ArchiveRefused(
            f"archive.json: expected format {FORMAT}, found {body.get('format')!r}"
        )
    kind = body.get("kind")
    if kind not in KINDS:
        raise ArchiveRefused(f"archive.json: expected kind in {KINDS}, found {kind!r}")
    return str(kind)


def _read_split(archive: Path) -> tuple[dict[str, str], str]:
    body = _json_file(archive / "split.json")
    parts = body.get("parts")
    if not isinstance(parts, dict):
        raise ArchiveRefused("split.json: expected an object 'parts', found none")
    if strange := sorted({str(part) for part in parts.values()} - set(PARTS)):
        raise ArchiveRefused(f"split.json: expected parts in {PARTS}, found {strange}")
    digest = parts_digest(parts)
    if body.get("digest") != digest:
        raise ArchiveRefused(f"split.json: expected digest {digest}, found {body.get('digest')}")
    return parts, digest


def _json_file(path: Path) -> dict[str, Any]:
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArchiveRefused(f"expected {path.name}, found no such file") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ArchiveRefused(f"{path.name}: expected JSON in UTF-8, found: {error}") from error
    if not isinstance(body, dict):
        raise ArchiveRefused(f"{path.name}: expected an object, found {type(body).__name__}")
    return body


def _refuse_crossing(records: list[Record], name: str) -> None:
    part_of = {record.patient_id: record.part for record in records}
    for members in components(records):
        found: dict[str, str] = {}
        for kind, member in sorted(members):
            if kind == "patient":
                found.setdefault(part_of[member], member)
        if len(found) > 1:
            raise ArchiveRefused(
                f"{name}: connected patients lie in several parts: "
                + ", ".join(f"{who} in {part}" for part, who in found.items())
            )


def _draw(name: str, fractions: Mapping[str, float], seed: int) -> str:
    digest = hashlib.blake2b(name.encode("utf-8"), key=str(seed).encode(), digest_size=8).digest()
    point = int.from_bytes(digest, "big") / 2**64
    total = 0.0
    for part, share in fractions.items():
        total += share
        if point < total:
            return part
    return next(reversed(list(fractions)))
