"""The unit of work: one part of an archive's frame list, read, scored and written whole.

A part is a run of whole records, closed once it holds ``PART_FRAMES`` frames, so a record's frames
are scored together and no second pass is needed. What a part holds and how it is cut into batches
depends on the frame list alone: results do not depend on engine, workers or interruptions.

    plan.parquet                    the frame list, one row group a part; gone when all is done
    frames/part-000000.parquet      one row a frame; its being there says that the part is done
    records/part-000000.parquet     one row a record, where the model scores records
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from model_store.errors import ImageRejected
from model_store.images import Pixels, decode
from model_store.quality import assess
from training.errors import ArchiveRefused
from training.frame_files import forget_shards, read_frame
from training.scoring.models import WORDS, Columns, Floats, Model, Scorer

__all__ = [
    "FRAMES",
    "PART_FRAMES",
    "PLAN",
    "RECORDS",
    "UNREADABLE",
    "Job",
    "PartScorer",
    "ScoredRecord",
    "finished_parts",
    "part_files",
    "part_sizes",
    "write_plan",
    "write_table",
]

PART_FRAMES = 256
"""Frames at which a part is closed: 5 s of work of the shipped bundle on one core."""
PLAN, FRAMES, RECORDS = "plan.parquet", "frames", "records"
UNREADABLE = "unreadable"
# As many as cleansing scored at a time fit twice: 5 MB of pixels, and no slower than 64.
_BATCH = 32
_PLAN_SCHEMA = pa.schema([("record_id", pa.string()), ("frame", pa.string())])


class ScoredRecord(Protocol):
    """What is needed of a record: ``training.records.Record`` and ``training.reading.Exam`` fit."""

    @property
    def record_id(self) -> str:
        """Of the record."""

    @property
    def frames(self) -> tuple[Path, ...]:
        """Absolute paths in order."""


@dataclass(frozen=True)
class Job:
    """What every worker is sent; picklable.

    Attributes:
        archive: The archive's folder, absolute.
        folder: Where plan and parts lie, absolute.
        model: Description of the model.
        embeddings: ``float16`` or ``float32`` for a column of embeddings, "" for none.
        threads: Threads inside one run of the model; None = as many as there are.
    """

    archive: Path
    folder: Path
    model: Model
    embeddings: str
    threads: int | None = None


def write_plan(path: Path, archive: Path, records: Iterable[ScoredRecord]) -> None:
    """Write the frame list in parts, one row group each."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file, pq.ParquetWriter(file, _PLAN_SCHEMA) as writer:
        for part in _parts(records):
            names = [frame.relative_to(archive).as_posix() for one in part for frame in one.frames]
            ids = [one.record_id for one in part for _ in one.frames]
            table = pa.table({"record_id": ids, "frame": names}, schema=_PLAN_SCHEMA)
            writer.write_table(table, row_group_size=max(1, len(ids)))
    temporary.replace(path)


def _parts(records: Iterable[ScoredRecord]) -> Iterator[list[ScoredRecord]]:
    part: list[ScoredRecord] = []
    count = 0
    for record in records:
        part.append(record)
        count += len(record.frames)
        if count >= PART_FRAMES:
            yield part
            part, count = [], 0
    if count:
        yield part


def part_sizes(plan: Path) -> list[int]:
    """Frames of each part."""
    told = pq.read_metadata(plan)
    return [told.row_group(i).num_rows for i in range(told.num_row_groups)]


def part_files(folder: Path, table: str) -> list[Path]:
    """Files of one table, in order."""
    return sorted((folder / table).glob("part-*.parquet"))


