"""What a row of the table tells about people, and where it stands in that row's own text.

Names are compared without case and diacritics, an umlaut in either spelling (Müller, Mueller,
MULLER), whole or in parts, glued (JoergMueller, jmueller) and as initials. Misspelt names are not
found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

from training.ingest.words import EPONYM_IN_USE, EPONYMS, PARTICLES, TITLES, is_plain_word

__all__ = ["Identities", "Span", "fold"]

_LETTERS = {
    **{"ß": "ss", "æ": "a", "ø": "o", "œ": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"},
    **{"’": "'", "`": "'", "´": "'", "‘": "'"},
}
_BEFORE_E = frozenset("aou")
# Initials that are also abbreviations or Roman numerals ("(IV)", "i.e.") prove nothing.
_ABBREVIATIONS = frozenset(
    ("ie", "eg", "am", "pm", "cf", "ca", "iv", "im", "po", "ii", "vi", "is", "ip", "ic", "nb", "cm")
)
_TITLE_WORD = re.compile(rf"(?:{TITLES}|med|dent|phd|md|msc|bsc|frcp|frcs|mbbs)\.?", re.IGNORECASE)
_PART = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


@dataclass(frozen=True, order=True)
class Span:
    """Part of a text that gives somebody away.

    Attributes:
        start: Offset of the first character.
        end: Offset after the last.
        kind: name, id, birth date, date, ...; the word of the placeholder.
    """

    start: int
    end: int
    kind: str


def fold(text: str) -> tuple[str, list[int]]:
    """Lower case without diacritics, ae/oe/ue as a/o/u.

    Returns:
        The folded text, and for each of its characters the offset of the one it comes from, with
        the text's length at the end.
    """
    letters: list[str] = []
    origin: list[int] = []
    for index, char in enumerate(text):
        plain = _LETTERS.get(char.casefold()) or _LETTERS.get(char)
        if plain is None:
            spelt = unicodedata.normalize("NFKD", char.casefold())
            plain = "".join(_LETTERS.get(c, c) for c in spelt if not unicodedata.combining(c))
        for letter in plain:
            if letter == "e" and letters and letters[-1] in _BEFORE_E:
                continue
            letters.append(letter)
            origin.append(index)
    return "".join(letters), [*origin, len(text)]


class Identities:
    """The identities of one row, ready to be found in its texts."""

    def __init__(
        self, names: Iterable[str], numbers: Iterable[str], deny: Iterable[str] = ()
    ) -> None:
        """Take what the identity columns hold.

        Args:
            names: Names as they stand in the table ("MÜLLER, Jörg", "Dr. J. Smith", "Doe^Jane").
            numbers: Numbers and ids of any form.
            deny: Words removed wherever they stand.
        """
        people = [parts for name in names if (parts := _parts(name))]
        for number in numbers:
            # An exam number such as MUELLER_JOERG_1950 names somebody.
            people += [[p] for p in _parts(number) if len(p) >= 4 and not is_plain_word(p)]
        self._sure = _compiled(_sure_patterns(people))
        self._doubtful = _compiled(
            re.escape(part) for parts in people for part in parts if _is_doubtful(part)
        )
        self._initials = _initials(people)
        self._numbers = _compiled(
            pattern for number in numbers if (pattern := _number_pattern(number))
        )
        self._deny = _compiled(re.escape(fold(word)[0]) for word in deny if word.strip())

    def find(self, text: str) -> Iterator[Span]:
        """Yield where the text tells one of the identities; spans may overlap."""
        folded, origin = fold(text)
        kept = [match.span() for match in EPONYM_IN_USE.finditer(text)]

        def spans(pattern: re.Pattern[str] | None, kind: str) -> Iterator[Span]:
            for match in pattern.finditer(folded) if pattern else ():
                start, end = origin[match.start()], origin[match.end() - 1] + 1
                while end < len(text) and unicodedata.combining(text[end]):
                    end += 1
                yield Span(start, end, kind)

        yield from spans(self._numbers, "id")
        yield from spans(self._deny, "name")
        sure = list(spans(self._sure, "name"))
        yield from (_with_initial(text, span) for span in sure)
        for span in spans(self._doubtful, "name"):
            in_use = any(a <= span.start < b for a, b in kept)
            if not in_use and _reads_as_name(text, span, sure):
                yield _with_initial(text, span)
        for pattern in self._initials:
            yield from (Span(*m.span(1), "name") for m in pattern.finditer(text))


def _parts(name: str) -> list[str]:
    """Folded parts of a name, without titles, particles and single letters."""
    words = [w for w in _PART.findall(name) if not _TITLE_WORD.fullmatch(w)]
    folded = [fold(word)[0] for word in words]
    return [part for part in folded if len(part) > 1 and part not in PARTICLES]


def _is_doubtful(part: str) -> bool:
    """Whether a name is also a word: Brown, Long, Li, Barrett."""
    return (len(part) < 3 and part.isascii()) or is_plain_word(part) or part in EPONYMS


def _spelt(part: str) -> str:
    return re.escape(part).replace("'", "'?")


def _sure_patterns(people: list[list[str]]) -> Iterator[str]:
    for parts in people:
        for part in parts:
            if not _is_doubtful(part):
                yield rf"{_spelt(part)}(?:'?s)?"
        for first in parts:
            for other in parts:
                if first != other:
                    yield rf"{_spelt(first)}(?:,?\s|[,._-])?{_spelt(other)}"
                    # jmueller, mueller.j; the initial of a doubtful name is no evidence
                    if len(other) > 3 and not _is_doubtful(other):
                        yield rf"{first[0]}[._-]?{_spelt(other)}"
                        yield rf"{_spelt(other)}[._-]?{first[0]}"


def _number_pattern(number: str) -> str:
    """Any of the usual separators may stand between the characters, or none.

    Under five characters a number is no evidence: exam 120 stands in "120 cm" too.
    """
    plain = [char for char in fold(number)[0] if char.isalnum()]
    if len(plain) < 5:
        return ""
    return r"[\s._/\\-]?".join(map(re.escape, plain))


def _initials(people: list[list[str]]) -> list[re.Pattern[str]]:
    """Initials with full stops anywhere; without, only where the words around call for a name."""
    found: set[tuple[str, ...]] = set()
    for parts in people:
        initials = [part[0].upper() for part in parts]
        orders = {tuple(initials), *permutations(initials, 2)}
        found |= {o for o in orders if len(o) > 1 and "".join(o).lower() not in _ABBREVIATIONS}
    patterns = []
    lead = rf"(?:\b(?:{TITLES}|pt|patient|by|initials?|signed|name|sig)\.?[:\s]+|[(/\[])"
    for order in sorted(found):
        dotted = r"\.[\s-]?".join(order)
        patterns.append(re.compile(rf"(?<!\w)({dotted}\.)(?!\w)", re.IGNORECASE))
        patterns.append(re.compile(rf"(?<!\w)({dotted.lower()}\.?)(?!\w)"))
        glued = "".join(order)
        patterns.append(re.compile(rf"{lead}((?i:{glued}))\b(?!\s?\d)", re.IGNORECASE))
    return patterns


def _reads_as_name(text: str, span: Span, sure: list[Span]) -> bool:
    """Whether a word that may be a name stands where a name would."""
    word = text[span.start : span.end]
    before = text[max(0, span.start - 24) : span.start]
    if re.search(rf"\b{TITLES}\.?\s*(?:[A-Za-z]\.\s*)?$", before, re.IGNORECASE):
        return True
    if any(abs(s.start - span.end) <= 2 or abs(span.start - s.end) <= 2 for s in sure):
        return True
    if re.search(r"(?:\b[A-Z]\.\s?|\bpatient:?\s|\bname:?\s|\bby\s)$", before):
        return word[:1].isupper()
    mid_sentence = bool(re.search(r"[\w,]\s+$", before))
    shouting = text[max(0, span.start - 20) : span.end + 20].isupper()
    return mid_sentence and word[:1].isupper() and not shouting and word.casefold() not in EPONYMS


def _with_initial(text: str, span: Span) -> Span:
    """Take "J." before or ", J." after a name with it."""
    before = re.search(r"(?<![\w.])(?:[^\W\d_]\.[\s-]?){1,3}$", text[: span.start][-12:])
    after = re.match(r"(?:['’]s?)?(?:,?\s(?:[^\W\d_]\.-?){1,3})(?!\w)", text[span.end :][:14])
    start = span.start - (len(before.group()) if before else 0)
    return Span(start, span.end + (len(after.group()) if after else 0), span.kind)


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(set(patterns), key=lambda p: (-len(p), p))
    if not longest_first:
        return None
    # Ideographs are written without blanks: only letters of alphabets show where a word ends.
    letter = r"[^\W\d_\u3040-\u9fff\uac00-\ud7af]"
    return re.compile(rf"(?<!{letter})(?:{'|'.join(longest_first)})(?!{letter})")
