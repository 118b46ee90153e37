"""Dates, clock times and ages in a text: found, and moved or blurred."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

from training.ingest.characters import even, visible
from training.ingest.date_forms import (
    AGE,
    BORN_BEFORE,
    BORN_YEAR,
    CELL_FORMS,
    COUNTED,
    DURATION,
    FOLLOWED,
    FORMS,
    SCORED,
    TIME,
    WEEKDAY_AFTER,
    WEEKDAY_BEFORE,
    month_of,
)

__all__ = ["Dates", "FoundDate", "parse_births", "parse_date"]

# A year of two digits in a report lies at most so far ahead: surveillance is planned for 10 years.
_YEARS_AHEAD = 15


@dataclass(frozen=True)
class FoundDate:
    """A date, clock time, age or birth year in a text.

    Attributes:
        start: Offset of the first character.
        end: Offset after the last.
        kind: ``date``, ``birth date``, ``time`` or ``age``; what is counted.
        shown: What stands there afterwards.
    """

    start: int
    end: int
    kind: str
    shown: str


@dataclass(frozen=True)
class Dates:
    """How the dates of one patient are moved.

    Attributes:
        shift_days: Added to every date.
        day_first: 3/4/2021 is the 3rd of April.
        examined: Date of the examination; completes dates without a year or with half of one.
        births: Birth dates, which are removed instead of being moved.
    """

    shift_days: int
    day_first: bool = True
    examined: date | None = None
    births: frozenset[date] = frozenset()

    def find(self, text: str) -> Iterator[FoundDate]:
        """Yield what is found; matches of different forms may overlap, the fullest come first.

        Args:
            text: With plain hyphens and blanks (``characters.even``).
        """
        for form in FORMS:
            for match in form.finditer(text):
                if found := self._found(match):
                    yield found
        for match in TIME.finditer(text):
            if not DURATION.search(text[max(0, match.start() - 56) : match.start()]):
                yield FoundDate(*match.span(), "time", "[time]")
        for match in AGE.finditer(text):
            yield FoundDate(*match.span(match.lastgroup or 0), "age", "90+")
        for match in BORN_YEAR.finditer(text):
            yield FoundDate(*match.span(match.lastgroup or 0), "birth date", "[birth date]")

    def _found(self, match: re.Match[str]) -> FoundDate | None:
        parts = match.groupdict()
        start, end = match.span("date") if "date" in parts else match.span()
        before = match.string[max(0, start - 24) : start]
        if parts.get("loose") and self._is_no_date(parts, before):
            return None
        orders = _orders(parts, self.day_first)
        readings = [day for order in orders for day in _dated(parts, order, self.examined)]
        if BORN_BEFORE.search(before) or self._birth_among(readings, parts):
            return FoundDate(start, end, "birth date", "[birth date]")
        if parts.get("born"):
            return None
        if not readings:
            # 20-30-40 is no date, 31.02.2020 a mistyped one.
            doubtful = parts.get("a") and len(parts.get("year") or "") < 4
            return None if doubtful else FoundDate(start, end, "date", "[date]")
        # A weekday beside it would tell the shift modulo seven.
        if weekday := WEEKDAY_BEFORE.search(match.string[max(0, start - 20) : start]):
            start -= len(weekday.group())
        if weekday := WEEKDAY_AFTER.match(match.string, end):
            end = weekday.end()
        moved = readings[0] + timedelta(days=self.shift_days)
        whole = parts.get("day") or parts.get("a")
        return FoundDate(start, end, "date", moved.isoformat() if whole else f"{moved:%Y-%m}")

    def _is_no_date(self, parts: dict[str, str | None], before: str) -> bool:
        """Whether a date without a year is a score, a count or an interval."""
        a, b = int(parts["a"] or 0), int(parts["b"] or 0)
        if SCORED.search(before) or (a <= b and COUNTED.search(before)):
            return True
        return self.day_first and b == 12 and FOLLOWED.search(before) is not None

    def _birth_among(self, readings: list[date], parts: dict[str, str | None]) -> bool:
        if parts.get("day") or parts.get("a"):
            return not self.births.isdisjoint(readings)
        months = {(birth.year, birth.month) for birth in self.births}
        return any((day.year, day.month) in months for day in readings)


def parse_date(text: str, day_first: bool = True) -> date | None:
    """Read a cell that holds one date in any of the known forms; None where it holds none."""
    return next(iter(_cell_readings(text, day_first, None)), None)


def parse_births(
    text: str, day_first: bool = True, examined: date | None = None
) -> frozenset[date]:
    """Read a cell that holds a birth date.

    Args:
        text: The cell.
        day_first: 3/4/1949 is the 3rd of April.
        examined: Date of the examination: nobody is born after it.

    Returns:
        Empty where the cell holds no date; both centuries where two digits leave the choice.
    """
    found = _cell_readings(text, day_first, examined)
    possible = [day for day in found if examined is None or day <= examined]
    return frozenset(possible or found)


def _cell_readings(text: str, day_first: bool, examined: date | None) -> list[date]:
    cell = even(visible(text)).strip()
    for form in CELL_FORMS:
        if match := form.match(cell):
            orders = _orders(match.groupdict(), day_first)
            dated = (_dated(match.groupdict(), order, examined) for order in orders)
            return next((days for days in dated if days), [])
    return []


def _orders(parts: dict[str, str | None], day_first: bool) -> list[tuple[int, int]]:
    """Day and month as a match may mean them, the likelier first; the 15th of a bare month."""
    if parts.get("a"):
        a, b = int(parts["a"] or 0), int(parts["b"] or 0)
        return [(a, b), (b, a)] if day_first else [(b, a), (a, b)]
    month = int(parts["m"] or 0) if parts.get("m") else month_of(parts.get("month") or "")
    return [(int(parts.get("day") or 15), month)]


def _dated(
    parts: dict[str, str | None], order: tuple[int, int], examined: date | None
) -> list[date]:
    """The dates that a day and month may be, of the likelier century first."""
    day, month = order
    years = _years(parts.get("year"), month, day, examined)
    return [found for year in years if (found := _day(year, month, day))]


def _years(spelt: str | None, month: int, day: int, examined: date | None) -> list[int]:
    if not spelt:
        if examined is None:
            return []
        nearest = _day(examined.year, month, day)
        late = nearest is not None and nearest > examined + timedelta(days=183)
        return [examined.year - late]
    digits = spelt.lstrip("'’")
    year = int(digits)
    if len(digits) == 4:
        return [year]
    latest = examined.year + _YEARS_AHEAD if examined else 2049
    return [2000 + year, 1900 + year] if 2000 + year <= latest else [1900 + year, 2000 + year]


def _day(year: int, month: int, day: int) -> date | None:
    try:
        return date(year, month, day)
    except ValueError:
        return None
