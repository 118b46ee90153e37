"""The ledger of an extraction: what was read of each report, by whom; it resumes.

One JSON object a line. The first names the extractor, every other is one report:

    {"format": 1, "extractor": {"model": "rules"}}
    {"format": 1, "extractor": {"model": "qwen3-8b", "prompt": "2:4c4c2cb7d5196bee"}}

    {"record_id": "r7", "report": "sha256:...", "by": "llm", "tokens": [812, 140],
     "lesions": [{"number": 1, "spans": [[10, 84]], "by": "llm",
                  "attributes": {"size_band": ["10-19", 22, 27], ...}}]}

``by`` is ``llm`` or ``rules``; a model's answer that was replaced by the rules says why in
``reason``, of the whole report or of one lesion. Offsets count characters of the record's report,
whose digest stands beside them: no report text is held. An attribute that is not mentioned is left
out.

Lines are appended and synced; a last line that a kill tore is cut off and its report read again.
The last entry of a record counts.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from training.attribute_rules import ATTRIBUTES
from training.attributes import AttributeValue, Finding, findings
from training.errors import ArchiveRefused, RecordError, StaleInput

__all__ = [
    "BY_LLM",
    "BY_RULES",
    "Entry",
    "Extractor",
    "Ledger",
    "ReadLesion",
    "Span",
    "findings_of",
    "read_ledger",
    "report_digest",
]

FORMAT = 1
BY_LLM, BY_RULES = "llm", "rules"

Span = tuple[int, int]


@dataclass(frozen=True)
class Extractor:
    """What reads reports.

    Attributes:
        model: ``rules``, or a model's name at its endpoint.
        prompt: Version and digest of the prompt; "" for the rules.
    """

    model: str = BY_RULES
    prompt: str = ""

    def plain(self) -> dict[str, str]:
        """As the ledger's first line has it."""
        return {"model": self.model} | ({"prompt": self.prompt} if self.prompt else {})


@dataclass(frozen=True)
class ReadLesion:
    """One lesion as it was read.

    Attributes:
        number: The number the report gives it, else its order, from 1.
        spans: Its sentences, as offsets in the report.
        attributes: What is mentioned of the nine.
        by: ``llm`` or ``rules``.
        reason: Why the rules read it, where a model was asked; else "".
    """

    number: int
    spans: tuple[Span, ...]
    attributes: dict[str, AttributeValue]
    by: str = BY_RULES
    reason: str = ""


@dataclass(frozen=True)
class Entry:
    """One report as it was read.

    Attributes:
        record_id: Of the record.
        report: Digest of its report.
        lesions: In the order of the report.
        by: ``llm`` or ``rules``; a lesion may differ.
        reason: Why the rules read the whole report, where a model was asked; else "".
        tokens: Of question and answer; 0, 0 where nothing was asked.
    """

    record_id: str
    report: str
    lesions: tuple[ReadLesion, ...]
    by: str = BY_RULES
    reason: str = ""
    tokens: Span = (0, 0)


class Ledger:
    """A ledger open for writing, by one process at a time.

    Args:
        path: New or begun; its folder is made.
        extractor: What will be written.

    Raises:
        StaleInput: It was begun by another extractor, or another process is writing it.
        RecordError: A line other than the last is damaged.
    """

    def __init__(self, path: Path, extractor: Extractor) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path.open("a+b")
        try:
            self._begin(extractor)
        except BaseException:
            self._file.close()
            raise

    def _begin(self, extractor: Extractor) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StaleInput(f"{self.path.name}: another extraction is writing it") from error
        found, entries, whole = _read(self.path)
        if found != extractor and not entries:
            found, whole = None, 0  # begun, and stopped before anything was read
        if found is not None and found != extractor:
            raise StaleInput(
                f"{self.path.name} was made by {_named(found)}, not by {_named(extractor)}; choose "
                "another --out or delete it"
            )
        self.entries = {entry.record_id: entry for entry in entries}
        self._file.truncate(whole)
        if found is None:
            self._write([{"format": FORMAT, "extractor": extractor.plain()}])

    def append(self, entries: Iterable[Entry]) -> None:
        """Write entries to disk; they are there when this returns."""
        entries = list(entries)
        self._write([_plain(entry) for entry in entries])
        self.entries.update((entry.record_id, entry) for entry in entries)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self._file.write(b"".join(json.dumps(row).encode() + b"\n" for row in rows))
        self._file.flush()
        os.fsync(self._file.fileno())

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()


