"""Make a site's profile from its labelled frames: local map, thresholds, perhaps an adapter.

Everything shipped is fitted to all labels; everything *measured* is of frames held out by patient,
by the same procedure on the other patients, thresholds and adapter included. An adapter is shipped
only where it is better than zero-shot out of fold, with the interval of the difference above 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from model_store.adapters import Adapter, CacheAdapter, LinearAdapter
from model_store.encoder import Encoder
from model_store.profile import Labels, SitePoint, SiteTask
from model_store.scoring import Calibration, Decision, FrameMap, decide
from training.calibrate import (
    POINTS,
    Judged,
    abstain_band,
    choose_threshold,
    expected_calibration_error,
    fit_frame_map,
)
from training.errors import LabelsRefused
from training.evaluate import TASKS, truth
from training.fewshot.adapters import ADAPTERS, out_of_fold
from training.fewshot.frames import Bools, Floats, Frames, folds, known_frames
from training.items import Embedded
from training.metrics import auroc, auroc_draws, auroc_interval, group_weights, interval, wilson

__all__ = [
    "FOLDS",
    "LEAST_PATIENTS",
    "Fitted",
    "Judgement",
    "SiteFit",
    "Wanted",
    "fit_held_out",
    "fit_tasks",
    "profile_lines",
]

FOLDS = 5
LEAST_PATIENTS = 5
"""Patients of each class: one for each fold."""
DRAWS = 1000
# Two adapters are tried and the better one is taken: the intervals of both hold together at 95 %.
LEAD_LEVEL = 0.975


@dataclass(frozen=True)
class Wanted:
    """What a site asks of its operating points, 0.5 to below 1.

    Attributes:
        sensitivity: Least, of ``sensitivity_first``.
        specificity: Least, of ``specificity_first``.
    """

    sensitivity: float = 0.95
    specificity: float = 0.95

    def __post_init__(self) -> None:
        for name, value in (("sensitivity", self.sensitivity), ("specificity", self.specificity)):
            if not 0.5 <= value < 1:
                raise LabelsRefused(f"expected a {name} of 0.5 to below 1, found {value:g}")

    def least(self, positive: bool) -> int:
        """Frames of a class at least: with fewer, one of them is more than may go wrong."""
        share = self.sensitivity if positive else self.specificity
        return math.ceil(round(1 / (1 - share), 6))


@dataclass(frozen=True)
class Fitted:
    """Adapter, map and thresholds with bands, by point.

    Attributes:
        adapter: Or None.
        line: Map of corrected margins.
        thresholds: By name of the point, threshold and abstention band or None.
    """

    adapter: Adapter | None
    line: FrameMap
    thresholds: dict[str, tuple[float, tuple[float, float] | None]]

    def probability(self, frames: Frames) -> Floats:
        """Local probabilities (n,)."""
        z = frames.margin
        if self.adapter is not None:
            z = z + self.adapter.correction(frames.embeddings)
        return np.asarray(self.line.probability(z), np.float64)


@dataclass(frozen=True)
class Judgement:
    """What frames got from fits to the other patients: (n,) probabilities, decisions by point."""

    p: Floats
    decisions: dict[str, npt.NDArray[np.object_]]


@dataclass(frozen=True)
class SiteFit:
    """What is shipped, and what was measured of the way it was made.

    Attributes:
        kind: Of the adapter that is shipped, or None.
        fitted: To all frames.
        judged: Every frame by a fit to the other patients.
        leads: By kind of adapter, its AUROC and lead over zero-shot.
    """

    kind: str | None
    fitted: Fitted
    judged: Judgement
    leads: dict[str, dict[str, float]]


def fit_tasks(
    encoder: Encoder,
    found: Embedded,
    wanted: Wanted,
    done: Callable[[], None] = lambda: None,
) -> tuple[dict[str, SiteTask], dict[str, str]]:
    """Fit every task that has labels enough.

    Args:
        encoder: Of the bundle.
        found: Labelled frames that could be read.
        wanted: Of the thresholds.
        done: Called ``len(TASKS)`` times.

    Returns:
        What is local, by task; and by task that has labels and is left out, why.

    Raises:
        LabelsRefused: No task has labels enough; every reason is named.
    """
    tasks, left_out = {}, {}
    for task in TASKS:
        _, known = truth(task, found.items)
        if known.any():
            frames = known_frames(encoder, task, found)
            missing = _missing(frames, wanted)
            if missing:
                left_out[task] = missing
            else:
                base = encoder.bundle.calibrations[task]
                set_aside = int(known.sum()) - len(frames.y)
                tasks[task] = _fit_task(frames, base, wanted, set_aside)
        done()
    if not tasks:
        told = "; ".join(f"{task}: {why}" for task, why in left_out.items())
        raise LabelsRefused(told or "expected labels of a task, found none that can be used")
    return tasks, left_out


def _missing(frames: Frames, wanted: Wanted) -> str:
    faults = []
    for positive, word in ((True, "positive"), (False, "negative")):
        mine = frames.y == positive
        least, patients = wanted.least(positive), len(set(frames.groups[mine].tolist()))
        if mine.sum() < least or patients < LEAST_PATIENTS:
            faults.append(
                f"expected at least {least} usable {word} frames of {LEAST_PATIENTS} patients, "
                f"found {int(mine.sum())} of {patients}"
            )
    return ", and ".join(faults)


def fit_held_out(frames: Frames, wanted: Wanted) -> SiteFit:
    """Fit with each adapter and with none, judge all on held-out patients, take the best shown.

    Args:
        frames: Of one task, as many as ``Wanted.least`` asks for.
        wanted: Of the thresholds.
    """
    held_out = {kind: _held_out(frames, kind, wanted) for kind in (None, *ADAPTERS)}
    leads = {kind: _lead(frames, held_out[kind].p) for kind in ADAPTERS}
    kind = _better(leads)
    return SiteFit(kind, _fit(frames, kind, wanted), held_out[kind], leads)


def _fit_task(frames: Frames, base: Calibration, wanted: Wanted, set_aside: int) -> SiteTask:
    found = fit_held_out(frames, wanted)
    fitted, judged = found.fitted, found.judged
    points = {
        name: SitePoint(threshold, band, _decided(frames, judged.decisions[name]))
        for name, (threshold, band) in fitted.thresholds.items()
    }
    patients = len(set(frames.groups.tolist()))
    counts = Labels(int(frames.y.sum()), int((~frames.y).sum()), patients, set_aside)
    low, high = auroc_interval(frames.y, frames.margin, frames.groups.tolist(), DRAWS)
    measured = {
        "folds": FOLDS,
        "zero_shot": {"auroc": auroc(frames.y, frames.margin), "low": low, "high": high},
        "adapters": found.leads,
        "calibration": _calibration(frames, base, judged.p),
        "bundle_points": _bundle_points(frames, base),
    }
    adapter = fitted.adapter
    return SiteTask(
        counts,
        fitted.line,
        points,
        adapter if isinstance(adapter, LinearAdapter) else None,
        adapter if isinstance(adapter, CacheAdapter) else None,
        measured,
    )


def _fit(frames: Frames, kind: str | None, wanted: Wanted) -> Fitted:
    """Fit adapter, map and thresholds.

    An adapter is too sure of the frames it was fitted to: map and thresholds are fitted to what
    it says of frames that were held out from it.
    """
    adapter, z = None, frames.margin
    if kind is not None:
        adapter, z = ADAPTERS[kind](frames), out_of_fold(frames, ADAPTERS[kind])
    told = ~np.isnan(z)
    line = fit_frame_map(z[told], frames.y[told])
    judged = Judged(np.asarray(line.probability(z[told]), np.float64), frames.y[told])
    thresholds = {}
    for name in POINTS:
        share = wanted.sensitivity if name == "sensitivity_first" else wanted.specificity
        threshold = choose_threshold(name, judged, share)
        band = abstain_band(threshold, judged) if name == "balanced" else None
        thresholds[name] = (threshold, band)
    return Fitted(adapter, line, thresholds)


def _held_out(frames: Frames, kind: str | None, wanted: Wanted) -> Judgement:
    p = np.full(len(frames.y), 0.5)
    decisions = {name: np.full(len(p), Decision.ABSTAINED, dtype=object) for name in POINTS}
    for fitted, held in folds(frames, FOLDS):
        fit = _fit(frames.rows(fitted), kind, wanted)
        p[held] = fit.probability(frames.rows(held))
        for name, (threshold, band) in fit.thresholds.items():
            decisions[name][held] = [decide(float(value), threshold, band) for value in p[held]]
    return Judgement(p, decisions)


def _lead(frames: Frames, p: Floats) -> dict[str, float]:
    units = frames.groups.tolist()
    draws = [auroc_draws(frames.y, score, units, DRAWS) for score in (p, frames.margin)]
    low, high = interval(draws[0] - draws[1], LEAD_LEVEL)
    own = auroc(frames.y, p)
    lead = own - auroc(frames.y, frames.margin)
    return {"auroc": own, "lead": lead, "lead_low": low, "lead_high": high}


def _better(leads: Mapping[str, Mapping[str, float]]) -> str | None:
    ahead = [kind for kind, found in leads.items() if found["lead_low"] > 0]
    return max(ahead, key=lambda kind: leads[kind]["lead"]) if ahead else None


def _calibration(frames: Frames, base: Calibration, p: Floats) -> dict[str, float]:
    """Brier score and ECE of the bundle's own map and of the local one, held out."""
    own = np.asarray(base.frame.probability(frames.margin), np.float64)
    loss, local = (own - frames.y) ** 2, (p - frames.y) ** 2
    weights = group_weights(frames.groups.tolist(), DRAWS, seed=0)
    low, high = interval(np.array([np.average(loss - local, weights=w) for w in weights]))
    return {
        "brier_bundle": float(loss.mean()),
        "brier_local": float(local.mean()),
        "brier_gain": float((loss - local).mean()),
        "brier_gain_low": low,
        "brier_gain_high": high,
        "ece15_bundle": expected_calibration_error(own, frames.y),
        "ece15_local": expected_calibration_error(p, frames.y),
    }


