"""Score an archive's frames into a folder of Parquet, and read them back.

    <out>/frames/part-000000.parquet    frame, record_id, reason, error, scores, model
    <out>/records/part-000000.parquet   record_id, frames, frames_scored, scores, model (bundles)
    <out>/stamp.json                    what it was made from, frames by reason

Pixels and scores stream: memory does not grow with the archive, but for its list of records. A run
that was cut off, ``kill -9`` included, goes on with the parts that are missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from training.errors import ArchiveRefused, ConfigError, ScoringStopped
from training.runs import run_stage, stamp_of
from training.scoring.engines import ENGINES
from training.scoring.models import Model
from training.scoring.parts import (
    FRAMES,
    PLAN,
    RECORDS,
    Job,
    ScoredRecord,
    finished_parts,
    part_files,
    part_sizes,
    write_plan,
)

__all__ = ["EMBEDDINGS", "read_scores", "score_archive"]

log = logging.getLogger(__name__)

EMBEDDINGS = ("float16", "float32")


def score_archive(
    out: Path,
    archive: Path,
    records: Sequence[ScoredRecord],
    model: Model,
    *,
    engine: str = "local",
    workers: int = 0,
    embeddings: str = "",
    key: Mapping[str, Any] | None = None,
) -> Path:
    """Score every frame of some records, once.

    Args:
        out: Folder for the scores; a finished one of the same key is not redone.
        archive: The archive's folder, which the frames lie in.
        records: Anything with ``record_id`` and ``frames``; ids are distinct.
        model: Description of the model.
        engine: ``local`` (processes) or ``ray``; the scores are the same.
        workers: At most; 0 = one per core. One local worker scores in this process.
        embeddings: ``float16`` or ``float32`` adds a column of embeddings.
        key: What else the scores depend on, such as the digest of the archive's bytes.

    Returns:
        ``out``.

    Raises:
        ArchiveRefused: There is no frame, or the archive went away.
        StaleInput: ``out`` was made from another model, list of frames or ``key``.
        ScoringStopped: It could not go on (disk full, a worker killed, another run in the folder).
        ConfigError: An unknown engine or kind of embeddings, or weights that do not fit.
    """
    if engine not in ENGINES or embeddings not in ("", *EMBEDDINGS) or workers < 0:
        raise ConfigError(
            f"expected an engine of {', '.join(ENGINES)}, embeddings of {', '.join(EMBEDDINGS)} "
            f"and workers of at least 0; found {engine!r}, {embeddings!r}, {workers}"
        )
    if not any(record.frames for record in records):
        raise ArchiveRefused(f"{archive.name}: expected frames to score, found none")
    archive = archive.resolve()
    whole_key = {
        "model": model.digest,
        "frames": _list_digest(archive, records),
        "embeddings": embeddings or None,
    } | dict(key or {})

    def body(folder: Path) -> Mapping[str, Any]:
        with _alone(folder), _emptied_unless_begun(folder):
            if not (folder / PLAN).exists():
                write_plan(folder / PLAN, archive, records)
            job = Job(archive, folder.resolve(), model, embeddings)
            _score_missing(job, engine, workers)
            (folder / PLAN).unlink()
        return {"model": model.title} | _counted(folder)

    with _explained(out):
        return run_stage(out, whole_key, body)


def read_scores(
    folder: Path, columns: Sequence[str] | None = None, table: str = FRAMES
) -> Iterator[pa.Table]:
    """Read scores, one part at a time, in the order of the records that were given.

    Args:
        folder: A finished folder of ``score_archive``.
        columns: Names to read; None = all.
        table: ``frames`` or ``records``.

    Raises:
        StaleInput: The folder is not finished.
    """
    stamp_of(folder)
    for path in part_files(folder, table):
        yield pq.read_table(path, columns=None if columns is None else list(columns))


def _list_digest(archive: Path, records: Sequence[ScoredRecord]) -> str:
    state = hashlib.sha256()
    for record in records:
        names = [frame.relative_to(archive).as_posix() for frame in record.frames]
        state.update(repr((record.record_id, names)).encode("utf-8", "surrogatepass"))
    return "sha256:" + state.hexdigest()


def _score_missing(job: Job, engine: str, workers: int) -> None:
    sizes = part_sizes(job.folder / PLAN)
    for table in (FRAMES, RECORDS):
        (job.folder / table).mkdir(exist_ok=True)
        for left in (job.folder / table).glob("*.tmp"):
            left.unlink()
    finished = finished_parts(job.folder)
    missing = [part for part in range(len(sizes)) if part not in finished]
    if finished:
        log.info("resumed=%s parts=%d of %d", job.folder.name, len(finished), len(sizes))
    if missing:
        with _bar(sum(sizes), sum(sizes[part] for part in finished)) as advance:
            ENGINES[engine](job, missing, workers, advance)


def _counted(folder: Path) -> dict[str, Any]:
    """Frames, and how many met which reason."""
    found: Counter[str] = Counter()
    for path in part_files(folder, FRAMES):
        for entry in pq.read_table(path, columns=["reason"])["reason"].value_counts().to_pylist():
            found[entry["values"] or "scored"] += entry["counts"]
    return {"frames": found.total(), "reasons": dict(found.most_common())}


@contextmanager
def _bar(total: int, done: int) -> Iterator[Any]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.0f} frames/s"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    start, counted = time.monotonic(), 0
    # The estimate looks back 10 minutes: parts end in bursts, one per worker.
    with Progress(*columns, speed_estimate_period=600) as progress:
        task = progress.add_task("scoring", total=total, completed=done, rate=0.0)

        def advance(frames: int) -> None:
            nonlocal counted
            counted += frames
            rate = counted / max(time.monotonic() - start, 1e-9)
            progress.update(task, advance=frames, rate=rate)

        yield advance


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two runs would do every part twice and one would fail at the end."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ScoringStopped(
            f"{folder}: another run is scoring into this folder; wait for it or choose another"
        ) from error
    except OSError:  # network file systems that cannot lock a folder are used without
        log.warning("no lock on this file system; start one run at a time")
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _emptied_unless_begun(folder: Path) -> Iterator[None]:
    """Leave an empty folder where no part was finished: the next try may be of another model."""
    try:
        yield
    except BaseException:
        if not finished_parts(folder):
            for table in (FRAMES, RECORDS):
                shutil.rmtree(folder / table, ignore_errors=True)
            (folder / PLAN).unlink(missing_ok=True)
        raise


@contextmanager
def _explained(out: Path) -> Iterator[None]:
    """Translate what the file system raises: disk full, no permission, a file in the way."""
    try:
        yield
    except OSError as error:
        raise ScoringStopped(
            f"{error.filename or out}: {error.strerror or error}; what is scored stays, the same "
            "command resumes"
        ) from error
