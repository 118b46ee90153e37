"""Cut a report into sections and sentences, and find what a negation covers.

Everything here keeps character offsets of the report, so that evidence stays verbatim.
"""

import re
from dataclasses import dataclass

__all__ = ["Sentence", "is_historical", "is_pathology", "negated", "sentences"]

_HEADERS = {
    "indication": "indications?|reason for (?:examination|referral|procedure)|clinical details"
    "|clinical history|history|background",
    "procedure": "procedure(?: performed)?|medications?|instrument|extent(?: of exam)?"
    "|preparation|bowel preparation|technique|consent",
    "findings": "findings?|description|endoscopic findings|report|observations?",
    "impression": "impression|conclusions?|endoscopic (?:diagnosis|impression)|summary"
    "|assessment|opinion",
    "pathology": "(?:final )?(?:pathology|histology|histopathology)(?: (?:report|results?"
    "|diagnosis))?|pathological diagnosis|microscopy|microscopic description"
    "|macroscopic ?description|nature of specimen|specimens?|biopsy results?"
    "|histological diagnosis",
    "plan": "plan|recommendations?|follow[- ]?up|management",
}
_HEADER = re.compile(
    r"(?:^|(?<=\n)|(?<=[.;!?]\s))[ \t]*(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _HEADERS.items())
    + r")[ \t]*[:\-][ \t]*",
    re.IGNORECASE,
)
# A full stop ends a sentence only before white space, a comma (generated reports write ".,")
# or the end, so that "1.2 cm" survives; abbreviations are put back by the look-behinds.
_END = re.compile(
    r"(?:(?<!\bapprox)(?<!\baprox)(?<!\bca)(?<!\bcf)(?<!\be\.g)(?<!\bi\.e)(?<!\bno)(?<!\bfig)(?<!\bvs)"
    r"(?<!\n\d)(?<!^\d)[.!?](?=[\s,]|$),?|\n+)",
    re.IGNORECASE,
)
# What was done with a lesion ("sent for histology", "specimen retrieved", "awaiting pathology") and
# "no pathology seen" say nothing of what it was, and often stand in the lesion's own sentence.
_SENT = r"(?<!\bfor )(?<!\bto )(?<!\bawait )(?<!\bawaiting )(?<!\bpending )(?<!\bno )"
_TO_COME = r"(?!\W+(?:pending|awaited|to follow|requested|sent|is awaited|is pending)\b)"
_PATHOLOGY = re.compile(
    rf"\b(?:{_SENT}(?:histolog\w*|histopatholog\w*|patholog\w*){_TO_COME}"
    r"|for (?:histolog|histopatholog|patholog)\w*(?=\W*\w)(?!\W+(?:and|as|by|clip|x|\d))"
    r"|microscop(?:y|ic)|nature of specimens?|specimens? (?:show|contain|consist|compris|measur"
    r"|collected|confirm|reveal|demonstrat|receiv|report)\w*"
    r"|biops(?:y|ies) (?:show|confirm|reveal"
    r"|demonstrat|report)\w*|(?:tubular|villous|tubulovillous|serrated) "
    r"adenoma|low[- ]grade dysplasia|high[- ]grade dysplasia|moderately differentiated"
    r"|well differentiated|resection margins?|muscularis (?:propria|mucosae))\b",
    re.IGNORECASE,
)
_HISTORY = re.compile(
    r"\b(?:history of|(?:previous(?:ly)?|prior)(?!(?: [\w-]+){1,2}? (?:site|scar|tattoo\w*|bed)\b"
    r"| tattoo\w*|ly tattoo\w*)(?! to\b)|known(?! (?:\w+ ){0,2}\w+:)"
    r"|surveillance|family history|follow[- ]?up of"
    r"|polypectomy (?:in|\d+ )|last (?:colonoscopy|examination)|in (?:19|20)\d\d|\?\s*polyps?)\b",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"\b(?:no evidence of|no sign(?:s)? of|no features? of|not|no|without(?: any)?|absence of"
    r"|absent|free (?:of|from)|negative for|devoid of|nothing|neither|nor|never|lack(?:s"
    r"|ing)?(?: of)?|nil|excluded?"
    r"|rules? out|ruled out|rather than|cannot see)\b",
    re.IGNORECASE,
)
_STOP = re.compile(
    r"[.;:|\n]|\b(?:but|however|although|though|except|apart from|which|whereas|yet|with|it is"
    r"|there (?:is|are|was|were)|only)\b",
    re.IGNORECASE,
)
_AFTER = re.compile(
    r"^\s*(?:\w+\s+){0,3}?(?:(?:is|was|are|were|has been|have been|be)\s+)?"
    r"(?:absent|not (?:seen|present|identified|noted|found|visible|observed|detected|evident)"
    r"|excluded|ruled out|none|negative|nil)\b",
    re.IGNORECASE,
)
# "Ulceration: none" in a form.
_FORM = re.compile(
    r"\s*[:=]\s*(?:none|nil|no|nay|absent|negative|n/?a|0|not (?:seen|present|visible))\b",
    re.IGNORECASE,
)
_NOT_NEGATION = re.compile(
    r"\b(?:not only|no doubt|no longer|not uniform|not entirely)\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Sentence:
    """A sentence of a report.

    Attributes:
        text: verbatim, without surrounding white space.
        start: offset of the first character in the report.
        section: indication, procedure, findings, impression, pathology, plan or "" before
            the first header.
    """

    text: str
    start: int
    section: str

    @property
    def end(self) -> int:
        """Offset just after the last character in the report."""
        return self.start + len(self.text)


def sentences(report: str) -> list[Sentence]:
    """Cut a report into sentences, each with the section it stands in.

    Args:
        report: free text; section headers such as "Findings:" are recognised at the start of
            a line or after a sentence.

    Returns:
        Sentences in order; headers themselves belong to none.
    """
    found: list[Sentence] = []
    for section, start, end in _sections(report):
        cut = start
        for match in _END.finditer(report, start, end):
            found.extend(_trimmed(report, cut, match.end(), section))
            cut = match.end()
        found.extend(_trimmed(report, cut, end, section))
    return found


def is_pathology(sentence: Sentence) -> bool:
    """Say whether a sentence states what a microscope showed."""
    return sentence.section == "pathology" or bool(_PATHOLOGY.search(sentence.text))


def is_historical(sentence: Sentence) -> bool:
    """Say whether a sentence speaks of another examination or of why this one is done."""
    return sentence.section in ("indication", "procedure", "plan") or bool(
        _HISTORY.search(sentence.text)
    )


def negated(text: str, start: int, end: int) -> bool:
    """Say whether ``text[start:end]`` is denied by the words around it.

    A denial reaches forward over a list only if the list is closed by "or" or "nor"
    ("no depression, ulceration or bleeding"), so that "no depression, clear margin" keeps
    its margin; words such as "but" and "with" end it.

    Args:
        text: one sentence.
        start: offset of the first character in question.
        end: offset after the last one.
    """
    if text[max(0, start - 4) : start].lower() in ("non-", "non "):
        return True
    for trigger in _BEFORE.finditer(text, 0, start):
        if _NOT_NEGATION.match(text, trigger.start()):
            continue
        between = text[trigger.end() : start]
        if _STOP.search(between):
            continue
        if "," in between and not re.search(r"\b(?:n?or)\b", _until_stop(text, trigger.end())):
            continue
        if re.search(r"\band\b", between) and "," not in between and len(between) > 40:
            continue
        return True
    return bool(_AFTER.match(_until_stop(text, end)) or _FORM.match(text, end))


def _until_stop(text: str, start: int) -> str:
    stop = _STOP.search(text, start)
    return text[start : stop.start() if stop else len(text)]


def _sections(report: str) -> list[tuple[str, int, int]]:
    marks = [
        (match.lastgroup or "", match.start(), match.end()) for match in _HEADER.finditer(report)
    ]
    spans = [("", 0, marks[0][1] if marks else len(report))]
    for index, (name, _, body) in enumerate(marks):
        until = marks[index + 1][1] if index + 1 < len(marks) else len(report)
        spans.append((name, body, until))
    return spans


def _trimmed(report: str, start: int, end: int, section: str) -> list[Sentence]:
    raw = report[start:end]
    text = raw.strip(" \t\r\n,|")
    if not re.search(r"\w", text):
        return []
    return [Sentence(text, start + raw.index(text), section)]
