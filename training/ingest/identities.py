"""What a row of the table tells about people, and where it stands in that row's own text.

Names are compared without case and diacritics, an umlaut in either spelling (Müller, Mueller,
MULLER), whole or in parts, together or apart (DeLuca, van den berg), glued (JoergMueller,
jmueller), divided at the end of a line, and as initials. Misspelt names are not found.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import permutations

from training.ingest.characters import even, fold, visible
from training.ingest.words import (
    ABBREVIATIONS,
    EPONYMS,
    PARTICLES,
    PREFIXES,
    TERMS_IN_USE,
    TITLES,
    is_plain_word,
)

__all__ = ["Identities", "Span"]

# Initials that are also abbreviations or Roman numerals ("(IV)", "i.e.") prove nothing.
_NO_INITIALS = frozenset(
    ("ie", "eg", "am", "pm", "cf", "ca", "iv", "im", "po", "ii", "vi", "is", "ip", "ic", "nb", "cm")
)
_TITLE_WORD = re.compile(rf"(?:{TITLES}|med|dent|phd|md|msc|bsc|frcp|frcs|mbbs)\.?", re.IGNORECASE)
# Adrenaline, whatever number the patient has.
_DILUTION = re.compile(r"\b1:[125]0{0,2},?000\b(?!,?\d)")
_PART = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_BROKEN = re.compile(r"(?<=[^\W_])-[ \t]*\r?\n[ \t]*(?=[^\W_])")
# What only people do; "was" and "has" are said of a colon too.
_ACTS = (
    r"(?:tolerated|agreed|declined|consented|refused|asked|attended|wish\w*|wants?|wanted|requested"
    r"|underst\w+|felt|feels|told|said|complain\w+|denie[sd]|lives?|lived|signed|came|went)"
)
_DOES = re.compile(rf"(?:['’]s)?\s+(?:{_ACTS}|was|is|has|had|will|would|did|does|who)\b", re.I)
_BEGINS = re.compile(r"(?:^|[.;:,\n]\s*|\b(?:and|but|as|because|that|while|when)\s)$", re.I)
_TO_SOMEBODY = re.compile(
    r"\b(?:by|with|to|from|for|told|tells|informed|asked|thank\w*|consented|saw|met|called)\s+$",
    re.I,
)
_ENDS = re.compile(r"\s*(?:[.,;:)]|$|(?:and|who|that|about|of|on|at|in|today|regarding)\b)", re.I)


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
        names = [even(visible(name)) for name in names]
        numbers = [even(visible(number)) for number in numbers]
        people = [parts for name in names if (parts := _parts(name))]
        for number in numbers:
            # An exam number such as MUELLER_JOERG_1950 names somebody.
            people += [[p] for p in _parts(number) if len(p) >= 4 and not is_plain_word(p)]
        compounds = [pattern for name in names for pattern in _compounds(name)]
        self._sure = _compiled([*_sure_patterns(people), *compounds])
        doubtful = {part for parts in people for part in parts if _is_doubtful(part)}
        doubtful |= {particle for name in names for particle in _lone_particles(name)}
        self._doubtful = _compiled(map(re.escape, doubtful))
        self._initials = _initials(people)
        self._letters = frozenset(part[0] for parts in people for part in parts)
        self._numbers = _compiled(
            pattern for number in numbers if (pattern := _number_pattern(number))
        )
        self._deny = _compiled(_denied(word) for word in deny if word.strip())

    def find(self, text: str) -> Iterator[Span]:
        """Yield where the text tells one of the identities; spans may overlap.

        Args:
            text: Without invisible characters, with plain hyphens (``characters``).
        """
        views = [fold(text)]
        if _BROKEN.search(text):
            views.append(_unbroken(*views[0]))

        def spans(pattern: re.Pattern[str] | None, kind: str) -> Iterator[Span]:
            for folded, origin in views if pattern else ():
                for match in pattern.finditer(folded) if pattern else ():
                    start, end = origin[match.start()], origin[match.end() - 1] + 1
                    while end < len(text) and unicodedata.combining(text[end]):
                        end += 1
                    yield Span(start, end, kind)

        diluted = [match.span() for match in _DILUTION.finditer(text)]
        for span in spans(self._numbers, "id"):
            if not any(a < span.start and span.end <= b for a, b in diluted):
                yield span
        yield from spans(self._deny, "name")
        sure = list(spans(self._sure, "name"))
        yield from (_with_initial(text, span, self._letters) for span in sure)
        if doubtful := list(spans(self._doubtful, "name")):
            kept = [match.span() for terms in TERMS_IN_USE for match in terms.finditer(text)]
            for span in doubtful:
                in_use = any(a <= span.start < b for a, b in kept)
                if not in_use and _reads_as_name(text, span, sure):
                    yield _with_initial(text, span, self._letters)
        for pattern in self._initials:
            yield from (Span(*m.span(1), "name") for m in pattern.finditer(text))


def _words(name: str) -> list[str]:
    return [w for w in _PART.findall(name) if not _TITLE_WORD.fullmatch(w)]


def _parts(name: str) -> list[str]:
    """Folded parts of a name, without titles, particles and single letters (but ideographs)."""
    folded = [fold(word)[0] for word in _words(name)]
    return [p for p in folded if (len(p) > 1 or p > "\u2e80") and p not in PARTICLES]


def _lone_particles(name: str) -> Iterator[str]:
    """Particles that are names themselves: Ben Carter, Le Thi, Al Smith."""
    for word in _words(name):
        if fold(word)[0] in PARTICLES and len(word) > 1 and not word.islower():
            yield fold(word)[0]


def _compounds(name: str) -> Iterator[str]:
    """Patterns of names that begin with particles, however these are joined to the rest."""
    particles: list[str] = []
    for word in (fold(word)[0] for word in _words(name)):
        if word in PARTICLES:
            particles.append(word)
            continue
        plain = [piece for piece in word.split("'") if piece]
        for last in _splits(plain[-1]):
            pieces = [*particles, *plain[:-1], *last]
            if len(pieces) > 1:
                spelt = ("ma?c" if p in ("mc", "mac") else re.escape(p) for p in pieces)
                yield r"[\s.'-]{0,3}".join(spelt) + "(?:'?s)?"
        particles = []


def _splits(word: str) -> Iterator[list[str]]:
    """Every way to take prefixes off a name, if what remains is long enough and no other word."""
    yield [word]
    for prefix in PREFIXES:
        rest = word.removeprefix(prefix)
        if rest != word and len(rest) > 2 and not is_plain_word(rest):
            yield from ([prefix, *more] for more in _splits(rest))


def _is_doubtful(part: str) -> bool:
    """Whether a name is also a word (Brown, Long) or an abbreviation (Ng)."""
    return (is_plain_word(part) and part not in EPONYMS) or part in ABBREVIATIONS


def _spelt(part: str) -> str:
    return re.escape(part).replace("'", "'?")


def _sure_patterns(people: list[list[str]]) -> Iterator[str]:
    for parts in people:
        for part in parts:
            if not _is_doubtful(part):
                yield rf"{_spelt(part)}(?:'?s)?"
                if len(part) > 3:
                    yield r"\s".join(map(re.escape, part))
        for first in parts:
            for other in parts:
                if first != other:
                    yield rf"{_spelt(first)}(?:,?\s|[,._-])?{_spelt(other)}"
                    # jmueller, mueller.j; the initial of a doubtful name is no evidence
                    if len(other) > 3 and not _is_doubtful(other):
                        yield rf"{first[0]}[._-]?{_spelt(other)}"
                        yield rf"{_spelt(other)}[._-]?{first[0]}"


def _number_pattern(number: str) -> str:
    """Any of the usual separators may stand between the characters, or none; zeros may lead.

    Under five characters a number is no evidence: exam 120 stands in "120 cm" too.
    """
    plain = "".join(char for char in fold(number)[0] if char.isalnum())
    if len(plain.lstrip("0")) >= 5:
        plain = plain.lstrip("0")
    if len(plain) < 5:
        return ""
    return "0*" + r"(?:\s?[._/\\'-]\s?|\s|,(?=\d{3}(?!\d)))?".join(map(re.escape, plain))


def _denied(words: str) -> str:
    """A denied phrase: what parts its words may be any blank, a line's end, or nothing."""
    return r"[\s_-]*".join(map(re.escape, fold(even(visible(words)))[0].split()))


