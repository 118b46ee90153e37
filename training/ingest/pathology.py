"""Pathology split off a report, and what it says: the evaluation label, never training text."""

from __future__ import annotations

import re

from training.attributes import strip_pathology
from training.sentences import is_historical, is_pathology, negated, sentences

__all__ = ["is_neoplastic", "split_pathology"]

_NEOPLASTIC = re.compile(
    r"\b(?:\w*adenomas?|adenomatous|\w*adenocarcinomas?|\w*carcinomas?|dysplas(?:ia|tic)"
    r"|malignan(?:t|cy)|neoplas(?:tic|ia|m)|cancer)\b",
    re.IGNORECASE,
)
_SERRATED = re.compile(
    r"\b(?:sessile serrated (?:lesions?|polyps?|adenomas?)(?:\s?/\s?(?:polyps?|lesions?))?"
    r"|SS(?:L|P|A)s?(?:/P)?|serrated (?:lesions?|polyps?)|sessile serrated)\b",
    re.IGNORECASE,
)
_BENIGN_LESION = re.compile(
    r"\b(?:(?:hyperplastic|inflammatory|juvenile|hamartomatous|lymphoid) (?:\w+ )?(?:polyps?"
    r"|aggregates?|follicles?|nodules?|hyperplasia)|hyperplastic|metaplastic polyps?"
    r"|pseudo-?polyps?|lipomas?|leiomyomas?|non[- ]?neoplastic)\b",
    re.IGNORECASE,
)
_NORMAL = re.compile(
    r"\b(?:normal|unremarkable|within normal limits|inflammation|inflamed|inflammatory|colitis"
    r"|proctitis|ileitis|granulation tissue|no (?:significant )?abnormalit\w+)\b",
    re.IGNORECASE,
)
_UNSURE = re.compile(
    r"\b(?:indefinite|suspicious|suspicion|suggest\w*|possib\w*|probabl\w*|cannot (?:be )?exclu\w+"
    r"|not excluded|favou?rs?|query|equivocal|await\w*|insufficient|inadequate|uncertain|\?)"
    r"|\?\s?\w",
    re.IGNORECASE,
)
_REQUEST = re.compile(r"\bscreening\b|^\W*\?", re.IGNORECASE)


def split_pathology(report: str) -> tuple[str, str]:
    """Split what a microscope showed off a report.

    Args:
        report: Free text.

    Returns:
        The report without sections and sentences of pathology, and these sentences, one a line.
    """
    told = [sentence.text for sentence in sentences(report) if is_pathology(sentence)]
    return strip_pathology(report), "\n".join(told)


def is_neoplastic(pathology: str) -> bool | None:
    """Read the pathologist's verdict on an examination, by rules.

    True: an adenoma (tubular, villous, traditional serrated), dysplasia of any grade or a
    carcinoma is stated and not denied; whatever else was found does not change that, since the
    question is whether the examination found any. A sessile serrated lesion counts with dysplasia
    only.

    False: only hyperplastic, inflammatory, other benign lesions, or normal mucosa.

    None: nothing is stated, it is stated with doubt ("indefinite for", "cannot exclude"), or a
    sessile serrated lesion without dysplasia and nothing neoplastic beside it. The last is a
    precursor that endoscopic classifications place on either side, and its older name "sessile
    serrated adenoma" says nothing of dysplasia; we choose to let it evaluate nothing.

    Args:
        pathology: Text of the pathology report, de-identified or not.
    """
    found: set[str] = set()
    for sentence in sentences(pathology):
        # The request repeats why the examination was done: "adenoma surveillance".
        if not (is_historical(sentence) or _REQUEST.search(sentence.text)):
            found |= _verdicts(sentence.text)
    if "neoplastic" in found:
        return True
    if found & {"serrated", "unsure"}:
        return None
    return False if found & {"benign", "normal"} else None


def _verdicts(text: str) -> set[str]:
    found = set()
    rest = text
    for match in _SERRATED.finditer(text):
        if not negated(text, *match.span()):
            found.add("serrated")
        rest = rest[: match.start()] + " " * len(match.group()) + rest[match.end() :]
    for match in _BENIGN_LESION.finditer(rest):
        if not negated(text, *match.span()):
            found.add("benign")
    # "non-neoplastic" holds "neoplastic"
    rest = _BENIGN_LESION.sub(lambda m: " " * len(m.group()), rest)
    for match in _NEOPLASTIC.finditer(rest):
        if not negated(rest, *match.span()):
            found.add("unsure" if _UNSURE.search(rest[: match.start()]) else "neoplastic")
    if _NORMAL.search(rest):
        found.add("normal")
    return found
