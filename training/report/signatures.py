"""Failure signatures, as ``training evidence`` measured them beside the run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.report.blocks import Finding, Missing, Table
from training.report.inputs import Inputs
from training.report.words import interval, number, span

__all__ = ["failure_signatures"]

Rows = tuple[str, Sequence[str], list[list[str]]]


def failure_signatures(inputs: Inputs) -> list[Finding | Missing]:
    """One finding per signature, from ``RUN/evidence-<part>.json``."""
    file = f"evidence-{inputs.part}.json"
    path = inputs.run / file
    command = (
        f"python -m training evidence --bundle BUNDLE --archive ARCHIVE --part {inputs.part} "
        f"--out {path.name}"
    )
    try:
        found = json.loads(path.read_text("utf-8"))
        of, measured = found["digest"], found["signatures"]
    except FileNotFoundError:
        return [_missing(f"The run holds no {file}.", command)]
    except (OSError, ValueError, KeyError, TypeError):
        return [_missing(f"{file} is not what `training evidence` writes.", command)]
    if inputs.bundle is None or inputs.bundle.digest != of:
        return [_missing(f"{file} was measured on another bundle than the run's.", command)]
    source = inputs.source(file, interval="95 % intervals resample source groups")
    return [
        Finding(f"signature-{key}", title, reading, source, [Table(list(head), rows)])
        for key, title, make in _SIGNATURES
        if (told := measured.get(key))
        for reading, head, rows in [make(told)]
    ]


def _missing(reason: str, command: str) -> Missing:
    return Missing("signatures", "Failure signatures", reason, command)


def _disturbed(found: Mapping[str, Any]) -> Rows:
    rows = []
    for name, sides in found.items():
        for side, f in sides.items():
            told = [_share(f[when]["positive"]["balanced"]) for when in ("before", "after")]
            change = f["change"]
            told.append(span(change["value"], change["low"], change["high"], digits=2))
            rows.append([name, side.replace("_", " "), *told])
    alarms = {n: s["without"]["change"]["value"] for n, s in found.items() if "without" in s}
    worst = max(alarms, key=lambda name: alarms[name])
    reading = f"{worst.capitalize()} changes false alarms most: by {number(alarms[worst], 2)}."
    head = ("drawn over the frames", "frames", "called positive before", "after", "change")
    return reading, head, rows


def _labelled(found: Mapping[str, Any]) -> Rows:
    rows = [
        [name, _counts(f["positive"]["balanced"]), _share(f["positive"]["balanced"])]
        for name, f in found.items()
    ]
    reading = "Frames of the sources kept for tests that the data itself labels so: a handful."
    return reading, ("labelled", "frames (groups)", "called positive"), rows


def _rare(found: Mapping[str, Any]) -> Rows:
    rows = [
        [name, _counts(f["found"]), _share(f["found"]), _share(f["others"])]
        for name, f in found.items()
    ]
    worst = min(found, key=lambda name: found[name]["found"]["value"])
    share = number(found[worst]["found"]["value"], 2)
    return (
        f"Least often found: {worst} lesions, {share} of their windows.",
        ("lesions", "windows (groups)", "found", "all others"),
        rows,
    )


def _mixed(found: Mapping[str, Any]) -> Rows:
    rows = [
        [name, *(interval(f[pooling]) for pooling in ("unify", "mean", "max"))]
        for name, f in found.items()
    ]
    fall = {p: found["pure"][p]["auroc"] - found["mixed"][p]["auroc"] for p in ("unify", "mean")}
    reading = (
        f"From pure to mixed records AUROC falls by {number(fall['unify'])} with unify and by "
        f"{number(fall['mean'])} with the mean."
    )
    return reading, ("positive patients", "unify", "mean", "max"), rows


def _drift(found: Mapping[str, Any]) -> Rows:
    rows = [
        [task, kind.replace("_", " "), count, number(f["median"], 2), _share(f["positive"])]
        for task, kinds in found.items()
        for kind, counts in kinds.items()
        for count, f in counts.items()
    ]
    counts = found["polyp_detection"]["with_lesion"]
    ends = [(n, number(counts[n]["positive"]["value"], 2)) for n in (*counts,)[:: len(counts) - 1]]
    told = " and ".join(f"{share} at {count} frames" for count, share in ends)
    head = ("task", "patients", "frames", "median probability", "called positive")
    return f"A patient with one polyp frame is called positive in {told}.", head, rows


_SIGNATURES: tuple[tuple[str, str, Callable[[Mapping[str, Any]], Rows]], ...] = (
    ("disturbed", "Glare, stool, bubbles, instruments, folds", _disturbed),
    ("labelled", "Frames labelled as disturbed", _labelled),
    ("rare", "Rare and easily missed lesions", _rare),
    ("mixed", "Mixed records", _mixed),
    ("drift", "Drift with the number of frames", _drift),
)


def _counts(f: Mapping[str, Any]) -> str:
    return f"{f['items']:,} ({f['groups']:,})"


def _share(f: Mapping[str, Any]) -> str:
    return span(f["value"], f["low"], f["high"], digits=2)
