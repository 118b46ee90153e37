"""Read sizes with their units and Paris or LST notations from one lesion sentence."""

import re

from training.attribute_rules import LESION
from training.sentences import negated

__all__ = ["composed_size_in", "paris_in", "size_band", "size_in", "size_word_in"]

_WORDS = {
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
    "thirteen": 13,
    "fourteen": 14,
    "fifteen": 15,
    "sixteen": 16,
    "seventeen": 17,
    "eighteen": 18,
    "nineteen": 19,
    "twenty": 20,
    "twenty-two": 22,
    "twenty-five": 25,
    "twenty five": 25,
    "thirty": 30,
    "thirty-five": 35,
    "thirty five": 35,
    "forty": 40,
    "fifty": 50,
    "sixty": 60,
    "half": 0.5,
    "half a": 0.5,
    "one and a half": 1.5,
    "two and a half": 2.5,
}
_NUMBER = r"(?:\d+(?:[.,]\d+)?|" + "|".join(sorted(_WORDS, key=len, reverse=True)) + ")"
_UNIT = r"(?:mms?|cms?|mil+imet(?:re|er)s?|centimet(?:re|er)s?)"
_SIZE = re.compile(
    rf"(?P<sign>[<>≤≥]=?\s*|(?:less|smaller) than\s+|(?:just )?(?:under|below)\s+|(?:over"
    rf"|more than|greater than"
    rf"|larger than)\s+)?"
    rf"(?P<first>\b{_NUMBER})[ -]?(?P<unit1>{_UNIT})?"
    rf"(?:\s*(?P<join>-|–|—|to|x|×|\*|by)\s*(?P<second>{_NUMBER})"
    # After "6mm" a further number needs a unit too: "6mm - one taken" is no range.
    rf"(?(unit1)(?=[ -]?{_UNIT}))[ -]?(?P<unit2>{_UNIT})?)?"
    rf"(?:\s*(?:x|×|\*|by)\s*(?P<third>{_NUMBER})[ -]?(?P<unit3>{_UNIT})?)?(?![\w])",
    re.IGNORECASE,
)
# "Size (mm): 12": the key holds the unit.
_KEYED = re.compile(
    r"\b(?:size|diameter|dimensions?)[, ]*(?:\(mm\)|\[mm\]|in mm|mm)\s*[:=]?\s*(?P<mm>\d{1,3})\b",
    re.I,
)
# "at 25 cm", "15 cm from the anal verge": the place, not the lesion. Tools have sizes as well.
_PLACE_BEFORE = re.compile(
    r"(?:\b(?:at|after|until|from|reached|inserted|insertion|length of|(?<!up )to|around)|@)"
    r"\s*(?:about |approximately |approx\.? |circa |ca\.? )?$",
    re.IGNORECASE,
)
_PLACE_AFTER = re.compile(
    r"^\s*(?:from|ab ano|(?:proximal|distal)(?:ly)?(?: (?:to|of|from)\b|(?=[,.;]|$))|above|below"
    r"|insertion|beyond|(?:\w+ )?(?:snare|forceps"
    r"|clips?|"
    r"channel|needle|balloon|cap|apart|segment|of (?:the )?(?:colon|bowel|ileum)))\b",
    re.IGNORECASE,
)
# "stalk 15 mm", "1 cm ulcer", "a pedicle about 2 cm long": a part of the lesion.
_PART_BEFORE = re.compile(
    r"\b(?:stalk|pedicle|stem|ulcer(?:ation)?|crater|erosion)\b(?: of| is| was| measuring| and"
    r"| thin| thick| about| approximately)*\s*$",
    re.IGNORECASE,
)
_PART_AFTER = re.compile(
    r"^\s*(?:(?:long|thick|wide|thin|short)?[ -]?(?:stalk|pedicle|stem)|(?:central )?"
    r"(?:ulcer|crater|erosion))\b",
    re.IGNORECASE,
)
# Measured from the anus; no lesion is that large.
_FAR = 150.0
# Words that say a size by themselves.
_DEFINED = (
    ("<=5", re.compile(r"\bdiminutive\b", re.I)),
    ("6-9", re.compile(r"\bsub-?centimet(?:re|er|ric)\b", re.I)),
)
_ADJECTIVES = (
    (">=30", r"(?:giant|huge|very large)"),
    ("20-29", r"(?:large|bulky|big)"),
    (
        "10-19",
        r"(?:medium(?:-sized| sized)?|moderate(?:ly)?(?:-sized| sized| size)"
        r"|intermediate(?:-sized| sized))",
    ),
    ("<=5", r"(?:diminutive|tiny|minute|very small|punctate)"),
    ("6-9", r"(?:small)"),
)
_PARIS = re.compile(
    r"(?P<prefix>\b[0O][ ]?[-–]?[ ]?|\b(?i:Paris)\b[^.;\n]{0,25}?)?(?<![\w])"
    # After a prefix in any letter case and with Arabic numerals: "0-IIA", "0-1s".
    r"(?P<first>Isp|Ip|Is|I{2}[abc]|III|(?(prefix)(?i:(?:I|1)[- ]?s?p|(?:I|1)[- ]?s|(?:II"
    r"|2)[- ]?[abc]|0-3)|(?!)))"
    r"(?P<rest>(?:\s?[+/&]\s?(?:0[ ]?[-–]?[ ]?)?(?:Isp|Ip|Is|II[abc]|III|(?(prefix)(?i:II-?[abc])"
    r"|(?!))))*)"
    r"(?![\w])"
)
_OTHER_SCALE = re.compile(
    r"(?:JNET|NICE|Kudo(?:'s)?|Sano|Forrest|BBPS|grade|pattern)\W*(?:type\W*)?$", re.IGNORECASE
)
_PARIS_WORDS = (
    ("Isp", r"\b(?:semi|sub|hemi)[- ]?ped+unc\w+"),
    ("Ip", r"\bped+unc(?!le)\w+"),
    (
        "IIa",
        r"\b(?:flat|slight(?:ly)?|minimal(?:ly)?|mildly|barely|superficial(?:ly)?)(?:,| and|-"
        r"| but)? ?"
        r"(?:slightly )?(?:el[ae]v[ae]t\w*|raised|protruding)\b(?! (?:margin|border|edge|rim"
        r"|cent))",
    ),
    ("Is", r"\bses+il+e?\b(?! (?:and )?serrated|-serrated)"),
    ("IIc", rf"\b(?:slightly )?depressed(?:[- ]type)? {LESION}"),
    ("III", r"\bexcavated\b(?! (?:cent|middle))"),
    ("IIb", r"\b(?:completely|totally|entirely|absolutely|perfectly|purely|wholly|fully) flat\b"),
)
# An LST with the words of its subtype around it: "granular LST, nodular mixed type", "LST-NG (FE)".
_SUBTYPE = (
    r"(?:non\W?granular|granular|homogen(?:e?ous)?|nodular|mixed|flat|elevated"
    r"|pseudo\W?depress(?:ed|ion)?|type|sub-?type|variant|NG(?:FE|F|PD|D)?|G(?:H|NM|M)?|NM|FE|PD|H"
    r"|F|M|D)\b"
)
_SPREADING = (
    r"(?:LS[TL]s?\b|lateral(?:ly)?[- ]spreading (?:tumou?r|lesion|adenoma|polyp|growth)s?\b)"
)
_LST = re.compile(
    rf"\b(?:{_SUBTYPE}[\s,/(-]{{0,3}}){{0,6}}{_SPREADING}"
    rf"(?:[\s,:/()-]{{0,3}}{_SUBTYPE}){{0,6}}",
    re.IGNORECASE,
)
_MODE = re.compile(
    r"\b(?:nodular\W?mixed|mixed\W?nodular|homogen\w+|pseudo\W?depress\w+|flat\W?elevated)\b", re.I
)
# The subtype apart from the name: "LST of 30 mm, granular, mixed nodular".
_APART = re.compile(
    rf"\b(?:non\W?granular|granular|NG|G)\b(?:[\s,/()-]{{1,3}}{_SUBTYPE}){{0,6}}"
    rf"|\b(?:NG(?:FE|PD)|GNM|GH)\b",
    re.IGNORECASE,
)


