"""Failure signatures: what false alarms and misses of a bundle look like, one question each.

``disturbed``: glare, stool, bubbles, an instrument, drawn over whole frames with and without a
polyp, and folds as drawn frames; always the same frame before and after. ``labelled``: the few
frames that the data itself calls so. ``rare``: lesions of a kind that is easily missed. ``mixed``:
records with a neoplastic and a non-neoplastic lesion, which averaging would dilute. ``drift``: one
patient's score as frames are added, from 1 to 300.
"""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model_store.scoring import Decision
from training.evaluate import TASKS, Patient, probabilities, score_patients
from training.evidence.decided import Scorer, apart, decisions, rates, share
from training.items import Embedded, Item
from training.metrics import group_weights, interval, paired_interval
from training.overlays import OVERLAYS, drawn_folds
from training.patients import read_views
from training.protocol import archive_items, archive_patients, data_items
from training.views import encode

__all__ = ["COUNTS", "signature_figures"]

Bools = npt.NDArray[np.bool_]
POOLINGS = ("unify", "mean", "max")
COUNTS = (1, 2, 5, 10, 30, 100, 300)
"""Frames of a patient."""
DRIFTING = 40
"""Patients of each kind that frames are added to."""
DRAWN = 40
"""Drawn frames with folds, and without."""
LEAST = 5
"""Lesions of a kind at least; under it a share says nothing."""

LABELLED: Mapping[str, str] = {
    "stool or turbid fluid": r"stool or turbid|by eye: stool|BBPS=[01];",
    "bubbles": r"bubble",
    "folds": r"fold",
    "blur or red-out": r"by eye: (?:.*, )?(?:blur|red-out)",
}
"""What a note of index.csv says of a frame of the sources kept for tests."""

RARE: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "small": lambda row: bool(row.get("small")),
    "flat": lambda row: bool(row.get("flat")),
    "of mucosal colour": lambda row: _measured(row, "colour") == "isochromatic",
    "pale": lambda row: _measured(row, "colour") == "pale",
    "dark red": lambda row: _measured(row, "colour") == "dark-red",
    "indistinct margin": lambda row: _measured(row, "margin") == "indistinct",
    "nodular surface": lambda row: _measured(row, "surface_texture") == "nodular",
    "elongated": lambda row: _measured(row, "shape") == "elongated",
    "cut by the window": lambda row: float(row.get("cover", 1.0)) < 0.85,
    "non-neoplastic": lambda row: row.get("histology") == "non-neoplastic",
}


def signature_figures(
    scorer: Scorer, archive: Path, data: Path | None, part: str
) -> dict[str, Any]:
    """Measure every signature on a part.

    Args:
        scorer: Of the bundle.
        archive: Gives views and patients.
        data: Folder of real frames with an index; None leaves ``labelled`` out.
        part: select, calibrate or report.
    """
    views = scorer(archive_items(archive, part))
    return {
        "disturbed": _disturbed(scorer, views) | {"folds": _folds(scorer)},
        "labelled": _labelled(scorer, archive, data) if data else {},
        "rare": _rare(scorer, archive, views),
        "mixed": _mixed(scorer, archive, views, part),
        "drift": {task: _drift(scorer, views, task) for task in TASKS},
    }


# ---- single frames -------------------------------------------------------------------------------


def _disturbed(scorer: Scorer, views: Embedded) -> dict[str, Any]:
    """False alarms and misses on whole frames, by what is drawn over them."""
    whole = views.where([item.kind == "scope" for item in views.items])
    whole = whole.where(_one_of_each(whole.items))
    figures = {}
    for name in OVERLAYS:
        after = scorer([_over(item, name, scorer.work) for item in whole.items])
        figures[name] = _before_and_after(scorer, whole, after)
    return figures


def _folds(scorer: Scorer) -> dict[str, Any]:
    found = [scorer([_drawn(scorer.work, i, many) for i in range(DRAWN)]) for many in (False, True)]
    return _before_and_after(scorer, *found)