def _bundle_points(frames: Frames, base: Calibration) -> dict[str, dict[str, float]]:
    """What the bundle's own map and thresholds decide of the labelled frames."""
    own = base.frame.probability(frames.margin)
    return {
        name: _decided(frames, np.array([point.decide_frame(float(p)) for p in own], dtype=object))
        for name, point in base.operating_points.items()
    }


def _decided(frames: Frames, decisions: npt.NDArray[np.object_]) -> dict[str, float]:
    """Shares with intervals; what is abstained from is neither detected nor rightly rejected."""
    y, units = frames.y, frames.groups.tolist()
    found = {"frame_abstained": float((decisions == Decision.ABSTAINED).mean())}
    for name, mine, word in (
        ("sensitivity", y, Decision.POSITIVE),
        ("specificity", ~y, Decision.NEGATIVE),
    ):
        hits = decisions[mine] == word
        low, high = _share_interval(hits, [unit for unit, m in zip(units, mine, strict=True) if m])
        found |= {f"frame_{name}": float(hits.mean())}
        found |= {f"frame_{name}_low": low, f"frame_{name}_high": high}
    return found


def _share_interval(hits: Bools, units: Sequence[str]) -> tuple[float, float]:
    """95 % interval of a share: the wider of Wilson's and of the bootstrap over patients.

    Wilson's takes a patient's frames for independent; the bootstrap has no width where all hit.
    """
    low, high = wilson(int(hits.sum()), len(hits))
    weights = [w for w in group_weights(units, DRAWS, seed=0) if w.sum() > 0]
    drawn = interval(np.array([np.average(hits, weights=w) for w in weights]))
    return min(low, drawn[0]), max(high, drawn[1])


