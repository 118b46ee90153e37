"""Read the endoscopist's opinion on histology ("appearance favours ..."), never pathology.

Also knows how reports number their lesions, which ties an opinion to its lesion, and takes opinions
out of a sentence that tells morphology as well.
"""

import re
from collections.abc import Sequence
from itertools import pairwise

from training.attribute_rules import LESION
from training.pathology_text import without_pathology
from training.pathology_words import CUE, HISTOLOGY, HISTOLOGY_NOUN, HOLLOW
from training.sentences import Sentence, is_historical, negated, sentences

__all__ = [
    "NUMBERED",
    "lesion_number",
    "lesion_text",
    "opinion_of",
    "opinions",
    "readable",
]

_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
NUMBERED = re.compile(
    rf"(?:^|\b(?:in|of|for|the)\s|[\s(])(?:{LESION}\s*(?:no\.?\s*|number\s+"
    rf"|#\s*)?(?P<digit>[1-9]\d?"
    rf"|{'|'.join(_COUNTS)})\b(?!\s*(?:mm|cm|x\b|-\s*[\dI]))"
    rf"|(?P<ordinal>{'|'.join(_ORDINALS)})\s+(?:[\w-]+\s+)"
    rf"{{0,4}}?{LESION})|^\(?(?P<list>\d{{1,2}})[.):]\s|^#(?P<hash>\d{{1,2}})\b"
    # "The second, at the splenic flexure, was red"
    rf"|^the (?P<alone>{'|'.join(_ORDINALS)})(?: one)?(?=[,:]| (?:is|was|measur\w+|at|in|lies"
    rf"|lay)\b)",
    re.IGNORECASE,
)
_NEOPLASTIC = re.compile(
    r"\b(?:adenoma(?:tous|s)?|neoplas(?:tic|ia|m)|dysplas(?:tic|ia)|pre-?malignant|malignan(?:t|cy)"
    r"|carcinoma|cancer(?:ous)?)\b",
    re.IGNORECASE,
)
_BENIGN = re.compile(
    r"\b(?:non[- ]?neoplas(?:tic|m)|non[- ]?adenomatous|hyperplas(?:tic|ia)|non[- ]?dysplastic"
    r"|inflammatory (?:type|polyp|looking|in appearance)|pseudopolyp|benign)\b",
    re.IGNORECASE,
)
_OPINION = re.compile(CUE, re.IGNORECASE)
_UNLIKELY = re.compile(
    r"\b(?:unlikely|against|not|no|without|lacks?|less (?:likely|suggestive)|nothing)\b[^,;.]*$",
    re.IGNORECASE,
)

_HEDGE = (
    r"(?:\b(?:no|not|without|any|an?|highly|very|most|more|less|strongly|rather"
    r"|endoscopic)\s+){0,4}"
)
# "likely adenoma", "no features to suggest malignancy", "adenomatous in appearance": cue and word.
_FILLER = (
    r"(?:(?<=consistent )with|(?<=compatible )with|(?<=keeping )with|for|to|be|of|an?|the|as|like"
    r"|in|its|early|low|high|grade|risk|possibly|mostly)"
)
_SAID = re.compile(
    rf"{_HEDGE}{CUE}(?:[ -]+(?:{CUE}|{_FILLER}\b)){{0,6}}[ -]+{HISTOLOGY}"
    rf"|{HISTOLOGY}(?:[ -]+(?:in|by|on|is|are|was|were))?[ -]+{CUE}",
    re.IGNORECASE,
)
_NAMED = re.compile(rf"\b{HISTOLOGY_NOUN}\b", re.IGNORECASE)
_LEFT = re.compile(HISTOLOGY, re.IGNORECASE)


