"""Figures as Markdown tables: of a model card, and of what ``evaluate`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["figures_text", "reliability_table"]

PARTS = {
    "select": "used to choose between recipes",
    "calibrate": "what the thresholds were chosen on: flattering",
    "report": "source groups not used before",
}
KINDS = {
    "crop": "crops and frames are images of the sources as they are",
    "view": "views are windows cut as in training",
    "scope": "scope views are whole frames, with their lesions or with mucosa over them",
    "exam": "exam frames are of the archive's own exams, by their labels or, where the report "
    "tells of no lesion, by the report",
}
COMPOSED = "Composed patients of 10 to 40 background frames"
EXAMS = "Patients are the archive's exams, once each, by their reports and pathology"
TASKS = ("polyp_detection", "malignancy")


def figures_text(metrics: Mapping[str, Any]) -> str:
    """Write all figures.

    Args:
        metrics: As from ``part_figures``, or a manifest's.
    """
    if not metrics:
        return "None measured."
    part = metrics["part"]
    head = (
        f"Measured on {metrics['measured']} on the `{part}` part ({PARTS.get(part, part)}), through"
        " the packed bundle. 95 % intervals resample source groups, unless said otherwise. "
        "Sensitivity and specificity are of the balanced point's decisions: one that abstains, or"
        " that the quality gate prevents, counts neither as a detection nor as a correct rejection."
    )
    blocks = [
        [head],
        list(_frames(metrics["frames"])),
        list(_one_class(metrics["frames"])),
        list(_patients(metrics["patients"], EXAMS if "exam" in metrics["frames"] else COMPOSED)),
        list(_by_frames(metrics.get("patients_by_frames", {}))),
        list(_without(metrics)),
        list(reliability_table(metrics.get("reliability", {}))),
        list(_sources(metrics.get("test_sources", {}))),
        list(_examples(metrics.get("examples", {}))),
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _frames(frames: Mapping[str, Any]) -> Iterator[str]:
    rows = [(k, t, found[t]) for k, found in frames.items() for t in TASKS if t in found]
    if not rows:
        return
    yield from _head(
        "item",
        "task",
        "AUROC (95 %)",
        "within dimensions",
        "no pixel: AUROC, lead (95 %)",
        "n+ / n-",
        "sens. / spec. / abstained",
        "ECE (floor), Brier",
    )
    for kind, task, f in rows:
        cells = [
            kind,
            task,
            _interval(f),
            _number(f["auroc_within_dimensions"]),
            _no_pixel(f.get("no_pixel")),
            f"{f['positives']} / {f['negatives']}",
            _decisions(f),
            _calibration(f),
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    told = [text for kind, text in KINDS.items() if any(kind == k for k, _, _ in rows)]
    yield f"Items: {'; '.join(told)}."
    if any("no_pixel" in f for _, _, f in rows):
        yield ""
        yield (
            "No pixel: a logistic model of the frame's dimensions and the lesion's share of it, "
            "fitted on the train part, on the same items; lead is the model's AUROC minus its."
        )


def _one_class(frames: Mapping[str, Any]) -> Iterator[str]:
    rows = [
        (kind, task, f)
        for kind, found in frames.items()
        for task, f in found.get("one_class", {}).items()
    ]
    if not rows:
        return
    yield from _head(
        "items of one class",
        "task",
        "measures",
        "value (95 % Wilson)",
        "n (groups)",
        "abstained",
    )
    for kind, task, f in rows:
        yield (
            f"| {kind} | {task} | {f['measures']} | {_share(f)} | {f['items']} ({f['groups']}) "
            f"| {f['abstained']:.2f} |"
        )


def _patients(patients: Mapping[str, Any], who: str) -> Iterator[str]:
    yield from _head(
        "patients (n)",
        "unify, as served (95 %)",
        "mean",
        "max",
        "unify - mean (95 %)",
        "unify - max (95 %)",
        "no pixel: AUROC, lead (95 %)",
        "sens. / spec. / abstained",
        "ECE (floor), Brier",
    )
    for task, f in patients.items():
        cells = [
            f"{task} ({f['patients']})",
            _interval(f["unify"]),
            *(_number(f[name]["auroc"]) for name in ("mean", "max")),
            *(_span(f[f"unify_minus_{name}"]) for name in ("mean", "max")),
            _no_pixel(f.get("no_pixel")),
            _decisions(f),
            _calibration(f),
        ]
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield (
        f"{who}. unify is the served probability; mean (of the embeddings) and max (of the "
        "frames' margins) go through the same map with the same term for the number of frames. The "
        "no-pixel model is told which frames show a lesion. Intervals weigh a patient by the draws "
        "of all its lesions' groups."
    )


def _by_frames(by_frames: Mapping[str, Any]) -> Iterator[str]:
    if not by_frames:
        return
    bands = list(next(iter(by_frames.values())))
    yield from _head("sens. / spec. / abstained by number of frames", *bands)
    for task, found in by_frames.items():
        cells = [f"{_decisions(f)} ({f['patients']})" for f in found.values()]
        yield f"| {task} | " + " | ".join(cells) + " |"


def _without(metrics: Mapping[str, Any]) -> Iterator[str]:
    rows = [(kind, f["no_lesion"]) for kind, f in metrics["frames"].items() if "no_lesion" in f]
    for kind, f in rows:
        yield (
            f"- Items without a lesion ({kind}, {f['items']}): specificity "
            f"{f['polyp_detection_specificity']:.3f} (polyp detection), "
            f"{f['malignancy_specificity']:.3f} (malignancy)."
        )
    f = metrics["patients"].get("malignancy", {}).get("no_lesion")
    if f:
        yield (
            f"- Patients without a lesion ({f['patients']}): specificity of malignancy "
            f"{_number(f['balanced_specificity'])}."
        )


def reliability_table(found: Mapping[str, Any]) -> Iterator[str]:
    """Lines of a table of what ``training.evidence.reliability`` measured; none of nothing."""
    if not found:
        return
    yield (
        "Calibration on 2,000 items and more. Frames: of this part by the served map, of the "
        "`calibrate` part out of fold by group, and further windows of lesions of known histology."
        " Patients: composed by the fixed protocol; anew: by the map that today's code fits. Beside"
        " the error a perfect model's, with items drawn one by one and with all items of a source "
        "group drawn as one. Intervals of the error lie high: resampling adds to a sum of absolute "
        "values."
    )
    yield ""
    yield from _head(
        "items",
        "task",
        "n (groups)",
        "ECE, 15 bins (95 %)",
        "floor by items / by groups",
        "Brier (95 %)",
        "mean probability / share positive",
    )
    for name, tasks in found.items():
        for task, f in tasks.items():
            yield _reliable(name, task, f)
            if "anew" in f:
                yield _reliable(f"{name}, anew", task, f["anew"])


def _reliable(name: str, task: str, f: Mapping[str, Any]) -> str:
    cells = [
        name,
        task,
        f"{f['items']} ({f['groups']})",
        f"{f['ece15']:.3f} ({f['ece15_low']:.3f}-{f['ece15_high']:.3f})",
        f"{f['floor']:.3f} / {f['grouped_floor']:.3f}",
        f"{f['brier']:.3f} ({f['brier_low']:.3f}-{f['brier_high']:.3f})",
        f"{f['mean_probability']:.2f} / {f['positives']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


def _sources(found: Mapping[str, Any]) -> Iterator[str]:
    if not found:
        return
    yield (
        "Sources that were never trained, calibrated or thresholded on, as they are (few, labels "
        "partly by eye; 95 % Wilson intervals over frames):"
    )
    yield ""
    yield from _head(
        "source",
        "normal frames",
        "spec. polyp detection",
        "spec. malignancy",
        "non-informative frames",
        "set aside by the gate",
    )
    names = dict.fromkeys([*found["normal"], *found["gate_recall"]])
    for name in sorted(names, key=lambda n: (n == "all", n)):
        normal, gate = found["normal"].get(name), found["gate_recall"].get(name)
        cells = [name]
        cells += [str(normal["malignancy"]["items"])] if normal else ["0"]
        cells += [_share(normal[task]) if normal else "-" for task in TASKS]
        cells += [str(gate["items"]), _share(gate)] if gate else ["0", "-"]
        yield "| " + " | ".join(cells) + " |"
    f = found.get("polyp_frames_against_normal")
    if f:
        yield ""
        yield (
            f"Whole polyp frames of this part against those normal frames ({f['positives']} / "
            f"{f['negatives']}): AUROC {_interval(f)}. Cross-source and confounded: camera, border"
            " and device text differ between the two."
        )


def _examples(found: Mapping[str, Any]) -> Iterator[str]:
    if not found:
        return
    wrong = [
        k for level in ("frames", "patients") for k, f in found[level].items() if not f["right"]
    ]
    if wrong:
        yield f"**Drawn examples that score on the wrong side: {', '.join(wrong)}.**"
    else:
        yield "All drawn examples (`examples/`) score on their right side, alone and as patients."


def _head(*names: str) -> Iterator[str]:
    yield "| " + " | ".join(names) + " |"
    yield "|---" * len(names) + "|"


def _interval(f: Mapping[str, Any]) -> str:
    return f"{_number(f['auroc'])} ({_number(f['auroc_low'])}-{_number(f['auroc_high'])})"


def _share(f: Mapping[str, Any]) -> str:
    return f"{f['value']:.2f} ({f['low']:.2f}-{f['high']:.2f})"


def _decisions(f: Mapping[str, Any]) -> str:
    names = ("balanced_sensitivity", "balanced_specificity", "balanced_abstained")
    return " / ".join("-" if f.get(name) is None else f"{f[name]:.2f}" for name in names)


def _calibration(f: Mapping[str, Any]) -> str:
    return f"{_number(f['ece15'])} ({_number(f['ece15_floor'])}), {_number(f.get('brier'))}"


def _no_pixel(f: Mapping[str, Any] | None) -> str:
    if not f:
        return "-"
    return f"{_number(f['auroc'])}, {f['lead']:+.3f} ({_span((f['lead_low'], f['lead_high']))})"


def _span(ends: Any) -> str:
    return " to ".join("-" if end is None else f"{end:+.3f}" for end in ends)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
