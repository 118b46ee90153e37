"""Numbers in words and cells, written the same way all over the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["counted", "interval", "listed", "number", "percent", "span"]


def counted(count: int, word: str) -> str:
    """1 exam, 2 exams."""
    return f"{count:,} {word}" + "s" * (count != 1)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash where there is none."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value:.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share of 0-1 in whole percent."""
    # A number and its sign stay on one line.
    return "–" if value is None or math.isnan(value) else f"{100 * value:.0f}\u00a0%"


def span(value: float | None, low: float | None, high: float | None, digits: int = 3) -> str:
    """A figure with its interval."""
    if value is None or math.isnan(value):
        return "–"
    if low is None or high is None or math.isnan(low) or math.isnan(high):
        return number(value, digits)
    between = " to " if low < 0 else "–"
    return f"{number(value, digits)} ({number(low, digits)}{between}{number(high, digits)})"


def interval(figures: Mapping[str, Any] | None, digits: int = 3) -> str:
    """The AUROC of a figure as ``part_figures`` gives it, with its interval."""
    if not figures:
        return "–"
    return span(figures.get("auroc"), figures.get("auroc_low"), figures.get("auroc_high"), digits)


def listed(words: Sequence[str]) -> str:
    """a, b and c."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
