"""Write clinical English from measured facts: reports whose every statement is known.

Each attribute is worded from its value or left out, at one rate for every source; the
templates are drawn independently of the source. No side (left, right) is ever named, since
training flips frames. What is written here, ``training.attributes.extract`` can read.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.report_words import (
    ADJECTIVES,
    CLAUSES,
    DISTRACTORS,
    ENDINGS,
    EXTENTS,
    INDICATIONS,
    NEGATIVE_FINDINGS,
    NEGATIVE_IMPRESSIONS,
    OPENINGS,
    OPINIONS,
    PLAIN_IMPRESSIONS,
    PREPARATIONS,
    UNCERTAIN,
)

__all__ = ["DROP_RATE", "LesionFacts", "Report", "write_report"]

DROP_RATE = 0.2
"""Chance that a measured field is left out; the same for every field and source."""
OPINION_RATE = 0.9
"""Chance that the endoscopist says what the lesion looks like, where histology is known."""


@dataclass(frozen=True)
class LesionFacts:
    """What is known of one lesion.

    Attributes:
        values: measured attributes: size_band, colour, surface_texture, margin (vocabulary of
            ``ATTRIBUTES``) and shape (of ``SHAPES``).
        histology: neoplastic, non-neoplastic, or None when unknown or mixed.
    """

    values: Mapping[str, str]
    histology: str | None = None


@dataclass(frozen=True)
class Report:
    """A written report and where its statements come from.

    Attributes:
        text: the report.
        sentences: morphology sentences by lesion, in order.
        opinions: impression sentence by lesion, or None.
        told: attributes that were worded, by lesion.
    """

    text: str
    sentences: tuple[str, ...]
    opinions: tuple[str | None, ...]
    told: tuple[Mapping[str, str], ...]


def write_report(
    lesions: Sequence[LesionFacts], rng: np.random.Generator, drop: float = DROP_RATE
) -> Report:
    """Write the report of one exam.

    Args:
        lesions: facts in the order in which they are numbered; empty for a normal exam.
        rng: source of wording and omissions.
        drop: chance of leaving out each field.
    """
    noun = str(rng.choice(("Lesion", "Polyp")))
    numbered = len(lesions) > 1 or bool(rng.random() < 0.5)
    sentences, told, opinions = [], [], []
    for number, facts in enumerate(lesions, start=1):
        kept = {k: v for k, v in facts.values.items() if rng.random() >= drop}
        name = f"{noun} {number}" if numbered else ""
        sentences.append(_describe(kept, name, noun.lower(), rng))
        told.append(kept)
        opinions.append(_opinion(facts.histology, name or f"The {noun.lower()}", rng))
    findings = _findings(sentences, rng)
    impression = _impression(opinions, len(lesions), rng)
    text = _sections(findings, impression, rng)
    return Report(text, tuple(sentences), tuple(opinions), tuple(told))


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _describe(kept: Mapping[str, str], name: str, noun: str, rng: np.random.Generator) -> str:
    """Word one lesion in one to three sentences; the order of fields is drawn."""
    adjectives = [
        _pick(ADJECTIVES[key][kept[key]], rng) for key in ("size_band", "shape") if key in kept
    ]
    clauses = [
        _pick(CLAUSES[key][kept[key]], rng)
        for key in ("colour", "surface_texture", "margin")
        if key in kept
    ]
    rng.shuffle(clauses)
    body = " ".join([*adjectives, _pick(("polyp", "lesion", noun), rng)])
    article = "an" if body[0] in "aeiou" else "a"
    if name:
        opening = _pick(
            (
                f"{name}: {article} {body}",
                f"{name} is {article} {body}",
                f"{name} was {article} {body}",
            ),
            rng,
        )
    else:
        opening = _pick(OPENINGS, rng).format(body=f"{article} {body}")
    opening = opening[0].upper() + opening[1:]
    if not clauses:
        return opening + "."
    if rng.random() < 0.5:
        return f"{opening} with {_listed(clauses)}."
    joined = [f"{opening}."]
    subject = _pick(("It has", "There is", "One sees", "Close up there is"), rng)
    joined.append(f"{subject} {_listed(clauses)}.")
    return " ".join(joined)


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _opinion(histology: str | None, name: str, rng: np.random.Generator) -> str | None:
    if rng.random() >= OPINION_RATE:
        return None
    # Where nothing is known the endoscopist says that, so that an opinion's absence does not
    # point to the source more than its content must.
    sentence = _pick(OPINIONS[histology] if histology else UNCERTAIN, rng).format(name=name)
    return sentence[0].upper() + sentence[1:]


def _findings(sentences: list[str], rng: np.random.Generator) -> str:
    parts = [_pick(EXTENTS, rng)] if rng.random() < 0.6 else []
    if rng.random() < 0.5:
        parts.append(_pick(PREPARATIONS, rng))
    if sentences:
        parts.extend(sentences)
        if rng.random() < 0.5:
            parts.append(_pick(ENDINGS, rng))
    else:
        parts.append(_pick(NEGATIVE_FINDINGS, rng))
    return " ".join(parts)


def _impression(opinions: list[str | None], count: int, rng: np.random.Generator) -> str:
    said = [opinion for opinion in opinions if opinion]
    if count == 0:
        return _pick(NEGATIVE_IMPRESSIONS, rng)
    lead = [_pick(PLAIN_IMPRESSIONS["one" if count == 1 else "many"], rng)]
    return " ".join((lead if rng.random() < 0.6 or not said else []) + said)


def _sections(findings: str, impression: str, rng: np.random.Generator) -> str:
    parts = []
    if rng.random() < 0.6:
        parts.append(f"{_pick(('Indication', 'Clinical details'), rng)}: {_pick(INDICATIONS, rng)}")
    parts.append(f"{_pick(('Findings', 'Description', 'Report'), rng)}: {findings}")
    parts.append(f"{_pick(('Impression', 'Conclusion', 'Summary'), rng)}: {impression}")
    if rng.random() < 0.3:
        header, body = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        parts.append(f"{header}: {body}")
    return "\n".join(parts)
