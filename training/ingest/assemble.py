"""From the exams' fragments to an archive: duplicates, groups, split, shards, and the files.

Fragments are read twice, exam by exam; in memory are arrays of numbers only (of a frame its digest,
its hash and where it lies: 150 bytes with what the search for duplicates needs).
"""

from __future__ import annotations

import json
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.ingest.config import IngestConfig
from training.ingest.duplicates import MOST_PATIENTS, Duplicates, find_duplicates
from training.ingest.ledger import Entry, Reason
from training.ingest.shards import ShardPacker
from training.records import FORMAT, Record, split, write_split
from training.runs import write_json
from training.sample import SAMPLE

__all__ = ["SUMMARY", "Workplace", "assemble"]

SUMMARY = "ingestion.json"


@dataclass(frozen=True)
class Workplace:
    """Where an archive that is being made keeps its parts.

    Attributes:
        out: The archive.
        shards: Frames go into shards in the end.
    """

    out: Path
    shards: bool

    @property
    def work(self) -> Path:
        """Folder of what is deleted when the archive is finished."""
        return self.out / ".ingest"

    @property
    def frames(self) -> Path:
        """Folder of the exams' frames, one folder each."""
        return (self.work if self.shards else self.out) / "frames"

    def fragment(self, record: str) -> Path:
        """File that says an exam is finished."""
        return self.work / "exams" / f"{record}.json"

    def fragments(self, records: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Fragments of finished exams, one in memory at a time."""
        for record in records:
            yield json.loads(self.fragment(record).read_text("utf-8"))


def assemble(
    place: Workplace, records: list[str], table: Iterable[Entry], config: IngestConfig
) -> dict[str, Any]:
    """Write the archive's files; ``archive.json``, which makes it one, comes last.

    Args:
        place: Holds a fragment for each exam.
        records: Pseudonyms of all exams, in the order of the archive.
        table: Ledger entries of the tables.
        config: Split and form.

    Returns:
        The summary, which is ``ingestion.json`` as well.
    """
    frames = _Frames(place, records)
    found = find_duplicates(*frames.numbers())
    groups, shared = _ties(found, frames)
    summary = _write_lines(place, records, table, frames, (found, groups, shared))
    kept = [
        Record(record, patient, "", (), groups.get(number, ()))
        for number, (record, patient) in enumerate(frames.records)
    ]
    parts = split(kept, config.split, config.split_seed)
    write_split(place.out / "split.json", parts)
    summary["patients"] = len(parts)
    summary["groups"] = len({group for tied in groups.values() for group in tied})
    summary["parts"] = dict(sorted(Counter(parts[who] for _, who in frames.records).items()))
    write_json(place.out / SUMMARY, summary)
    write_json(place.out / "archive.json", {"format": FORMAT, "kind": "ingested"})
    shutil.rmtree(place.work)
    return summary


class _Frames:
    """Numbers of every frame in the order of the archive; paths are made when asked for."""

    def __init__(self, place: Workplace, records: list[str]) -> None:
        self.records: list[tuple[str, str]] = []
        self._digests, self._hashes = bytearray(), bytearray()
        # Per frame: number of its record, position, whether it is a PNG, number of its shard.
        self._places = array("q")
        packer = ShardPacker(place.frames, place.out / "frames") if place.shards else None
        for fragment in place.fragments(records):
            if "record" not in fragment:
                continue
            record = fragment["record"]["record_id"]
            self.records.append((record, fragment["record"]["patient_id"]))
            for frame in fragment["frames"]:
                self._digests += bytes.fromhex(frame["sha256"])
                self._hashes += bytes.fromhex(frame["phash"] or "00" * 32)
                stem, _, suffix = frame["name"].partition(".")
                shard = packer.add(f"{record}/{frame['name']}", frame["bytes"]) if packer else -1
                self._places.extend((len(self.records) - 1, int(stem), suffix == "png", shard))
        if packer:
            packer.flush()

    def numbers(self) -> tuple[Any, Any, Any]:
        """Digests (n, 32), hashes (n, 32) and patient numbers (n,)."""
        known: dict[str, int] = {}
        of_record = [known.setdefault(patient, len(known)) for _, patient in self.records]
        digests = np.frombuffer(self._digests, np.uint8).reshape(-1, 32)
        hashes = np.frombuffer(self._hashes, np.uint8).reshape(-1, 32)
        return digests, hashes, np.array(of_record, np.int64)[self.owners()]

    def owners(self) -> Any:
        """Number of each frame's record, int64 (n,)."""
        return np.frombuffer(self._places, np.int64).reshape(-1, 4)[:, 0]

    def digest(self, index: int) -> str:
        """SHA-256 of a frame's bytes."""
        return self._digests[32 * index : 32 * index + 32].hex()

    def path(self, index: int) -> str:
        """A frame's path within the archive."""
        owner, position, png, shard = self._places[4 * index : 4 * index + 4]
        name = f"{self.records[owner][0]}/{position:04d}{'.png' if png else '.jpg'}"
        return f"frames/{shard:06d}.tar/{name}" if shard >= 0 else f"frames/{name}"


def _ties(found: Duplicates, frames: _Frames) -> tuple[dict[int, tuple[str, ...]], Counter[int]]:
    """Groups by record number, and how many of its pictures many patients share.

    A group is named after the bytes of the picture's first frame, so that it keeps its name when
    the archive grows.
    """
    owners = frames.owners()
    occurs = found.patients[found.picture] if len(owners) else np.empty(0, np.int64)
    groups: dict[int, set[str]] = {}
    names: dict[int, str] = {}
    for index in np.flatnonzero((occurs > 1) & (occurs <= MOST_PATIENTS)).tolist():
        picture = int(found.picture[index])
        name = names.setdefault(picture, f"dup-{frames.digest(index)[:16]}")
        groups.setdefault(int(owners[index]), set()).add(name)
    shared = Counter(owners[occurs > MOST_PATIENTS].tolist())
    return {number: tuple(sorted(tied)) for number, tied in groups.items()}, shared


def _write_lines(
    place: Workplace,
    records: list[str],
    table: Iterable[Entry],
    frames: _Frames,
    ties: tuple[Duplicates, dict[int, tuple[str, ...]], Counter[int]],
) -> dict[str, Any]:
    """Write the line-by-line files in one pass over the fragments, and count."""
    found, groups, shared = ties
    count = _Count()
    number = index = 0
    with ExitStack() as stack:
        lines = {
            name: stack.enter_context((place.out / name).open("w", encoding="utf-8"))
            for name in ("records.jsonl", "frames.jsonl", "pathology.jsonl", "ledger.jsonl")
        }

        def write(name: str, row: dict[str, Any]) -> None:
            lines[name].write(json.dumps(row, ensure_ascii=False) + "\n")

        def tell(row: dict[str, Any]) -> None:
            count.entry(row)
            write("ledger.jsonl", row)

        for entry in table:
            tell(entry.row())
        for fragment in place.fragments(records):
            for row in fragment["ledger"]:
                tell(row)
            if "record" not in fragment:
                continue
            paths = {}
            for frame in fragment["frames"]:
                paths[frame["name"]] = frames.path(index)
                write("frames.jsonl", count.frame(_frame_row(frame, index, found, frames)))
                index += 1
            row = fragment["record"] | {"frames": list(paths.values())}
            write("records.jsonl", row | {"groups": list(groups.get(number, ()))})
            if told := fragment.get("pathology"):
                write("pathology.jsonl", count.pathology(told))
            if shared[number]:
                mark = Entry(Reason.SHARED_BY_MANY, row["record_id"])
                tell(mark.row() | {"count": shared[number]})
            if fragment["labels"]:
                if SAMPLE not in lines:
                    file = (place.out / SAMPLE).open("w", encoding="utf-8")
                    lines[SAMPLE] = stack.enter_context(file)
                for label in fragment["labels"]:
                    said = {"lesion": label["lesion"], "neoplastic": label["neoplastic"]}
                    write(SAMPLE, {"frame": paths[label["name"]], **said})
            number += 1
    return {"exams": len(records), "records": number, "frames": index, **count.totals()}


def _frame_row(
    frame: dict[str, Any], index: int, found: Duplicates, frames: _Frames
) -> dict[str, Any]:
    first = int(found.first[index])
    kind = None if first < 0 else "exact" if found.exact[index] else "near"
    return {
        "path": frames.path(index),
        "sha256": frame["sha256"],
        "phash": frame["phash"] or None,
        "duplicate_of": None if first < 0 else frames.path(first),
        "duplicate": kind,
        "width": frame["width"],
        "height": frame["height"],
    }


class _Count:
    """Counts for the summary."""

    def __init__(self) -> None:
        self._fates: dict[str, Counter[str]] = {"left_out": Counter(), "marked": Counter()}
        self._removed: Counter[str] = Counter()
        self._duplicates: Counter[str] = Counter()
        self._neoplastic: Counter[str] = Counter()

    def entry(self, row: dict[str, Any]) -> None:
        self._fates[row["fate"]][row["reason"]] += row.get("count", 1)
        self._removed.update(row.get("removed", {}))

    def frame(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["duplicate"]:
            self._duplicates[row["duplicate"]] += 1
        return row

    def pathology(self, row: dict[str, Any]) -> dict[str, Any]:
        self._neoplastic[{True: "yes", False: "no", None: "unclear"}[row["neoplastic"]]] += 1
        return row

    def totals(self) -> dict[str, Any]:
        plain = {name: dict(sorted(counts.items())) for name, counts in self._fates.items()}
        return plain | {
            "identities_removed": dict(sorted(self._removed.items())),
            "duplicates": dict(sorted(self._duplicates.items())),
            "neoplastic": dict(sorted(self._neoplastic.items())),
        }
