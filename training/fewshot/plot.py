"""A drawing of a study: AUROC by number of shots, one panel per task and kind of item."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.fewshot.study import NAMES, SHOTS

__all__ = ["write_plot"]

COLOURS = {"linear": "#0072b2", "cache": "#d55e00"}  # told apart by most colour-blind readers
MARKERS = {"linear": "o", "cache": "s"}


def write_plot(figures: Mapping[str, Any], path: Path) -> None:
    """Draw a study.

    Args:
        figures: As written by the command, with ``cells``.
        path: SVG or PNG file.
    """
    rows = figures["cells"]
    # Reproducible bytes: no random ids, no date.
    with mpl.rc_context({"svg.hashsalt": "fewshot", "svg.fonttype": "none", "font.size": 9}):
        canvas = Figure(figsize=(3.4 * len(rows), 3.2), layout="constrained")
        for axes, row in zip(canvas.subplots(1, len(rows), squeeze=False)[0], rows, strict=True):
            _panel(axes, row)
        handles, labels = canvas.axes[0].get_legend_handles_labels()
        canvas.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        canvas.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def _panel(axes: Axes, row: Mapping[str, Any]) -> None:
    zero = row["zero_shot"]
    axes.axhspan(zero["low"], zero["high"], color="0.5", alpha=0.15, linewidth=0)
    axes.axhline(zero["auroc"], color="0.3", linestyle="--", linewidth=1, label="zero-shot")
    for i, (name, found) in enumerate(row["methods"].items()):
        shots = [int(count) for count in found]
        value = [f["auroc"] for f in found.values()]
        ends = [
            [f["auroc"] - f["low"] for f in found.values()],
            [f["high"] - f["auroc"] for f in found.values()],
        ]
        # Side by side, or one interval would hide the other.
        beside = [count * (0.96 if i == 0 else 1.04) for count in shots]
        axes.errorbar(
            beside,
            value,
            ends,
            color=COLOURS[name],
            marker=MARKERS[name],
            markersize=4,
            linewidth=1.4,
            elinewidth=0.8,
            capsize=2,
            label=NAMES[name],
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(SHOTS, [str(count) for count in SHOTS])
    axes.minorticks_off()
    axes.set_xlabel("shots per class")
    axes.set_ylabel("AUROC")
    axes.set_title(f"{row['task']}, {row['kind']}")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