def _unbroken(folded: str, origin: list[int]) -> tuple[str, list[int]]:
    """Join what is divided at the end of a line."""
    letters, places, at = [], [], 0
    for match in _BROKEN.finditer(folded):
        letters.append(folded[at : match.start()])
        places += origin[at : match.start()]
        at = match.end()
    return "".join([*letters, folded[at:]]), places + origin[at:]


def _initials(people: list[list[str]]) -> list[re.Pattern[str]]:
    """Initials with full stops anywhere; without, only where the words around call for a name."""
    found: set[tuple[str, ...]] = set()
    for parts in people:
        initials = [part[0].upper() for part in parts]
        orders = {tuple(initials), *permutations(initials, 2)}
        found |= {o for o in orders if len(o) > 1 and "".join(o).lower() not in _NO_INITIALS}
    patterns = []
    lead = rf"(?:\b(?:{TITLES}|pt|patient|by|initials?|signed|name|sig)\.?[:\s]+|[(/\[])"
    for order in sorted(found):
        dotted = r"\.[\s-]?".join(order)
        patterns.append(re.compile(rf"(?<!\w)({dotted}\.)(?!\w)", re.IGNORECASE))
        patterns.append(re.compile(rf"(?<!\w)({dotted.lower()}\.?)(?!\w)"))
        glued = "".join(order)
        patterns.append(re.compile(rf"{lead}((?i:{glued}))\b(?!\s?\d)", re.IGNORECASE))
        patterns.append(re.compile(rf"(?<!\w)({glued})(?=\s{_ACTS}\b)"))
    return patterns


