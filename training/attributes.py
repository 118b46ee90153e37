"""Rule-based reading of reports: one finding per lesion, nine attributes with evidence.

Values are taken as reported. "Not mentioned" is a missing key; "absent" is a value of its own
("no depression" gives depression_or_deformity = none). Pathology never enters.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from training.attribute_rules import (
    ATTRIBUTES,
    CONTEXT_RULES,
    LESION,
    ORDINAL,
    PARIS_GROUPS,
    RULES,
    SHAPES,
    Rule,
)
from training.opinions import NUMBERED, lesion_number, opinion_of, opinions
from training.sentences import Sentence, is_historical, is_pathology, negated, sentences
from training.size_paris import paris_in, size_band, size_in, size_words_in

__all__ = [
    "ATTRIBUTES",
    "ORDINAL",
    "PARIS_GROUPS",
    "SHAPES",
    "AttributeValue",
    "Finding",
    "extract",
    "impression",
    "lesion_impressions",
    "lesion_sentences",
    "polyp_mentioned",
    "strip_impression",
    "strip_pathology",
]


@dataclass(frozen=True)
class AttributeValue:
    """A value with its evidence.

    Attributes:
        value: one of ``ATTRIBUTES[name]`` (or a context value).
        span: offsets in the report given to ``extract``; the slice is the evidence.
    """

    value: str
    span: tuple[int, int]


@dataclass(frozen=True)
class Finding:
    """One lesion of a report.

    Attributes:
        text: its sentences, verbatim, joined by a blank; no impression, no pathology.
        attributes: the attributes that are mentioned, of the nine.
        context: what is told but is no morphology for similarity: shape, segment,
            imaging_mode, size_mm, vessel_pit_original.
        number: the number the report gives the lesion, else its order, from 1.
        impression: the endoscopist's opinion of this lesion, neoplastic, non-neoplastic or None.
        impression_text: the sentence of that opinion, or "".
    """

    text: str
    attributes: dict[str, AttributeValue]
    context: dict[str, AttributeValue] = field(default_factory=dict)
    number: int = 1
    impression: str | None = None
    impression_text: str = ""


_NOUN = re.compile(rf"\b{LESION}\b", re.IGNORECASE)
# A sentence that opens like this speaks of another lesion than the one before it.
_SIZE = r"[<>~]?\s?\d+(?:\.\d+)?(?:\s?-\s?\d+(?:\.\d+)?)?\s?(?:mm|cm)"
_NEW = re.compile(
    r"^(?:there\s+(?:is|was|are|were)\s+|we (?:saw|found|noted)\s+|[A-Za-z -]{3,30}:\s*"
    r"|(?:in|at|within)\s+(?:the\s+)?[\w ]{3,30}?,?\s+)?(?:also\s+)?"
    rf"(?:(?:an?|another|one further|one|further|additional|a further|\d+)\b|{_SIZE})"
    r"(?:[ -](?![^.]{0,5}\bof the (?:polyp|lesion))[\w.,/+-]+){0,12}?[ -]"
    rf"{LESION}\b",
    re.IGNORECASE,
)
_SPLIT = re.compile(
    rf"(?:,\s*and|,|;|\band|\bplus)\s+(?=(?:an?|another|one|a second"
    rf"|a further)\b(?:\s[\w.<>+/-]+){{1,8}}?\s"
    rf"{LESION}\b)",
    re.IGNORECASE,
)


def extract(report: str) -> list[Finding]:
    """Read one finding per lesion.

    Args:
        report: free text with or without section headers.

    Returns:
        Findings in the order in which the lesions are first mentioned; empty when no lesion
        is described. Spans are offsets into ``report``.
    """
    lesions: dict[int, list[Sentence]] = {}
    for number, clause in _assigned(report):
        lesions.setdefault(number, []).append(clause)
    said = opinions(report)
    alone = len(lesions) == 1
    found = []
    for number, clauses in lesions.items():
        attributes, context = _read(clauses)
        opinion = said.get(number) or (said.get(0) if alone else None)
        found.append(
            Finding(
                " ".join(clause.text for clause in clauses),
                attributes,
                context,
                number,
                *(opinion or (None, "")),
            )
        )
    return found


def lesion_sentences(report: str) -> list[str]:
    """Return the morphology sentences of each lesion, joined per lesion."""
    return [finding.text for finding in extract(report)]


def lesion_impressions(report: str) -> dict[int, tuple[str, str]]:
    """Return the endoscopist's opinion by lesion number.

    Returns:
        Number to ("neoplastic" | "non-neoplastic", sentence); key 0 holds an opinion that names
        no lesion. Pathology is never read.
    """
    return opinions(report)


def impression(report: str) -> str | None:
    """Return the endoscopist's opinion of the whole examination.

    Returns:
        "neoplastic" when any lesion is called so, else "non-neoplastic" when any opinion is
        given, else None. Pathology is never read.
    """
    values = {value for value, _ in opinions(report).values()}
    if "neoplastic" in values:
        return "neoplastic"
    return "non-neoplastic" if values else None


def polyp_mentioned(report: str) -> bool:
    """Say whether this examination found a lesion ("no polyps seen" and histories do not count)."""
    for sentence in sentences(report):
        if is_pathology(sentence) or is_historical(sentence):
            continue
        for match in _NOUN.finditer(sentence.text):
            if not negated(sentence.text, match.start(), match.end()):
                return True
    return False


def strip_pathology(report: str) -> str:
    """Return the report without sections and sentences that state pathology."""
    return _without(report, [s for s in sentences(report) if is_pathology(s)])


def strip_impression(report: str) -> str:
    """Return the report without the Impression section and without opinions on histology."""
    return _without(
        report,
        [s for s in sentences(report) if s.section == "impression" or opinion_of(s) is not None],
    )


def _assigned(report: str) -> Iterator[tuple[int, Sentence]]:
    """Yield (lesion number, clause) for every clause that describes a lesion."""
    current, last = 0, 0
    for sentence in sentences(report):
        if sentence.section == "impression" or is_pathology(sentence) or is_historical(sentence):
            current = 0
            continue
        for clause in _clauses(sentence):
            current, last = _next_lesion(clause, current, last)
            if current and _speaks_of_lesion(clause):
                yield current, clause


def _next_lesion(clause: Sentence, current: int, last: int) -> tuple[int, int]:
    numbered = NUMBERED.search(clause.text)
    noun = _NOUN.search(clause.text)
    if noun and negated(clause.text, noun.start(), noun.end()):
        return 0, last
    if numbered and (noun or numbered.group("list") or numbered.group("hash")):
        number = lesion_number(numbered)
        return number, max(last, number)
    if noun and (current == 0 or _NEW.match(clause.text)):
        return last + 1, last + 1
    return current, last


def _speaks_of_lesion(clause: Sentence) -> bool:
    """Keep what names the lesion or tells an attribute; drop "Good bowel preparation."."""
    if _NOUN.search(clause.text):
        return True
    attributes, context = _read([clause])
    return bool(attributes) or "shape" in context


def _clauses(sentence: Sentence) -> list[Sentence]:
    """Cut "a 3 mm polyp in A and a 12 mm polyp in B" between its two lesions."""
    cuts, cut = [], 0
    for match in _SPLIT.finditer(sentence.text):
        if _NOUN.search(sentence.text, cut, match.start()):
            cuts.append((cut, match.start()))
            cut = match.end()
    cuts.append((cut, len(sentence.text)))
    return [
        Sentence(sentence.text[a:b].rstrip(), sentence.start + a, sentence.section) for a, b in cuts
    ]


def _read(clauses: list[Sentence]) -> tuple[dict[str, AttributeValue], dict[str, AttributeValue]]:
    attributes: dict[str, AttributeValue] = {}
    context: dict[str, AttributeValue] = {}
    _read_size(clauses, attributes, context)
    for clause in clauses:
        paris = paris_in(clause.text)
        if paris and "paris" not in attributes and not negated(clause.text, *paris[1:]):
            attributes["paris"] = _value(clause, *paris)
    _apply(RULES, clauses, attributes)
    _mix_colours(clauses, attributes)
    _apply(CONTEXT_RULES, clauses, context)
    if "vessel_pit_pattern" in attributes:
        known = attributes["vessel_pit_pattern"]
        offset = next(c for c in clauses if c.start <= known.span[0] < c.end)
        start, end = known.span
        context["vessel_pit_original"] = AttributeValue(
            offset.text[start - offset.start : end - offset.start], known.span
        )
    return attributes, context


def _read_size(
    clauses: list[Sentence],
    attributes: dict[str, AttributeValue],
    context: dict[str, AttributeValue],
) -> None:
    for clause in clauses:
        if found := size_in(clause.text):
            mm, start, end = found
            attributes["size_band"] = _value(clause, size_band(mm), start, end)
            context["size_mm"] = _value(clause, f"{mm:g}", start, end)
            return
    for clause in clauses:
        words = size_words_in(clause.text)
        if words and not negated(clause.text, *words[1:]):
            attributes["size_band"] = _value(clause, *words)
            return


def _apply(
    rules: tuple[Rule, ...], clauses: list[Sentence], into: dict[str, AttributeValue]
) -> None:
    """First rule that is affirmed wins; a denial counts only where nothing is affirmed."""
    denied: dict[str, AttributeValue] = {}
    for rule in rules:
        for clause in clauses:
            for match in rule.pattern.finditer(clause.text):
                if not negated(clause.text, match.start(), match.end()) or (
                    match.group().lower().startswith(("no", "did", "does", "would", "absent"))
                ):
                    into.setdefault(rule.name, _value(clause, rule.value, *match.span()))
                elif rule.denied:
                    denied.setdefault(rule.name, _value(clause, rule.denied, *match.span()))
    for name, value in denied.items():
        into.setdefault(name, value)


def _mix_colours(clauses: list[Sentence], attributes: dict[str, AttributeValue]) -> None:
    """Two opposite colours in one sentence ("red with pale patches") are mixed colour."""
    for clause in clauses:
        seen = {}
        for rule in RULES:
            match = rule.pattern.search(clause.text) if rule.name == "colour" else None
            if match and not negated(clause.text, *match.span()):
                seen[rule.value] = match.span()
        if "pale" in seen and ({"red", "dark-red"} & seen.keys()):
            spans = [seen[v] for v in ("pale", "red", "dark-red") if v in seen]
            attributes["colour"] = _value(
                clause, "mixed", min(s[0] for s in spans), max(s[1] for s in spans)
            )


def _value(clause: Sentence, value: str, start: int, end: int) -> AttributeValue:
    return AttributeValue(value, (clause.start + start, clause.start + end))


def _without(report: str, unwanted: list[Sentence]) -> str:
    kept, cut = [], 0
    for sentence in unwanted:
        kept.append(report[cut : sentence.start])
        cut = sentence.end
    kept.append(report[cut:])
    text = "".join(kept)
    # A header whose body is gone says nothing.
    text = re.sub(
        r"(?im)^[ \t]*(?:impression|conclusions?|summary|opinion|assessment|endoscopic "
        r"(?:diagnosis|impression)|(?:final )?(?:pathology|histology|histopathology)"
        r"[\w ]*|specimens?|microscopy)[ \t]*[:\-]\s*$",
        "",
        text,
    )
    return re.sub(r"[ \t]{2,}", " ", re.sub(r"\n{2,}", "\n", text)).strip()
