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
    rf"(?:(?:an?|another|one further|one|further|additional|a further|synchronous|separate"
    rf"|second|adjacent|{_MANY}|\d+)\b|{_SIZE})"
    r"(?:[ -](?![^.]{0,5}\bof the (?:polyp|lesion))[\w.,/+-]+){0,12}?[ -]"
    rf"{LESION}\b",
    re.IGNORECASE,
)
# "Sigmoid 3 mm polyp", "RECTUM: polyp": a place before the lesion or before a clause without one.
_PLACE = re.compile(rf"^\W*(?:[\w/]+[ -]){{0,3}}?{_SITE}\b[ \w]{{0,20}}?\s?(?P<mark>[:,-])?", re.I)
_THE = re.compile(
    rf"\b(?:the|this|that|these|those|both|each|all|its)(?: (?!{_SITE})[\w-]+){{0,4}} $", re.I
)
_OTHER = re.compile(
    r"^(?:and )?(?:the )?(?:other|another|one)\b|^\(?(?:[a-f]|i{1,3}|iv)\)\s", re.IGNORECASE
)
# Said of lesions that were named before.
_ONE_OF = re.compile(r"^(?:and )?(?:the )?(?:larger|bigger|smaller|former|latter)\b", re.IGNORECASE)
# A size, or a place and a size, that opens a clause.
_SIZED = re.compile(
    rf"^\W*(?:(?:and|in|at|the) ){{0,2}}(?:(?:[\w/]+[ -]){{0,3}}?{_SITE}[:,-]? ?)?\(?{_SIZE}(?!\w)",
    re.I,
)
_SPLIT = re.compile(
    # "a 3 mm polyp in A and a 12 mm polyp in B"
    r"(?:,\s*and|,|;|\band|\bplus|\bas well as|\balong with|\btogether with)\s+"
    rf"(?=(?:(?:at|in) the [\w ]{{3,25}}? )?(?:(?:an?|another|one|a second|a further)\b|{_SIZE})"
    rf"(?:\s[\w.<>+/-]+){{1,8}}?\s{LESION}\b)"
    # Marks that need no lesion before them: "(1)", "b)", "lesion 2", "the other", "one 4 mm".
    r"|(?P<sure>[:;,]\s+(?:and\s+)?(?=\(?\d\)\s|\(?(?:[a-f]|i{1,3}|iv)\)\s"
    rf"|{LESION} \d\b(?! ?[mc]m)|(?:an? |the )?(?:second|third|fourth|other|larger|smaller|bigger"
    rf"|former|latter)\b|one {_SIZE}|another\b[^.;,]{{0,40}}?{_SIZE})|\s+(?=\(?[2-9]\)\s)"
    # "caecum (3 mm) and sigmoid (12 mm)"
    rf"|(?<=\))(?:,| and|, and)\s+(?=(?:in |at )?(?:the )?[\w ]{{3,25}}? \({_SIZE}))"
    # Goes on from a lesion anywhere before it: "Polyps: 3 mm caecum; 5 mm sigmoid; 4 mm rectum".
    rf"|(?P<list>;\s+(?=[^;]{{0,80}}?\b(?:{LESION}\b|\d+ ?[mc]m\b)))",
    re.IGNORECASE,
)
# "Two polyps in the sigmoid:" before the two.
_GROUP = re.compile(
    rf"^[^:]*\b{_MANY}(?: [\w-]+){{0,3}} {LESION}\b[^:]*$|^(?:[\w-]+ ){{0,3}}(?:pol+yps|lesions)$",
    re.IGNORECASE,
)


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
        for place, clause in enumerate(_clauses(sentence)):
            keys = told_once(clause)
            known = told.get(current, set())
            current, last = _next_lesion(clause, current, last, keys, known, place > 0)
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
    clause: Sentence, current: int, last: int, keys: set[str], told: set[str], inside: bool
) -> tuple[int, int]:
    """Say whose a clause is.

    Args:
        clause: The clause.
        current: Lesion of the clause before it; 0 for none.
        last: Highest number given so far.
        keys: What the clause tells (``told_once``).
        told: What was told of the lesion before.
        inside: The clause goes on a sentence.

    Returns:
        Number of its lesion, 0 for none, and the highest number.
    """
    numbered = NUMBERED.search(clause.text)
    nouns = list(NOUN.finditer(clause.text))
    # "No lesions other than a 6 mm polyp" speaks of the polyp.
    noun = next((m for m in nouns if not negated(clause.text, *m.span())), None)
    if nouns and not noun:
        return 0, last
    if numbered and (noun or numbered.lastgroup in ("list", "hash", "alone")):
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
            keys and (_OTHER.match(clause.text) or (current and _ONE_OF.match(clause.text)))
        )
        # A list inside of a sentence: "Polyps: 3 mm in the caecum; 5 mm in the sigmoid".
        new = new or (inside and "size" in keys & told and bool(_SIZED.match(clause.text)))
        if not new and marked:
            return 0, last
    return (last + 1, last + 1) if new else (current, last)


def _clauses(sentence: Sentence) -> list[Sentence]:
    """Cut "a 3 mm polyp in A and a 12 mm polyp in B" between its two lesions."""
    cuts, cut = [], 0
    for match in _SPLIT.finditer(sentence.text):
        since = 0 if match.group("list") else cut
        if match.group("sure") or NOUN.search(sentence.text, since, match.start()):
            cuts.append((cut, match.start()))
            cut = match.end()
    cuts.append((cut, len(sentence.text)))
    return [
        Sentence(sentence.text[a:b].rstrip(), sentence.start + a, sentence.section) for a, b in cuts
    ]