def read_ledger(path: Path) -> tuple[Extractor, dict[str, Entry]]:
    """Read a ledger: its extractor, and the last entry of each record.

    Raises:
        ArchiveRefused: There is none, or it is empty.
        RecordError: A line other than the last is damaged.
    """
    if not path.is_file():
        raise ArchiveRefused(f"expected the ledger {path.name} in the archive, found no such file")
    extractor, entries, _ = _read(path)
    if extractor is None:
        raise ArchiveRefused(f"{path.name}: expected a ledger, found an empty file")
    return extractor, {entry.record_id: entry for entry in entries}


def findings_of(entry: Entry, report: str) -> list[Finding]:
    """Join an entry with its report: what ``attributes.extract`` gives, as the extractor read it.

    Raises:
        StaleInput: The entry is of another report.
    """
    if entry.report != report_digest(report):
        raise StaleInput(f"{entry.record_id}: the ledger is of another report")
    return findings(report, [(les.number, les.spans, les.attributes, {}) for les in entry.lesions])


def report_digest(report: str) -> str:
    """SHA-256 of a report, ``sha256:...``."""
    # JSON may hold lone surrogates; they are characters of a report like any other.
    return "sha256:" + hashlib.sha256(report.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> tuple[Extractor | None, list[Entry], int]:
    """Extractor, entries, and the length in bytes of the lines that are whole."""
    extractor: Extractor | None = None
    entries: list[Entry] = []
    whole = 0
    for number, line, last in _lines(path):
        try:
            if not line.endswith(b"\n"):
                raise ValueError("expected a line feed at its end, found none")
            row = json.loads(line)
            if extractor is None:
                extractor = _extractor(row)
            else:
                entries.append(_entry(row))
        except (ValueError, KeyError, TypeError) as error:
            if last:
                break
            raise RecordError(path, number, f"expected an entry of a ledger, {error!r}") from error
        whole += len(line)
    return extractor, entries, whole


def _lines(path: Path) -> Iterator[tuple[int, bytes, bool]]:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        for number, line in enumerate(file, start=1):
            size -= len(line)
            yield number, line, size <= 0


def _extractor(row: dict[str, Any]) -> Extractor:
    if row["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, found {row['format']!r}")
    return Extractor(str(row["extractor"]["model"]), str(row["extractor"].get("prompt", "")))


def _entry(row: dict[str, Any]) -> Entry:
    lesions = tuple(
        ReadLesion(
            int(lesion["number"]),
            tuple((int(a), int(b)) for a, b in lesion["spans"]),
            {name: _value(name, told) for name, told in lesion["attributes"].items()},
            lesion["by"],
            lesion.get("reason", ""),
        )
        for lesion in row["lesions"]
    )
    asked, answered = row.get("tokens", (0, 0))
    told = (row["by"], row.get("reason", ""))
    return Entry(str(row["record_id"]), str(row["report"]), lesions, *told, (asked, answered))


def _value(name: str, told: list[Any]) -> AttributeValue:
    value, start, end = told
    if value not in ATTRIBUTES[name]:
        raise ValueError(f"{name}: expected one of {ATTRIBUTES[name]}, found {value!r}")
    return AttributeValue(value, (int(start), int(end)))


def _plain(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {"record_id": entry.record_id, "report": entry.report, "by": entry.by}
    if entry.reason:
        row["reason"] = entry.reason
    if any(entry.tokens):
        row["tokens"] = entry.tokens
    row["lesions"] = [
        {"number": lesion.number, "spans": lesion.spans, "by": lesion.by}
        | ({"reason": lesion.reason} if lesion.reason else {})
        | {"attributes": {n: [v.value, *v.span] for n, v in lesion.attributes.items()}}
        for lesion in entry.lesions
    ]
    return row


def _named(extractor: Extractor) -> str:
    if not extractor.prompt:
        return "the rules"
    return f"{extractor.model!r} with prompt {extractor.prompt}"
