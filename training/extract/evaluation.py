"""Measure an extractor on the labelled sets: a table for people, JSON for what is built on it.

    {"extractor": "rules" | model, "prompt": "2:...", "date": ..., "commit": ...,
     "seconds_per_text": of those read by this run, null where it read none,
     "sets": {"known": {"texts", "micro": {"mentions", "found", "precision", "recall", "f1", "low",
                        "high"}, "macro": {"f1", "low", "high"}, "attributes": {name: as micro}},
              "blind": ..., "reports": ...},
     "skipped": {"reports": why}}

Of a model two readings are measured: ``sets`` counts what the model itself said and what stood its
check; ``with_fallback`` has the same shape and counts what training would read, the rules' part
included; ``fallbacks`` counts the reasons.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from training.extract.agreement import Mention, agreement, counts
from training.extract.extraction import Asking, extract_reports
from training.extract.labels import SETS, LabelledText, labelled
from training.extract.ledger import BY_LLM, Entry, ReadLesion, read_ledger
from training.extract.prompt import prompt_name
from training.runs import commit

__all__ = ["evaluation", "evaluation_table"]


def evaluation(ledger: Path, texts: Path, asking: Asking | None = None) -> dict[str, Any]:
    """Measure the rules or a model on every set that is there.

    Args:
        ledger: Holds the answers; a measurement that was stopped goes on.
        texts: Folder with the public texts of the set ``reports``.
        asking: The model; None measures the rules.

    Returns:
        The figures, as the module says.

    Raises:
        EndpointError: The endpoint cannot be used or stopped answering.
    """
    found: dict[str, list[LabelledText]] = {}
    skipped = {}
    for name in SETS:
        try:
            found[name] = labelled(name, texts)
        except FileNotFoundError as error:
            skipped[name] = f"{error.filename} is not there"
    reports = {_key(name, t): t.text for name, labels in found.items() for t in labels}
    known = len(read_ledger(ledger)[1]) if ledger.exists() else 0
    start = time.monotonic()
    entries = extract_reports(reports, ledger, asking)
    seconds, read = time.monotonic() - start, len(entries) - known
    figures: dict[str, Any] = {
        "extractor": asking.endpoint.model if asking else "rules",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "seconds_per_text": round(seconds / read, 5) if read > 0 else None,
        "sets": {
            n: _measured(n, labels, entries, asking is not None) for n, labels in found.items()
        },
        "skipped": skipped,
    }
    if asking is not None:
        figures["prompt"] = prompt_name()
        figures["with_fallback"] = {
            name: _measured(name, labels, entries, False) for name, labels in found.items()
        }
        figures["fallbacks"] = dict(Counter(_reasons(entries)).most_common())
    return figures


def evaluation_table(figures: Mapping[str, Any]) -> str:
    """Set out the figures for a terminal."""
    lines = [f"extractor: {figures['extractor']}"]
    for part, title in (("sets", ""), ("with_fallback", " (with the rules where it failed)")):
        for name, found in figures.get(part, {}).items():
            lines += ["", f"{name}, {found['texts']} texts{title}", _HEAD]
            rows = {**found["attributes"], "micro": found["micro"]}
            lines += [_row(row, figure) for row, figure in rows.items()]
            macro = found["macro"]
            lines.append(f"{'macro':25}{'':9}{'':10}{'':8}{_f1(macro)}")
    for name, why in figures["skipped"].items():
        lines += ["", f"{name}: not measured, {why}"]
    for reason, number in figures.get("fallbacks", {}).items():
        lines.append(f"{number:6d} by the rules: {reason}")
    if figures["seconds_per_text"] is not None:
        lines += ["", f"{figures['seconds_per_text']:.4f} s a text"]
    return "\n".join(lines)


def _key(name: str, text: LabelledText) -> str:
    return f"{name}/{text.name}"


def _measured(
    name: str, labels: list[LabelledText], entries: Mapping[str, Entry], model_only: bool
) -> dict[str, object]:
    rows = []
    for text in labels:
        entry = entries.get(_key(name, text))
        lesions = entry.lesions if entry else ()
        kept = [les for les in lesions if not model_only or les.by == BY_LLM]
        rows.append(counts([_mentions(lesion) for lesion in kept], text.lesions))
    return agreement(np.array(rows))


def _mentions(lesion: ReadLesion) -> dict[str, Mention]:
    return {name: Mention(v.value, (v.span,)) for name, v in lesion.attributes.items()}


def _reasons(entries: Mapping[str, Entry]) -> list[str]:
    whole = [entry.reason for entry in entries.values() if entry.reason]
    single = [
        les.reason for e in entries.values() if not e.reason for les in e.lesions if les.reason
    ]
    return whole + single


_HEAD = f"{'attribute':25}{'mentions':>9}{'precision':>10}{'recall':>8}{'F1':>7}  95 % interval"


def _row(name: str, figure: Mapping[str, Any]) -> str:
    precision, recall = (_number(figure[key]) for key in ("precision", "recall"))
    return f"{name:25}{figure['mentions']:9d}{precision:>10}{recall:>8}{_f1(figure)}"


def _f1(figure: Mapping[str, Any]) -> str:
    if figure["low"] is None:
        return f"{_number(figure['f1']):>7}"
    return f"{_number(figure['f1']):>7}  {figure['low']:.3f}-{figure['high']:.3f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
