"""Written forms of numbers, addresses and titled names, as reports have them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from training.ingest.identities import Span
from training.ingest.words import FUNCTION_WORDS, PARTICLES, TITLES, is_plain_word

__all__ = ["PATTERNS", "begins_with_title", "titled_names"]

_UNIT = r"(?!\s?(?:mm|cm|ml|mg|mcg|units?|iu|cells?|x\b|%))"
_LABEL = (
    r"(?i:\b(?:mrn|nhs|chi|ssn|hosp(?:ital)?|patient|pat|pt|case|unit|accession|acc|episode|exam"
    r"|examination|order|request|referral|study|lab|specimen|sample|insurance|policy|encounter"
    r"|visit|admission|report|ref|reference|fall|record|chart|file|serial|licen[cs]e|gmc|device)\.?"
    r"[ \t]*(?:(?:no|nr|num|number|id|nummer|code)\b\.?|#|:)*[ \t]*[:#=]?[ \t]*)"
)
PATTERNS: dict[str, tuple[str, ...]] = {
    "id": (
        rf"{_LABEL}(?=[\w./-]*\d)[A-Za-z]{{0,4}}[-./]?\d[\w./-]{{3,}}\b{_UNIT}",
        rf"(?<![\w.:,/-])\d{{6,}}(?![\w,.]*\d){_UNIT}",
        r"\b[A-Z]{1,5}[-/ ]?\d{5,}\b",
        r"\b[A-Z]{0,3}-?\d{2,4}[-/]\d{4,}(?:[-/]\d+)?\b",
        r"\b[A-Z]{2,6}(?:[-_/][A-Z0-9]{2,})*[-_/]\d{3,}\b",
        # "Hospital number: AB 12 34 56 78"
        rf"{_LABEL}(?i:[A-Z]{{1,3}}[ -]?)?\d{{2,4}}(?:[ -]\d{{2,4}}){{2,}}\b{_UNIT}",
        r"(?<![\d.])\d{3}[ -]\d{3}[ -]\d{4}(?!\d)",
        r"(?<![\d.])\d{3}-\d{2}-\d{4}(?!\d)",
        r"(?<![\d.])(?=[\d.]{0,40}\d\d)\d+(?:\.\d+){3,}(?!\d)",
        r"\b[A-Z]{2} ?\d\d ?\d\d ?\d\d ?[A-D]\b",
        r"\b[A-Z]{2}\d\d(?: ?[A-Z\d]{4}){3,}(?: ?[A-Z\d]{1,4})?\b",
    ),
    "email": (r"(?<![\w.+'-])[\w.+'-]{1,64}\s?(?:@|\(at\)|\[at\])\s?[\w-]+(?:\.[\w-]+)+",),
    "login": (
        r"(?i)(?<=\bby )[a-z][._][a-z]{3,}\b",
        r"(?i)(?<=\buser )[a-z][._][a-z]{3,}\b",
    ),
    "url": (
        r"(?i:\bhttps?://|\bwww\.)[^\s,;)]+",
        r"(?i)(?<![\w.-])(?:[\w-]{1,40}\.){1,5}(?:(?:com|org|net|edu|gov|eu|uk|local|intranet)\b|(?:at|ch|de|fr|nl)/)"
        r"[^\s,;)]*",
    ),
    "phone": (
        r"(?!pH\b)(?i:\b(?:tel(?:ephone)?|phone|ph|fax|mob(?:ile)?|bleep|pager|ext(?:ension)?|dect)\b)"
        r"[.: \t]*(?:no\.?[: ]*)?\+?[\d(][\d ()/.-]{2,}\d",
        r"(?<![\w.])\+\d{1,3}[ ()/.-]*\d[\d ()/.-]{6,}\d",
        r"(?<![\w.])\(?0\d{2,5}\)?[ /-]\d{2,4}[ /-]?\d{2,}(?:[ /-]?\d{2,})?(?![\w])",
    ),
    "address": (
        r"\b\d{1,4}[A-Za-z]?,?\s(?:[A-Z][\w'-]+\s){1,3}(?i:street|st\.|road|rd|lane|avenue|ave"
        r"|drive|close|court|terrace|crescent|gardens|grove|square|boulevard|blvd|mews)\b",
        r"\b\d{1,4}[a-z]?,?\s(?:[a-z'-]+\s){1,2}(?:street|road|lane|avenue|drive)\b",
        r"(?<![\w-])[A-ZÄÖÜ][\wäöüß-]{0,40}(?:straße|strasse|str\.|weg|platz|allee|gasse)\s\d{1,4}[a-z]?\b",
        r"\b[A-Z]{1,2}\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2}\b",
        r"(?i:\bp\.?\s?o\.?\sbox\s)\d+",
        r"\b(?:D-|A-|CH-)\d{4,5}\b|\b[A-Z]{2},? \d{5}(?:-\d{4})?\b",
        r"\b\d{5} (?!Units|Polyps)[A-ZÄÖÜ][a-zäöüß]{3,}",
    ),
    "place": (
        r"\b(?:(?:St\.?|Saint|[A-Z][a-zäöüß'’]+)[ -]){1,4}"
        r"(?:University |General |Royal |Memorial )?"
        r"(?:Hospitals?|Infirmary|Clinic|Medical Cent(?:re|er)|Klinikum|Krankenhaus)\b",
        r"\b(?:Klinikum|Krankenhaus|Universitätsklinikum|Hospital of)\s[A-ZÄÖÜ][\wäöüß-]+"
        r"(?:\s[A-ZÄÖÜ][\wäöüß-]+)?",
    ),
}

_NAME = r"[^\W\d_]+(?:['’-][^\W\d_]+)*"
_TITLED = re.compile(rf"\b(?:{TITLES}\b\.?[ \t]*(?:med\.?\s*|dent\.?\s*)?)+", re.IGNORECASE)
_LED = re.compile(
    r"\b(?:(?:seen|referred|performed|reported|dictated|typed|verified|signed|assisted|supervised"
    r"|authori[sz]ed|validated|entered|reviewed|requested|approved|checked)[ \t]+"
    r"(?:off[ \t]+|electronically[ \t]+)?by|in attendance|signed|signature|endoscopist"
    r"|operator|assistants?|trainee|supervisor|consultant|referrer"
    r"|referring (?:doctor|physician|gp)|gp|cc|copy to|author|nurses?|patient(?:'s)? name|name"
    r"|surname|forename|first name|last name|c/o|under the care of"
    r"|(?:interpreter|ana?esthetist|an(?:ae|e)sthesiologist|technician|chaperone|witness|carer|escort"
    r"|radiologist|pathologist|resident|fellow)(?=[ \t]*:))\b(?:[ \t]*:)?[ \t,]*\n?[ \t]*",
    re.IGNORECASE,
)
# Words that a name may follow, but that stand before any other word more often.
_MAY_LEAD = re.compile(
    r"\b(?:patient|dear|regards|sincerely|next of kin|relative|wife|husband|mother|father|son"
    r"|daughter|partner)\b(?:[ \t]*:)?[ \t,]*\n?[ \t]*",
    re.IGNORECASE,
)
_LARGE = r"(?!\d)[A-ZÄÖÜ]\w+(?:['’-]\w+)*"
_BEFORE = (
    re.compile(rf"\b({_LARGE})(?:,?[ \t]({_LARGE}))?,?[ \t](?:MD|RN|MBBS|FRC[PS]|MRC[PS]|PhD)\b"),
    re.compile(
        rf"(?:^|[.\n])[ \t]*({_LARGE})[ \t](?:tolerated|agreed|declined|consented|refused)\b"
    ),
)


def titled_names(text: str) -> Iterator[Span]:
    """Yield names that a title ("Dr", "Sister") or a lead ("seen by", "Endoscopist:") announces.

    Or what follows: a degree ("Lopez RN"), or what only people do ("Adeyemi consented").

    After a title the next word is a name whatever its case, unless it is a function word; after a
    lead it must not be an ordinary word either. Further words follow as long as they read alike.
    The title goes with the name: what cuts reports into sentences would stop at its full stop.
    """
    for match in _TITLED.finditer(text):
        end = _name_end(text, match.end(), titled=True)
        if end > match.end():
            yield Span(match.start(), end, "name")
    for pattern in (_LED, _MAY_LEAD):
        for match in pattern.finditer(text):
            large = text[match.end() : match.end() + 1].isupper()
            end = _name_end(text, match.end(), titled=False)
            if end > match.end() and (large or pattern is _LED):
                yield Span(match.end(), end, "name")
    for pattern in _BEFORE:
        for match in pattern.finditer(text):
            for group, word in enumerate(match.groups(), 1):
                if word and not is_plain_word(word):
                    yield Span(*match.span(group), "name")


def begins_with_title(text: str) -> bool:
    """Whether a text begins with "Dr", "Sister", ..."""
    return _TITLED.match(text) is not None


def _name_end(text: str, start: int, titled: bool) -> int:
    end, at, taken, capital = start, start, 0, False
    while taken < 4:
        initial = re.compile(r"(?:[^\W\d_]\.[ \t-]?|[A-Z][ \t](?=[A-Z])){1,3}").match(text, at)
        if initial and capital and not initial.group()[0].isupper():
            initial = None
        if initial and (taken or titled or re.match(rf"[ \t]?{_NAME}", text[initial.end() :])):
            at = end = initial.end() - len(initial.group()) + len(initial.group().rstrip(" \t-"))
            at += len(initial.group()) - len(initial.group().rstrip(" \t-"))
            taken += 1
            capital = initial.group()[0].isupper()
            continue
        word = re.compile(_NAME).match(text, at)
        if word is None or not _reads_on(word.group(), titled, taken, capital):
            break
        if word.group().casefold() not in PARTICLES:
            end, taken = word.end(), taken + 1
            capital = capital or word.group()[:1].isupper()
        gap = re.compile(r",?[ \t]").match(text, word.end())
        at = gap.end() if gap else len(text)
        if gap and gap.group().startswith(",") and not (taken == 1 and capital):
            break
    return end


def _reads_on(word: str, titled: bool, taken: int, capital: bool) -> bool:
    """Whether this word belongs to the name that began before it, or begins it."""
    if word.casefold() in FUNCTION_WORDS or _TITLED.fullmatch(word):
        return False
    if word.casefold() in PARTICLES:
        return True
    if taken == 0 and titled:
        return len(word) > 1
    if is_plain_word(word):
        return False
    # "Dr Mueller removed": a name that began large goes on large.
    return not (taken and capital and not word[0].isupper())