def _before_and_after(scorer: Scorer, before: Embedded, after: Embedded) -> dict[str, Any]:
    """By side, the rates of both and the change of the share called positive, balanced point."""
    figures = {}
    for side, polyp in (("without", False), ("with_polyp", True)):
        mine = [item.polyp is polyp for item in before.items]
        if not any(mine):
            continue
        pair = [found.where(mine) for found in (before, after)]
        positive = [
            decisions(scorer.encoder, "polyp_detection", "balanced", found) == Decision.POSITIVE
            for found in pair
        ]
        groups = [item.group for item in pair[0].items]
        figures[side] = {
            "before": rates(scorer.encoder, "polyp_detection", pair[0]),
            "after": rates(scorer.encoder, "polyp_detection", pair[1]),
            "change": _change(positive[0], positive[1], groups),
        }
    return figures


def _change(before: Bools, after: Bools, groups: Sequence[str]) -> dict[str, float]:
    """Difference of two shares of the same items, with its interval over resampled groups."""
    difference = after.astype(np.float64) - before
    drawn = [
        float((w * difference).sum() / w.sum())
        for w in group_weights(groups, 1000, 0)
        if w.sum() > 0
    ]
    low, high = interval(np.array(drawn))
    return {"value": float(difference.mean()), "low": low, "high": high}


def _one_of_each(items: Sequence[Item]) -> list[bool]:
    """Keep one lesion-free view and one view of a lesion of each source frame."""
    seen: set[tuple[str, bool | None]] = set()
    kept = []
    for item in items:
        # A lesion-free view does not name its frame; its own name begins with it.
        key = (item.image or item.view.rpartition("_s")[0], item.polyp)
        kept.append(key not in seen)
        seen.add(key)
    return kept


def _over(item: Item, name: str, work: Path) -> Item:
    path = work / f"{name}_{item.path.stem}.jpg"
    rng = np.random.default_rng(zlib.crc32(path.stem.encode()))
    with Image.open(item.path) as image:
        path.write_bytes(encode(OVERLAYS[name](image.convert("RGB"), rng)))
    return replace(item, path=path, kind=f"{item.kind}, {name}")


def _drawn(work: Path, index: int, many: bool) -> Item:
    path = work / f"folds_{index:03d}_{int(many)}.jpg"
    path.write_bytes(encode(drawn_folds(np.random.default_rng([7, index]), 256, many)))
    return Item(path, "drawn", False, None, f"drawn{index}", "drawn", "256x256")


def _labelled(scorer: Scorer, archive: Path, data: Path) -> dict[str, Any]:
    with (data / "index.csv").open(newline="", encoding="utf-8") as file:
        notes = {(data / row["file"]).resolve(): row["note"] for row in csv.DictReader(file)}
    items = data_items(data, archive, "test")
    figures = {}
    for name, pattern in LABELLED.items():
        mine = [item for item in items if re.search(pattern, notes[item.path])]
        if mine:
            figures[name] = rates(scorer.encoder, "polyp_detection", scorer(mine))
    return figures


def _rare(scorer: Scorer, archive: Path, views: Embedded) -> dict[str, Any]:
    """How often windows with a lesion of a kind are found, and those of no such kind."""
    rows = {row["view"]: row for row in read_views(archive)}
    windows = views.where([item.kind == "view" for item in views.items])
    lesion = np.array([bool(item.polyp) for item in windows.items])
    told = [rows[item.view] if item.polyp else {} for item in windows.items]
    found = decisions(scorer.encoder, "polyp_detection", "balanced", windows) == Decision.POSITIVE
    p = probabilities(scorer.encoder, "polyp_detection", windows)
    groups = np.array([item.group for item in windows.items])
    figures = {}
    for name, rule in RARE.items():
        mine = np.array([rule(row) for row in told]) & lesion
        others = lesion & ~mine
        if mine.sum() < LEAST or others.sum() < LEAST:
            continue
        either = mine | ~lesion
        figures[name] = {
            "found": share(found[mine], groups[mine].tolist()),
            "others": share(found[others], groups[others].tolist()),
            "apart": apart(mine[either], p[either], groups[either].tolist()),
        }
    return figures


