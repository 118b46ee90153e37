"""Dates, clock times and ages in a text: found, and moved or blurred."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta

__all__ = ["Dates", "FoundDate", "parse_date"]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_GERMAN = {"mär": 3, "mae": 3, "mai": 5, "okt": 10, "dez": 12}
_MONTH = (
    r"(?P<month>jan(?:uary?)?|feb(?:ruary?)?|m(?:ar(?:ch)?|ärz|aerz)|apr(?:il)?|ma[yi]|june?|juni"
    r"|july?|juli|aug(?:ust)?|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)\.?"
)
_YEAR = r"(?P<year>(?:19|20)\d\d)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])"
_UNIT = r"(?!\s?(?:mm|cm|ml|mg|mcg|x\b|×|%)|\.?\d)"
_FORMS = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?<![\d.]){_YEAR}(?P<s>[-/._])(?P<m>0?[1-9]|1[0-2])(?P=s){_DAY}"
        r"(?:[T ]\d\d:?\d\d(?::?\d\d(?:\.\d+)?)?Z?)?(?!\d)",
        rf"(?<![\d./-])(?P<a>\d{{1,2}})(?P<s>\s?[./-]\s?)(?P<b>\d{{1,2}})(?P=s)"
        rf"(?P<year>(?:19|20)\d\d|\d\d)(?![\d/-]){_UNIT}",
        rf"(?<!\d){_YEAR}(?P<m>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])(?:\d{{6}})?(?!\d)",
        rf"(?<![\d.]){_DAY}(?:st|nd|rd|th|\.)?(?:\s|-)?(?:of\s)?{_MONTH},?(?:\s|-)?"
        r"(?P<year>(?:19|20)\d\d|['’]?\d\d(?!\d))(?!\s?(?:mm|cm))",
        rf"\b{_MONTH}\s{_DAY}(?:st|nd|rd|th)?,?\s{_YEAR}\b",
        rf"(?<![\d.]){_DAY}(?:st|nd|rd|th)?\s(?:of\s)?(?!(?-i:may)\b){_MONTH}(?!\w)",
        rf"\b(?!(?-i:may)\b){_MONTH}\s{_DAY}(?:st|nd|rd|th)?\b(?!\s?(?:mm|cm|x\b))",
        rf"\b{_MONTH},?\s(?:of\s)?{_YEAR}\b",
        rf"(?<![\d./-])(?P<m>0?[1-9]|1[0-2])[/.]{_YEAR}(?!\d)",
    )
]
_TIME = re.compile(
    r"(?<![\d:./])(?:[01]?\d|2[0-3])[:.][0-5]\d(?::[0-5]\d)?\s?(?:am|pm|a\.m\.|p\.m\.|hrs?|h|uhr)\b"
    r"|(?<![\d:./])(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![\d:,.]?[\dkK])",
    re.IGNORECASE,
)
_DURATION = re.compile(r"(?:time|duration|withdrawal)\W{0,4}$|\b(?:ratio|dilut\w+)\W{0,3}$", re.I)
_AGE = re.compile(
    r"\b(?:age[d:]?\s*(?:of\s)?(?P<a>9\d|1[0-2]\d)\b(?!\s?(?:mm|cm|%))"
    r"|(?P<b>9\d|1[0-2]\d)[\s-]?(?:years?|yrs?|y)[\s/-]?(?:olds?\b|o\b|of age\b))"
    r"|\b(?P<c>9\d|1[0-2]\d)\s?y/?o\b|\b(?P<d>9\d|1[0-2]\d)\s?(?:M|F)\b(?!\w)",
    re.IGNORECASE,
)
_WEEKDAY = re.compile(
    r"\b(?:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?[.,]?\s(?:the\s)?$",
    re.IGNORECASE,
)
_BORN_YEAR = re.compile(r"\b(?:born|dob|d\.o\.b\.?|birth)\W{0,3}(?:in\s)?((?:19|20)\d\d)\b", re.I)


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
        examined: Date of the examination; completes dates without a year.
        births: Birth dates, which are removed instead of being moved.
    """

    shift_days: int
    day_first: bool = True
    examined: date | None = None
    births: frozenset[date] = frozenset()

    def find(self, text: str) -> Iterator[FoundDate]:
        """Yield what is found; matches of different forms may overlap, the fullest come first."""
        for form in _FORMS:
            for match in form.finditer(text):
                yield self._found(match)
        for match in _TIME.finditer(text):
            if not _DURATION.search(text[max(0, match.start() - 16) : match.start()]):
                yield FoundDate(*match.span(), "time", "[time]")
        for match in _AGE.finditer(text):
            group = match.lastgroup or "a"
            yield FoundDate(*match.span(group), "age", "90+")
        for match in _BORN_YEAR.finditer(text):
            yield FoundDate(*match.span(1), "birth date", "[birth date]")

    def _found(self, match: re.Match[str]) -> FoundDate:
        parts = match.groupdict()
        day = _date_of(parts, self.day_first, self.examined)
        before = match.string[max(0, match.start() - 24) : match.start()]
        born = re.search(r"(?:born|dob|d\.o\.b\.?|birth(?:day)?)\W*(?:on\W*)?$", before, re.I)
        if born or day in self.births or _century_ago(day, parts) in self.births:
            return FoundDate(*match.span(), "birth date", "[birth date]")
        if day is None:
            return FoundDate(*match.span(), "date", "[date]")
        # A weekday beside it would tell the shift modulo seven.
        weekday = _WEEKDAY.search(match.string[: match.start()])
        start = weekday.start() if weekday else match.start()
        moved = day + timedelta(days=self.shift_days)
        whole = parts.get("day") or parts.get("a")
        shown = moved.isoformat() if whole else f"{moved:%Y-%m}"
        return FoundDate(start, match.end(), "date", shown)


def parse_date(text: str, day_first: bool = True) -> date | None:
    """Read a cell that holds one date in any of the known forms; None where it holds none."""
    for form in _FORMS[:5]:
        if match := form.match(text.strip()):
            return _date_of(match.groupdict(), day_first, None)
    return None


def _date_of(parts: dict[str, str | None], day_first: bool, examined: date | None) -> date | None:
    """The date of a match; the 15th where only a month is given, None for what is no date."""
    if parts.get("a"):
        a, b = int(parts["a"] or 0), int(parts["b"] or 0)
        day, month = (a, b) if (day_first and b <= 12) or a > 12 else (b, a)
    else:
        day = int(parts.get("day") or 15)
        month = int(parts["m"] or 0) if parts.get("m") else _month(parts.get("month") or "")
    spelt = (parts.get("year") or "").lstrip("'’")
    if not spelt and examined is None:
        return None
    year = int(spelt) if spelt else examined.year if examined else 0
    if year < 100:
        year += 2000 if year < 50 else 1900
    try:
        found = date(year, month, day)
    except ValueError:
        return None
    if not spelt and examined is not None and found > examined + timedelta(days=183):
        found = found.replace(year=year - 1) if (month, day) != (2, 29) else found
    return found


def _century_ago(day: date | None, parts: dict[str, str | None]) -> date | None:
    """What a year of two digits may mean as well: 12.3.49 is a birth date of 1949."""
    if day is None or len((parts.get("year") or "").lstrip("'’")) != 2 or day.year < 2000:
        return None
    return date(day.year - 100, day.month, min(day.day, 28 if day.month == 2 else day.day))


def _month(word: str) -> int:
    start = word[:3].casefold()
    return _GERMAN.get(start) or (_MONTHS.index(start) + 1 if start in _MONTHS else 0)
