"""Cut a report into sections and sentences, and find what a negation covers.

Everything here keeps character offsets of the report, so that evidence stays verbatim.
"""

import re
from dataclasses import dataclass

from training.pathology_words import TELLS

__all__ = ["Sentence", "is_historical", "negated", "sections", "sentences"]

_HEADERS = {
    "indication": "indications?|reason for (?:examination|referral|procedure)|clinical details"
    "|clinical history|history|background",
    "procedure": "procedure(?: performed)?|medications?|instrument|extent(?: of exam)?"
    "|preparation|bowel preparation|technique|consent",
    "findings": "findings?|description|endoscopic findings|report|observations?",
    "impression": "impression|conclusions?|endoscopic (?:diagnosis|impression)|summary"
    "|assessment|opinion",
    "plan": "plan|recommendations?|follow[- ]?up|management",
}
# "Histology:", "Final pathology report (3/4) -", "Addendum (histo):", "HISTOLOGIE".
_LABORATORY = (
    "(?:histo(?:log(?:y|ical|ic|ie)|path(?:olog(?:y|ical|ie))?|l)?|path(?:ol(?:og(?:y|ical|ie|ists?))?)?"
    "|hist|anapath|h ?& ?e|anatom[ií]a patol[oó]gica)"
)
_LABORATORY_HEADER = (
    "(?:(?:final|addendum|additional|supplementary|amended|biopsy|polyp|specimen|tissue|surgical"
    f"|provisional|formal) ){{0,2}}{_LABORATORY}\\.?(?: (?:and )?(?:reports?|results?|diagnos[ei]s"
    "|findings?|description|addendum|summary|conclusion|comment|update|befund|number|no|received"
    "|dated|from|of|specimens?|biops(?:y|ies)|polyps?|\\d[\\d/.-]*)){0,4}"
    "|micro(?:scop(?:y|ic))?(?: (?:description|findings?|appearances?))?"
    "|(?:macro(?:scop(?:y|ic))?|gross) ?(?:description|appearances?)?"
    "|nature of specimens?|specimens?|(?:biopsy|bx|lab(?:oratory)?) (?:reports?|results?)"
    f"|addend(?:um|a) ?\\({_LABORATORY}[^)\\n]{{0,30}}\\)"
)
_HEADER = re.compile(
    r"(?:^|(?<=\n)|(?<=[.;!?]\s))[ \t]*(?:(?:"
    + "|".join(f"(?P<{name}>{words})" for name, words in _HEADERS.items())
    + r")[ \t]*[:\-][ \t]*"
    r"|(?:[#*=_>\[(•-]+[ \t]*|\d{1,2}[.)][ \t]+)?(?P<pathology>"
    + _LABORATORY_HEADER
    + r")(?:[ \t]*\([^)\n]{0,40}\))?[*_\])]*"
    # A name needs a mark behind it, or a line of its own.
    r"(?:[ \t]*:[*_]*[ \t]*|[-–—][ \t]+|[ \t]+[-–—]+[ \t]*|[ \t]*[.=*_#-]*[ \t]*(?=\n|$)))",
    re.IGNORECASE,
)
# These may as well be "history", "path of the scope" or what the eye saw ("Gross: blood").
_SHORT = re.compile(
    r"\W*(?:\d+\W+)?(?:hist|path|micro|(?:macro(?:scop(?:y|ic))?|gross)(?: ?\w+)?|specimens?)"
    r"[\W_]*",
    re.IGNORECASE,
)
_SIZE = re.compile(r"\d\s?(?:mm|cm)\b", re.IGNORECASE)
_LATER = re.compile(
    r"(?:pending|awaited|to follow|sent|requested|none|nil|n/?a)\b(?P<end>[.;](?=[ \t]))?",
    re.IGNORECASE,
)
_LINE = re.compile(r"[^\n]+")
_REACH = 200
"""Characters around a word in which a denial of it is looked for."""
# A full stop ends a sentence only before white space, a comma (generated reports write ".,")
# or the end, so that "1.2 cm" survives; abbreviations are put back by the look-behinds.
_END = re.compile(
    r"(?:(?<!\bapprox)(?<!\baprox)(?<!\bca)(?<!\bcf)(?<!\be\.g)(?<!\bi\.e)(?<!\bno)(?<!\bfig)(?<!\bvs)"
    r"(?<!\n\d)(?<!^\d)[.!?](?=[\s,]|$),?|\n+)",
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
    r"[.;:|\n]|\b(?:but|however|although|though|except|apart from|other than|save for|aside from"
    r"|besides|excluding|bar|which|whereas|yet|with|it is"
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
    for section, _, start, end in sections(report):
        cut = start
        for match in _END.finditer(report, start, end):
            found.extend(_trimmed(report, cut, match.end(), section))
            cut = match.end()
        found.extend(_trimmed(report, cut, end, section))
    return found


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
    for trigger in _BEFORE.finditer(text, max(0, start - _REACH), start):
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
    stop = _STOP.search(text, start, start + _REACH)
    return text[start : stop.start() if stop else start + _REACH]


def sections(report: str) -> list[tuple[str, int, int, int]]:
    """Cut a report at its headers.

    Args:
        report: free text.

    Returns:
        Name, offset of the header, of the text behind it, and of its end; the first has no name.
        A section of pathology that says only that there is none yet ends with its line; what is
        behind goes on with the section before. So does one with a short or ambiguous header,
        which is no header where its line names no diagnosis.
    """
    marks = []
    for match in _HEADER.finditer(report):
        name, short = match.lastgroup or "", _SHORT.fullmatch(match.group())
        stop = _told_until(report, match.end()) if name == "pathology" and short else -1
        if stop is not None:
            marks.append((name, match.start(), match.end(), stop))
    before = ""
    spans = [("", 0, 0, marks[0][1] if marks else len(report))]
    for index, (name, start, body, line) in enumerate(marks):
        until = marks[index + 1][1] if index + 1 < len(marks) else len(report)
        later = _LATER.match(report, body) if name == "pathology" else None
        if later:
            line = later.end() if later["end"] else report.find("\n", body, until)
        if 0 <= line < until and (later or report[line:until].strip()):
            spans += [(name, start, body, line), (before, line, line, until)]
        else:
            spans.append((name, start, body, until))
            before = name
    return spans


def _told_until(report: str, start: int) -> int | None:
    """Find the end of the lines with a diagnosis below a short header; None where it has none."""
    told = None
    for line in _LINE.finditer(report, start, start + 4000):
        if not line.group().strip():
            continue
        own = TELLS.search(line.group()) and (told is None or not _SIZE.search(line.group()))
        if not own:
            break
        told = line.end()
    return told


def _trimmed(report: str, start: int, end: int, section: str) -> list[Sentence]:
    raw = report[start:end]
    text = raw.strip(" \t\r\n,|")
    if not re.search(r"\w", text):
        return []
    return [Sentence(text, start + raw.index(text), section)]
