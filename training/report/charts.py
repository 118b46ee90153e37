"""Small charts as inline SVG: text as text, colours as CSS variables, nothing loaded.

Panels are drawn at their final size in CSS pixels, so that letters are as large on a telephone as
on a desk, and stand side by side where there is room. Colours are placeholders that become
``var(--...)``: one drawing serves the light and the dark scheme.
"""

from __future__ import annotations

import hashlib
import io
import re
import xml.etree.ElementTree as ET  # nosec B405  # reads what matplotlib wrote in this process
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Canvas

from training.report.blocks import Figure

__all__ = ["Mark", "Row", "Series", "histogram", "interval_chart", "line_chart", "scatter_chart"]

Floats = npt.NDArray[np.float64]

# Placeholder → CSS variable. Any colour would do that no drawing uses by itself.
_VARIABLES = {
    "#0a0b01": "ink",
    "#0a0b02": "muted",
    "#0a0b03": "rule",
    "#0a0b04": "panel",
    **{f"#0a0b1{i}": f"s{i}" for i in range(1, 8)},
}
_INK, _MUTED, _RULE, _PANEL, *_SERIES = _VARIABLES
_MARKERS = "osD^vPX"
_WIDTH = 330
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "report",
    "text.parse_math": False,  # a source may be called $x$
    "font.size": 10.0,
    "axes.titlesize": 10.0,
    "axes.labelsize": 10.0,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "text.color": _INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _RULE,
    "xtick.color": _RULE,
    "ytick.color": _RULE,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 1.0,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "legend.handlelength": 1.3,
    "legend.columnspacing": 1.0,
    "legend.borderaxespad": 0.0,
    "legend.borderpad": 0.2,
    "axes.grid": True,
    "grid.color": _RULE,
    "grid.alpha": 0.5,
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
}


@dataclass(frozen=True)
class Series:
    """Points of one name.

    Attributes:
        name: For the legend; "" leaves it out.
        x: (n,).
        y: (n,); NaN leaves a gap.
        low: (n,) lower ends of a band, or None.
        high: (n,) upper ends.
        style: ``line``, ``faint`` (a thin line behind), ``dashed`` or ``dots``.
        color: Index into the palette; None takes the next one.
    """

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None
    style: str = "line"
    color: int | None = None


