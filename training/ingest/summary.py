"""The summary of an ingestion as a short table."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console
from rich.table import Table

__all__ = ["summary_text"]


def summary_text(summary: dict[str, Any]) -> str:
    """Set out what ``pipeline.ingest`` returns: counts only, no id and no text."""
    table = Table("what", "count", title="ingestion", title_justify="left")
    table.columns[1].justify = "right"
    for name in ("exams", "records", "patients", "frames", "groups"):
        table.add_row(name, f"{summary[name]:,}")
    sections = {
        "parts": "records in {}",
        "duplicates": "frames marked as {} duplicate",
        "neoplastic": "pathology says neoplastic: {}",
        "identities_removed": "identities removed: {}",
        "left_out": "left out: {}",
        "marked": "marked: {}",
    }
    for key, words in sections.items():
        if summary[key]:
            table.add_section()
        for name, count in summary[key].items():
            table.add_row(words.format(name), f"{count:,}")
    console = Console(file=StringIO(), width=80)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]
