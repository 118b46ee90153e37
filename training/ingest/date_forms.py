"""Written forms of dates, clock times and ages, as reports have them.

Groups that a form of a date may have: ``year``, ``month`` (a word), ``m`` (a number), ``day``,
``a`` and ``b`` (day and month in the order of the country), ``date`` (the date itself, where more
is looked at), ``loose`` (a score may look like it), ``born`` (counts only as a birth date).
"""

from __future__ import annotations

import re

__all__ = [
    "AGE",
    "BORN_BEFORE",
    "BORN_YEAR",
    "CELL_FORMS",
    "COUNTED",
    "DURATION",
    "FOLLOWED",
    "FORMS",
    "SCORED",
    "TIME",
    "WEEKDAY_AFTER",
    "WEEKDAY_BEFORE",
    "month_of",
]

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_ROMAN = ("i", "ii", "iii", "iv", "v", "vi", "vii", "viii", "ix", "x", "xi", "xii")
_GERMAN = {"mär": 3, "mae": 3, "mai": 5, "okt": 10, "dez": 12}
_MONTH = (
    r"(?P<month>jan(?:uary?)?|feb(?:ruary?)?|m(?:ar(?:ch)?|ärz|aerz)|apr(?:il)?|ma[yi]|june?|juni"
    r"|july?|juli|aug(?:ust)?|sept?(?:ember)?|o[ck]t(?:ober)?|nov(?:ember)?|de[cz](?:ember)?)\.?"
)
# "may" in small letters is the verb unless a whole date says otherwise.
_SURE_MONTH = rf"(?!(?-i:may)\b){_MONTH}"
_YEAR = r"(?P<year>(?:19|20)\d\d)(?!\d)"
_SHORT_YEAR = r"(?P<year>['’]?\d\d)(?!\d)"
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])(?!\d)"
_TH = r"(?:st|nd|rd|th)?"
_A_B = r"(?P<a>0?[1-9]|[12]\d|3[01]){0}(?P<b>0?[1-9]|[12]\d|3[01])"
_DAY_BEFORE = r"(?<!\d)(?<!\d\.)"
# The other end of a range ("3-5/12/2018") goes with the date.
_RANGE = r"(?<!\d)(?:\d{1,2}\.?-)?"
_UNIT = r"(?!\s?(?:mm|cm|ml|mg|mcg|x\b|×|%)|\.?\d)"
_CLOCK = r"(?:[T _-]?\d\d:?\d\d(?::?\d\d(?:[.,]\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?(?!\d)"
_ONES = "one|two|three|four|five|six|seven|eight|nine"
_ORDINAL = (
    r"(?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth|eleventh|twelfth"
    r"|(?:thir|four|fif|six|seven|eigh|nine)teenth|twentieth|thirtieth"
    r"|twenty[ -](?:first|second|third|fourth|fifth|sixth|seventh|eighth|ninth)|thirty[ -]first)"
)
_CELLS = (
    # "in 2016. 3-4 mm" is none: the marks are alike.
    rf"(?<![\d.]){_YEAR}(?P<s>[-/._\\|]| [-/] )(?P<m>0?[1-9]|1[0-2])(?P=s){_DAY}{_CLOCK}{_UNIT}",
    rf"{_RANGE}(?P<a>\d{{1,2}})\s?(?P<s>[-/._\\|])\s?(?P<b>\d{{1,2}})\s?(?P=s)\s?{_YEAR}",
    rf"{_RANGE}(?P<a>\d{{1,2}})[-/._](?P<b>\d{{1,2}})[-/._]{_YEAR}",
    rf"(?<!\d)(?=\d\d|\d \d\d){_A_B.format(' ')} {_YEAR}{_UNIT}",
    rf"(?<!\d){_YEAR} (?P<m>0[1-9]|1[0-2]) (?P<day>0[1-9]|[12]\d|3[01])(?!\d){_UNIT}",
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<m>0[1-9]|1[0-2])(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:[T_-]?\d{4}(?:\d\d)?)?(?!\d)",
    rf"(?<!\d)(?P<a>0[1-9]|[12]\d|3[01])(?P<b>0[1-9]|[12]\d|3[01]){_YEAR}",
    rf"{_DAY_BEFORE}{_DAY}{_TH}[\s.,/_-]{{0,2}}(?:of\s)?{_MONTH}[\s,/_-]{{0,2}}{_YEAR}",
    rf"{_DAY_BEFORE}{_DAY}(?P<s>[-./ ])(?P<month>I{{1,3}}|I?[VX]|VI{{1,3}}|XI{{1,2}})(?P=s){_YEAR}",
    rf"{_DAY_BEFORE}{_DAY}{_TH}[\s.,/_-]{{0,2}}(?:of\s)?{_SURE_MONTH}[\s,/_-]{{0,2}}{_SHORT_YEAR}"
    r"(?!\s?(?:mm|cm|%))",
    rf"\b{_MONTH}[\s/_-]{{0,2}}(?:the\s)?{_DAY}{_TH}[\s,/_-]{{1,3}}(?:of\s)?{_YEAR}",
    rf"\b{_MONTH}[\s/_-]{{0,2}}(?:the\s)?{_DAY}{_TH}(?:,?\s(?=['’])|[/-]){_SHORT_YEAR}",
    rf"(?<![\d./-])(?P<a>\d{{1,2}})\s?(?P<s>[-./\\|])\s?(?P<b>\d{{1,2}})\s?(?P=s)\s?"
    rf"(?P<year>\d\d)(?![\d/-]){_UNIT}",
)
_SHOWS = (
    r"(?=\s*(?:[.,;:)\n]|$|(?:and|at|for|with|by|in|to|under|when|as|he|she|we|the|was|is|showed"
    r"|shows|revealed|found|removed|which|where|but|due|after|before)\b))"
)
_DOTTED = r"(?P<day>0?[1-9]|[12]\d|3[01])\.\s?(?P<m>0?[1-9]|1[0-2])\."
_EVENTS = (
    r"seen|admitted|discharged|reviewed|operated|attended|colonoscopy|examin\w+|scope|endoscopy"
    r"|sigmoidoscopy|clinic|surgery|birthday"
)
_FULL_MONTH = (
    r"(?P<month>January|February|March|April|(?-i:May)|June|July|August|September|October|November"
    r"|December)"
)
_TEXTS = (
    # Six digits without marks are a date where they are the birth date.
    r"(?<!\d)(?P<born>(?P<a>\d\d) ?(?P<b>\d\d) ?(?P<year>\d\d))(?!\d)",
    rf"\b(?:in|since|until|till|during|early|mid|late|last)[ -](?P<date>{_FULL_MONTH})\b(?!\s?\d)",
    rf"{_DAY_BEFORE}{_DAY}{_TH}[\s./-]{{0,2}}(?:of\s)?{_SURE_MONTH}(?!\w)",
    rf"\b{_SURE_MONTH}[\s/-](?:the\s)?{_DAY}{_TH}\b(?!\s?(?:mm|cm|x\b|%))",
    rf"\b{_MONTH}[\s-]?(?=['’]){_SHORT_YEAR}",
    rf"\b{_MONTH}[\s,./_-]{{0,2}}(?:of\s)?{_YEAR}",
    rf"(?<![\d./-])(?<!Q)(?P<m>0?[1-9]|1[0-2])(?:\s?/\s?|[.-]){_YEAR}",
    r"(?<![\w./-])(?P<year>(?:19|20)\d\d)(?:[/-]|\.(?=\d\d))(?P<m>0[1-9]|1[0-2]|[1-9])"
    rf"(?![\d/-]){_UNIT}",
    rf"\b{_ORDINAL} (?:day )?of {_MONTH}(?:,? {_YEAR})?\b",
    rf"\b{_MONTH} the {_ORDINAL}(?:,? {_YEAR})?\b",
    # What is no month still tells more than the year.
    r"\bQ[1-4][\s/-]?(?:19|20)\d\d\b|\b(?:KW|CW|week|wk)\s?\d{1,2}[\s/,-]{1,2}(?:of\s)?(?:19|20)\d\d\b"
    r"|\b(?:spring|summer|autumn|winter|easter(?:\s(?:sun|mon)day)?|christmas|xmas|thanksgiving"
    r"|ramadan|new year(?:'s)?(?: eve| day)?),?\s(?:of\s)?(?:19|20)\d\d\b",
    # Without a year only what no fraction or score looks like, or what is said to be a day.
    r"(?<![\w.,/:-])(?P<loose>(?=0|\d\d?/0)(?P<a>0[1-9]|[12]\d|3[01])/(?P<b>0[1-9]|[12]\d|3[01]))"
    r"(?![\d/]|-\d)(?!\s?(?:of\b|polyps?\b|biops|lesions?\b|adenomas?\b|patients?\b"
    r"|o['’]?\s?clock|comfort|resected|retrieved))" + _UNIT,
    # "repeat 3/12" is in three months.
    rf"\b(?:on|dated?|since|until|till|seen):?\s(?P<date>(?=\d?\d\D\d\d|\d\d\D)"
    rf"{_A_B.format('/')})(?![\d/]|-\d){_SHOWS}",
    # "Polyps seen: 2. 3." counts, "seen 12.03." does not.
    r"\b(?:(?:on|dated?|since|until|till|due|repeat(?:ed)?):?\s|seen:?\s(?=\d\d\.\d\d\.))"
    rf"(?P<date>{_DOTTED}){_UNIT}",
    rf"\b(?:dated?|{_EVENTS})(?::\s?(?!\d\d?\.\s|(?<=seen:)\d\.|(?<=seen:\s)\d\.)"
    r"|\s(?:on|of|from)\s)(?P<date>"
    rf"(?:{_A_B.format('/')}(?![\d/]|-\d){_SHOWS}|{_DOTTED}(?!\d)))",
    rf"\b(?:date|dob|born|seen|on):?\s(?P<date>{_A_B.format(' ')} (?P<year>\d\d)(?!\d)){_UNIT}",
)
CELL_FORMS = [re.compile(form, re.IGNORECASE) for form in _CELLS]
"""Dates with a day, a month and a year; what a cell of a table may hold."""
FORMS = [*CELL_FORMS, *(re.compile(form, re.IGNORECASE) for form in _TEXTS)]
"""Dates of a text, the fullest first."""
SCORED = re.compile(
    r"\b(?:(?:sub)?scor\w*|bbps|boston|prep\w*|pain|comfort|mayo|uceis|grade|quality|ratio|vas|ecog|nrs)\b"
    r"[^.\n]*$|\b(?:after|every|fit|for|in|jars?|last|next|of|over|past|pots?|recall|repeat|review|x)"
    r"\s$",
    re.IGNORECASE,
)
"""What makes 05/10 a score or a time of months (09/12), in the text before it."""
COUNTED = re.compile(
    r"\b(?:polyps?|clips?|segments?|retrieved|removed|resected|position|biops\w*)\b[\s:,(-]{0,3}$",
    re.IGNORECASE,
)
"""What makes 02/03 two of three, in the text before it."""
FOLLOWED = re.compile(
    r"\b(?:repeat|re-?(?:scope|check|book)|recall|surveillance|review|follow[ -]?up|f/?u)"
    r"(?: (?:colonoscopy|endoscopy|sigmoidoscopy|scope|ogd|ct|clinic))?\b[\s:,(-]{0,3}$",
    re.IGNORECASE,
)
"""What makes 06/12 six months where the day is written first, in the text before it."""
TIME = re.compile(
    r"(?<![\d:./])(?:[01]?\d|2[0-3])[:.][0-5]\d(?::[0-5]\d)?\s?(?:am|pm|a\.m\.|p\.m\.|hrs?|h|uhr)\b"
    r"|(?<![\d:./])(?:[01]?\d|2[0-3]):[0-5]\d(?::[0-5]\d)?(?![\d:,.]?[\dkK]|\s?min)"
    r"|(?<![\d:./-])(?:[01]\d|2[0-3])[0-5]\d\s?(?:hrs?|hours|uhr)\b",
    re.IGNORECASE,
)
"""A clock time."""
DURATION = re.compile(
    r"(?:time|duration|withdrawal|insertion)\W{0,4}$|\b(?:ratio|dilut\w+)\W{0,3}$"
    r"|\b(?:withdrawal|insertion|intubation) (?:time|duration)(?: \([^()\n]{1,30}\))?"
    r"\W{0,3}(?:(?:was|of)\s)?$|\b(?:withdrawal|insertion|intubation|procedure)"
    r"(?: (?:time|duration))? (?:in|took|lasted)\s$"
    r"|\btime to (?:reach )?(?:the )?(?:ca?ecum|terminal ileum|ti)\W{0,3}(?:was\s)?$",
    re.IGNORECASE,
)
"""What makes a clock time a duration or a ratio, in the text before it."""
_NUMBER = r"(?<![\w.,/])(?:9\d|1[0-2]\d)"
_WORDS = (
    rf"\b(?:ninety(?:[ -]?(?:{_ONES}))?|(?:a|one)[ -]hundred(?: (?:and )?(?:{_ONES}|ten|eleven"
    r"|twelve))?)"
)
_MEASURED = "".join(
    rf"(?<!\b{what}{gap})"
    for what in ("sats", "spo2", "hr", "pulse", "weight", "temp")
    for gap in (" ", ": ")
)
_NO_AGE = (
    r"(?![\d.,]?\d)(?!\s?(?:mm|cm|ml|mg|mcg|kg|bpm|iu|units?|minutes?|mins?|days?|deg(?:rees?)?\b"
    r"|[%°]))"
)
AGE = re.compile(
    rf"\bage[ds]?\b\W{{0,3}}(?:(?:of|is|was)\s)?(?P<a>{_NUMBER}\b|{_NUMBER}(?=y)|{_WORDS}\b){_NO_AGE}"
    rf"|(?P<b>{_NUMBER}|{_WORDS})(?=[ -]?(?:years?\b|yrs?\b|y\b|y\.?\s?/?o\b|j(?:ä|ae)hrig))"
    rf"|{_MEASURED}(?P<c>{_NUMBER})(?= ?(?:[MF]|(?:fe)?male|(?:wo)?man|lady|gentleman)\b)"
    rf"|\b(?:(?:fe)?male|(?:wo)?man|lady|gentleman)(?:,| of)? (?P<d>{_NUMBER}|{_WORDS})\b{_NO_AGE}"
    rf"|\b(?-i:[MF])\s?[,;/]\s?(?P<e>{_NUMBER})\b{_NO_AGE}"
    rf"|\b(?:s?he|patient) is (?:now )?(?P<f>{_NUMBER}|{_WORDS})\b"
    r"(?=\s*(?:[.,;)]|$|and|now|with|but))"
    rf"|\bturn(?:ed|s|ing) (?P<g>{_NUMBER}|{_WORDS})\b{_NO_AGE}|\b(?P<h>centenarian)\b",
    re.IGNORECASE,
)
"""An age over 89; the group that matched is the age."""
_WEEKDAYS = r"(?:mon|tue(?:s)?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)?"
WEEKDAY_BEFORE = re.compile(rf"\b{_WEEKDAYS}[.,]?\s(?:the\s)?$", re.IGNORECASE)
"""A weekday at the end of the text before a date."""
WEEKDAY_AFTER = re.compile(rf",?\s?(?:\({_WEEKDAYS}\)|{_WEEKDAYS}\b)", re.IGNORECASE)
"""A weekday right after a date."""
BORN_BEFORE = re.compile(
    r"(?:\bborn|dob|d\.o\.b\.?|birth(?:day|date)?|\bgeb(?:oren)?\.?)\W*(?:(?:on|in|am)\W*)?$|\*$"
    r"|\bb\.\s?$",
    re.IGNORECASE,
)
"""What makes a date a birth date, in the text before it."""
BORN_YEAR = re.compile(
    r"(?:\b(?:born|dob|d\.o\.b\.?|birth|yob|geb)\W{0,3}(?:in\s)?|\bb\.\s?|\*)"
    r"(?P<x>(?:19|20)\d\d)\b|\b(?P<y>(?:19|20)\d\d)[ -]born\b",
    re.IGNORECASE,
)
"""A birth year; the group that matched."""


def month_of(word: str) -> int:
    """Number of the month that a word or Roman numeral names, 0 where it is none."""
    if word.casefold() in _ROMAN:
        return _ROMAN.index(word.casefold()) + 1
    start = word[:3].casefold()
    return _GERMAN.get(start) or (_MONTHS.index(start) + 1 if start in _MONTHS else 0)
