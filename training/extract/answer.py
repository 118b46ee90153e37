"""Check a model's answer against the report it was given: nothing is believed, all is looked up.

A lesion counts when its sentence stands in the report and speaks of a lesion; a value counts when
its evidence stands in that sentence, letter by letter (white space aside). What fails is read by
the rules instead and says so: one lesion where only its evidence fails, the whole report where the
lesions themselves cannot be trusted.

Not checked: whether the evidence means the value. The labelled sets measure that.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from pydantic import ValidationError

from training.attributes import ATTRIBUTES, AttributeValue, extract
from training.extract.ledger import BY_LLM, BY_RULES, ReadLesion
from training.extract.prompt import Answer, AnsweredLesion
from training.opinions import NUMBERED, lesion_number

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
    lesions: list[ReadLesion] = []
    after = 0
    for lesion in answer.lesions:
        span = _sentence(lesion.sentence, text, after)
        after = span[1]
        read = _read(lesion, span, text)
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


def _sentence(sentence: str, text: str, after: int) -> tuple[int, int]:
    """Find a sentence, behind that of the lesion before where it stands there too."""
    span = _find(sentence, text, after, len(text)) or _find(sentence, text, 0, len(text))
    if span is None:
        raise AnswerRefused("sentence not in report")
    if not extract(text[slice(*span)]):
        raise AnswerRefused("no lesion in its sentence")
    return span


def _read(lesion: AnsweredLesion, span: tuple[int, int], text: str) -> ReadLesion:
    numbered = NUMBERED.search(text[slice(*span)])
    number = lesion_number(numbered) if numbered else 0  # its order, once all are known
    attributes, reason = {}, ""
    for name, (value, evidence) in lesion.mentions().items():
        found = _find(evidence, text, *span)
        if found is None:
            reason = reason or f"evidence not in report: {name}"
        elif len(evidence.split()) > MAX_EVIDENCE_WORDS:
            reason = reason or f"evidence longer than {MAX_EVIDENCE_WORDS} words: {name}"
        else:
            attributes[name] = AttributeValue(value, found)
    if not reason:
        return ReadLesion(number, (span,), attributes, BY_LLM)
    alone = extract(text[slice(*span)])
    if len(alone) != 1:
        raise AnswerRefused(reason)
    shift = span[0]
    attributes = {
        name: AttributeValue(v.value, (v.span[0] + shift, v.span[1] + shift))
        for name, v in alone[0].attributes.items()
    }
    return ReadLesion(number, (span,), attributes, BY_RULES, reason)


def _find(words: str, text: str, start: int, end: int) -> tuple[int, int] | None:
    """Find words as they stand, white space aside, not inside of longer words."""
    parts = words.split()
    if not parts or sum(map(len, parts)) > end - start:
        return None
    pattern = r"(?<!\w)" * parts[0][:1].isalnum() + r"\s+".join(map(re.escape, parts))
    match = re.compile(pattern + r"(?!\w)" * parts[-1][-1:].isalnum()).search(text, start, end)
    return match.span() if match else None


_PLACES = {"lesions", "sentence", "attributes", "value", "evidence", *ATTRIBUTES}
