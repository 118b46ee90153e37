"""Labelled texts, to measure extractors by.

Five sets, each a file in ``labels/`` (conventions: ``labels/GUIDELINES.md``):

- ``known``: sentences written by the authors of the rules.
- ``blind``: sentences written by someone who had not seen the rules, before they were measured.
- ``blind2``: as ``blind``, written after the rules had been extended by what ``blind`` had shown.
- ``blind3``: as ``blind``, after ``blind2``; no rule has been touched since it was measured.
- ``reports``: 50 reports drawn at random from public text, labelled by file, line, field, digest
  and offsets; no text is copied, so the files must be there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.errors import RecordError
from training.extract.agreement import Mention
from training.extract.ledger import report_digest

__all__ = ["SETS", "LabelledText", "labelled"]

SETS = ("known", "blind", "blind2", "blind3", "reports")
_FOLDER = Path(__file__).parent / "labels"


@dataclass(frozen=True)
class LabelledText:
    """A text and what it says of its lesions.

    Attributes:
        name: Id of the sentence, or file and line of the report.
        text: The text.
        lesions: Mentions by attribute, per lesion.
    """

    name: str
    text: str
    lesions: tuple[dict[str, Mention], ...]


def labelled(name: str, texts: Path) -> list[LabelledText]:
    """Read a set.

    Args:
        name: One of ``SETS``.
        texts: Folder with the files that ``reports`` names.

    Raises:
        RecordError: A label does not fit its text, or the text is not the one that was labelled.
        FileNotFoundError: A file that ``reports`` names is not there.
    """
    path = _FOLDER / f"{name}.jsonl"
    files: dict[str, list[str]] = {}
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
        row = json.loads(line)
        if "file" in row:
            file = row["file"]
            if file not in files:
                files[file] = (texts / file).read_text("utf-8").splitlines()
            text = json.loads(files[file][row["line"] - 1])[row["field"]]
            if report_digest(text) != row["digest"]:
                raise RecordError(path, number, f"{file} holds another text than was labelled")
            found.append(LabelledText(f"{file}:{row['line']}", text, _lesions(row, _offsets)))
        else:
            text = row["text"]
            found.append(LabelledText(row["id"], text, _lesions(row, _occurrences(text))))
        if not all(m.spans for lesion in found[-1].lesions for m in lesion.values()):
            raise RecordError(path, number, "expected verbatim evidence, found none in the text")
    return found


def _lesions(
    row: dict[str, Any], spans: Callable[[dict[str, Any]], Iterator[tuple[int, int]]]
) -> tuple[dict[str, Mention], ...]:
    return tuple(
        {name: Mention(m["value"], tuple(spans(m))) for name, m in lesion["attributes"].items()}
        for lesion in row["lesions"]
    )


def _offsets(mention: dict[str, Any]) -> Iterator[tuple[int, int]]:
    start, end = mention["span"]
    yield start, end


def _occurrences(text: str) -> Callable[[dict[str, Any]], Iterator[tuple[int, int]]]:
    """Every place where the evidence stands: a sentence may say the same of two lesions."""

    def spans(mention: dict[str, Any]) -> Iterator[tuple[int, int]]:
        pattern = rf"(?<!\w){re.escape(mention['evidence'])}(?!\w)"
        return (match.span() for match in re.finditer(pattern, text))

    return spans
