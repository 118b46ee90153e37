"""Find what a report states of pathology: sections, sentences, and clauses inside a sentence.

Pathology is the label of the evaluation; text that training reads must hold none. What an
endoscopist thinks of a lesion ("looks like an adenoma") is no pathology, and a lesion in whose
sentence a result stands ("8 mm polyp, snared (histology: tubular adenoma)") stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from training.attribute_rules import LESION
from training.pathology_words import (
    AFTERWARDS,
    CUE,
    DIAGNOSIS,
    DISEASE,
    EXAMINES,
    EXCISED,
    HOLLOW,
    LABORATORY,
    LATER,
    LEADS,
    MICROSCOPIC,
    OPTICAL,
    PROVEN,
    SEEN,
    TELLS,
    TISSUE,
    TISSUE_TELLS,
    TURNED_OUT,
)
from training.sentences import sections, sentences

__all__ = ["Stated", "stated_pathology", "without_pathology"]

_SIZE = re.compile(r"\d\s?(?:mm|cm)\b", re.IGNORECASE)
_NOUN = re.compile(rf"\b{LESION}\b", re.IGNORECASE)
_NAMES_LESION = re.compile(rf"{_NOUN.pattern}|{_SIZE.pattern}", re.IGNORECASE)
_DIAGNOSIS = re.compile(DIAGNOSIS, re.IGNORECASE)
_CUE = re.compile(CUE, re.IGNORECASE)
_GUESS = re.compile(
    rf"{CUE}|\b(?:(?-i:may|might|could)|decide|between|versus|vs|possib\w*|query|exclude|rule out"
    r"|concern\w*|suspicion|whether)\b|\?",
    re.IGNORECASE,
)
_TISSUE = re.compile(rf"\b{TISSUE}\b", re.IGNORECASE)
_BRACKETS = re.compile(r"\s*(?:\([^()]*\)|\[[^\[\]]*\])")
_PART = re.compile(r"[^;|]+")
_SPECIMEN = re.compile(r"\W*(?:[A-H]|\d)\d?[.:)]")
_CLAUSE = re.compile(r"[,:(\[]|\s[-–—]\s")
# Words that introduce the result and stay behind where it is cut off.
_DANGLING = re.compile(
    r"(?:[\s,:;(–—-]|\b(?:which|that|whose|and|but|with|on|was|were|is|are|has|have|been|the|its|it"
    r"|by|at|later|subsequently|finally|eventually|now|late|final|addendum|result|results|mdt"
    r"|outcome|diagnosis|dx)\b)+$",
    re.IGNORECASE,
)
_SHORT = re.compile(r"(?:hist|path|micro)$", re.IGNORECASE)
_TAKEN = re.compile(r"[^.,;]{0,40}\b(?:removed|resected|lifted|snared|retrieved)\b", re.I)
_BACK = re.compile(r"(?:came|come) back|reported|\w+graded|re-?classified", re.IGNORECASE)
# Headers of a laboratory's report, where one stands before them.
_CONCLUDES = re.compile(
    r"\W*(?:conclusion|summary|assessment|opinion|report|description|observation|finding)", re.I
)


@dataclass(frozen=True)
class Stated:
    """A piece of a report that states pathology.

    Attributes:
        start: Offset of its first character; a section's header belongs to it.
        end: Offset after its last one.
        text: What it says, without header.
    """

    start: int
    end: int
    text: str


def stated_pathology(report: str) -> list[Stated]:
    """Find every piece that states pathology, in order, none overlapping.

    Args:
        report: Free text.
    """
    found, concluding = [], []
    before = ""
    for name, start, body, end in sections(report):
        if name == "pathology":
            stop = body + len(report[body:end].rstrip())
            found.append(Stated(start, stop, report[body:stop].strip()))
        elif before == "pathology" and _CONCLUDES.match(report, start, body):
            concluding.append((body, end))
        before = name
    last, follows = "", False
    for sentence in sentences(report):
        follows = follows and sentence.section == last
        last = sentence.section
        if last == "pathology":
            continue
        # "Conclusion: adenoma." below a laboratory's text is the laboratory's.
        goes_on = follows or any(a <= sentence.start < b for a, b in concluding)
        spans = _pieces(sentence.text)
        if not spans and goes_on and _goes_on(sentence.text):
            spans = [(0, len(sentence.text))]
        follows = bool(spans)
        for a, b in spans:
            text = sentence.text[a:b].strip(" \t,;:|()[]")
            found.append(Stated(sentence.start + a, sentence.start + b, text))
    return sorted(found, key=lambda piece: piece.start)


def without_pathology(report: str) -> str:
    """Blank what states pathology; the length stays, so that offsets hold.

    Line ends stay as well, and a full stop inside a line: a header is known by what is before it.
    """
    kept, cut = [], 0
    for piece in stated_pathology(report):
        told = report[piece.start : piece.end]
        inline = told[-1:] in tuple(".!?;") and report[piece.end : piece.end + 1] not in ("", "\n")
        last = told[-1] if inline else ""
        blank = re.sub(r"\S", " ", told[: len(told) - len(last)])
        kept += [report[cut : piece.start], blank, last]
        cut = piece.end
    return "".join([*kept, report[cut:]])


def _pieces(text: str) -> list[tuple[int, int]]:
    """Spans of a sentence that state pathology: all of it, or what can go without the lesion."""
    brackets = _BRACKETS.finditer(text)
    spans = [m.span() for m in brackets if _states(m.group().strip(" ()[]")) is not None]
    told = False
    for part in _PART.finditer(_blanked(text, spans)):
        start, end = part.span()
        match = _states(part.group())
        if match is not None:
            spans.append((start + _cut(part.group(), match), end))
        elif told and (_goes_on(part.group()) or not _NAMES_LESION.search(part.group())):
            spans.append((start, end))
        told = told or match is not None
    if not spans:
        return []
    rest, said = _blanked(text, spans), " ".join(text[a:b] for a, b in spans)
    named = _named(rest)
    of_specimen = named and not _SIZE.search(rest) and _SPECIMEN.match(text)
    # "8 mm adenoma, confirmed on histology": what is confirmed is the result.
    if of_specimen or not _describes(rest) or (named and not _named(said)):
        return [(0, len(text))]
    return _joined(text, spans)


def _joined(text: str, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans without overlap, with the marks before them, without the sentence's full stop."""
    stop = len(text.rstrip(" .!?"))
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        start, end = len(text[:start].rstrip(" ,;|")), min(end, stop)
        if joined and start <= joined[-1][1]:
            start, end = joined[-1][0], max(end, joined.pop()[1])
        joined.append((start, end))
    return joined