def size_band(mm: float) -> str:
    """Return the band of a size in millimetres."""
    for limit, band in ((5.5, "<=5"), (9.5, "6-9"), (19.5, "10-19"), (29.5, "20-29")):
        if mm < limit:
            return band
    return ">=30"


def size_in(text: str) -> tuple[float, int, int] | None:
    """Find the largest stated size of a lesion.

    Of a range and of several dimensions the largest number counts, as reports are triaged by
    the largest diameter; "<5 mm" counts as just under the number, ">2 cm" as just over it.

    Args:
        text: one sentence or clause.

    Returns:
        Size in millimetres and the span of its words, or None.
    """
    best: tuple[float, int, int] | None = None
    for match in _SIZE.finditer(text):
        mm = _millimetres(match)
        if mm is None or mm >= _FAR or _is_place(text, match):
            continue
        if best is None or mm > best[0]:
            best = (mm, match.start(), match.start() + len(match.group().rstrip(" -")))
    if best is None and (keyed := _KEYED.search(text)):
        return float(keyed.group("mm")), keyed.start(), keyed.end()
    return best


def size_word_in(text: str) -> tuple[str, int, int] | None:
    """Find a word that means one band wherever it stands: "diminutive", "subcentimetre".

    Returns:
        Band and the span of the word, or None.
    """
    for band, pattern in _DEFINED:
        if match := pattern.search(text):
            return band, match.start(), match.end()
    return None


