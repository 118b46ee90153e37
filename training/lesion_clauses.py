"""Tell which clause of a report speaks of which lesion.

Reports number their lesions, name a place before each, or go on without a word: a clause without a
lesion's name belongs to the lesion before it, until it tells what that lesion has already (a second
size, a second Paris type) or another place.
"""

import re
from collections.abc import Iterator

from training.attribute_rules import LESION
from training.opinions import NUMBERED, lesion_number
from training.sentences import Sentence, is_historical, negated, sentences
from training.size_paris import paris_in, size_in

__all__ = ["NOUN", "clauses_by_lesion", "is_group", "told_once"]

NOUN = re.compile(rf"\b{LESION}\b", re.IGNORECASE)
_SIZE = r"[<>~]?\s?\d+(?:\.\d+)?(?:\s?-\s?\d+(?:\.\d+)?)?\s?(?:mm|cm)"
_SITE = (
    r"(?:rect(?:um|al)|(?:recto)?sigmoid|ca?ecum|ca?ecal|colon|flexure|ascending|descending"
    r"|transverse|valve|ICV|ileum|junction|TI)"
)
_MANY = (
    r"(?:two|three|four|five|six|multiple|mutliple|several|few|many|numerous|innumerable|scattered"
    r"|\d{1,2}(?! ?(?:mm|cm)))"
)
# A clause that opens like this speaks of another lesion than the one before it.
_NEW = re.compile(
    r"^\W*(?:there\s+(?:is|was|are|were)\s+|we (?:saw|found|noted)\s+|[A-Za-z -]{3,30}:\s*"
    r"|(?:in|at|within)\s+(?:the\s+)?[\w ]{3,30}?,?\s+)?(?:also\s+)?"
    rf"(?:(?:an?|another|one further|one|further|additional|a further|{_MANY}|\d+)\b|{_SIZE})"
    r"(?:[ -](?![^.]{0,5}\bof the (?:polyp|lesion))[\w.,/+-]+){0,12}?[ -]"
    rf"{LESION}\b",
    re.IGNORECASE,
)
# "Sigmoid 3 mm polyp", "RECTUM: polyp": a place before the lesion or before a clause without one.
_PLACE = re.compile(rf"^\W*(?:[\w/]+[ -]){{0,3}}?{_SITE}\b[ \w]{{0,20}}?\s?(?P<mark>[:,-])?", re.I)
_THE = re.compile(
    rf"\b(?:the|this|that|these|those|both|each|all|its)(?: (?!{_SITE})[\w-]+){{0,4}} $", re.I
)
_OTHER = re.compile(r"^(?:and )?(?:the )?(?:other|another|one)\b", re.IGNORECASE)
_SPLIT = re.compile(
    rf"(?:,\s*and|,|;|\band|\bplus)\s+(?=(?:(?:at|in) the [\w ]{{3,25}}? )?(?:an?|another|one"
    rf"|a second|a further)\b(?:\s[\w.<>+/-]+){{1,8}}?\s{LESION}\b)"
    # Marks that need no lesion before them.
    rf"|(?P<sure>[:;,]\s+(?=\(\d\)\s|{LESION} \d\b(?! ?[mc]m)|(?:an? |the )?(?:second|third|fourth"
    rf"|other)\b|one {_SIZE}))",
    re.IGNORECASE,
)
# "Two polyps in the sigmoid:" before the two.
_GROUP = re.compile(rf"^[^:]*\b{_MANY}(?: [\w-]+){{0,3}} {LESION}\b[^:]*$", re.IGNORECASE)


def clauses_by_lesion(report: str) -> Iterator[tuple[int, Sentence]]:
    """Yield (lesion number, clause) for every clause that may describe a lesion.

    Args:
        report: free text; Impression section and histories are passed over.
    """
    current, last = 0, 0
    told: dict[int, set[str]] = {}
    for sentence in sentences(report):
        if sentence.section == "impression" or is_historical(sentence):
            current = 0
            continue
        for clause in _clauses(sentence):
            keys = told_once(clause)
            current, last = _next_lesion(clause, current, last, keys, told.get(current, set()))
            if current:
                told.setdefault(current, set()).update(keys)
                yield current, clause


def is_group(clause: Sentence) -> bool:
    """Say whether a clause names several lesions at once, as before a list of them."""
    return bool(_GROUP.match(clause.text)) and not NUMBERED.search(clause.text)


def told_once(clause: Sentence) -> set[str]:
    """Name what the clause tells of the things a lesion has one of: size, paris."""
    paris = paris_in(clause.text)
    affirmed = paris is not None and not negated(clause.text, *paris[1:])
    return ({"size"} if size_in(clause.text) else set()) | ({"paris"} if affirmed else set())


def _next_lesion(
    clause: Sentence, current: int, last: int, keys: set[str], told: set[str]
) -> tuple[int, int]:
    """Say whose a clause is.

    Args:
        clause: The clause.
        current: Lesion of the clause before it; 0 for none.
        last: Highest number given so far.
        keys: What the clause tells (``told_once``).
        told: What was told of the lesion before.

    Returns:
        Number of its lesion, 0 for none, and the highest number.
    """
    numbered = NUMBERED.search(clause.text)
    noun = NOUN.search(clause.text)
    if noun and negated(clause.text, noun.start(), noun.end()):
        return 0, last
    if numbered and (noun or numbered.group("list") or numbered.group("hash")):
        number = lesion_number(numbered)
        return number, max(last, number)
    place = _PLACE.match(clause.text)
    marked = bool(place and place.group("mark"))
    if noun:
        named = bool(_THE.search(clause.text[: noun.start()]))
        again = not named and bool(keys & told or (marked and keys))
        new = current == 0 or again or bool(_NEW.match(clause.text))
    else:
        new = ("paris" in keys and (current == 0 or marked)) or bool(
            keys and _OTHER.match(clause.text)
        )
        if not new and marked:
            return 0, last
    return (last + 1, last + 1) if new else (current, last)


def _clauses(sentence: Sentence) -> list[Sentence]:
    """Cut "a 3 mm polyp in A and a 12 mm polyp in B" between its two lesions."""
    cuts, cut = [], 0
    for match in _SPLIT.finditer(sentence.text):
        if match.group("sure") or NOUN.search(sentence.text, cut, match.start()):
            cuts.append((cut, match.start()))
            cut = match.end()
    cuts.append((cut, len(sentence.text)))
    return [
        Sentence(sentence.text[a:b].rstrip(), sentence.start + a, sentence.section) for a, b in cuts
    ]
