"""Draws what the dashboards' queries give: a plot of each panel, one picture a dashboard.

Not Grafana: titles, legends and queries are those of docker/grafana/dashboards, the drawing is
ours.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["DASHBOARDS", "draw", "expanded"]

DASHBOARDS = Path(__file__).parents[1] / "docker" / "grafana" / "dashboards"
_COLUMNS, _LEGENDS = 3, 8
Line = tuple[Mapping[str, str], Sequence[tuple[float, float]]]
Ask = Callable[[str], Sequence[Line]]


def expanded(query: str, rate: str, window: str) -> str:
    """Put in what Grafana would: everything chosen, and these intervals."""
    query = query.replace("$__rate_interval", rate).replace("$window", window)
    return re.sub(r"\$(instance|task|device|operating_point)\b", ".*", query)


def draw(dashboard: Path, ask: Ask, out: Path, rate: str = "20s", window: str = "1m") -> list[str]:
    """Draw one dashboard.

    Args:
        dashboard: its JSON.
        ask: gives a query's lines, with seconds since the start.
        out: PNG file.
        rate: of `$__rate_interval`.
        window: of `$window`.

    Returns:
        Titles of panels without any data.
    """
    board = json.loads(dashboard.read_text(encoding="utf-8"))
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    rows = -(-len(panels) // _COLUMNS)
    figure = Figure(figsize=(5.6 * _COLUMNS, 3.1 * rows + 0.6), layout="constrained")
    figure.suptitle(f"{board['title']}: plots of query results from Prometheus (not Grafana)")
    places = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for place in places[len(panels) :]:
        place.set_axis_off()
    empty = []
    for place, panel in zip(places, panels, strict=False):
        if not _panel(place, panel, lambda query: ask(expanded(query, rate, window))):
            empty.append(panel["title"])
    figure.savefig(out, dpi=80)
    return empty


def _panel(axes: Axes, panel: Mapping[str, Any], ask: Ask) -> bool:
    unit = panel["fieldConfig"]["defaults"]["unit"]
    axes.set_title(f"{panel['title']}  [{unit}]", fontsize=9)
    axes.tick_params(labelsize=7)
    found = [(target, *line) for target in panel["targets"] for line in ask(target["expr"])]
    if panel["type"] == "table":
        return _table(axes, found)
    lines = []
    for target, labels, points in found:
        known = [(at, value) for at, value in points if value == value]
        if known:
            lines.append((_filled(target.get("legendFormat", ""), labels), known))
    if not lines:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center")
        return False
    # The highest first, for the legend names some only; no two of twenty have one colour.
    lines.sort(key=lambda line: -max(value for _, value in line[1]))
    colours = colormaps["tab20"]
    for number, (legend, known) in enumerate(lines):
        colour = colours(number % 20)
        axes.plot(*zip(*known, strict=True), linewidth=1.1, label=legend, color=colour)
    defaults = panel["fieldConfig"]["defaults"]
    if defaults["custom"].get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.axhline(defaults["thresholds"]["steps"][-1]["value"], color="red", linestyle="--")
    else:
        axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])  # a line at 0 is seen beside the axis
    more = len(lines) - _LEGENDS
    handles, labels_shown = axes.get_legend_handles_labels()
    title = f"and {more} more" if more > 0 else None
    axes.legend(
        handles[:_LEGENDS],
        labels_shown[:_LEGENDS],
        fontsize=6,
        title=title,
        title_fontsize=6,
        loc="upper left",
        framealpha=0.6,
    )
    return True


def _filled(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda name: labels.get(name[1], ""), legend)


def _table(axes: Axes, found: Sequence[tuple[Any, ...]]) -> bool:
    axes.set_axis_off()
    hidden = ("__name__", "job")
    lines = [
        ", ".join(f"{name}={value[:19]}" for name, value in labels.items() if name not in hidden)
        for _, labels, _ in found
    ]
    text = "\n".join(line.replace(", ", "\n    ") for line in lines) or "no data"
    axes.text(0.0, 0.97, text, transform=axes.transAxes, fontsize=6.5, va="top", family="monospace")
    return bool(found)