def finished_parts(folder: Path) -> set[int]:
    """Parts that need not be done again."""
    return {int(path.stem.removeprefix("part-")) for path in part_files(folder, FRAMES)}


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            pq.write_table(table, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


class PartScorer:
    """Scores parts of one job; the model is loaded at the first.

    Args:
        job: What to do.
        stopping: Looked at before every batch; once true, the part is given up.
    """

    def __init__(self, job: Job, stopping: Callable[[], bool] = lambda: False) -> None:
        self._job = job
        self._stopping = stopping

    @cached_property
    def _scorer(self) -> Scorer:
        return self._job.model.load(self._job.threads)

    def score(self, index: int) -> int:
        """Score a part and write its files.

        Returns:
            Its number of frames.

        Raises:
            CancelledError: It was given up.
            ArchiveRefused: The archive is gone.
            EncodeFailed: The model did not run.
        """
        job = self._job
        plan = pq.ParquetFile(job.folder / PLAN).read_row_group(index)
        ids, names = plan["record_id"].to_pylist(), plan["frame"].to_pylist()
        embeddings, reasons, errors = self._encode(names)
        forget_shards()  # or memory would grow with the archive
        scored = np.array(
            [
                e is None and (r is None or self._scorer.scores_set_aside)
                for r, e in zip(reasons, errors, strict=True)
            ],
            dtype=bool,
        )
        records = list(_runs(ids))
        per_frame, per_record = self._scorer.score(records, embeddings, scored)
        if per_record:
            head = {"record_id": pa.array([ids[rows.start] for rows in records])}
            self._write(RECORDS, index, head | per_record, len(records))
        frames: Columns = {"frame": plan["frame"], "record_id": plan["record_id"]}
        frames |= {"reason": pa.array(reasons, WORDS), "error": pa.array(errors, WORDS)}
        frames |= per_frame
        if job.embeddings and self._scorer.dimension:
            frames["embedding"] = _lists(embeddings, scored, job.embeddings)
        # Last: the frames' file says that the part is done.
        self._write(FRAMES, index, frames, len(names))
        return len(names)

    def _encode(self, names: list[str]) -> tuple[Floats, list[str | None], list[str | None]]:
        """Embeddings (n, d), why a frame is not used, and why it could not be read."""
        scorer = self._scorer
        embeddings = np.zeros((len(names), scorer.dimension), np.float32)
        reasons: list[str | None] = [None] * len(names)
        errors: list[str | None] = [None] * len(names)
        for start in range(0, len(names), _BATCH):
            if self._stopping():
                raise CancelledError
            batch, rows = [], []
            for row, name in enumerate(names[start : start + _BATCH], start):
                pixels = self._read(name)
                if isinstance(pixels, str):
                    reasons[row], errors[row] = UNREADABLE, pixels
                    continue
                reason = assess(pixels, scorer.limits)
                reasons[row] = None if reason is None else str(reason)
                if reason is None or scorer.scores_set_aside:
                    batch.append(pixels)
                    rows.append(row)
            if rows:
                embeddings[rows] = scorer.encode(np.stack(batch))
        return embeddings, reasons, errors

    def _read(self, name: str) -> Pixels | str:
        """The pixels of a frame, or the word for why there are none."""
        try:
            return decode(read_frame(self._job.archive / name), self._scorer.contract)
        except ImageRejected as error:
            return error.code.value
        except (OSError, ArchiveRefused) as error:
            # A frame that is missing is its own matter; an archive whose file system went away is
            # not 874,000 unreadable frames.
            if not (self._job.archive / "records.jsonl").is_file():
                raise ArchiveRefused(
                    f"{self._job.archive}: the archive cannot be read any more ({error}); what is "
                    "scored stays, the same command resumes"
                ) from error
            return "missing" if isinstance(error, FileNotFoundError) else "io_error"

    def _write(self, table: str, index: int, columns: Columns, count: int) -> None:
        model = self._job.model.digest
        columns |= {"model": pa.array([model] * count, WORDS)}
        whole = pa.table(columns).replace_schema_metadata({"model": model})
        write_table(self._job.folder / table / f"part-{index:06}.parquet", whole)


def _runs(ids: list[str]) -> Iterator[range]:
    """Rows of each record: they lie together."""
    start = 0
    for row in range(1, len(ids) + 1):
        if row == len(ids) or ids[row] != ids[start]:
            yield range(start, row)
            start = row


def _lists(embeddings: Floats, scored: np.ndarray, kind: str) -> pa.Array:
    """Column of embeddings, null where there is none."""
    values = pa.array(embeddings.astype(kind).reshape(-1))
    width = embeddings.shape[1]
    return pa.FixedSizeListArray.from_arrays(values, width, mask=pa.array(~scored))