def _reads_as_name(text: str, span: Span, sure: list[Span]) -> bool:
    """Whether a word that may be a name stands where a name would."""
    word, before, after = text[span.start : span.end], text[: span.start][-24:], text[span.end :]
    if re.search(rf"\b{TITLES}\.?\s*(?:[A-Za-z]\.\s*)?$", before, re.IGNORECASE):
        return True
    if any(abs(s.start - span.end) <= 2 or abs(span.start - s.end) <= 2 for s in sure):
        return True
    large = word[:1].isupper()
    if large and re.match(r",\s?[A-Z]\.", after):
        return True
    if large and re.search(r"(?:\b[A-Z]\.\s?|\bpatient:?\s|\bname:?\s|\bby\s)$", before):
        return True
    if _DOES.match(after[:24]) and (large or _BEGINS.search(before)):
        return True
    if _TO_SOMEBODY.search(before) and _ENDS.match(after[:12]):
        return True
    shouting = text[max(0, span.start - 20) : span.end + 20].isupper()
    mid_sentence = bool(re.search(r"[\w,]\s+$", before))
    return large and mid_sentence and not shouting


def _with_initial(text: str, span: Span, letters: frozenset[str]) -> Span:
    """Take "J." before or ", J." after a name with it; without full stop if it is the row's."""
    before, after = text[: span.start][-12:], text[span.end :][:14]
    found = re.search(r"(?<![\w.])(?:[^\W\d_]\.[\s-]?){1,3}$", before)
    if not found and (bare := re.search(r"(?<![\w.'’-])[A-Z]\s$", before)):
        found = bare if fold(bare.group()[0])[0] in letters else None
    start = span.start - (len(found.group()) if found else 0)
    found = re.match(r"(?:['’]s?)?(?:,?\s?(?:[^\W\d_]\.-?){1,3})(?!\w)", after)
    if not found and (bare := re.match(r",?\s([B-HJ-Z])(?![\w'’-]|\s?\d)", after)):
        found = bare if fold(bare.group(1))[0] in letters else None
    return Span(start, span.end + (len(found.group()) if found else 0), span.kind)


def _compiled(patterns: Iterable[str]) -> re.Pattern[str] | None:
    longest_first = sorted(set(patterns), key=lambda p: (-len(p), p))
    if not longest_first:
        return None
    # Ideographs are written without blanks: only letters of alphabets show where a word ends.
    letter = r"[^\W\d_\u3040-\u9fff\uac00-\ud7af]"
    return re.compile(rf"(?<!{letter})(?:{'|'.join(longest_first)})(?!{letter})")
