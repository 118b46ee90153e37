"""The first and the last word: what the run is and how well it does, and how to make it again."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from training.report.blocks import Block, Finding, Missing, Note, Table
from training.report.inputs import STAGES, Inputs, short
from training.report.levels import KINDS, task_name
from training.report.words import interval, number

__all__ = ["headline", "reproduction", "the_run"]


def the_run(inputs: Inputs) -> list[Finding | Missing]:
    """Recipe, data, commits, libraries, times."""
    rows = []
    for stage in STAGES:
        stamp = inputs.stamps.get(stage)
        if stamp is None:
            begun = (inputs.run / f"{stage}.partial").is_dir()
            rows.append([stage, "not finished" if begun else "not there", "–", "–", "–"])
            continue
        rows.append(
            [
                stage,
                _moment(stamp["finished"]),
                _minutes(stamp["seconds_this_run"]),
                short(stamp["commit"]),
                short(stamp["key"].get("config", "")) or "–",
            ]
        )
    if inputs.bundle:
        manifest = inputs.bundle.manifest
        provenance = manifest.provenance
        rows.append(
            [
                f"bundle {manifest.name} {manifest.version}",
                _moment(manifest.created),
                "–",
                short(provenance.commit),
                short(provenance.config_digest),
            ]
        )
    blocks: list[Block] = [
        Table(
            ["stage", "finished", "time", "commit", "recipe digest"],
            rows,
            "Stages (the time is that of the last sitting, where a stage was resumed)",
        ),
        Table(["", ""], _facts(inputs)),
    ]
    seconds = sum(float(s["seconds_this_run"]) for s in inputs.stamps.values())
    reading = (
        f"Recipe {inputs.recipe_name}, {len(inputs.stamps)} of {len(STAGES)} stages finished in "
        f"{_minutes(seconds)}" + ("; packed." if inputs.bundle else "; not packed yet.")
    )
    source = inputs.source("stamp.json of every stage", "manifest.json of the bundle")
    return [Finding("summary-run", "The run", reading, source, blocks)]


def headline(inputs: Inputs) -> list[Finding | Missing]:
    """AUROCs, decisions and calibration in one table."""
    key, title = "summary-figures", f"Figures of the {inputs.part} part"
    if inputs.bundle is None:
        return [Missing(key, title, "The run has no packed bundle yet.", inputs.run_command())]
    if inputs.archive_path is None:
        reason = "The archive, which gives the items, is not in the run's folder."
        return [Missing(key, title, reason, inputs.report_command(archive="ARCHIVE"))]
    rows = []
    found = inputs.figures
    for task, f in found["patients"].items():
        if f["unify"]["auroc"] is not None:
            negatives = f["patients"] - f["positives"]
            rows.append(
                [
                    task_name(task),
                    "patients",
                    interval(f["unify"]),
                    f"{f['positives']} / {negatives}",
                    *_cells(f),
                ]
            )
    for kind, words in KINDS.items():
        for task in ("polyp_detection", "malignancy"):
            f = found["frames"].get(kind, {}).get(task)
            if f:
                rows.append(
                    [
                        task_name(task),
                        words,
                        interval(f),
                        f"{f['positives']} / {f['negatives']}",
                        *_cells(f),
                    ]
                )
    if not rows:
        return [Missing(key, title, f"The {inputs.part} part holds one class of each task only.")]
    rows.sort(key=lambda row: row[0], reverse=True)
    head = [
        "task",
        "items",
        "AUROC (95 %)",
        "n+ / n−",
        "sens. / spec. / abstained",
        "ECE (floor)",
        "Brier",
    ]
    first = [row for row in rows if row[1] == "patients"] or rows[:2]
    aurocs = [f"{row[0]} of {row[1]} {row[2]}" for row in first]
    blocks: list[Block] = [Table(head, rows)]
    if inputs.part != "report":
        told = (
            f"The part {inputs.part} is for choosing between recipes. Closing figures (part report)"
            " stand in the bundle's MODEL_CARD.md; a page of them:"
        )
        blocks.append(Note(told, inputs.report_command(part="report")))
    if inputs.data is None and inputs.views:
        told = (
            "Without --data only the archive's views are measured; the whole frames and crops of "
            "the data folder join them with:"
        )
        blocks.append(Note(told, inputs.report_command(data="DATA")))
    source = inputs.source(
        items=f"{inputs.part} part: {len(inputs.found.items):,} single frames",
        interval="95 % intervals resample source groups; decisions of the balanced point",
    )
    return [Finding(key, title, f"AUROC: {'; '.join(aurocs)}.", source, blocks)]


def reproduction(inputs: Inputs) -> list[Finding | Missing]:
    """Commands, recipe and stamps."""
    blocks: list[Block] = [
        Table(
            ["what", "command"],
            [
                ["the run", inputs.run_command()],
                ["this page", inputs.report_command(part=inputs.part)],
                *([["its figures as JSON", _evaluate(inputs)]] if inputs.bundle_path else []),
                *([one.name, one.command] for one in inputs.experiments.by_name.values()),
            ],
            "Commands",
        )
    ]
    if inputs.recipe:
        recipe = dataclasses.asdict(inputs.recipe)
        rows = [
            [table, ", ".join(f"{name} = {json.dumps(value)}" for name, value in values.items())]
            for table, values in recipe.items()
            if isinstance(values, dict) and table != "ingest"  # paths of raw data stay out
        ]
        rows.insert(0, ["seed", f"seed = {inputs.recipe.seed}"])
        blocks.append(Table(["table", "values"], rows, f"Recipe {inputs.recipe.name}"))
        same = "are those" if inputs.made_by(inputs.recipe) else "are not all those"
        told = f"The stages' digests {same} of the recipe {inputs.recipe.name}."
    else:
        told = (
            "No recipe in training/configs has the stages' digests: the run was made with --set, "
            "or by a recipe that has changed since; the digests stand in the stamps."
        )
    stamps = [
        [stage, key, str(value)]
        for stage, stamp in inputs.stamps.items()
        for key, value in {**stamp["key"], "commit": stamp["commit"]}.items()
    ]
    blocks.append(Table(["stage", "key", "value"], stamps, "What each stage was made from"))
    for fault in inputs.experiments.faults:
        blocks.append(Note(f"Not read as an experiment: {fault}"))
    source = inputs.source("stamp.json of every stage")
    return [Finding("reproduction-all", "Commands, recipe, stamps", told, source, blocks)]


def _facts(inputs: Inputs) -> list[list[str]]:
    rows = []
    if inputs.archive:
        parts = {
            name: len(inputs.archive.part(name))
            for name in ("train", "select", "calibrate", "report")
        }
        told = ", ".join(f"{count:,} {name}" for name, count in parts.items())
        rows.append(
            [
                "archive",
                f"{inputs.archive.kind}, {len(inputs.archive.records):,} records "
                f"({told}), {len(inputs.archive.errors)} lines left out",
            ]
        )
    digests = {s["key"]["archive"] for s in inputs.stamps.values() if "archive" in s["key"]}
    rows += [["archive digest", digest] for digest in sorted(digests)]
    if inputs.bundle:
        provenance = inputs.bundle.manifest.provenance
        rows.append(["bundle digest", inputs.bundle.digest])
        told = ", ".join(
            f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}"
            for k, v in provenance.extra.items()
            if k != "archive_digest"
        )
        rows.append(["made with", told])
        rows.append(
            ["export parity", ", ".join(f"{k} {v:.2g}" for k, v in provenance.parity.items())]
        )
    libraries: dict[str, Any] = {}
    for stamp in inputs.stamps.values():
        libraries |= stamp["libraries"]
    rows.append(["libraries", ", ".join(f"{k} {v}" for k, v in libraries.items()) or "–"])
    return rows


def _cells(f: dict[str, Any]) -> list[str]:
    names = ("balanced_sensitivity", "balanced_specificity", "balanced_abstained")
    decisions = " / ".join(number(f.get(name), 2) for name in names)
    return [decisions, f"{number(f['ece15'])} ({number(f['ece15_floor'])})", number(f["brier"])]


def _evaluate(inputs: Inputs) -> str:
    data = f" --data {inputs.data}" if inputs.data else ""
    archive = inputs.given_archive or inputs.run / "0-archive"
    return (
        f"python -m training evaluate --bundle {inputs.bundle_path} --archive {archive}{data} "
        f"--part {inputs.part}"
    )


def _moment(iso: str) -> str:
    return iso[:16].replace("T", " ") + " UTC"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