def profile_lines(tasks: Mapping[str, SiteTask]) -> Iterator[str]:
    """Say in Markdown what a profile holds and what was measured on held-out frames."""
    for name, task in tasks.items():
        counts, measured = task.labels, task.measured
        yield (
            f"**{name}**: {counts.positive} positive and {counts.negative} negative frames of "
            f"{counts.patients} patients, {counts.set_aside} more set aside by the quality gate. "
            f"Figures are of held-out patients ({measured['folds']} folds), 95 % intervals."
        )
        yield ""
        yield "| frames | threshold | sensitivity | specificity | abstained |"
        yield "|---|---|---|---|---|"
        for point, local in task.operating_points.items():
            yield _point_row(point, f"{local.frame_threshold:.3f}", local.measured)
            yield _point_row(f"{point}, as in the bundle", "", measured["bundle_points"][point])
        yield ""
        yield _calibration_line(measured["calibration"])
        zero = measured["zero_shot"]
        yield f"AUROC of zero-shot {zero['auroc']:.3f} ({zero['low']:.3f}-{zero['high']:.3f})."
        for kind, lead in measured["adapters"].items():
            used = "used" if task.adapter_kind == kind else "not used"
            yield (
                f"Adapter {kind}: AUROC {lead['auroc']:.3f}, {lead['lead']:+.3f} "
                f"({lead['lead_low']:+.3f} to {lead['lead_high']:+.3f}) against zero-shot: {used}."
            )
        yield ""


def _point_row(name: str, threshold: str, found: Mapping[str, float]) -> str:
    cells = [
        f"{found[key]:.3f} ({found[f'{key}_low']:.3f}-{found[f'{key}_high']:.3f})"
        for key in ("frame_sensitivity", "frame_specificity")
    ]
    return f"| {name} | {threshold} | {' | '.join(cells)} | {found['frame_abstained']:.3f} |"


def _calibration_line(found: Mapping[str, float]) -> str:
    text = (
        f"Brier score {found['brier_local']:.3f}, with the bundle's own map "
        f"{found['brier_bundle']:.3f} (gain {found['brier_gain_low']:+.3f} to "
        f"{found['brier_gain_high']:+.3f}); ECE {found['ece15_local']:.3f} and "
        f"{found['ece15_bundle']:.3f}."
    )
    if found["brier_gain_low"] <= 0:
        text += " These labels do not show that local probabilities are better than the bundle's."
    return text
