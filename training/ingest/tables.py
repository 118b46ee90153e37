"""Rows of a CSV, JSONL or Parquet table, with every bad line named by its number."""

from __future__ import annotations

import codecs
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from training.errors import ConfigError
from training.ingest.csv_records import csv_records

__all__ = ["Row", "read_table"]


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        line: Line of the file on which it starts, from 1; of Parquet the row's number.
        cells: Text by column, without surrounding blanks; "" where there is none.
        problem: Why the line could not be read, "" for a good one (then ``cells`` is empty).
    """

    line: int
    cells: dict[str, str]
    problem: str = ""


def read_table(
    path: Path,
    columns: Sequence[str],
    keys: Sequence[str],
    delimiter: str = ",",
    encoding: str = "utf-8",
) -> Iterator[Row]:
    """Read a table row by row.

    Args:
        path: .csv, .jsonl or .parquet file.
        columns: Columns that are wanted; others are not read.
        keys: Those of them that number a row; ``csv_records`` tells rows from text by them.
        delimiter: Of a CSV file.
        encoding: Of a CSV file; others are UTF-8.

    Yields:
        Rows in order; a bad one costs none of its neighbours.

    Raises:
        ConfigError: The file cannot be read, lacks a column, or has a wanted one twice.
    """
    readers = {".jsonl": _jsonl, ".parquet": _parquet}
    try:
        if path.suffix.lower() == ".csv":
            yield from _csv(path, columns, keys, delimiter, encoding)
        else:
            yield from readers[path.suffix.lower()](path, columns)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"table {path.name}: cannot be read: {reason}") from error


def _csv(
    path: Path, columns: Sequence[str], keys: Sequence[str], delimiter: str, encoding: str
) -> Iterator[Row]:
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    try:
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
            lines = file.readlines()
    except UnicodeError as error:
        # Not the error's text: it quotes the file.
        raise ConfigError(f"table {path.name}: expected text in {encoding}") from error
    records = csv_records(lines, delimiter, keys)
    first = next(records)
    if first.problem:
        raise ConfigError(f"table {path.name}: line 1: {first.problem}")
    header = [name.strip() for name in first.cells]
    _require(path, columns, header)
    for record in records:
        if record.problem:
            yield Row(record.line, {}, record.problem)
        elif record.cells:
            yield _csv_row(record.line, header, record.cells, columns)


def _csv_row(line: int, header: list[str], values: list[str], columns: Sequence[str]) -> Row:
    if len(values) != len(header):
        return Row(line, {}, f"expected {len(header)} cells, found {len(values)}")
    cells = dict(zip(header, values, strict=True))
    if any("\udc80" <= char <= "\udcff" for cell in cells.values() for char in cell):
        return Row(line, {}, "expected the table's encoding, found other bytes")
    return _row(line, cells, columns)


def _jsonl(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    missing = set(columns)
    with path.open("rb") as file:
        for line, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                entry = json.loads(raw.decode("utf-8"))
            except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
                # Not the error's text: it may quote the line.
                yield Row(line, {}, f"expected JSON in UTF-8, found {type(error).__name__}")
                continue
            if not isinstance(entry, dict):
                yield Row(line, {}, f"expected an object, found {type(entry).__name__}")
                continue
            missing -= entry.keys()
            yield _row(line, entry, columns)
    if missing:
        raise ConfigError(f"table {path.name}: no line has the keys {sorted(missing)}")


def _parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            _require(path, columns, file.schema_arrow.names)
            line = 0
            for batch in file.iter_batches(batch_size=1024, columns=list(dict.fromkeys(columns))):
                for entry in batch.to_pylist():
                    line += 1
                    yield _row(line, entry, columns)
    except pyarrow.ArrowException as error:
        raise ConfigError(
            f"table {path.name}: expected a readable Parquet file, found {type(error).__name__}"
        ) from error


def _require(path: Path, columns: Sequence[str], found: Sequence[str]) -> None:
    if missing := sorted(set(columns) - set(found)):
        raise ConfigError(
            f"table {path.name}: expected the columns {missing}, found {len(found)} others; "
            "is there a line of column names?"  # without one, their names are a patient's
        )
    if twice := sorted(name for name, n in Counter(found).items() if n > 1 and name in columns):
        raise ConfigError(f"table {path.name}: expected each column once, found {twice} repeated")


def _row(line: int, entry: Mapping[str, Any], columns: Sequence[str]) -> Row:
    for name in columns:
        if isinstance(entry.get(name), Mapping | list | tuple | bytes):
            kind = type(entry[name]).__name__
            return Row(line, {}, f"column {name}: expected text or a number, found {kind}")
    return Row(line, {name: _text(entry.get(name)) for name in columns})


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # an id that a table library turned into a float
    if isinstance(value, datetime | date):
        return value.isoformat()
    # Half a surrogate pair cannot be written as UTF-8, and no report means a NUL.
    plain = str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", " ")
    return plain.replace("\r\n", "\n").strip()
