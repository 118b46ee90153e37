"""What cleansing kept and dropped, in numbers and in pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from training.cleansing import SET_ASIDE, Fate, threshold
from training.errors import StaleInput
from training.metrics import auroc_interval
from training.report.blocks import Block, Figure, Finding, Missing, Sheet, Table, Thumb
from training.report.charts import Series, histogram, line_chart
from training.report.inputs import Inputs
from training.report.thumbnails import thumbnail
from training.report.words import number, percent, span

__all__ = ["contact_sheets", "score_histogram", "share_sweep"]

_STAGE = "1-cleansing"
_SHEET = 20
_TRUTH = {"lesion": "lesion", "background": "background", "non_informative": "not informative"}


@dataclass(frozen=True)
class _Scored:
    """Frames of positive exams that cleansing scored.

    Attributes:
        fates: Ledger lines.
        kinds: Truth of each, "" where the archive has none.
        ranks: (n,) scores of round 2, ``SET_ASIDE`` where the gate refused.
        lowest: Score that a frame is kept from for its rank; None where exams are not pooled.
    """

    fates: list[Fate]
    kinds: list[str]
    ranks: npt.NDArray[np.float64]
    lowest: float | None

    def where(self, kept: bool) -> npt.NDArray[np.int64]:
        """Rows that were kept or dropped, those set aside left out."""
        rows = [i for i, f in enumerate(self.fates) if f.kept is kept and self.ranks[i] > SET_ASIDE]
        return np.array(rows, np.int64)


def score_histogram(inputs: Inputs) -> list[Finding | Missing]:
    """Scores of both rounds with the threshold, and the figures of ``report.json``."""
    key, title = "cleansing-scores", "Scores before and after the second round"
    if not inputs.ledger:
        return [_missing(inputs, key, title)]
    scored = _scored(inputs)
    free = [f for fates in inputs.ledger.values() for f in fates if not f.positive and not f.reason]
    panels: list[Figure] = []
    for name, words in (("round1", "Round 1"), ("round2", "Round 2")):
        groups = _groups(scored, free, name)
        line = scored.lowest if name == "round2" else None
        caption = f"{words}: probability of containing a polyp"
        told = ", ".join(f"{n} median {np.median(v):.3f}" for n, v in groups.items() if len(v))
        panels.append(
            histogram(groups, caption, f"{caption}: {told}.", x_label="probability", threshold=line)
        )
    found = _report(inputs)
    blocks: list[Block] = [*panels]
    if found.get("truth") and inputs.truth:
        blocks.append(_figures_table(inputs, scored, found))
    items = f"{len(scored.fates):,} frames of positive exams, {len(free):,} of polyp-free ones"
    source = inputs.source(
        f"{_STAGE}/ledger.jsonl",
        f"{_STAGE}/report.json",
        stage=_STAGE,
        items=items,
        interval="95 % intervals resample exams" if found.get("truth") else "",
    )
    return [Finding(key, title, _reading(scored, free, found), source, blocks)]


def contact_sheets(inputs: Inputs) -> list[Finding | Missing]:
    """Kept and dropped frames: drawn at random, at the threshold, and at the two ends."""
    key, title = "cleansing-sheets", "What was kept, what was dropped"
    if not inputs.ledger or inputs.archive_path is None:
        return [_missing(inputs, key, title)]
    scored = _scored(inputs)
    rng = np.random.default_rng(0)
    sheets = []
    for kept, word in ((True, "Kept"), (False, "Dropped")):
        rows = scored.where(kept)
        rows = rows[np.argsort(scored.ranks[rows], kind="stable")]
        picks = {f"{word}, drawn at random": rows[np.sort(rng.permutation(len(rows))[:_SHEET])]}
        if kept and scored.lowest is not None:
            above = scored.ranks[rows] >= scored.lowest
            picks["Kept below the threshold, as the most likely of their exam"] = rows[~above]
            rows = rows[above]
        picks[f"{word}, next to the threshold"] = rows if kept else rows[::-1]
        picks[f"{word}, furthest from it"] = rows[::-1] if kept else rows
        for caption, chosen in picks.items():
            thumbs = [_thumb(inputs.archive_path, scored, i) for i in _distinct(scored, chosen)]
            if thumbs:
                sheets.append(Sheet(caption, thumbs))
    stay, gone = scored.where(True), scored.where(False)
    reading = f"{len(stay):,} frames were kept and {len(gone):,} dropped"
    if inputs.truth:
        wrong = sum(scored.kinds[i] != "lesion" for i in stay)
        lost = sum(scored.kinds[i] == "lesion" for i in gone)
        reading += (
            f"; {wrong:,} of the kept show no lesion, {lost:,} of the dropped show one "
            "(outlined: lesion by the composer's truth)"
        )
    items = f"at most {_SHEET} frames a sheet, of {len(stay) + len(gone):,}; seed 0"
    source = inputs.source(f"{_STAGE}/ledger.jsonl", stage=_STAGE, items=items)
    return [Finding(key, title, reading + ".", source, sheets)]


def share_sweep(inputs: Inputs) -> list[Finding | Missing]:
    """What other shares would have kept."""
    key, title = "cleansing-sweep", "Other shares: what would be kept"
    found = _report(inputs)
    if not found.get("truth"):
        reason = "The archive has no truth.jsonl: nobody knows which frames show a lesion."
        return [Missing(key, title, reason) if inputs.ledger else _missing(inputs, key, title)]
    part = "select" if "select" in found else "train"
    sweep = found[part]["sweep"]
    panels = []
    for figure, word in (
        ("lesion_recall", "lesion frames kept"),
        ("background_dropped", "background dropped"),
    ):
        series = []
        for form, name in (("pooled", "all exams pooled"), ("per_exam", "same share of each exam")):
            told = sorted(
                (float(k.rpartition("_")[2]), v[figure])
                for k, v in sweep.items()
                if k.startswith(form)
            )
            x, y = np.array(told).T
            series.append(Series(name, x, y))
        alt = f"Share of {word} against the kept share, {part} part: " + ", ".join(
            f"{value:.2f} at {share:.2f}"
            for share, value in zip(series[0].x, series[0].y, strict=True)
        )
        panels.append(
            line_chart(
                series,
                f"{word.capitalize()} ({part} part)",
                alt,
                x_label="kept share",
                y_label="share",
                y_range=(0, 1.02),
            )
        )
    own, wide = next(iter(sweep.values())), sweep["pooled_0.60"]
    reading = (
        f"At the run's own share {percent(own['lesion_recall'])} of lesion frames are kept and "
        f"{percent(own['background_dropped'])} of background is dropped; at a share of 0.60, "
        f"{percent(wide['lesion_recall'])} and {percent(wide['background_dropped'])}."
    )
    items = f"{found[part]['frames']:,} frames of the {part} part's positive exams"
    source = inputs.source(
        f"{_STAGE}/report.json", stage=_STAGE, items=items, interval="no interval: one ranking"
    )
    return [Finding(key, title, reading, source, panels)]


def _missing(inputs: Inputs, key: str, title: str) -> Missing:
    off = (inputs.run / _STAGE).is_dir() and not inputs.ledger
    reason = f"{_STAGE}/ledger.jsonl is not there: " + (
        "cleansing is switched off in this run." if off else "cleansing is not finished."
    )
    if inputs.ledger:
        reason = "The archive, which holds the frames, is not in the run's folder."
        return Missing(key, title, reason, inputs.report_command(archive="ARCHIVE"))
    return Missing(key, title, reason, inputs.run_command())


def _scored(inputs: Inputs) -> _Scored:
    fates, kinds, pieces = [], [], []
    for record, rows in inputs.ledger.items():
        if not rows[0].positive:
            continue
        told = inputs.truth.get(record, {}).get("frames", [{}] * len(rows))
        fates += rows
        kinds += [str(frame.get("kind", "")) for frame in told]
        pieces.append(np.array([SET_ASIDE if f.reason else f.round2 for f in rows]))
    ranks = np.concatenate(pieces) if pieces else np.array([])
    share = inputs.stamps.get(_STAGE, {}).get("figures", {}).get("share_high")
    lowest = threshold(pieces, share) if pieces and share else None
    # A share of each exam has no threshold in common; its mark is a frame above that was dropped.
    if lowest is not None and any(
        r >= lowest and not f.kept for r, f in zip(ranks, fates, strict=True) if r > SET_ASIDE
    ):
        lowest = None
    return _Scored(fates, kinds, ranks, lowest)


def _groups(scored: _Scored, free: Sequence[Fate], name: str) -> dict[str, npt.NDArray[np.float64]]:
    values = np.array([getattr(f, name) for f in scored.fates])
    passed = scored.ranks > SET_ASIDE
    if any(scored.kinds):
        kinds = np.array(scored.kinds)
        groups = {word: values[passed & (kinds == kind)] for kind, word in _TRUTH.items()}
    else:
        kept = np.array([f.kept for f in scored.fates])
        groups = {"kept": values[passed & kept], "dropped": values[passed & ~kept]}
    groups["polyp-free exams"] = np.array([getattr(f, name) for f in free])
    return {word: found for word, found in groups.items() if len(found)}


def _reading(scored: _Scored, free: Sequence[Fate], found: dict[str, Any]) -> str:
    groups = _groups(scored, free, "round2")
    told = [f"{np.median(values):.3f} for {name}" for name, values in groups.items()]
    reading = f"After round 2 the median score is {', '.join(told)}"
    if found.get("truth"):
        part = "select" if "select" in found else "train"
        own = found[part]
        reading += (
            f"; on the {part} part the scores tell lesion from other frames with an AUROC of "
            f"{number(own['auroc_round1'])} after round 1 and {number(own['auroc_round2'])} after "
            f"round 2, and {percent(own['kept']['lesion_recall'])} of lesion frames were kept"
        )
    return reading + "."


def _figures_table(inputs: Inputs, scored: _Scored, found: dict[str, Any]) -> Table:
    parts = [part for part in ("train", "select") if part in found]
    rows = []
    for name in ("round1", "round2"):
        cells = [_auroc_cell(inputs, scored, part, name, found) for part in parts]
        rows.append([f"AUROC of lesion against all other frames, {name[:-1]} {name[-1]}", *cells])
    words = {
        "auroc_round2_without_gate": "the same without the quality gate's help, round 2",
        "auroc_round2_informative": "the same among informative frames, round 2",
        "recall_at_080_dropped": "lesion recall where 0.80 of background is dropped",
    }
    rows += [[text, *(number(found[p][name]) for p in parts)] for name, text in words.items()]
    kept = {
        "lesion_recall": "lesion frames kept",
        "small_recall": "small lesions' frames kept",
        "flat_recall": "flat lesions' frames kept",
        "background_dropped": "other frames dropped",
    }
    rows += [[t, *(number(found[p]["kept"][name]) for p in parts)] for name, t in kept.items()]
    return Table(["figure", *(f"{p} part" for p in parts)], rows, "Against the composer's truth")


def _auroc_cell(
    inputs: Inputs, scored: _Scored, part: str, name: str, found: dict[str, Any]
) -> str:
    inside = [i for i, f in enumerate(scored.fates) if inputs.truth[f.record_id]["part"] == part]
    y = np.array([scored.kinds[i] == "lesion" for i in inside])
    score = np.array(
        [SET_ASIDE if scored.fates[i].reason else getattr(scored.fates[i], name) for i in inside]
    )
    units = [scored.fates[i].record_id for i in inside]
    return span(found[part][f"auroc_{name}"], *auroc_interval(y, score, units, count=300))


def _report(inputs: Inputs) -> dict[str, Any]:
    path = inputs.run / _STAGE / "report.json"
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except ValueError as error:
        raise StaleInput(f"{_STAGE}/report.json cannot be read: {error}") from error


def _distinct(scored: _Scored, rows: npt.NDArray[np.int64]) -> list[int]:
    """The first rows, a frame that several exams share but once."""
    first = {scored.fates[i].frame: int(i) for i in rows[::-1]}
    return [int(i) for i in rows if first[scored.fates[i].frame] == i][:_SHEET]


def _thumb(archive: Path, scored: _Scored, i: int) -> Thumb:
    fate, kind = scored.fates[i], scored.kinds[i]
    word = _TRUTH.get(kind, "")
    alt = f"{'kept' if fate.kept else 'dropped'} frame, score {fate.round2:.3f}"
    lines = [f"{fate.round2:.3f}", *([word] if word else [])]
    mark = "lesion" if kind == "lesion" else ""
    return thumbnail(archive / fate.frame, f"{alt}, {word}" if word else alt, lines, mark)
