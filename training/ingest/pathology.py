"""Pathology split off a report, and what it says: the evaluation label, never training text."""

from __future__ import annotations

import re

from training.attributes import strip_pathology
from training.pathology_text import stated_pathology
from training.sentences import is_historical, negated, sentences

__all__ = ["is_neoplastic", "split_pathology"]

_NEOPLASTIC = re.compile(
    r"\b(?:\w*adenomas?|adenomatous|\w*adenocarcinomas?|\w*carcinomas?|dysplas(?:ia|tic)"
    r"|malignan(?:t|cy)|neoplas(?:tic|ia|m)|cancer|(?-i:TA|TVA|VA|TSA|[LH]GD|[LH]GIN)s?)\b",
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
    r"|pseudo-?polyps?|lipomas?|leiomyomas?|non[- ]?neoplastic|(?-i:HPs?)(?= polyps?|\W*$"
    r"|[,;.]))\b",
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
# "? dysplasia" is one question, not the end of a sentence and a diagnosis.
_QUERY = re.compile(r"\?\s+(?=[a-z])")
# "Dysplasia?"
_ASKED = re.compile(r"(?: (?:present|seen|here))?\s?\?", re.IGNORECASE)
# Characters before a word in which doubt about it is looked for.
_REACH = 200
_MUCOSA = re.compile(r"\bmucosa\b", re.IGNORECASE)


def split_pathology(report: str) -> tuple[str, str]:
    """Split what a microscope showed off a report.

    Args:
        report: Free text.

    Returns:
        The report without what states pathology, and these pieces, one a line.
    """
    told = [piece.text for piece in stated_pathology(report) if piece.text]
    return strip_pathology(report), "\n".join(told)


def is_neoplastic(pathology: str) -> bool | None:
    """Read the pathologist's verdict on an examination, by rules.

    True: an adenoma (tubular, villous, traditional serrated), dysplasia of any grade or a
    carcinoma is stated and not denied; whatever else was found does not change that, since the
    question is whether the examination found any. A sessile serrated lesion counts with dysplasia
    only.

    False: only hyperplastic, inflammatory, other benign lesions, normal mucosa, or mucosa of which
    dysplasia is denied.

    None: nothing is stated, it is asked or stated with doubt ("? dysplasia", "indefinite for",
    "cannot exclude"), or a sessile serrated lesion without dysplasia and nothing neoplastic beside
    it. The last is a precursor that endoscopic classifications place on either side, and its older
    name "sessile serrated adenoma" says nothing of dysplasia; we choose to let it evaluate nothing.
    A bare "negative for dysplasia" is None as well: it names no lesion, and is written of
    hyperplastic polyps, of sessile serrated lesions, and of adenomas where high grade is meant.
    Beside the lesion's name it adds nothing: a hyperplastic polyp is non-neoplastic, an adenoma
    neoplastic, negative for dysplasia or not.

    Args:
        pathology: Text of the pathology report, de-identified or not.
    """
    found: set[str] = set()
    for sentence in sentences(_QUERY.sub("?", pathology)):
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
        start = max(0, match.start() - _REACH)
        if negated(rest, *match.span()):
            found |= {"normal"} if _MUCOSA.search(rest, start, match.start()) else set()
        else:
            before = rest[start : match.start() + 1]  # with a letter for "?d…"
            asked = _UNSURE.search(before) or _ASKED.match(rest, match.end())
            found.add("unsure" if asked else "neoplastic")
    if _NORMAL.search(rest):
        found.add("normal")
    return found
