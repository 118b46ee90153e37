"""Ingestion from beginning to end; resumable by exam.

    config = located(load(path).ingest, path.parent)
    summary = ingest(config, Path(config.data), out)

The body of a stage: what lies in ``out`` from a run that was cut off is taken up, a finished exam
is not redone, and the archive is the same as without the interruption.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from rich.progress import track

from model_store.cores import usable_cores
from training.config import digest
from training.errors import ArchiveRefused, ConfigError
from training.ingest.assemble import SUMMARY, Workplace, assemble
from training.ingest.config import IngestConfig
from training.ingest.exam import ExamReader, Task
from training.ingest.folders import claims
from training.ingest.ledger import Entry, Reason
from training.ingest.pool import run_tasks
from training.ingest.pseudonyms import Pseudonyms, identity, read_key
from training.ingest.tables import read_table
from training.runs import file_digest, write_json

__all__ = ["ingest", "ingest_key"]

# By exam and frame: lesion, neoplastic, line of the table.
_Labels = dict[str, dict[str, tuple[bool, bool | None, int]]]
_CELL = {"": None, **dict.fromkeys(["0", "false", "no", "n"], False)} | dict.fromkeys(
    ["1", "true", "yes", "y"], True
)
# These do not change what comes out.
_NO_MATTER = ("data", "secret", "linkage", "workers")

RULES = 2
"""Raised when the same raw data makes another archive: what was cut off under other rules of
pseudonyms or de-identification is begun anew, not continued."""


def ingest_key(config: IngestConfig, raw: Path) -> dict[str, Any]:
    """What the archive depends on, for the stage's stamp: settings, tables, which secret it was.

    The frames are not among it: new ones below the data folder ask for another output folder.

    Args:
        config: With absolute paths (``config.located``).
        raw: Folder of the raw data.

    Raises:
        ConfigError: A table or the secret cannot be read.
    """
    plain = {k: v for k, v in dataclasses.asdict(config).items() if k not in _NO_MATTER}
    plain["fingerprint"] = Pseudonyms(read_key(Path(config.secret))).fingerprint()
    plain["tables"] = []
    for name in filter(None, (config.table, config.labels.table if config.labels else "")):
        if not (raw / name).is_file():
            raise ConfigError(
                f"expected the table {Path(name).name} in the data folder, found none"
            )
        plain["tables"].append(file_digest(raw / name))
    return {"ingest": digest(plain), "rules": RULES}


def ingest(config: IngestConfig, raw: Path, out: Path) -> dict[str, Any]:
    """Read a hospital's raw data into an archive of records.

    Args:
        config: The recipe's ``[ingest]`` table with absolute paths (``config.located``).
        raw: Folder of the raw data.
        out: Folder of the archive; may hold what an interrupted run left.

    Returns:
        Counts, as in ``ingestion.json``.

    Raises:
        ConfigError: The tables, the secret or the settings cannot be used.
        ArchiveRefused: The folders lie inside each other, a frame cannot be written, or no exam is
            left to make an archive of.
    """
    place = Workplace(out, config.output == "shards")
    if (out / "archive.json").is_file():
        shutil.rmtree(place.work, ignore_errors=True)  # a kill may have come before assemble did so
        return dict(json.loads((out / SUMMARY).read_text("utf-8")))
    config = dataclasses.replace(config, data=str(raw.resolve()))
    _check_places(config, out)
    key = read_key(Path(config.secret))
    tasks, entries = _tasks(config, Pseudonyms(key))
    place.fragment("").parent.mkdir(parents=True, exist_ok=True)
    _read_exams(config, key, tasks, place)
    _write_linkage(config, tasks, Pseudonyms(key))
    _refuse_nothing(tasks, entries, place)
    return assemble(place, [task.record for task in tasks], entries, config)


def _check_places(config: IngestConfig, out: Path) -> None:
    out, raw = out.resolve(), Path(config.data)
    if not raw.is_dir():
        raise ConfigError("expected the folder of the raw data (ingest.data, --data), found none")
    if out.is_relative_to(raw) or raw.is_relative_to(out):
        raise ArchiveRefused("the archive and the raw data must not lie inside each other")
    for name in ("secret", "linkage"):
        path = getattr(config, name)
        # A stage works in <out>.partial and becomes <out>.
        if path and any(Path(path).is_relative_to(folder) for folder in (out, out.with_suffix(""))):
            raise ConfigError(f"ingest.{name}: expected a file outside the archive")


def _read_exams(config: IngestConfig, key: bytes, tasks: list[Task], place: Workplace) -> None:
    todo = [task for task in tasks if not place.fragment(task.record).is_file()]
    # At least two unless one is asked for: with one there is no process to lose to a crash.
    workers = 1 if config.workers == 1 else max(2, min(_cores(config), len(todo)))
    done = run_tasks(todo, _work, workers, _start, (config, key, place))
    progress = track(
        done, "ingest", total=len(tasks), completed=len(tasks) - len(todo), update_period=1.0
    )
    for task, finished in progress:
        if not finished:
            shutil.rmtree(place.frames / task.record, ignore_errors=True)  # what it got to
            row = Entry(Reason.DECODER_CRASHED, task.record).row()
            write_json(place.fragment(task.record), {"ledger": [row]})


def _cores(config: IngestConfig) -> int:
    return config.workers or usable_cores()


# At level DEBUG these log what they read: EXIF values, DICOM elements, texts.
_TALKATIVE = ("PIL", "pydicom", "libav", "presidio-analyzer", "py3langid", "spacy")
_state: tuple[ExamReader, Workplace] | None = None


def _start(config: IngestConfig, key: bytes, place: Workplace) -> None:
    global _state
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    _state = ExamReader(config, key), place


def _work(task: Task) -> None:
    """Read one exam in a worker; its fragment, written last and whole, says that it is done."""
    assert _state is not None
    reader, place = _state
    fragment = reader.read(task, place.frames / task.record)
    write_json(place.fragment(task.record), fragment)


def _tasks(config: IngestConfig, pseudonyms: Pseudonyms) -> tuple[list[Task], list[Entry]]:
    """Exams, and what is wrong with the tables.

    In the order of the pseudonyms, since the table's may tell something.
    """
    lines, tasks, entries = _rows(config, pseudonyms)
    labels, unclear = _labels(config)
    raw, columns = Path(config.data), config.columns
    tables = [config.table, config.labels.table if config.labels else ""]
    own = {raw / name for name in tables if name}
    own |= {Path(name) for name in (config.secret, config.linkage) if name}
    places = {record: columns.place(task.cells) for record, task in tasks.items()}
    found = claims(raw, config.kind, places, own)
    for record in sorted(found.shared, key=lambda r: lines[r]):
        del tasks[record]
        entries.append(Entry(Reason.FOLDER_SHARED, record, told={"line": lines[record]}))
    for path in found.strays:
        name = path.name if columns.frames else path.relative_to(raw).as_posix()
        entries.append(Entry(Reason.REPORT_MISSING, pseudonyms.record(name)))
    for record, task in tasks.items():
        tasks[record] = dataclasses.replace(task, labels=labels.pop(task.exam, {}))
    for given in labels.values():
        unclear += [Entry(Reason.LABEL_UNKNOWN, told={"line": n}) for _, _, n in given.values()]
    return [tasks[record] for record in sorted(tasks)], entries + unclear


def _rows(
    config: IngestConfig, pseudonyms: Pseudonyms
) -> tuple[dict[str, int], dict[str, Task], list[Entry]]:
    """Lines and exams by record; held in memory: 13,000 reports take about 40 MB."""
    columns, form = config.columns, (config.delimiter, config.encoding)
    keys = (columns.exam, columns.patient)
    lines: dict[str, int] = {}
    tasks: dict[str, Task] = {}
    entries: list[Entry] = []
    for row in read_table(Path(config.data) / config.table, columns.named(), keys, *form):
        line = {"line": row.line}
        if row.problem:
            entries.append(Entry(Reason.ROW_UNREADABLE, told=line | {"detail": row.problem}))
            continue
        exam, patient = row.cells[columns.exam], row.cells[columns.patient]
        record = pseudonyms.record(exam)
        if not identity(exam):
            entries.append(Entry(Reason.EXAM_WITHOUT_ID, told=line))
        elif record in tasks:
            told = line | {"first_line": lines[record]}
            entries.append(Entry(Reason.EXAM_REPEATED, record, told=told))
        elif not identity(patient):
            entries.append(Entry(Reason.PATIENT_WITHOUT_ID, record, told=line))
        else:
            lines[record] = row.line
            tasks[record] = Task(record, exam, patient, row.cells)
    return lines, tasks, entries


def _labels(config: IngestConfig) -> tuple[_Labels, list[Entry]]:
    """Labels that say something clear; of two that contradict each other the first."""
    found: _Labels = {}
    entries: list[Entry] = []
    table, form = config.labels, (config.delimiter, config.encoding)
    if table is None:
        return found, entries
    columns = [c for c in (table.exam, table.frame, table.lesion, table.neoplastic) if c]
    keys = (table.exam, table.frame)
    for row in read_table(Path(config.data) / table.table, columns, keys, *form):
        line: dict[str, Any] = {"line": row.line}
        lesion = _CELL.get(row.cells.get(table.lesion, "").lower())
        said = row.cells.get(table.neoplastic, "").lower() if table.neoplastic else ""
        if row.problem or lesion is None or said not in _CELL:
            told = line | {"detail": row.problem or "expected yes or no"}
            entries.append(Entry(Reason.LABEL_UNKNOWN, told=told))
            continue
        if _CELL[said] and not lesion:
            told = line | {"detail": "neoplastic without a lesion"}
            entries.append(Entry(Reason.LABEL_CONTRADICTORY, told=told))
            continue
        label = lesion, _CELL[said] if lesion else None
        frames = found.setdefault(row.cells[table.exam], {})
        first = frames.setdefault(row.cells[table.frame], (*label, row.line))
        if first[:2] != label:
            told = line | {"first_line": first[2]}
            entries.append(Entry(Reason.LABEL_CONTRADICTORY, told=told))
    return found, entries


def _write_linkage(config: IngestConfig, tasks: list[Task], pseudonyms: Pseudonyms) -> None:
    if not config.linkage:
        return
    path = Path(config.linkage)
    path.unlink(missing_ok=True)  # an older file may have a wider mode
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        for task in tasks:
            pair = {"record_id": task.record, "exam": task.exam}
            pair |= {"patient_id": pseudonyms.patient(task.patient), "patient": task.patient}
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")


def _refuse_nothing(tasks: list[Task], entries: list[Entry], place: Workplace) -> None:
    reasons = {entry.reason.value for entry in entries}
    for fragment in place.fragments(task.record for task in tasks):
        if "record" in fragment:
            return
        reasons |= {row["reason"] for row in fragment["ledger"]}
    raise ArchiveRefused(
        f"expected at least one exam to make a record of, found none among {len(tasks)}; "
        f"reasons: {', '.join(sorted(reasons)) or 'the table has no rows'}"
    )