def composed_size_in(text: str) -> tuple[str, int, int] | None:
    """Find an adjective of size that belongs to the lesion, as composed reports choose them.

    Tiny, small and large follow the common bands (<=5, 6-9, >=20 mm for "large"
    non-stalked lesions, >=30 mm for "giant"); "medium-sized" takes the band between.

    Returns:
        Band and the span of the adjective, or None.
    """
    for band, words in _ADJECTIVES:
        before = re.compile(
            rf"\b(?P<e>{words})\b(?:,? (?:and )?[\w-]+){{0,6}}?,? {LESION}\b", re.IGNORECASE
        )
        after = re.compile(
            rf"\b(?:{LESION}|it|this)\b(?: \d+)?,? (?:(?:is|was|are|were|appears?|appeared|looks?"
            rf"|looked|seems?|and|rather|quite|of|overall|relatively)\s)+(?P<e>{words})\b"
            rf"|\b(?P<f>{words})(?: in)? (?:relative )?size\b|\bsize\b:? "
            rf"(?:(?:is|was|appears)\s)?(?P<g>{words})\b",
            re.IGNORECASE,
        )
        for pattern in (before, after):
            match = pattern.search(text)
            if match:
                name = next(
                    n for n in ("e", "f", "g") if n in pattern.groupindex and match.group(n)
                )
                return band, match.start(name), match.end(name)
    return None


def paris_in(text: str) -> tuple[str, int, int] | None:
    """Find a Paris or LST type.

    A mixed form that holds IIc or III counts as "mixed-with-depression"; other mixed forms
    count as their first part. "Is" and "III" need "0-" or "Paris" before them, since "Is" is
    also a word and III also a Kudo type. An LST without its subtype says nothing.

    Returns:
        Value and the span of its words, or None.
    """
    return _lst(text) or _notation(text) or _paris_words(text)


def _millimetres(match: re.Match[str]) -> float | None:
    units = [match.group(name) for name in ("unit1", "unit2", "unit3")]
    last = next((unit for unit in reversed(units) if unit), None)
    if last is None:
        return None
    values = []
    for number, unit in zip(("first", "second", "third"), units, strict=True):
        raw = match.group(number)
        if raw:
            value = float(_WORDS.get(raw.lower()) or raw.replace(",", "."))
            values.append(value * (10.0 if (unit or last).lower().startswith("c") else 1.0))
    sign = (match.group("sign") or "").strip().lower()
    shift = 0.0
    if sign.startswith(("<", "less", "smaller", "under", "below", "just")):
        shift = -0.6
    elif sign.startswith((">", "over", "more", "greater", "larger")):
        shift = 0.6
    return max(values) + shift


