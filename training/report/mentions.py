"""What the reports say of lesions, and how well it was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from training.attributes import ATTRIBUTES
from training.metrics import wilson
from training.report.blocks import Block, Finding, Missing, Table
from training.report.charts import Row, interval_chart
from training.report.inputs import Inputs, short
from training.report.words import number, percent, span
from training.runs import file_digest

__all__ = ["accuracy", "mention_rates"]

_COMMAND = "python -m training extract --evaluate"


def mention_rates(inputs: Inputs) -> list[Finding | Missing]:
    """How often each attribute is mentioned, with its values, over the train part's lesions."""
    key, title = "attributes-values", "Attributes as the reports give them"
    if inputs.archive is None:
        reason = "The archive, which holds the reports, is not in the run's folder."
        return [Missing(key, title, reason, inputs.report_command(archive="ARCHIVE"))]
    told = inputs.stamps.get("2-attunement", {}).get("key", {}).get("attributes", "rules")
    if told != "rules" and inputs.recipe is None:
        reason = (
            "The reports were read through a ledger, and the recipe that names it is not known."
        )
        return [Missing(key, title, reason, inputs.report_command(config="RECIPE.toml"))]
    exams = [exam for exam in inputs.exams if exam.part == "train"]
    codes = np.array([lesion.codes for exam in exams for lesion in exam.lesions])
    if not len(codes):
        return [Missing(key, title, "No report of the train part tells of a lesion.")]
    bars, rows = [], []
    for column, (name, values) in zip(codes.T, ATTRIBUTES.items(), strict=True):
        mentioned = int((column >= 0).sum())
        word = name.replace("_", " ")
        bars.append(Row(word, mentioned / len(codes), *wilson(mentioned, len(codes))))
        counts = [int((column == i).sum()) for i in range(len(values))]
        shares = [
            f"{value} {percent(count / mentioned)}"
            for value, count in zip(values, counts, strict=True)
            if count
        ]
        cells = [f"{mentioned:,}", percent(mentioned / len(codes)), ", ".join(shares) or "–"]
        rows.append([word, *cells])
    never = [row.label for row in bars if row.value == 0]
    mean = float((codes >= 0).sum(axis=1).mean())
    reading = f"A lesion's sentences mention {mean:.1f} of the nine attributes on average" + (
        f"; {len(never)} are never mentioned ({', '.join(never)})." if never else "."
    )
    read_by = inputs.recipe.attributes.source if inputs.recipe else "rules"
    alt = "Share of lesions whose report mentions each attribute: " + ", ".join(
        f"{row.label} {percent(row.value)}" for row in bars
    )
    source = " · ".join(
        [
            f"records.jsonl of the archive, read by {read_by}",
            f"{len(codes):,} lesions of {len(exams):,} train reports",
            "95 % Wilson intervals over lesions",
        ]
    )
    blocks: list[Block] = [
        interval_chart(
            bars, "Mention rate", alt, x_label="share of lesions", x_range=(-0.03, 1.03)
        ),
        Table(["attribute", "mentions", "rate", "values, of what is mentioned"], rows),
    ]
    return [Finding(key, title, reading, source, blocks)]


def accuracy(inputs: Inputs) -> list[Finding | Missing]:
    """Extraction against labelled texts, as ``training extract --evaluate`` measured it."""
    key, title = "extraction-accuracy", "How well attributes are extracted"
    folders = (inputs.run, inputs.run.parent)
    paths = [path for folder in folders for path in sorted(folder.glob("extraction*.json"))]
    if not paths:
        reason = "No extraction.json is in the run or beside it."
        return [Missing(key, title, reason, _COMMAND)]
    keys = [key, *(f"{key}-{number}" for number in range(2, len(paths) + 1))]
    return [_accuracy(path, key, title) for path, key in zip(paths, keys, strict=True)]


def _accuracy(path: Path, key: str, title: str) -> Finding | Missing:
    try:
        found = json.loads(path.read_text("utf-8"))
        sets = {str(name): dict(figures) for name, figures in found["sets"].items()}
        for name, figures in (found.get("with_fallback") or {}).items():
            sets[f"{name}, with the rules where it failed"] = dict(figures)
        blocks: list[Block] = [_chart(name, figures) for name, figures in sets.items()]
        blocks += [_table(name, figures) for name, figures in sets.items()]
        reading = _reading(str(found["extractor"]), sets)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return Missing(key, title, f"{path.name} is not as expected ({error!r}).", _COMMAND)
    parts = [path.name, short(file_digest(path))]
    parts += [f"commit {short(str(found['commit']))}"] if "commit" in found else []
    parts += [f"prompt {found['prompt']}"] if found.get("prompt") else []
    texts = ", ".join(f"{s['texts']} {name}" for name, s in sets.items() if "texts" in s)
    parts += [f"texts: {texts}"] if texts else []
    parts += ["F1 of mentioned values, value and evidence right", "95 % intervals resample texts"]
    return Finding(key, f"{title}: {found['extractor']}", reading, " · ".join(parts), blocks)


def _reading(reader: str, sets: dict[str, dict[str, Any]]) -> str:
    micro = {name: figures["micro"] for name, figures in sets.items()}
    told = [f"{span(f['f1'], f['low'], f['high'])} on {name}" for name, f in micro.items()]
    reading = f"The extractor {reader} reaches a micro-F1 of {', '.join(told)}"
    each = [
        (f["f1"], attribute.replace("_", " "), name)
        for name, figures in sets.items()
        for attribute, f in figures["attributes"].items()
        if f.get("f1") is not None
    ]
    if each:
        value, attribute, name = min(each)
        reading += f"; its weakest attribute is {attribute} ({number(value)} on {name})"
    return reading + "."


def _chart(name: str, figures: dict[str, Any]) -> Block:
    told = {"all (micro)": figures["micro"]} | figures["attributes"]
    rows = [
        Row(n.replace("_", " "), f["f1"], _or_nan(f.get("low")), _or_nan(f.get("high")))
        for n, f in told.items()
        if f.get("f1") is not None
    ]
    alt = f"F1 on {name}: " + ", ".join(f"{row.label} {row.value:.2f}" for row in rows)
    return interval_chart(rows, f"F1, {name}", alt, x_label="F1", x_range=(0, 1.02))


def _table(name: str, figures: dict[str, Any]) -> Table:
    told = {"all (micro)": figures["micro"]} | figures["attributes"]
    rows = [
        [
            n.replace("_", " "),
            str(f.get("mentions", "–")),
            number(f.get("precision")),
            number(f.get("recall")),
            span(f.get("f1"), f.get("low"), f.get("high")),
        ]
        for n, f in told.items()
    ]
    return Table(["attribute", "mentions", "precision", "recall", "F1 (95 %)"], rows, name)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
