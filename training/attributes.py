"""Rule-based reading of reports: one finding per lesion, nine attributes with evidence.

Values are taken as reported. "Not mentioned" is a missing key; "absent" is a value of its own
("no depression" gives depression_or_deformity = none). Pathology never enters.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.attribute_rules import (
    ATTRIBUTES,
    BACKGROUND,
    CONTEXT_RULES,
    DENIAL_WITHIN,
    ORDINAL,
    PARIS_GROUPS,
    SHAPES,
    Rule,
)
from training.form_rules import FORM_RULES
from training.lesion_clauses import NOUN, clauses_by_lesion, is_group, told_once
from training.opinions import (
    lesion_text,
    opinion_of,
    opinions,
    readable,
)
from training.pathology_text import Stated, stated_pathology, without_pathology
from training.sentences import Sentence, is_historical, negated, sentences
from training.size_paris import composed_size_in, paris_in, size_band, size_in, size_word_in
from training.surface_rules import SURFACE_RULES

__all__ = [
    "ATTRIBUTES",
    "ORDINAL",
    "PARIS_GROUPS",
    "SHAPES",
    "AttributeValue",
    "Finding",
    "Told",
    "extract",
    "findings",
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
        text: its sentences, joined by a blank; no impression, no pathology (``lesion_text``).
        attributes: the attributes that are mentioned, of the nine.
        context: what is told but is no morphology for similarity: shape, segment,
            imaging_mode, size_mm, vessel_pit_original.
        number: the number the report gives the lesion, else its order, from 1.
        impression: the endoscopist's opinion of this lesion, neoplastic, non-neoplastic or None.
        impression_text: the sentence of that opinion, or "".
        spans: offsets of its sentences in the report, in order.
    """

    text: str
    attributes: dict[str, AttributeValue]
    context: dict[str, AttributeValue] = field(default_factory=dict)
    number: int = 1
    impression: str | None = None
    impression_text: str = ""
    spans: tuple[tuple[int, int], ...] = ()


RULES = (*SURFACE_RULES, *FORM_RULES)
# Of these a report also tells what lies around the lesion.
_OF_MUCOSA = frozenset({"colour", "surface_texture", "surface_integrity", "vessel_pit_pattern"})
# Findings that are no lesions; a clause without a lesion's name that tells of them is theirs.
_ELSE = re.compile(
    r"\b(?:aph?thous|ulcers|(?:rectal|anal|colonic|caecal|ileal|solitary|linear) ulcer|proctitis"
    r"|ileitis|duodenitis|gastritis|angiodysplas\w+|angioecta\w+|pieces of tissue|colitis"
    r"|inflam\w+|an?asta?omo\w+|h?a?emorrhoid\w*|diverticul\w+|ileum"
    r"|ileal|throughout|scars?|loss of vascular\w*)\b",
    re.IGNORECASE,
)
# Number, spans of the sentences, attributes, context.
Told = tuple[int, tuple[tuple[int, int], ...], dict[str, AttributeValue], dict[str, AttributeValue]]


def extract(report: str, size_words: bool = False) -> list[Finding]:
    """Read one finding per lesion.

    Args:
        report: free text with or without section headers.
        size_words: read "small", "large" and their like as the bands by which composed reports
            choose these words; a hospital's reports give them no such meaning.

    Returns:
        Findings in the order in which the lesions are first mentioned; empty when no lesion
        is described. Spans are offsets into ``report``.
    """
    lesions: dict[int, list[Sentence]] = {}
    for number, clause in clauses_by_lesion(without_pathology(report)):
        if _speaks_of_lesion(clause):
            lesions.setdefault(number, []).append(clause)
    read: list[Told] = []
    for order, (number, clauses) in enumerate(lesions.items(), start=1):
        attributes, context = _read(clauses, size_words)
        group = len(clauses) == 1 and is_group(clauses[0])
        if group and not (attributes or composed_size_in(clauses[0].text)) and order < len(lesions):
            continue
        spans = tuple((clause.start, clause.end) for clause in clauses)
        read.append((number, spans, attributes, context))
    return findings(report, read)


