"""What cleansing did, measured against the composer's truth - after the fact, never an input to it.

Writes ``report.json``: frame AUROC of both rounds (frames that the quality gate set aside rank
last; without the gate's help beside it), recall and dropped background at the chosen
share and over a sweep of shares in both selection forms, and kept recall of small and flat
lesions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import roc_auc_score

from training.cleansing import SET_ASIDE, read_ledger, select
from training.reading import Exam
from training.records import read_truth
from training.runs import write_json
from training.sample import Share

__all__ = ["report_cleansing"]

SWEEP = (0.30, 0.45, 0.60)


def report_cleansing(
    archive: Path, folder: Path, exams: Sequence[Exam], share: Share
) -> dict[str, Any]:
    """Measure the ledger where the archive has ``truth.jsonl``; otherwise say that it has none.

    Lesion frames are those showing a lesion informatively; background is every other frame of
    positive exams.

    Returns:
        Figures, also written to ``report.json``.
    """
    if not (archive / "truth.jsonl").is_file():
        return {"truth": False}
    truth, fates = read_truth(archive), read_ledger(folder / "ledger.jsonl")
    found: dict[str, Any] = {"truth": True}
    for part in ("train", "select"):
        chosen = [e for e in exams if e.part == part and e.positive]
        if chosen:
            found[part] = _measure(chosen, truth, fates, share)
    write_json(folder / "report.json", found)
    return found


def _measure(exams: Sequence[Exam], truth: Any, fates: Any, share: Share) -> dict[str, Any]:
    rows = [fate for exam in exams for fate in fates[exam.record_id]]
    told = [frame for exam in exams for frame in truth[exam.record_id]["frames"]]
    lesion = np.array([frame["kind"] == "lesion" for frame in told])
    small = np.array([bool(frame.get("small")) for frame in told]) & lesion
    flat = np.array([bool(frame.get("flat")) for frame in told]) & lesion
    kept = np.array([row.kept for row in rows])
    passed = np.array([row.reason is None for row in rows])
    raw = {name: np.array([getattr(row, name) for row in rows]) for name in ("round1", "round2")}
    scores = {name: np.where(passed, values, SET_ASIDE) for name, values in raw.items()}
    informative = np.array([frame["kind"] != "non_informative" for frame in told])
    floors = [max(1, len(exam.lesions)) for exam in exams]
    edges = np.cumsum([0, *(len(exam.frames) for exam in exams)])
    pieces = [scores["round2"][a:b] for a, b in pairwise(edges)]
    sweep = {
        f"{selection}_{value:.2f}": _kept_figures(
            np.concatenate(select(pieces, floors, value, selection)), lesion, small, flat
        )
        for selection in ("pooled", "per_exam")
        for value in (share.high, *SWEEP)
    }
    return {
        "frames": len(rows),
        "lesion_share": float(lesion.mean()),
        "auroc_round1": _auroc(lesion, scores["round1"]),
        "auroc_round2": _auroc(lesion, scores["round2"]),
        "auroc_round1_without_gate": _auroc(lesion, raw["round1"]),
        "auroc_round2_without_gate": _auroc(lesion, raw["round2"]),
        "set_aside": {
            "lesion": float((~passed[lesion]).mean()),
            "background": float((~passed[~lesion & informative]).mean()),
            "non_informative": float((~passed[~informative]).mean()),
        },
        "auroc_round2_informative": _auroc(lesion[informative], scores["round2"][informative]),
        "recall_at_080_dropped": _recall_at_dropped(lesion, scores["round2"], 0.80),
        "kept": _kept_figures(kept, lesion, small, flat),
        "sweep": sweep,
    }


def _kept_figures(
    kept: npt.NDArray[np.bool_],
    lesion: npt.NDArray[np.bool_],
    small: npt.NDArray[np.bool_],
    flat: npt.NDArray[np.bool_],
) -> dict[str, float]:
    groups = {"lesion_recall": lesion, "small_recall": small, "flat_recall": flat}
    figures = {
        name: float(kept[mask].mean()) if mask.any() else float("nan")
        for name, mask in groups.items()
    }
    return figures | {"background_dropped": float((~kept[~lesion]).mean())}


def _auroc(y: npt.NDArray[np.bool_], score: npt.NDArray[np.float64]) -> float:
    return float(roc_auc_score(y, score)) if 0 < y.sum() < len(y) else float("nan")


def _recall_at_dropped(
    lesion: npt.NDArray[np.bool_], score: npt.NDArray[np.float64], dropped: float
) -> float:
    """Share of lesion frames above the score below which ``dropped`` of the background lies."""
    return float((score[lesion] > np.quantile(score[~lesion], dropped)).mean())