def _states(text: str) -> int | None:
    """Offset of the first words that state pathology, None where there are none."""
    starts = [m.start() for m in LABORATORY.finditer(text) if _has_told(text, m)]
    starts += [m.start() for p in (TISSUE_TELLS, MICROSCOPIC) for m in p.finditer(text)]
    starts += [m.start() for m in PROVEN.finditer(text) if not _suspected(text, m)]
    starts += [m.start() for m in EXCISED.finditer(text) if not _sized_before(text, m)]
    for pattern, own in ((TURNED_OUT, _of_examination), (LEADS, _of_removal)):
        for match in pattern.finditer(text):
            if not own(text, match) and not _opined(text, match):
                starts.append(match.start())
    return min(starts, default=None)


def _sized_before(text: str, match: re.Match[str]) -> bool:
    marks = [mark.end() for mark in _CLAUSE.finditer(text, 0, match.start())]
    return bool(_SIZE.search(text, max(marks, default=0), match.start()))


def _of_examination(text: str, match: re.Match[str]) -> bool:
    """Say whether a verb tells of the scope, or of what was seen ("confirmed, 5 mm adenoma")."""
    verb, between = text[match.start() : match.start("between")].lower(), match["between"]
    if EXAMINES.search(text, max(0, match.start() - 60), match.start()):
        return True
    if verb.startswith(("confirm", "returned")) and "," in between:
        return True
    return bool(SEEN.search(between) and not _BACK.match(verb))


def _of_removal(text: str, match: re.Match[str]) -> bool:
    sized = _SIZE.search(text, match.start(), match.end() + 40)
    return bool(sized or _TAKEN.match(text, match.end()))


def _has_told(text: str, match: re.Match[str]) -> bool:
    # "Path: straight to caecum", "Hist: bleeding"
    if _SHORT.match(match.group()) and not TELLS.search(text, match.end()):
        return False
    disease = match.group().lower() == "pathology" and DISEASE.search(text[: match.start()])
    return not disease and not LATER.match(text, match.end())


def _suspected(text: str, match: re.Match[str]) -> bool:
    """Say whether a grade or stage is the endoscopist's own guess ("suspicious for HGD")."""
    start = max(text.rfind(mark, 0, match.start()) for mark in ",;") + 1
    around = text[start : match.end() + 30]
    return bool(_GUESS.search(around) and not _TISSUE.search(around))


def _opined(text: str, match: re.Match[str]) -> bool:
    """Say whether the endoscopist tells what a lesion proved to be, by looking."""
    start = max(text.rfind(mark, 0, match.start()) for mark in ",;") + 1
    if OPTICAL.search(text, start, match.start()):
        return True
    told = text[match.start("between") : match.end() + 30]
    return bool(_CUE.search(told) or OPTICAL.search(told))


def _goes_on(text: str) -> bool:
    """Say whether words after a result go on about it ("No dysplasia. Margins clear.")."""
    return bool(AFTERWARDS.search(text) and not _SIZE.search(text) and not _CUE.search(text))


def _named(text: str) -> bool:
    return bool(_DIAGNOSIS.search(text) and not _CUE.search(text))


def _describes(text: str) -> bool:
    """Say whether more than a lesion's name or size is told of it."""
    named = _NOUN.search(text) and not HOLLOW.fullmatch(text)
    return bool(named or (_SIZE.search(text) and not HOLLOW.fullmatch(_SIZE.sub("", text))))


def _cut(part: str, match: int) -> int:
    """Where the result begins that is told at ``match``; 0 where no lesion is described before."""
    for mark in reversed(list(_CLAUSE.finditer(part, 0, match))):
        head, between = part[: mark.start()], part[mark.start() : match]
        if _NAMES_LESION.search(between):
            break
        # "Sigmoid polyp: tubular adenoma" is a specimen's label.
        label = mark.group().strip() == ":" and not _SIZE.search(head)
        if _describes(head):
            return 0 if label else len(_without_end(head))
    head = _without_end(part[:match])
    return len(head) if _describes(head) else 0


def _without_end(head: str) -> str:
    # The time of the pattern grows with the square of the length.
    return head[:-60] + _DANGLING.sub("", head[-60:])


def _blanked(text: str, spans: list[tuple[int, int]]) -> str:
    for start, end in spans:
        text = text[:start] + " " * (end - start) + text[end:]
    return text
