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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from rich.progress import track

from training.config import digest
from training.errors import ArchiveRefused, ConfigError
from training.ingest.assemble import SUMMARY, Workplace, assemble
from training.ingest.config import IngestConfig
from training.ingest.exam import ExamReader, Task
from training.ingest.ledger import Entry, Reason
from training.ingest.pool import run_tasks
from training.ingest.pseudonyms import Pseudonyms, read_key
from training.ingest.tables import read_table
from training.runs import file_digest, write_json

__all__ = ["ingest", "ingest_key"]


_CELL = {"": None, **dict.fromkeys(["0", "false", "no", "n"], False)} | dict.fromkeys(
    ["1", "true", "yes", "y"], True
)
# These do not change what comes out.
_NO_MATTER = ("data", "secret", "linkage", "workers")


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
    return {"ingest": digest(plain)}


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
    if (out / "archive.json").is_file():
        return dict(json.loads((out / SUMMARY).read_text("utf-8")))
    config = dataclasses.replace(config, data=str(raw.resolve()))
    _check_places(config, out)
    key = read_key(Path(config.secret))
    tasks, entries = _tasks(config, Pseudonyms(key))
    place = Workplace(out, config.output == "shards")
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
    return config.workers or os.cpu_count() or 1


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

    In the order of the pseudonyms, since the table's may tell something. The report table is held
    in memory: 13,000 reports take about 40 MB.
    """
    labels, entries = _labels(config)
    columns, form = config.columns, (config.delimiter, config.encoding)
    found: dict[str, Task] = {}
    lines: dict[str, int] = {}
    for row in read_table(Path(config.data) / config.table, columns.named(), *form):
        line = {"line": row.line}
        if row.problem:
            entries.append(Entry(Reason.ROW_UNREADABLE, told=line | {"detail": row.problem}))
            continue
        exam, patient = row.cells[columns.exam], row.cells[columns.patient]
        record = pseudonyms.record(exam) if exam else ""
        if not exam:
            entries.append(Entry(Reason.EXAM_WITHOUT_ID, told=line))
        elif record in found:
            told = line | {"first_line": lines[record]}
            entries.append(Entry(Reason.EXAM_REPEATED, record, told=told))
        elif not patient:
            entries.append(Entry(Reason.PATIENT_WITHOUT_ID, record, told=line))
        else:
            lines[record] = row.line
            found[record] = Task(record, exam, patient, row.cells, labels.pop(exam, {}))
    for given in labels.values():
        entries += [Entry(Reason.LABEL_UNKNOWN, told={"line": n}) for _, _, n in given.values()]
    entries += _without_report(config, found.values(), pseudonyms)
    return [found[record] for record in sorted(found)], entries


def _labels(
    config: IngestConfig,
) -> tuple[dict[str, dict[str, tuple[bool, bool | None, int]]], list[Entry]]:
    found: dict[str, dict[str, tuple[bool, bool | None, int]]] = {}
    entries: list[Entry] = []
    table = config.labels
    if table is None:
        return found, entries
    columns = [c for c in (table.exam, table.frame, table.lesion, table.neoplastic) if c]
    for row in read_table(
        Path(config.data) / table.table, columns, config.delimiter, config.encoding
    ):
        lesion = _CELL.get(row.cells.get(table.lesion, "").lower())
        said = row.cells.get(table.neoplastic, "").lower() if table.neoplastic else ""
        if row.problem or lesion is None or said not in _CELL:
            entries.append(Entry(Reason.LABEL_UNKNOWN, told={"line": row.line}))
            continue
        frames = found.setdefault(row.cells[table.exam], {})
        frames[row.cells[table.frame]] = lesion, _CELL[said], row.line
    return found, entries


def _without_report(
    config: IngestConfig, tasks: Iterable[Task], pseudonyms: Pseudonyms
) -> Iterator[Entry]:
    """Name what lies in the data folder and belongs to no row; of image files, folders only."""
    raw = Path(config.data)
    tables = [config.table, config.labels.table if config.labels else ""]
    named = {Path(name).parts[0] for name in tables if name and not Path(name).is_absolute()}
    for task in tasks:
        name = task.cells[config.columns.frames] if config.columns.frames else task.exam
        named |= set(Path(name).parts[:1])
    for path in sorted(raw.iterdir()):
        meant = path.is_dir() or config.kind != "folders"
        own = path in (Path(config.secret), Path(config.linkage or config.secret))
        if (
            meant
            and not own
            and not path.name.startswith(".")
            and not {path.name, path.stem} & named
        ):
            yield Entry(Reason.REPORT_MISSING, pseudonyms.record(path.name))


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
