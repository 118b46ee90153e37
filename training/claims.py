"""Class sentences: claims true of a whole record, in words.

They are written for training and share no sentence with the evaluation prompts of
``label_texts.py`` (tests/training/test_claims.py holds the two apart).
"""

from __future__ import annotations

import re

import numpy as np

__all__ = ["OPINIONS", "PRESENCE", "opinion_sentence", "presence_sentence", "without_number"]

PRESENCE: tuple[tuple[str, ...], tuple[str, ...]] = (
    (
        "This is a colon with polyps.",
        "A polyp was found on this examination.",
        "There is a polypoid lesion arising from the bowel wall.",
        "Colonic polyp present.",
        "The examination shows a colorectal polyp.",
        "A raised growth of the mucosa is seen, in keeping with a polyp.",
        "Polyp identified during withdrawal.",
        "Mucosal lesion noted, polyp.",
    ),
    (
        "This is a colon without polyps.",
        "No polyp was found on this examination.",
        "The bowel wall is normal with no polypoid lesion.",
        "Normal colonic mucosa throughout.",
        "The examination shows no colorectal polyp.",
        "Healthy folds and vessels, no growth of the mucosa.",
        "No lesion identified during withdrawal.",
        "Unremarkable mucosa, no polyp.",
    ),
)

OPINIONS: tuple[tuple[str, ...], tuple[str, ...]] = (
    (
        "The appearance is that of an adenoma.",
        "Neoplastic in appearance.",
        "The endoscopist judged this lesion to be adenomatous.",
        "The lesion looks neoplastic, an adenoma.",
        "Suspected neoplasia.",
        "Surface and colour favour a neoplastic lesion.",
        "Adenomatous looking lesion.",
    ),
    (
        "The appearance is that of a hyperplastic lesion.",
        "Non-neoplastic in appearance.",
        "The endoscopist judged this lesion to be hyperplastic.",
        "The lesion looks non-neoplastic, not an adenoma.",
        "No suspicion of neoplasia.",
        "Surface and colour favour a non-neoplastic lesion.",
        "Hyperplastic looking lesion.",
    ),
)


_NUMBER = re.compile(
    r"\b(lesion|polyp)\s*(?:no\.?\s*|number\s+)?#?\d+(?:\s*[:,])?(?=\s)", re.IGNORECASE
)


def without_number(text: str) -> str:
    """Cut a lesion's number: "Lesion 2 looks …" is a fact about a list, not about pixels."""
    return _NUMBER.sub(r"\1", text)


def presence_sentence(which: int, rng: np.random.Generator) -> str:
    """One of the presence sentences; 0 with polyps, 1 without."""
    return PRESENCE[which][rng.integers(len(PRESENCE[which]))]


def opinion_sentence(which: int, told: str, rng: np.random.Generator) -> str:
    """The report's own impression sentence or, as often, a standard wording of the same opinion."""
    if told and rng.random() < 0.5:
        return told
    return OPINIONS[which][rng.integers(len(OPINIONS[which]))]