@dataclass(frozen=True)
class Mark:
    """A point with a word beside it."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Row:
    """A value with its interval; NaN ends draw no interval."""

    label: str
    value: float
    low: float
    high: float


def line_chart(
    series: Sequence[Series],
    caption: str,
    alt: str,
    *,
    x_label: str = "",
    y_label: str = "",
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
    height: int = 230,
) -> Figure:
    """Draw lines, bands and dots.

    Args:
        series: In the order of the legend.
        caption: Above the panel.
        alt: What it shows, in words.
        x_label: Under the axis.
        y_label: Above the axis.
        x_range: None fits the data.
        y_range: None fits the data.
        marks: Named points.
        diagonal: Draw y = x for comparison.
        height: CSS pixels.
    """
    with mpl.rc_context(_STYLE):
        canvas, axes = _panel(height)
        palette = iter(cycle(range(len(_SERIES))))
        if diagonal:
            axes.plot([0, 1], [0, 1], color=_RULE, linewidth=1, linestyle=(0, (4, 3)))
        for one in series:
            which = next(palette) if one.color is None else one.color
            _draw(axes, one, _SERIES[which], _MARKERS[which])
        for mark in marks:
            axes.plot([mark.x], [mark.y], "o", color=_INK, markersize=4.5, zorder=5)
            axes.annotate(
                mark.label, (mark.x, mark.y), (6, -4), textcoords="offset points", va="top"
            )
        axes.set_xlabel(x_label)
        if x_range:
            axes.set_xlim(*x_range)
        if y_range:
            axes.set_ylim(*y_range)
        _title(axes, y_label)
        if sum(bool(one.name) for one in series) > 1:
            _legend(canvas)
        return Figure(_svg(canvas, alt), caption)


def histogram(
    groups: Mapping[str, Floats],
    caption: str,
    alt: str,
    *,
    x_label: str,
    threshold: float | None = None,
    bins: int = 40,
) -> Figure:
    """Draw the distribution of numbers of 0-1 by group, each as a share of its own group.

    Args:
        groups: Values (n,) by name.
        caption: Above the panel.
        alt: What it shows, in words.
        x_label: Under the axis.
        threshold: A line, if it lies within 0-1.
        bins: Equal bins over 0-1.
    """
    edges = np.linspace(0, 1, bins + 1)
    with mpl.rc_context(_STYLE):
        canvas, axes = _panel(230)
        for i, (name, values) in enumerate(groups.items()):
            share = np.histogram(values, edges)[0] / max(len(values), 1)
            axes.stairs(share, edges, color=_SERIES[i], label=f"{name} ({len(values)})", lw=1.6)
            if i == 0:  # more than one filled shape hides the rest
                axes.stairs(share, edges, color=_SERIES[i], fill=True, alpha=0.16, lw=0)
        # The tail of few frames is what the threshold is about; a plain axis hides it.
        axes.set_yscale("symlog", linthresh=0.01, linscale=0.4)
        axes.set_yticks([0, 0.01, 0.1, 1], ["0", "1 %", "10 %", "100 %"])
        axes.minorticks_off()
        axes.set_ylim(0, 1)
        axes.set_xlim(-0.01, 1.01)
        if threshold is not None and 0 <= threshold <= 1:
            axes.axvline(threshold, color=_INK, linewidth=1.2, linestyle=(0, (4, 2)))
            side = "left" if threshold < 0.6 else "right"
            axes.annotate(
                f"kept from {threshold:.3f}",
                (threshold, 1.0),
                (5 if side == "left" else -5, -2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha=side,
                va="top",
            )
        axes.set_xlabel(x_label)
        _title(axes, "share of the group's frames")
        _legend(canvas)
        return Figure(_svg(canvas, alt), caption)


def scatter_chart(groups: Mapping[str, Floats], caption: str, alt: str) -> Figure:
    """Draw points (n, 2) by group on axes without meaning; colour and shape tell the group."""
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        canvas, axes = _panel(290)
        for i, (name, points) in enumerate(groups.items()):
            axes.plot(
                points[:, 0],
                points[:, 1],
                _MARKERS[i % len(_MARKERS)],
                color=_SERIES[i % len(_SERIES)],
                label=f"{name} ({len(points)})",
                markersize=4.6,
                markeredgecolor=_PANEL,
                markeredgewidth=0.5,
            )
        axes.set_axis_off()
        axes.set_aspect("equal", adjustable="datalim")
        _legend(canvas)
        return Figure(_svg(canvas, alt), caption)


def interval_chart(
    rows: Sequence[Row],
    caption: str,
    alt: str,
    *,
    x_label: str,
    reference: float | None = None,
    x_range: tuple[float, float] | None = None,
) -> Figure:
    """Draw values with their intervals, one row under the other.

    Args:
        rows: From top to bottom.
        caption: Above the panel.
        alt: What it shows, in words.
        x_label: Under the axis.
        reference: A line to compare with, such as chance.
        x_range: None fits the data.
    """
    with mpl.rc_context(_STYLE):
        canvas, axes = _panel(64 + 19 * len(rows))
        places = np.arange(len(rows))[::-1]
        for row, y in zip(rows, places, strict=True):
            if np.isfinite([row.low, row.high]).all():
                axes.plot([row.low, row.high], [y, y], color=_SERIES[0], linewidth=2.2, alpha=0.45)
            axes.plot([row.value], [y], "o", color=_SERIES[0], markersize=5)
        if reference is not None:
            axes.axvline(reference, color=_MUTED, linewidth=1, linestyle=(0, (4, 2)))
        axes.set_yticks(places, [_short(row.label, 36) for row in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(x_label)
        if x_range:
            axes.set_xlim(*x_range)
        return Figure(_svg(canvas, alt), caption)


def _panel(height: int) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(_WIDTH / 72, height / 72), layout="constrained")
    # Over nothing the page's own background shows.
    canvas.patch.set_visible(False)
    axes = canvas.add_subplot()
    axes.patch.set_visible(False)
    return canvas, axes


def _draw(axes: Axes, one: Series, color: str, marker: str) -> None:
    if one.low is not None and one.high is not None:
        axes.fill_between(one.x, one.low, one.high, color=color, alpha=0.18, linewidth=0)
    looks: dict[str, dict[str, Any]] = {
        "line": {},
        "faint": {"linewidth": 0.7, "alpha": 0.35},
        "dashed": {"linestyle": (0, (4, 2))},
        "dots": {"linestyle": "none", "marker": marker, "markersize": 4.6},
    }
    axes.plot(one.x, one.y, color=color, label=one.name or "_", **looks[one.style])


def _title(axes: Axes, text: str) -> None:
    """What the vertical axis counts, above it: upright text is read without turning the head."""
    axes.set_title(text, loc="left", color=_MUTED)


def _legend(canvas: Canvas) -> None:
    handles, labels = canvas.axes[0].get_legend_handles_labels()
    shown = [_short(label, 24) for label in labels]
    width = max(map(len, shown), default=1)
    columns = max(1, min(4, 52 // (width + 5)))
    canvas.legend(handles, shown, loc="outside upper left", ncols=columns)


def _short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _svg(canvas: Canvas, alt: str) -> str:
    """Serialise for HTML: no namespaces, no metadata, no ids but those that are referred to."""
    buffer = io.StringIO()
    FigureCanvasSVG(canvas).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    root = ET.fromstring(text[text.index("<svg") :])  # nosec B314  # of this process, as above
    own = "f" + hashlib.sha256(f"{alt}{text}".encode()).hexdigest()[:10]
    used = set(re.findall(r"#([A-Za-z][\w.-]*)", " ".join(_references(root))))
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("metadata", "style")):
                parent.remove(child)
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        node.text = (node.text or "").strip() if node.tag != "text" else node.text
        node.tail = ""
        plain = {name.rpartition("}")[2]: value for name, value in node.attrib.items()}
        if plain.get("id") not in used:
            plain.pop("id", None)
        node.attrib.clear()
        node.attrib.update({name: _attribute(name, v, own) for name, v in plain.items()})
    width, height = root.attrib["viewBox"].split()[2:]
    root.attrib = {
        "viewBox": root.attrib["viewBox"],
        "width": width,
        "height": height,
        "role": "img",
        "aria-label": alt,
    }
    return ET.tostring(root, encoding="unicode")


def _references(root: ET.Element) -> list[str]:
    return [
        value
        for node in root.iter()
        for name, value in node.attrib.items()
        if name.endswith("href") or "url(#" in value
    ]


def _attribute(name: str, value: str, own: str) -> str:
    if name == "id":
        return f"{own}{value}"
    if name == "href":
        return value.replace("#", f"#{own}", 1)
    if name == "style":
        value = re.sub(r"font-family:[^;]*;?", "", value)
        value = re.sub(
            r"#0a0b[0-9a-f]{2}", lambda found: f"var(--{_VARIABLES[found.group()]})", value
        )
        return value.strip()
    value = value.replace("url(#", f"url(#{own}")
    if name in ("d", "x", "y", "transform", "width", "height"):
        return re.sub(r"-?\d+\.\d{3,}", lambda found: f"{float(found.group()):.2f}", value).strip()
    return value
