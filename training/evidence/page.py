"""Figures of ``training evidence`` as a Markdown page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from training.card_figures import reliability_table

__all__ = ["write_page"]

POINTS = ("balanced", "sensitivity_first", "specificity_first")
_INTRO = """\
# Evidence: false alarms, failure signatures, order, calibration

What the AUROCs of the model card do not say. The page is written by

```bash
python -m training evidence --bundle B --archive A --data D --part {part} --page docs/evidence.md
```

Bundle `{bundle}` (`{digest}`), part `{part}`, archive `{archive}`, code of commit `{commit}`.
Intervals (95 %) resample source groups; where no resample differs (one group, or all items alike)
they are Wilson's of as many items as there are groups. A decision that abstains, or that the
quality gate prevents, counts neither as a false alarm nor as a correct rejection. Composed frames
and patients throughout: no figure here is of a clinic.
"""


def write_page(path: Path, found: Mapping[str, Any]) -> None:
    """Write the page.

    Args:
        path: Markdown file.
        found: As from ``evidence_figures``.
    """
    short = {name: found[name][:19] for name in ("digest", "archive")}
    blocks = [[_INTRO.format(**{**found, **short, "commit": found["commit"][:12]})]]
    if "normals" in found:
        blocks.append(list(_normals(found["normals"])))
    blocks.append(list(_signatures(found["signatures"])))
    if "sequences" in found:
        blocks.append(list(_sequences(found["sequences"])))
    blocks.append(["## Calibration\n", *reliability_table(found["reliability"])])
    path.write_text("\n\n".join("\n".join(b).strip() for b in blocks) + "\n", "utf-8")


def _normals(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Normal frames\n"
    yield (
        "From the very frames that show polyps, so that neither endoscope nor scale nor treatment"
        " tells: `window` is the largest polyp-free window of a frame beside one of the same size"
        " with the lesion, `covered` the whole frame with its lesions covered by mucosa beside the"
        " frame with as many patches elsewhere. Polyp detection.\n"
    )
    yield _head("frames", "source", "n+ / n- (groups)", "AUROC", *_of_points("spec."), "sens.")
    for treatment, sources in found["same_source"].items():
        for source, f in sources.items():
            sensitivity = [_short(f["with_polyp"]["positive"][p]) for p in POINTS]
            yield _row(
                treatment,
                source,
                f"{f['apart']['positives']} / {f['apart']['negatives']} ({f['apart']['groups']})",
                _apart(f["apart"]),
                *(_share(f["without"]["negative"][p]) for p in POINTS),
                " / ".join(sensitivity),
            )
    yield "\nThe last column gives the three points in the same order.\n"
    cross = found["cross_source"]
    yield (
        "Whole normal frames of the sources kept for tests (never trained, calibrated or"
        " thresholded on; few, labels partly by eye, the clip's watermark cut off):\n"
    )
    yield _head(
        "source", "frames (groups)", "set aside", *_of_points("spec."), "spec. malignancy, balanced"
    )
    for source, f in cross["normal"].items():
        told, other = f["polyp_detection"], f["malignancy"]
        yield _row(
            source,
            _counts(told["negative"]["balanced"]),
            f"{told['set_aside']:.2f}",
            *(_share(told["negative"][p]) for p in POINTS),
            _share(other["negative"]["balanced"]),
        )
    names = {
        "embeddings_by_frame": "the bundle's embeddings, split by frames",
        "embeddings_by_group": "the bundle's embeddings, split by groups",
        "no_content_by_frame": "border, brightness, sharpness and bytes, split by frames",
        "polyp_probability": "the polyp probability itself",
    }
    told = "; ".join(f"{names[n]} {_apart(f)}" for n, f in cross["source_classifier"].items())
    yield (
        f"\nThis part's whole polyp frames against them: AUROC {_apart(cross['apart'])}, across"
        " sources and therefore confounded. How well polyp-free windows of the two camps are told"
        f" apart: {told}."
    )


def _signatures(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Failure signatures\n"
    yield (
        "Drawn over whole frames of the part, the same frames before and after (folds: drawn frames"
        " without a fold and with four to six). Share called positive at the balanced point; real"
        " disturbances differ from drawn ones.\n"
    )
    yield _head(
        "drawn",
        "without a polyp: before",
        "after",
        "change",
        "with a polyp: before",
        "after",
        "change",
    )
    for name, sides in found["disturbed"].items():
        cells: list[str] = []
        for side in ("without", "with_polyp"):
            f = sides.get(side)
            if f is None:
                cells += ["-", "-", "-"]
                continue
            cells += [_share(f[when]["positive"]["balanced"]) for when in ("before", "after")]
            cells += [_signed(f["change"])]
        yield _row(name, *cells)
    if found["labelled"]:
        yield "\nFrames that the data itself labels so (sources kept for tests, a handful):\n"
        yield _head("labelled", "frames (groups)", "set aside by the gate", *_of_points("positive"))
        for name, f in found["labelled"].items():
            yield _row(
                name,
                _counts(f["positive"]["balanced"]),
                f"{f['set_aside']:.2f}",
                *(_share(f["positive"][p]) for p in POINTS),
            )
    yield "\nRare and easily missed lesions: windows of the part, balanced point.\n"
    yield _head("lesions", "windows (groups)", "found", "all other lesions", "AUROC against normal")
    for name, f in found["rare"].items():
        yield _row(
            name, _counts(f["found"]), _share(f["found"]), _share(f["others"]), _apart(f["apart"])
        )
    yield "\n### Mixed records\n"
    yield (
        "Patients of two to four lesions, positives against benign ones, AUROC of malignancy."
        " Averaging dilutes where `mixed` falls further behind `pure` than by unify.\n"
    )
    yield _head("positives", "n+ / n-", "unify", "mean", "max", "unify - mean", "unify - max")
    for name, f in found["mixed"].items():
        yield _row(
            name,
            f"{f['unify']['positives']} / {f['unify']['negatives']}",
            *(_apart(f[p]) for p in ("unify", "mean", "max")),
            _span(f["unify_minus_mean"]),
            _span(f["unify_minus_max"]),
        )
    yield "\n### Drift with the number of frames\n"
    yield (
        "One patient each time: a frame with a lesion (for malignancy a neoplastic one), or none,"
        " and more and more windows without. Median probability (5 to 95 %), share called"
        " positive, and share of patients that rose since the column before.\n"
    )
    counts = list(next(iter(next(iter(found["drift"].values())).values())))
    yield _head("task", "patients", *(f"{n} frames" for n in counts))
    for task, kinds in found["drift"].items():
        for kind, told in kinds.items():
            yield _row(task, kind.replace("_", " "), *map(_drifted, told.values()))


def _drifted(f: Mapping[str, Any]) -> str:
    rose = "" if f["rose"] is None else f"; {f['rose']:.2f} rose"
    spread = f"{f['median']:.2f} ({f['p5']:.2f}-{f['p95']:.2f})"
    return f"{spread}; {f['positive']['value']:.2f} positive{rose}"


def _sequences(found: Mapping[str, Any]) -> Iterator[str]:
    yield "## Frame order, an experiment\n"
    yield (
        f"{found['sequences']} CVC sequences of {', '.join(found['parts'])} ({found['frames']}"
        " frames, each a window with the polyp and one of the same size without), margins smoothed"
        " over the frames before. A run is long from 13 frames on: half a second at 25 frames a"
        " second, as if the stills followed each other so, which they do not. The clip"
        f" ({found['clip_frames']} frames) has one frame a second. Nothing of this is served.\n"
    )
    yield _head(
        "smoothing",
        "AUROC",
        "lead over none",
        "point",
        "alarms: frames, long runs",
        "false alarms: frames, runs, long runs, longest",
        "clip: frames, runs, longest",
    )
    for name, f in found["smoothings"].items():
        for point in ("balanced", "sensitivity_first"):
            good, bad, clip = (f[point][key] for key in ("alarms", "false_alarms", "clip"))
            yield _row(
                name,
                _apart(f["apart"]),
                _span((f["lead_low"], f["lead_high"])),
                point,
                f"{_part(good)}, {good['long_runs']}",
                f"{_part(bad)}, {bad['runs']}, {bad['long_runs']}, {bad['longest']}",
                f"{_part(clip)}, {clip['runs']}, {clip['longest']}",
            )


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*cells: object) -> str:
    return f"{_row(*cells)}\n{'|---' * len(cells)}|"


def _of_points(word: str) -> Sequence[str]:
    return [f"{word} {point.replace('_', '-')}" for point in POINTS]


def _counts(f: Mapping[str, Any]) -> str:
    return f"{f['items']} ({f['groups']})"


def _share(f: Mapping[str, Any]) -> str:
    if f["value"] is None:
        return "-"
    return f"{f['value']:.2f} ({f['low']:.2f}-{f['high']:.2f})"


def _short(f: Mapping[str, Any]) -> str:
    return "-" if f["value"] is None else f"{f['value']:.2f}"


def _part(f: Mapping[str, Any]) -> str:
    return "-" if f["share"] is None else f"{f['share']:.2f}"


def _apart(f: Mapping[str, Any]) -> str:
    if f["auroc"] is None:
        return "-"
    if f["auroc_low"] is None:
        return f"{f['auroc']:.3f}"
    return f"{f['auroc']:.3f} ({f['auroc_low']:.3f}-{f['auroc_high']:.3f})"


def _signed(f: Mapping[str, Any]) -> str:
    return f"{f['value']:+.2f} ({_span((f['low'], f['high']), 2)})"


def _span(ends: Sequence[float | None], digits: int = 3) -> str:
    return " to ".join("-" if end is None else f"{end:+.{digits}f}" for end in ends)
