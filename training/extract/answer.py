"""Check a model's answer against the report it was given: nothing is believed, all is looked up.

A lesion counts when its sentences are the report's and speak of a lesion; a value counts when its
evidence stands in one of them, letter by letter (white space aside). What fails is read by the
rules instead and says so: one lesion where only evidence fails, the whole report where the lesions
themselves cannot be trusted. One value whose evidence the report does not have costs the whole
lesion: a small model that made such values up left out four of five that were there, and reading by
the rules what it made up alone took F1 from 0.97 to 0.72 (SmolLM2-135M, 64 sentences).

Not checked: whether the evidence means the value. The labelled sets measure that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError

from training.attributes import ATTRIBUTES, AttributeValue, extract
from training.extract.ledger import BY_LLM, BY_RULES, ReadLesion, Span
from training.extract.prompt import Answer, AnsweredLesion
from training.opinions import NUMBERED, lesion_number
from training.sentences import Sentence, sentences

__all__ = ["AnswerRefused", "checked", "rules_lesions"]

MAX_EVIDENCE_WORDS = 12
"""A whole sentence as evidence points at nothing, and would overlap every label."""


class AnswerRefused(Exception):
    """A report's whole answer cannot be used; the message is the reason that the ledger holds."""


def rules_lesions(report: str, reason: str = "") -> tuple[ReadLesion, ...]:
    """Read a report by the rules."""
    return tuple(
        ReadLesion(finding.number, finding.spans, finding.attributes, BY_RULES, reason)
        for finding in extract(report)
    )


def checked(content: str, report: str, text: str) -> tuple[ReadLesion, ...]:
    """Turn an answer into lesions with offsets.

    Args:
        content: The answer as the model wrote it.
        report: The report.
        text: What the model was shown of it, of the same length.

    Raises:
        AnswerRefused: It is not JSON of the schema, or names lesions that the report does not.
    """
    answer = _parsed(content)
    if not answer.lesions and extract(report):
        raise AnswerRefused("no lesion where the report names one")
    told = sentences(text)
    lesions: list[ReadLesion] = []
    for lesion in answer.lesions:
        read = _read(lesion, _spans(lesion.sentences, told), text)
        if any(read.spans == r.spans and read.attributes == r.attributes for r in lesions):
            raise AnswerRefused("the same lesion twice")
        lesions.append(read)
    lesions.sort(key=lambda lesion: lesion.spans)
    return tuple(
        lesion if lesion.number else replace(lesion, number=order)
        for order, lesion in enumerate(lesions, start=1)
    )


def _parsed(content: str) -> Answer:
    # Without a grammar models put JSON in a fence or a sentence.
    start, end = content.find("{"), content.rfind("}")
    if start < 0 or end < start:
        raise AnswerRefused("not JSON")
    try:
        answer = json.loads(content[start : end + 1])
    except (ValueError, RecursionError) as error:
        raise AnswerRefused("not JSON") from error
    try:
        return Answer.model_validate(answer)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        # Keys that a model made up may hold report text; those of the schema do not.
        place = ".".join(p for p in first["loc"] if isinstance(p, str) and p in _PLACES)
        raise AnswerRefused(f"not of the schema: {place or 'answer'}: {first['type']}") from error


def _spans(numbers: Sequence[int], told: Sequence[Sentence]) -> tuple[Span, ...]:
    """Where numbered sentences stand, in the order of the report; neighbours make one span.

    Lines are sentences too, so that evidence may run over the end of one.
    """
    if any(not 1 <= number <= len(told) for number in numbers):
        raise AnswerRefused("a sentence that the report does not have")
    spans: list[Span] = []
    before = 0
    for number in sorted(set(numbers)):
        start, end = told[number - 1].start, told[number - 1].end
        if before and number == before + 1:
            start = spans.pop()[0]
        spans.append((start, end))
        before = number
    return tuple(spans)


def _read(lesion: AnsweredLesion, spans: tuple[Span, ...], text: str) -> ReadLesion:
    alone = extract(_only(text, spans))
    if not alone:
        raise AnswerRefused("no lesion in its sentences")
    numbered = NUMBERED.search(text[slice(*spans[0])])
    number = lesion_number(numbered) if numbered else 0  # its order, once all are known
    attributes: dict[str, AttributeValue] = {}
    reason = ""
    for name, (value, evidence) in lesion.mentions().items():
        found = next((f for s in spans if (f := _find(evidence, text, *s)) is not None), None)
        if found is None:
            reason = reason or f"evidence not in report: {name}"
        elif len(evidence.split()) > MAX_EVIDENCE_WORDS:
            reason = reason or f"evidence longer than {MAX_EVIDENCE_WORDS} words: {name}"
        else:
            attributes[name] = AttributeValue(value, found)
    if not reason:
        return ReadLesion(number, spans, attributes, BY_LLM)
    if len(alone) != 1:
        raise AnswerRefused(reason)  # the rules cannot say which of them is meant
    return ReadLesion(number, spans, alone[0].attributes, BY_RULES, reason)


def _only(text: str, spans: Sequence[Span]) -> str:
    """The text with everything but some sentences blanked; offsets hold."""
    kept = ["\n" if char == "\n" else " " for char in text]
    for start, end in spans:
        kept[start:end] = text[start:end]
    return "".join(kept)


def _find(words: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Find words as they stand, white space aside, not inside of longer words."""
    parts = words.split()
    if not parts or sum(map(len, parts)) > end - start:
        return None
    pattern = r"(?<!\w)" * parts[0][:1].isalnum() + r"\s+".join(map(re.escape, parts))
    match = re.compile(pattern + r"(?!\w)" * parts[-1][-1:].isalnum()).search(text, start, end)
    return match.span() if match else None


_PLACES = {"lesions", "sentences", "attributes", "value", "evidence", *ATTRIBUTES}
