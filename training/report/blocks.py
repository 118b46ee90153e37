"""What a report page is made of: sections of findings, each with a reading and its source.

A finding says in one sentence what its figures show, and what they were made from. Where its input
is absent a ``Missing`` stands in its place and names the command that makes it. All text here is
plain, and the template escapes it; only what ``charts`` drew goes in as it is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "Block",
    "Figure",
    "Finding",
    "HeatMap",
    "HeatRow",
    "Missing",
    "Note",
    "Section",
    "Sheet",
    "Table",
    "Thumb",
]


# Numbers, their intervals, and what stands between them.
_NUMBERS = re.compile(r"–|[-−+\d.,()–/\s%]*\d(?:[-−+\d.,()–/\s%]| to )*")


@dataclass(frozen=True)
class Figure:
    """One drawn panel.

    Attributes:
        svg: Inline SVG, escaped where it holds text, its text alternative inside.
        caption: Stands above it.
        detail: Stands under the caption, such as the figure's number.
    """

    kind: ClassVar[str] = "figure"
    svg: str
    caption: str
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """A table; its first column names the rows.

    Attributes:
        head: Column names.
        rows: Cells as text, as many as ``head`` in each row.
        caption: Stands above it.
    """

    kind: ClassVar[str] = "table"
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers alone and is set flush right."""
        columns = zip(*self.rows, strict=True)
        return [
            all(map(_NUMBERS.fullmatch, cells)) and any(c != "–" for c in cells)
            for cells in columns
        ] or [False] * len(self.head)


@dataclass(frozen=True)
class Thumb:
    """A small picture of a frame.

    Attributes:
        data: ``data:`` URI, "" where the frame cannot be read.
        alt: What it is, in words.
        lines: Caption, one entry a line.
        mark: ``lesion``, ``other`` or "": the outline.
    """

    data: str
    alt: str
    lines: Sequence[str] = ()
    mark: str = ""


@dataclass(frozen=True)
class Sheet:
    """Thumbnails under a caption."""

    kind: ClassVar[str] = "sheet"
    caption: str
    thumbs: Sequence[Thumb]


@dataclass(frozen=True)
class HeatRow:
    """One row of a heat map.

    Attributes:
        label: What the row is, such as a sentence.
        values: One number of 0-1 a column.
        marked: Per column, whether it is one that the row speaks of.
        figure: A number about the row, as text.
    """

    label: str
    values: Sequence[float]
    marked: Sequence[bool]
    figure: str = ""


@dataclass(frozen=True)
class HeatMap:
    """Rows of numbers under frames.

    Attributes:
        caption: Stands above it.
        columns: The frames.
        rows: As many values each as there are columns.
        figure: Head of the column of row figures.
    """

    kind: ClassVar[str] = "heatmap"
    caption: str
    columns: Sequence[Thumb]
    rows: Sequence[HeatRow]
    figure: str = ""


@dataclass(frozen=True)
class Note:
    """A paragraph, and a command where it names one."""

    kind: ClassVar[str] = "note"
    text: str
    command: str = ""


Block = Figure | Table | Sheet | HeatMap | Note


@dataclass(frozen=True)
class Finding:
    """Figures with what they show and what they were made from.

    Attributes:
        key: Anchor, unique on the page.
        title: Heading.
        reading: One sentence with the numbers in it.
        source: Files, commit, digests, number of items, kind of interval.
        blocks: Figures, tables and pictures.
    """

    kind: ClassVar[str] = "finding"
    key: str
    title: str
    reading: str
    source: str
    blocks: Sequence[Block] = ()


@dataclass(frozen=True)
class Missing:
    """Stands where a finding would, if its input were there.

    Attributes:
        key: Anchor, unique on the page.
        title: Heading.
        reason: What is missing.
        command: What makes it; "" where nothing can.
    """

    kind: ClassVar[str] = "missing"
    key: str
    title: str
    reason: str
    command: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page with its own entry in the table of contents."""

    key: str
    title: str
    lead: str
    findings: Sequence[Finding | Missing]
