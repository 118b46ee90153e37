"""Records of a CSV file, some of whose quotes may be broken.

In CSV a quoted cell may run over lines, as reports do. Where its closing quote is missing, the
format says that the rows below belong to the cell: other patients' texts. So a record is read as
the format has it only where it comes out whole, with keys, and holds no line that is surely a row
by itself: one with all keys, or with one before a quote that is more than a short number. Otherwise
it is read again and, while it is inside a quote, ends and is refused at a line that begins like a
row, or below one that ends like a row: one with cells shaped like the table's keys (exam and
patient number) in the keys' places. A shape is what is left when runs of letters become ``a`` and
runs of digits ``9`` (up to three) or ``9999``. Shapes are learned from the whole file, from the
records that the format alone can read; rare ones (under one in a hundred, or seen once or twice
beside a common one) do not count, since text below a broken quote can look like a record. A record
of over 1,000 lines is refused too. After a refused record reading goes on at the next line where a
row begins.

What this cannot tell apart: a report that quotes a row, keys and all ("2,3,3" in a table of three
columns whose exams and patients have short numbers), looks like one; its record is refused although
it was sound, and the line is read as a row. And a row below an unclosed quote is taken for text if
the shapes of its keys do not count or if it breaks off before its last key. Reading on after a
refused record leaves such a row out, and the problem names its lines; but where a stray quote
closes the cell so that the number of cells is right, it is text of the record above.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.ingest.pseudonyms import identity

__all__ = ["CsvRecord", "csv_records"]

# A report is a few kB; csv's own limit of 131 kB is too low for a pathology section with tables.
_FIELD_BYTES = 16 * 1024 * 1024
_MOST_LINES = 1000
_RUN = re.compile(r"[^\W\d_]+|\d+")


@dataclass(frozen=True)
class CsvRecord:
    """One record of a CSV file.

    Attributes:
        line: Line on which it starts, from 1.
        cells: Its cells; none of a blank line or where there is a problem.
        problem: Why it could not be read and which lines that costs; "" for a good one.
    """

    line: int
    cells: list[str]
    problem: str = ""


def csv_records(lines: Sequence[str], delimiter: str, keys: Sequence[str]) -> Iterator[CsvRecord]:
    """Split the lines of a CSV file into records.

    Args:
        lines: With their ends, as ``open(newline="")`` gives them.
        delimiter: Between cells.
        keys: Columns of the header that number a row, each there once; looked up after the header
            was yielded.

    Yields:
        The header, then the records in order.
    """
    csv.field_size_limit(_FIELD_BYTES)
    source = _Source(lines, delimiter)
    header = source.record()
    yield header
    names = [name.strip() for name in header.cells]
    rows = _Rows(delimiter, [names.index(key) for key in keys], len(names))
    start = source.at
    _learn(rows, source, lines)
    source = _Source(lines, delimiter, rows)
    source.at = start
    while source.at < len(lines):
        found = source.record()
        yield source.skipped(found) if found.problem else found


def _learn(rows: _Rows, source: _Source, lines: Sequence[str]) -> None:
    """Learn shapes from what the format alone can read.

    Below a bad record may stand the rest of its text, which a comma or two make look like a row:
    nothing is learned there until a record has keys of known shapes.
    """
    sure = True
    while source.at < len(lines):
        found = source.record()
        if found.problem:
            if sure:
                rows.learn(rows.first_cells(lines[found.line - 1]))
            source.at = found.line  # the line below the record's first
            sure = False
        elif found.cells:
            sure = len(found.cells) == rows.width and (sure or rows.known(found.cells))
            if sure:
                rows.learn(found.cells)
    rows.settle()


class _Source:
    """Lines on their way to ``csv.reader``; held back inside a quote that must have ended."""

    def __init__(self, lines: Sequence[str], delimiter: str, rows: _Rows | None = None) -> None:
        self.at = 0
        self._lines, self._rows, self._start = lines, rows, 0
        self._sure = False
        self._reader = csv.reader(self, delimiter=delimiter, strict=True)

    def __iter__(self) -> _Source:
        return self

    def __next__(self) -> str:
        inside = self.at - self._start
        if self.at == len(self._lines) or inside >= _MOST_LINES or (inside and self._between()):
            raise StopIteration  # inside a quote a csv.Error, in strict mode
        self.at += 1
        return self._lines[self.at - 1]

    def record(self) -> CsvRecord:
        """Read the next record; there must be a line."""
        self._start = self.at
        if self._rows is not None:
            self._sure = True
            found = self._read()
            if not found.problem and self._rows.sound(found.cells):
                return found
            self._sure, self.at = False, self._start
        return self._read()

    def _read(self) -> CsvRecord:
        try:
            return CsvRecord(self._start + 1, next(self._reader, []))
        except csv.Error as error:
            return CsvRecord(self._start + 1, [], self._told(error))

    def skipped(self, bad: CsvRecord) -> CsvRecord:
        """Go on to the next row after a bad record, and tell what that costs."""
        while self.at < len(self._lines) and not self._between():
            self.at += 1
        if self.at == bad.line:
            return bad
        return CsvRecord(bad.line, [], f"{bad.problem}; lines {bad.line} to {self.at} are left out")

    def _between(self) -> bool:
        """Whether a row begins here, or one ended just before."""
        rows, line, above = self._rows, self._lines[self.at], self._lines[self.at - 1]
        if rows is None:
            return False
        return rows.surely_begins(line) if self._sure else rows.begins(line) or rows.ends(above)

    def _told(self, error: csv.Error) -> str:
        if "end of data" not in str(error):
            return str(error)
        if self.at == len(self._lines):
            return "expected a closing quote, found the end of the table"
        if self.at - self._start >= _MOST_LINES:
            return f"expected a closing quote within {_MOST_LINES} lines, found none"
        return f"expected a closing quote, found another row in line {self.at + 1}"


class _Rows:
    """What the first and the last line of a row look like."""

    def __init__(self, delimiter: str, places: Sequence[int], width: int) -> None:
        self.width = width
        self._shapes: dict[int, Counter[str]] = {place: Counter() for place in places}
        mark = re.escape(delimiter)
        self._cell = re.compile(rf'(?:"((?:[^"]|"")*)"|([^"\r\n{mark}]*))({mark}|\r?\n|\r|\Z)')
        # Of a run of quotes an odd last one closes the cell; pairs are quotes in its text.
        closing = r'(?<!")(?:"")*"'
        self._tail = re.compile(rf'{closing}((?:{mark}(?:"[^"\r\n]*"|[^"\r\n{mark}]*))+)[\r\n]*\Z')

    def learn(self, cells: Sequence[str]) -> None:
        """Take up the keys of a row's cells, or of its first ones."""
        for place, shapes in self._shapes.items():
            if place < len(cells) and identity(cells[place]) and "\n" not in cells[place].strip():
                shapes[_shape(cells[place])] += 1

    def settle(self) -> None:
        """Forget rare shapes: text that was taken for a row."""
        for place, shapes in self._shapes.items():
            least = max(shapes.total() / 100, min(3, max(shapes.values(), default=0) / 2))
            self._shapes[place] = Counter({s: n for s, n in shapes.items() if n >= least})

    def known(self, cells: Sequence[str]) -> bool:
        """Whether the keys of a whole row have shapes that were seen, as far as any was."""
        told = ((cells[place], shapes) for place, shapes in self._shapes.items() if shapes)
        return all(not identity(cell) or _shape(cell) in shapes for cell, shapes in told)

    def sound(self, cells: Sequence[str]) -> bool:
        """Whether a record is one by its cells: none of a blank line, or all, with known keys."""
        return not cells or (len(cells) == self.width and self.known(cells))

    def surely_begins(self, line: str) -> bool:
        """Whether a line can be nothing but a row's beginning, whatever quote it stands in.

        Numbers of up to three digits stand at the beginning of many a report's lines: without
        another key beside them they say nothing.
        """
        cells, whole = self._split(line)
        if whole and len(cells) < self.width:
            return False
        extra = max(0, len(cells) - self.width) if whole else 0
        keys = []
        for place, shapes in self._shapes.items():
            found = [cells[i] for i in {place, place + extra} if i < len(cells)]
            keys += [key for key in found if _shape(key) in shapes][:1]
            if found and not any(_shape(key) in shapes for key in found):
                return False
        if whole:
            return len(keys) == len(self._shapes)
        if any(_shape(key) != "9" for key in keys):
            return True
        return len(keys) == len(self._shapes) and self._opens(line)

    def _opens(self, line: str) -> bool:
        """Whether what stops a line's cells is a quote that a cell begins with."""
        at = 0
        while found := self._cell.match(line, at):
            at = found.end()
        return line[at : at + 1] == '"'

    def begins(self, line: str) -> bool:
        """Whether a line, read by itself up to a broken quote, has keys in the keys' places."""
        cells, whole = self._split(line)
        extra = max(0, len(cells) - self.width)  # an unquoted comma moves what follows it
        places = {place: {place, place + extra} for place in self._shapes}
        return self._keyed(cells, places, whole)

    def ends(self, line: str) -> bool:
        """Whether a line closes a quote and has keys in the keys' places behind it."""
        tail = self._tail.search(line)
        cells, _ = self._split(tail[1][1:] + "\n") if tail else ([], False)
        places = {place: {place - self.width + len(cells)} for place in self._shapes}
        return self._keyed(cells, places, False)

    def first_cells(self, line: str) -> list[str]:
        """Cells of a line up to an open or stray quote."""
        return self._split(line)[0]

    def _keyed(self, cells: list[str], places: dict[int, set[int]], whole: bool) -> bool:
        """Whether cells hold keys; empty ones say nothing, nor do absent ones of half a line."""
        keyed = False
        for place, candidates in places.items():
            found = [cells[i] for i in candidates if 0 <= i < len(cells)]
            if any(_shape(cell) in self._shapes[place] for cell in found):
                keyed = True
            elif all(identity(cell) for cell in found) and (found or whole):
                return False
        return keyed

    def _split(self, line: str) -> tuple[list[str], bool]:
        """Cells of a line up to an open or stray quote, and whether these are all of them."""
        cells: list[str] = []
        at = 0
        while at < len(line) and (found := self._cell.match(line, at)):
            cells.append(found[1] or found[2] or "")
            at = found.end()
        return cells, at == len(line)


def _shape(key: str) -> str:
    def shortened(run: re.Match[str]) -> str:
        return "a" if not run[0].isdecimal() else "9" if len(run[0]) <= 3 else "9999"

    return _RUN.sub(shortened, key.strip())
