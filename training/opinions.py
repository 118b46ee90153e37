"""Read the endoscopist's opinion on histology ("appearance favours ..."), never pathology.

Also knows how reports number their lesions, which ties an opinion to its lesion.
"""

import re
from itertools import pairwise

from training.attribute_rules import LESION
from training.sentences import Sentence, is_historical, is_pathology, negated, sentences

__all__ = ["NUMBERED", "lesion_number", "opinion_of", "opinions"]

_ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5, "sixth": 6}
_COUNTS = {"one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
NUMBERED = re.compile(
    rf"(?:^|\b(?:in|of|for|the)\s|[\s(])(?:{LESION}\s*(?:no\.?\s*|number\s+"
    rf"|#\s*)?(?P<digit>\d{{1,2}}"
    rf"|{'|'.join(_COUNTS)})\b(?!\s*(?:mm|cm|x\b|-\s*\d))"
    rf"|(?P<ordinal>{'|'.join(_ORDINALS)})\s+(?:[\w-]+\s+)"
    rf"{{0,4}}?{LESION})|^(?P<list>\d{{1,2}})[.):]\s|^#(?P<hash>\d{{1,2}})\b",
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
_OPINION = re.compile(
    r"\b(?:favou?rs?|favou?red|favou?ring|appear\w*|look\w*|suggest\w*|consistent|compatible"
    r"|in keeping|(?:un)?likely|evidence"
    r"|probabl[ey]|suspicious|suspected|impression|endoscopic\w*|optical diagnosis|features?"
    r"|judged|thought"
    r"|predict\w*|typical|character(?:istic)?s?|points? to|assess\w*|regarded|considered"
    r"|read as)\b",
    re.IGNORECASE,
)
_UNLIKELY = re.compile(
    r"\b(?:unlikely|against|not|no|without|lacks?|less (?:likely|suggestive)|nothing)\b[^,;.]*$",
    re.IGNORECASE,
)


def lesion_number(match: re.Match[str]) -> int:
    """Return the number a match of ``NUMBERED`` stands for."""
    digit = match.group("digit") or match.group("list") or match.group("hash")
    if digit:
        return _COUNTS.get(digit.lower()) or int(digit)
    return _ORDINALS[match.group("ordinal").lower()]


def opinions(report: str) -> dict[int, tuple[str, str]]:
    """Return the opinion by lesion number.

    Returns:
        Number to (value, sentence); key 0 holds an opinion that names no lesion.
    """
    found: dict[int, tuple[str, str]] = {}
    for sentence in sentences(report):
        if is_pathology(sentence) or is_historical(sentence):
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
