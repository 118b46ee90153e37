"""Read sizes with their units and Paris or LST notations from one lesion sentence."""

import re

from training.attribute_rules import LESION

__all__ = ["paris_in", "size_band", "size_in", "size_words_in"]

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
    "twelve": 12,
    "fifteen": 15,
    "twenty": 20,
    "thirty": 30,
    "forty": 40,
    "half a": 0.5,
    "one and a half": 1.5,
    "two and a half": 2.5,
}
_NUMBER = r"(?:\d+(?:[.,]\d+)?|" + "|".join(sorted(_WORDS, key=len, reverse=True)) + ")"
_UNIT = r"(?:mm|cm|millimet(?:re|er)s?|centimet(?:re|er)s?)"
_SIZE = re.compile(
    rf"(?P<sign>[<>≤≥]=?\s*|(?:less|smaller) than\s+|(?:over|more than|greater than"
    rf"|larger than)\s+)?"
    rf"(?P<first>\b{_NUMBER})[ -]?(?P<unit1>{_UNIT})?"
    rf"(?:\s*(?P<join>-|–|to|x|×|by)\s*(?P<second>{_NUMBER})"
    # After "6mm" a further number needs a unit too: "6mm - one taken" is no range.
    rf"(?(unit1)(?=[ -]?{_UNIT}))[ -]?(?P<unit2>{_UNIT})?)?"
    rf"(?:\s*(?:x|×|by)\s*(?P<third>{_NUMBER})[ -]?(?P<unit3>{_UNIT})?)?(?![\w])",
    re.IGNORECASE,
)
# "at 25 cm", "15 cm from the anal verge": the place, not the lesion. Tools have sizes as well.
_PLACE_BEFORE = re.compile(
    r"\b(?:at|after|until|from|reached|inserted|insertion|length of|to|around)"
    r"\s*(?:about |approximately )?$",
    re.IGNORECASE,
)
_PLACE_AFTER = re.compile(
    r"^\s*(?:from|ab ano|proximal|distal|above|below|insertion|beyond|(?:\w+ )?(?:snare|forceps"
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
    r"(?P<prefix>\b0[ ]?[-–]?[ ]?|\bParis\b[^.;\n]{0,25}?)?"
    r"(?<![\w])(?P<first>Isp|Ip|Is|I{2}[abc]|III)(?P<rest>(?:\s?[+/]\s?(?:0[ ]?[-–]?[ ]?)?(?:Isp"
    r"|Ip|Is|II[abc]|III))*)"
    r"(?![\w])"
)
_OTHER_SCALE = re.compile(
    r"(?:JNET|NICE|Kudo(?:'s)?|Sano|Forrest|BBPS|grade|pattern)\W*(?:type\W*)?$", re.IGNORECASE
)
_PARIS_WORDS = (
    ("Isp", r"\b(?:semi|sub)[- ]?ped+unculated\b"),
    ("Ip", r"\bped+unculated\b"),
    ("IIa", r"\b(?:flat|slightly|minimally)[- ](?:elevated|raised)\b"),
    ("Is", r"\bses+ile\b(?! serrated)"),
    ("IIc", rf"\b(?:slightly )?depressed(?:[- ]type)? {LESION}"),
    ("III", r"\bexcavated\b"),
    (
        "IIb",
        r"\b(?:completely|totally|entirely|absolutely) flat\b",
    ),
)
# An LST with the words of its subtype around it: "granular LST, nodular mixed type", "LST-NG (FE)".
_SUBTYPE = (
    r"(?:non\W?granular|granular|homogen(?:e?ous)?|nodular|mixed|flat|elevated"
    r"|pseudo\W?depress(?:ed|ion)?|type|NG|G|NM|FE|PD|H|F|M|D)\b"
)
_LST = re.compile(
    rf"\b(?:{_SUBTYPE}[\s,/(-]{{0,3}}){{0,6}}(?:LST\b|laterally spreading (?:tumou?r|lesion)s?\b)"
    rf"(?:[\s,/()-]{{0,3}}{_SUBTYPE}){{0,6}}",
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
        if mm is None or _is_place(text, match):
            continue
        if best is None or mm > best[0]:
            best = (mm, match.start(), match.start() + len(match.group().rstrip(" -")))
    return best


def size_words_in(text: str) -> tuple[str, int, int] | None:
    """Find an adjective of size that belongs to the lesion.

    Diminutive, small and large follow the common bands (<=5, 6-9, >=20 mm for "large"
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
    if sign.startswith(("<", "less", "smaller")):
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
    where = _LST.search(text)
    if where is None:
        return None
    words = where.group().lower()
    told = set(re.findall(r"[a-z]+", words.replace("laterally spreading", "")))
    non = bool(re.search(r"non\W?granular", words)) or "ng" in told
    granular = not non and bool(told & {"granular", "g"})
    if non and (told & {"pd", "d", "pseudodepressed"} or re.search(r"pseudo\W?depress", words)):
        value = "LST-NGPD"
    elif non and (told & {"f", "fe"} or re.search(r"flat\W?elevated", words)):
        value = "LST-NGFE"
    elif granular and (told & {"nm", "m"} or re.search(r"nodular\W?mixed|mixed\W?nodular", words)):
        value = "LST-GNM"
    elif granular and (told & {"h"} or "homogen" in words):
        value = "LST-GH"
    else:
        return None
    return value, where.start(), where.end()


def _notation(text: str) -> tuple[str, int, int] | None:
    for match in _PARIS.finditer(text):
        first, prefix = match.group("first"), match.group("prefix")
        parts = [first, *re.findall(r"Isp|Ip|Is|II[abc]|III", match.group("rest"))]
        bracketed = text[max(0, match.start() - 1) : match.end() + 1] == f"({match.group()})"
        if not prefix and parts in (["Is"], ["III"]) and not (bracketed and first == "Is"):
            # "Is" inside a sentence and before its lesion is no verb: "8mm Is polyp".
            after = re.match(rf"\s+{LESION}\b", text[match.end() :], re.IGNORECASE)
            if first == "III" or not (after and text[: match.start()].strip()):
                continue
        if not prefix and _OTHER_SCALE.search(text[: match.start("first")]):
            continue
        value = first
        if len(parts) > 1 and {"IIc", "III"} & set(parts):
            value = "mixed-with-depression"
        start = match.start()
        if prefix and prefix.startswith("P"):
            start = match.start("prefix")
        return value, start, match.end()
    return None


def _paris_words(text: str) -> tuple[str, int, int] | None:
    for value, pattern in _PARIS_WORDS:
        match = re.search(pattern, text, re.IGNORECASE)
        if match:
            return value, match.start(), match.end()
    return None
