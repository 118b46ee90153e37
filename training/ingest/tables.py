"""Rows of a CSV, JSONL or Parquet table, with every bad line named by its number."""

from __future__ import annotations

import codecs
import csv
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from training.errors import ConfigError

__all__ = ["Row", "read_table"]

# A report is a few kB; csv's own limit of 131 kB is too low for a pathology section with tables.
_FIELD_BYTES = 16 * 1024 * 1024


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
    path: Path, columns: Sequence[str], delimiter: str = ",", encoding: str = "utf-8"
) -> Iterator[Row]:
    """Read a table row by row.

    Args:
        path: .csv, .jsonl or .parquet file.
        columns: Columns that are wanted; others are not read.
        delimiter: Of a CSV file.
        encoding: Of a CSV file; others are UTF-8.

    Yields:
        Rows in order; a bad one costs none of its neighbours.

    Raises:
        ConfigError: The file cannot be read, or lacks a column.
    """
    readers = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
    try:
        if path.suffix.lower() == ".csv":
            yield from _csv(path, columns, delimiter, encoding)
        else:
            yield from readers[path.suffix.lower()](path, columns)  # type: ignore[operator]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"table {path.name}: cannot be read: {reason}") from error


def _csv(path: Path, columns: Sequence[str], delimiter: str, encoding: str) -> Iterator[Row]:
    csv.field_size_limit(_FIELD_BYTES)
    encoding = "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding
    with path.open(encoding=encoding, errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
        except csv.Error as error:
            raise ConfigError(f"table {path.name}: line 1: {error}") from error
        _require(path, columns, header)
        while True:
            line = reader.line_num + 1
            try:
                values = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Row(line, {}, f"{error}")
                continue
            if values:
                yield _csv_row(line, header, values, columns)


def _csv_row(line: int, header: list[str], values: list[str], columns: Sequence[str]) -> Row:
    if len(values) != len(header):
        return Row(line, {}, f"expected {len(header)} cells, found {len(values)}")
    cells = dict(zip(header, values, strict=True))
    if any("\udc80" <= char <= "\udcff" for cell in cells.values() for char in cell):
        return Row(line, {}, "expected the table's encoding, found other bytes")
    return Row(line, {name: _text(cells[name]) for name in columns})


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
            yield Row(line, {name: _text(entry.get(name)) for name in columns})
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
                    yield Row(line, {name: _text(entry[name]) for name in columns})
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