def _measured(row: Mapping[str, Any], name: str) -> str | None:
    return dict(row.get("attributes", {})).get(name)


# ---- patients ------------------------------------------------------------------------------------


def _mixed(scorer: Scorer, archive: Path, views: Embedded, part: str) -> dict[str, Any]:
    """Neoplastic patients of two lesions or more against benign ones, by what stands beside.

    ``mixed`` holds a non-neoplastic lesion as well, ``pure`` only neoplastic ones.
    """
    items, patients = archive_patients(archive, part)
    several = [p for p in patients if len(p.groups) > 1]
    scores = score_patients(scorer.encoder, "malignancy", views.pick(items), several)
    positive = np.array([p.positive for p in several])
    mixed = np.array([p.mixed for p in several])
    figures = {}
    for name, kind in (("mixed", mixed), ("pure", positive & ~mixed)):
        mine = kind | ~positive
        y, units = kind[mine], [p.groups for p in np.array(several, dtype=object)[mine]]
        p = {pooling: scores.probability[pooling][mine] for pooling in POOLINGS}
        told = {pooling: apart(y, p[pooling], units) for pooling in POOLINGS}
        figures[name] = told | {
            f"unify_minus_{other}": paired_interval(y, p["unify"], p[other], units)
            for other in ("mean", "max")
        }
    return figures


def _drift(scorer: Scorer, views: Embedded, task: str) -> dict[str, Any]:
    """Scores of patients that get more and more frames without a lesion.

    By kind of patient (``with_lesion``: for malignancy a neoplastic one; ``without``), by number
    of frames: quantiles of the probability, the share called positive, and the share of patients
    whose probability rose since the number before.
    """
    windows = views.where([item.kind == "view" for item in views.items])
    normal = np.flatnonzero([item.polyp is False for item in windows.items])
    asked = [i.polyp if task == "polyp_detection" else i.neoplastic for i in windows.items]
    lesions = _of_distinct_groups(windows.items, np.flatnonzero([bool(a) for a in asked]))
    rng = np.random.default_rng(300)
    orders = [rng.permutation(normal) for _ in range(DRIFTING)]
    firsts: dict[str, list[int | None]] = {
        "with_lesion": [int(row) for row in lesions[:DRIFTING]],
        "without": [None] * DRIFTING,
    }
    return {
        name: _grown(scorer, windows, task, first, orders[: len(first)])
        for name, first in firsts.items()
    }


def _grown(
    scorer: Scorer,
    windows: Embedded,
    task: str,
    firsts: Sequence[int | None],
    orders: Sequence[npt.NDArray[np.int64]],
) -> dict[str, Any]:
    point = scorer.encoder.bundle.calibrations[task].operating_point("balanced")
    figures: dict[str, Any] = {}
    before: npt.NDArray[np.float64] | None = None
    for count in COUNTS:
        patients = []
        for first, order in zip(firsts, orders, strict=True):
            rows = ([] if first is None else [first]) + [int(row) for row in order]
            positive = first is not None
            group = windows.items[rows[0]].group
            patients.append(Patient(tuple(rows[:count]), positive, False, 0, (group,)))
        if any(len(p.rows) < count for p in patients):
            break
        scores = score_patients(scorer.encoder, task, windows, patients)
        p = scores.probability["unify"]
        told = [
            point.decide_patient(float(v), int(n)) for v, n in zip(p, scores.frames, strict=True)
        ]
        figures[str(count)] = {
            "p5": float(np.quantile(p, 0.05)),
            "median": float(np.median(p)),
            "p95": float(np.quantile(p, 0.95)),
            "positive": share(
                np.array([d is Decision.POSITIVE for d in told]), [x.groups for x in patients]
            ),
            "rose": None if before is None else float((p > before + 1e-4).mean()),
        }
        before = p
    return figures


def _of_distinct_groups(
    items: Sequence[Item], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The rows in an order that takes one of every group before a second of any."""
    met: dict[str, int] = {}
    turn = []
    for row in rows:
        group = items[int(row)].group
        turn.append(met.get(group, 0))
        met[group] = met.get(group, 0) + 1
    return rows[np.argsort(turn, kind="stable")]