def findings(report: str, lesions: Sequence[Told]) -> list[Finding]:
    """Join what was read of each lesion with its text and the endoscopist's opinion of it.

    Args:
        report: free text.
        lesions: number, spans of the sentences, attributes and context of each lesion.
    """
    text, said = readable(report), opinions(report)
    alone = len(lesions) == 1
    found = []
    for number, spans, attributes, context in lesions:
        opinion, sentence = said.get(number) or (said.get(0) if alone else None) or (None, "")
        told = lesion_text(report, text, spans)
        found.append(Finding(told, attributes, context, number, opinion, sentence, spans))
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
    for sentence in sentences(without_pathology(report)):
        if is_historical(sentence):
            continue
        for match in NOUN.finditer(sentence.text):
            if not negated(sentence.text, match.start(), match.end()):
                return True
        if sentence.section != "impression" and "paris" in told_once(sentence):
            return True
    return False


def strip_pathology(report: str) -> str:
    """Return the report without sections, sentences and clauses that state pathology."""
    return _without(report, stated_pathology(report))


def strip_impression(report: str) -> str:
    """Return the report without the Impression section and without opinions on histology."""
    return _without(
        report,
        [s for s in sentences(report) if s.section == "impression" or opinion_of(s) is not None],
    )


def _speaks_of_lesion(clause: Sentence) -> bool:
    """Keep what names the lesion or tells an attribute; drop "Good bowel preparation."."""
    if NOUN.search(clause.text):
        return True
    if _ELSE.search(clause.text):
        return False
    attributes, context = _read([clause], size_words=True)
    return bool(attributes) or "shape" in context


def _read(
    clauses: list[Sentence], size_words: bool
) -> tuple[dict[str, AttributeValue], dict[str, AttributeValue]]:
    attributes: dict[str, AttributeValue] = {}
    context: dict[str, AttributeValue] = {}
    _read_size(clauses, attributes, context, size_words)
    for clause in clauses:
        paris = paris_in(clause.text)
        if paris and "paris" not in attributes and not negated(clause.text, *paris[1:]):
            attributes["paris"] = _value(clause, *paris)
    _apply(RULES, clauses, attributes)
    texture, paris_type = attributes.get("surface_texture"), attributes.get("paris")
    if texture and paris_type and _within(texture.span, paris_type.span):
        del attributes["surface_texture"]  # "granular" of an LST is its type
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
    size_words: bool,
) -> None:
    for clause in clauses:
        if found := size_in(clause.text):
            mm, start, end = found
            attributes["size_band"] = _value(clause, size_band(mm), start, end)
            context["size_mm"] = _value(clause, f"{mm:g}", start, end)
            return
    for clause in clauses:
        words = size_word_in(clause.text) or (size_words and composed_size_in(clause.text))
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
                if rule.name in _OF_MUCOSA and _of_background(rule, clause.text, match):
                    continue
                if DENIAL_WITHIN.match(match.group()) or not negated(clause.text, *match.span()):
                    into.setdefault(rule.name, _value(clause, rule.value, *match.span()))
                elif rule.denied:
                    denied.setdefault(rule.name, _value(clause, rule.denied, *match.span()))
    for name, value in denied.items():
        into.setdefault(name, value)


def _of_background(rule: Rule, text: str, match: re.Match[str]) -> bool:
    """Say whether the words describe the mucosa around the lesion ("the normal mucosa is red")."""
    if rule.value == "isochromatic":
        return False
    before = text[max(0, match.start() - 80) : match.start()]
    return bool(BACKGROUND.search(before) or BACKGROUND.match(text[match.end() : match.end() + 60]))


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


def _within(inner: tuple[int, int], outer: tuple[int, int]) -> bool:
    return outer[0] <= inner[0] and inner[1] <= outer[1]


def _value(clause: Sentence, value: str, start: int, end: int) -> AttributeValue:
    return AttributeValue(value, (clause.start + start, clause.start + end))


def _without(report: str, unwanted: Sequence[Sentence | Stated]) -> str:
    kept, cut = [], 0
    for piece in unwanted:
        kept.append(report[cut : piece.start])
        cut = piece.end
    kept.append(report[cut:])
    text = "".join(kept)
    # A header whose body is gone says nothing.
    text = re.sub(
        r"(?im)^[ \t]*(?:impression|conclusions?|summary|opinion|assessment|endoscopic "
        r"(?:diagnosis|impression))[ \t]*[:\-]\s*$",
        "",
        text,
    )
    return re.sub(r"[ \t]{2,}", " ", re.sub(r"\n{2,}", "\n", text)).strip()