def readable(report: str) -> str:
    """Blank what must reach neither training text nor a model that reads attributes.

    An opinion inside a sentence ("12 mm sessile polyp, likely adenoma, in the sigmoid") would tell
    a text that is used as morphology the very answer it is to predict. "A 12 mm adenoma" stays a
    "lesion".

    Returns:
        The report without pathology, Impression section and opinions, of the same length, so
        that offsets hold.
    """
    kept = without_pathology(report)
    hidden = [s for s in sentences(kept) if s.section == "impression"]
    text = _SAID.sub(lambda m: " " * len(m.group()), _blank(kept, hidden))
    # Every noun that is replaced is at least as long as "lesion".
    text = _NAMED.sub(lambda m: "lesion".ljust(len(m.group())), text)
    return _LEFT.sub(lambda m: " " * len(m.group()), text)


def lesion_text(report: str, text: str, spans: Sequence[tuple[int, int]]) -> str:
    """Join the morphology sentences of one lesion.

    Args:
        report: free text.
        text: ``readable(report)``.
        spans: offsets of the sentences.

    Returns:
        The sentences, without those that told an opinion only; "A lesion." where all did.
    """
    kept = []
    for start, end in spans:
        told = text[start:end]
        if told == report[start:end]:
            kept.append(told)
        elif not HOLLOW.fullmatch(told):
            kept.append(_tidy(told))
    return " ".join(kept) or "A lesion."


def lesion_number(match: re.Match[str]) -> int:
    """Return the number a match of ``NUMBERED`` stands for."""
    digit = match.group("digit") or match.group("list") or match.group("hash")
    if digit:
        return _COUNTS.get(digit.lower()) or int(digit)
    return _ORDINALS[(match.group("ordinal") or match.group("alone")).lower()]


def opinions(report: str) -> dict[int, tuple[str, str]]:
    """Return the opinion by lesion number.

    Returns:
        Number to (value, sentence); key 0 holds an opinion that names no lesion.
    """
    found: dict[int, tuple[str, str]] = {}
    for sentence in sentences(without_pathology(report)):
        if is_historical(sentence):
            continue
        for clause in _opinion_clauses(sentence):
            value = opinion_of(clause)
            if value is None:
                continue
            numbered = NUMBERED.search(clause.text)
            number = lesion_number(numbered) if numbered else 0
            if found.get(number, ("",))[0] != "neoplastic":
                found[number] = (value, clause.text)
    return found


def _opinion_clauses(sentence: Sentence) -> list[Sentence]:
    """Cut "Lesion 1 looks hyperplastic; lesion 2 looks adenomatous" between its lesions."""
    starts = [
        m.start()
        for m in re.finditer(
            rf"\b{LESION}\s+(?:\d|{'|'.join(_COUNTS)})\b", sentence.text, re.IGNORECASE
        )
    ]
    edges = [0, *starts[1:], len(sentence.text)]
    return [
        Sentence(sentence.text[a:b].rstrip(" ,;"), sentence.start + a, sentence.section)
        for a, b in pairwise(edges)
    ]


def opinion_of(sentence: Sentence) -> str | None:
    """Return neoplastic or non-neoplastic as judged in one sentence, or None."""
    text = sentence.text
    if sentence.section != "impression" and not _OPINION.search(text):
        return None
    benign = _BENIGN.search(text)
    rest = (
        text
        if benign is None
        else text[: benign.start()] + " " * len(benign.group()) + text[benign.end() :]
    )
    neoplastic = _NEOPLASTIC.search(rest)
    if benign and not _UNLIKELY.search(text[: benign.start()]):
        return "non-neoplastic"
    if neoplastic is None:
        return None
    denied = _UNLIKELY.search(rest[: neoplastic.start()]) or negated(rest, *neoplastic.span())
    return "non-neoplastic" if denied else "neoplastic"


def _blank(report: str, unwanted: Sequence[Sentence]) -> str:
    kept, cut = [], 0
    for sentence in unwanted:
        kept += [report[cut : sentence.start], " " * len(sentence.text)]
        cut = sentence.end
    return "".join([*kept, report[cut:]])


def _tidy(text: str) -> str:
    """Take out the punctuation and white space that opinions leave behind."""
    text = re.sub(r"\(\W*\)", "", text)
    text = re.sub(r"\s+(?=[,.;)])", "", text)
    text = re.sub(r"[,;]+(?=[,.;])", "", text)
    return re.sub(r"\s+", " ", text).strip(" ,;")
