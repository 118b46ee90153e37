"""Which language a report is in."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

__all__ = ["language_of"]

# Of py3langid's languages those that hospitals write; Latin and Afrikaans would claim terse English
# findings ("3mm sessile polyp rectosigmoid").
_WRITTEN = (
    *("ar", "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "he", "hi", "hr", "hu"),
    *("id", "it", "ja", "ko", "lt", "lv", "nb", "nl", "nn", "pl", "pt", "ro", "ru", "sk", "sl"),
    *("sr", "sv", "th", "tr", "uk", "vi", "zh"),
)
_FEWEST_LETTERS = 40
# Lead over English, in nats per square root of the bytes. English findings of the development data
# reach 0.3 (one line), one sentence in de, es, fr, it, nl, pt, zh has at least 6.5.
_LEAD = 2.0


def language_of(text: str) -> str:
    """Name the language of a text.

    Args:
        text: Report.

    Returns:
        ISO 639-1 code; ``en`` as well for what is too short to tell, or barely differs from it.
    """
    if sum(char.isalpha() for char in text) < _FEWEST_LETTERS and text.isascii():
        return "en"
    ranked = dict(_identifier().rank(text))
    best = max(ranked, key=lambda code: ranked[code])
    lead = (ranked[best] - ranked["en"]) / math.sqrt(len(text.encode("utf-8")) or 1)
    return best if lead > _LEAD else "en"


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE)
    identifier.set_languages([c for c in _WRITTEN if c in identifier.labels])
    return identifier