def _is_place(text: str, match: re.Match[str]) -> bool:
    before, after = text[: match.start()], text[match.end() :]
    if _PLACE_AFTER.match(after) or _PART_BEFORE.search(before) or _PART_AFTER.match(after):
        return True
    centimetres = "c" in (match.group("unit1") or match.group("unit2") or "").lower()
    return centimetres and bool(_PLACE_BEFORE.search(before))


def _lst(text: str) -> tuple[str, int, int] | None:
    named = _LST.search(text)
    if named is None:
        return None
    for where in (named, *_APART.finditer(text)):
        if value := _subtype(where.group().lower()):
            return value, where.start(), where.end()
    for where in _MODE.finditer(text, named.end()):
        value = _subtype(f"{named.group()} {where.group()}".lower())
        if value and not negated(text, *where.span()):
            return value, named.start(), where.end()
    return None


def _subtype(words: str) -> str | None:
    told = set(re.findall(r"[a-z]+", re.sub(_SPREADING, "", words)))
    non = bool(re.search(r"non\W?granular", words) or told & {"ng", "ngfe", "ngf", "ngpd", "ngd"})
    granular = not non and bool(told & {"granular", "g", "gh", "gnm", "gm"})
    if non and (told & {"pd", "d", "ngpd", "ngd"} or re.search(r"pseudo\W?depress", words)):
        return "LST-NGPD"
    if non and told & {"f", "fe", "ngfe", "ngf", "flat", "elevated"}:
        return "LST-NGFE"
    if granular and told & {"nm", "m", "gnm", "gm", "nodular", "mixed"}:
        return "LST-GNM"
    if granular and (told & {"h", "gh"} or "homogen" in words):
        return "LST-GH"
    return None


def _notation(text: str) -> tuple[str, int, int] | None:
    for match in _PARIS.finditer(text):
        first, prefix = match.group("first"), match.group("prefix")
        rest = match.group("rest")
        if not prefix and not rest and (first == "III" or (first == "Is" and _verb(text, match))):
            continue
        if not prefix and _OTHER_SCALE.search(
            text[max(0, match.start("first") - 40) : match.start("first")]
        ):
            continue
        value = _canonical(first)
        if rest and {"IIc", "III"} & {value, *map(_canonical, re.findall(r"\bI+-?\w*", rest))}:
            value = "mixed-with-depression"
        start = match.start()
        if prefix and prefix.startswith("P"):
            start = match.start("prefix")
        return value, start, match.end()
    return None


def _canonical(code: str) -> str:
    """Spell a code as the vocabulary does: "2A", "II-a" are IIa."""
    roman = re.sub(r"[- ]", "", code).replace("03", "III").replace("1", "I").replace("2", "II")
    kind = re.sub(r"^I+", "", roman, flags=re.IGNORECASE).lower()
    return "I" * (len(roman) - len(kind)) + kind


def _verb(text: str, match: re.Match[str]) -> bool:
    """Say whether an "Is" without a prefix may be the verb.

    It is the Paris type before a size, or inside a sentence before its lesion or where a value
    stands ("8mm Is polyp", "Shape: Is", "polyp (Is)").
    """
    before, after = (
        text[max(0, match.start() - 12) : match.start()],
        text[match.end() : match.end() + 40],
    )
    if re.match(rf"\s+{_NUMBER}[ -]?{_UNIT}\b", after, re.IGNORECASE):
        return False
    if match.start() < 12 and not before.strip(" -"):
        return not re.match(r"\s*[,;|/]", after)
    if re.search(r"(?:[:=(]|[mc]m)\s*$", before, re.IGNORECASE):
        return False
    return not re.match(rf"\s*(?:[],;.)|/]|$|\s{LESION}\b)", after, re.IGNORECASE)


def _paris_words(text: str) -> tuple[str, int, int] | None:
    for value, pattern in _PARIS_WORDS:
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            return value, match.start(), match.end()
    return None
