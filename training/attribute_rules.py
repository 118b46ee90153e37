"""Vocabulary and patterns of the nine morphological attributes of METHOD 3.3.

The nine names and their values are our choice (the paper gives only the number); values are
taken as reported and none is guessed from another. Histology is no attribute: it is the
evaluation label.
"""

import re
from dataclasses import dataclass

__all__ = [
    "ATTRIBUTES",
    "CONTEXT_RULES",
    "LESION",
    "ORDINAL",
    "PARIS_GROUPS",
    "RULES",
    "SHAPES",
    "Rule",
]

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size_band": ("<=5", "6-9", "10-19", "20-29", ">=30"),
    "paris": (
        "Ip",
        "Isp",
        "Is",
        "IIa",
        "IIb",
        "IIc",
        "III",
        "mixed-with-depression",
        "LST-GH",
        "LST-GNM",
        "LST-NGFE",
        "LST-NGPD",
    ),
    "pedicle": ("none", "short-thick", "long-thin", "present-unspecified"),
    "colour": ("pale", "isochromatic", "red", "dark-red", "mixed"),
    "surface_texture": (
        "smooth",
        "granular",
        "nodular",
        "lobulated",
        "cloud-like",
        "irregular",
        "amorphous",
    ),
    "margin": ("well-defined", "indistinct", "irregular"),
    "vessel_pit_pattern": ("type-1", "type-2", "type-2B", "type-3"),
    "surface_integrity": ("intact", "eroded", "ulcerated", "spontaneous-bleeding", "friable"),
    "depression_or_deformity": (
        "none",
        "central-depression",
        "fold-convergence",
        "fold-deformation",
        "non-lifting",
    ),
}
# Attributes whose values are ranks: neighbours are half alike.
ORDINAL = frozenset({"size_band", "vessel_pit_pattern"})
# Endoscopists separate IIa/IIc from Is/Ip/Isp in 75-77 % only (METHOD 3.1): graded, not exact.
PARIS_GROUPS: dict[str, str] = {
    "Ip": "stalked",
    "Isp": "stalked",
    "Is": "sessile",
    "IIa": "flat",
    "IIb": "flat",
    "IIc": "depressed",
    "III": "depressed",
    "mixed-with-depression": "depressed",
    "LST-GH": "flat",
    "LST-GNM": "flat",
    "LST-NGFE": "flat",
    "LST-NGPD": "depressed",
}
# Outline is told and measured, but is none of the nine.
SHAPES = ("round", "oval", "elongated")

LESION = (
    r"(?:pol+yps?|polypoid (?:lesions?|growths?|mass(?:es)?)|lesions?|adenomas?"
    r"|(?:laterally spreading )?(?:tumou?rs?)|LSTs?|neoplasms?|nodules?|mass(?:es)?|carcinomas?)"
)


@dataclass(frozen=True)
class Rule:
    """One pattern that speaks for one value.

    Attributes:
        name: attribute or context key.
        value: value it speaks for.
        pattern: compiled pattern; group "e" is the evidence where given, else the whole match.
        denied: value when the words are negated; None where a denial says nothing.
    """

    name: str
    value: str
    pattern: re.Pattern[str]
    denied: str | None = None


def _rule(
    name: str, value: str, pattern: str, denied: str | None = None, flags: int = re.IGNORECASE
) -> Rule:
    return Rule(name, value, re.compile(pattern, flags), denied)


# "white light", "brown stool" and the like describe something else than the lesion.
_NOT_COLOUR = (
    r"(?![- ](?:light|balance|stool|fluid|liquid|debris|faec\w*|fec\w*|out\b|spots?\b"
    r"|structures?|dots?|mucus|exudate))"
)
_EDGE = r"(?:margins?|borders?|edges?|outlines?|limits?|boundar(?:y|ies)|demarcation)"
_FACE = r"(?:surface|texture|mucosa|surface (?:texture|pattern|structure))"
_COPULA = r"(?:is|are|was|were|appears?|appeared|looks?|looked|seems?)"
_NO_LST = r"(?!(?:[- ](?:type|mixed|homogeneous))?,?[- ](?:LST|laterally))"

_COLOUR = [
    _rule(
        "colour",
        "mixed",
        r"\b(?:mixed|variegated|heterogeneous|patchy|uneven)[- ]?"
        r"(?:red and (?:white|pale) )?(?:in )?colou?r\w*|\bvariegated\b",
    ),
    _rule(
        "colour",
        "isochromatic",
        r"\bisochro(?:matic|ous)\b|\b(?:same|similar|matching|identical)(?: in)?"
        r" colou?r\b(?: (?:as|to|with)\b)?"
        r"|\bcolou?r (?:(?:is |was )?the )?same as\b|\bcolou?r (?:(?:is"
        r"|was) )?(?:similar to"
        r"|like|match\w*|close to|indistinguishable from)|\b(?:normal|mucosa)[- ]colou?red\b"
        r"|\bnormochromic\b",
    ),
    _rule(
        "colour",
        "dark-red",
        r"\b(?:dark(?:er|ish)?[- ]red(?:dish)?|deep(?:er)?[- ]red|brown(?:er|ish)?|dark"
        r"(?:er)? than|darker|purplish|violaceous|dusky)\b" + _NOT_COLOUR,
    ),
    _rule(
        "colour",
        "pale",
        r"\b(?:pal(?:e|er|ish)|whit(?:e|er|ish)|light(?:er|ly)(?:[- ]colou?red)?"
        r"|blanched)\b(?! than 1|[- ]weight)" + _NOT_COLOUR,
    ),
    _rule(
        "colour",
        "red",
        r"(?<!dark )(?<!dark-)(?<!darker )(?<!deep )(?<!deeper )\b(?:red(?:der|dish)?"
        r"|erythematous|hypera?emic|reddened)\b" + _NOT_COLOUR,
    ),
]
_TEXTURE = [
    _rule(
        "surface_texture", "cloud-like", r"\bcloud(?:[- ]like|y)\b|\bmuc(?:us|ous)[- ]cap(?:ped)?\b"
    ),
    _rule(
        "surface_texture",
        "lobulated",
        r"\b(?:multi)?lobulat(?:ed|ion)\b|\bcerebriform\b"
        r"|\bgyriform\b|\blobular\b",
    ),
    _rule(
        "surface_texture",
        "nodular",
        r"\b(?:multi|micro)?nodular(?:ity)?\b(?![- ]mixed)|\bknobb?ly\b",
    ),
    _rule(
        "surface_texture",
        "granular",
        r"(?<!non-)(?<!non )\b(?:finely |fine |coarsely )?"
        r"granular(?:ity)?\b" + _NO_LST,
    ),
    _rule(
        "surface_texture", "amorphous", r"\b(?:amorphous|structureless)\b(?! (?:pits?|vessels?))"
    ),
    _rule(
        "surface_texture",
        "irregular",
        rf"\b(?:irregular|uneven|rough(?:ened)?|bumpy|coarse)"
        rf"(?: \w+)? {_FACE}|\b{_FACE} (?:{_COPULA} |of the \w+ {_COPULA} )?(?:\w+ )?"
        r"(?:irregular|uneven|rough|bumpy|coarse)\b",
    ),
    _rule("surface_texture", "smooth", r"\bsmooth(?:ly)?\b(?! (?:margin|border|edge|outline))"),
]
# "margins are", "Margin: regular," "edge raised and": what may stand before the adjective.
_NO_FACE = rf"\b(?! (?:\w+ )?(?:{_FACE}|colou?r|relief))"
_OF_EDGE = rf"\b{_EDGE}:? (?:{_COPULA} )?(?:(?!(?:not|and|an?|the|with)\b)\w+(?:,| and)? ){{0,2}}?"
_MARGIN = [
    _rule(
        "margin",
        "irregular",
        rf"\b(?:irregular|rolled|ragged|jagged|everted)(?: \w+)? {_EDGE}"
        rf"|{_OF_EDGE}(?:irregular|rolled|ragged|jagged|everted){_NO_FACE}",
    ),
    _rule(
        "margin",
        "indistinct",
        r"\b(?:ill|poorly|vaguely|not (?:well|clearly|sharply))[- ]"
        rf"(?:defined|demarcated|circumscribed|delineated)\b|\b(?:indistinct|unclear|vague|blurred"
        rf"|blurry|fuzzy|faint|subtle)(?: \w+)? {_EDGE}|{_OF_EDGE}(?:indistinct|unclear|vague"
        r"|blurred|fuzzy|faint|(?:difficult|hard) to|(?:cannot|could not|can't) be)"
        r"|\bindistinct\b|\b(?:merg|blend|fad)(?:es|ing|ed)?"
        r" (?:gradually |smoothly |imperceptibly )?(?:in)?to the\b",
    ),
    _rule(
        "margin",
        "well-defined",
        r"\b(?:well|clearly|sharply|crisply)[- ](?:defined|demarcated"
        rf"|circumscribed|delineated|marked)\b|\b(?:clear|distinct|sharp|crisp"
        rf"|discrete)(?: \w+)? {_EDGE}|{_OF_EDGE}(?:clear|distinct|sharp|crisp|easy to){_NO_FACE}",
        denied="indistinct",
    ),
]
_INTEGRITY = [
    _rule(
        "surface_integrity",
        "spontaneous-bleeding",
        r"\bspontaneous(?:ly)? bleed\w*|\bbleed\w*"
        r" spontaneously|\bactive(?:ly)? (?:bleed|ooz)\w*|\boozing\b",
    ),
    _rule(
        "surface_integrity", "ulcerated", r"\bulcer(?:s|ated|ations?)?\b(?!-like)", denied="intact"
    ),
    _rule("surface_integrity", "eroded", r"\berod(?:ed|ing)\b|\berosions?\b", denied="intact"),
    _rule(
        "surface_integrity",
        "friable",
        r"\bfriab(?:le|ility)\b|\bcontact bleeding\b"
        r"|\bbl(?:ed|eeds|eeding) (?:on|with|at|to|upon) (?:\w+ ){0,2}(?:contact|touch)",
    ),
    _rule("surface_integrity", "intact", r"\b(?:intact|unbroken)\b"),
]
_DEFORMITY = [
    _rule(
        "depression_or_deformity",
        "non-lifting",
        r"\bnon[- ]?lifting\b|\b(?:did|does|would) not lift"
        r"\b|\bfail(?:ed|s|ure) to lift\b|\blift(?:ed|s) (?:poorly|incompletely)",
        denied="none",
    ),
    _rule(
        "depression_or_deformity",
        "fold-convergence",
        r"\bfolds? convergence\b|\bconverg\w* (?:of (?:the"
        r" )?)?folds?\b|\bfolds? converg\w*",
        denied="none",
    ),
    _rule(
        "depression_or_deformity",
        "fold-deformation",
        r"\b(?:fold|wall) (?:deform\w*|rigidity)\b"
        r"|\bdeform(?:ity|ed|ation)\b|\brigid(?:ity)?\b|\btethered folds?\b"
        r"|\btethering of (?:\w+ ){0,2}folds?\b",
        denied="none",
    ),
    _rule(
        "depression_or_deformity",
        "central-depression",
        r"(?<!pseudo)(?<!pseudo-)(?<!pseudo )\b(?:"
        r"central(?:ly)? )?depress(?:ed|ion)s?\b(?![- ]type\b| "
        + LESION
        + r"\b)|\bumbilicat\w+|\bcentral (?:dimple|dip|pit)\b",
        denied="none",
    ),
]
_STALK = r"(?:stalk|pedicle|stem)"
_BROAD = r"(?:short|thick|broad|stubby|wide)"
_SLIM = r"(?:long|lengthy|thin|slender|narrow|slim)"
# Its own length may stand between a stalk and its kind: "stalk 15 mm long and thin".
_STALK_IS = (
    rf"\b{_STALK},? (?:{_COPULA} )?(?:(?:about |approximately )?\d+(?:\.\d+)? ?[mc]m )?"
    r"(?:(?:very|rather|quite|fairly) )?"
)
_PEDICLE = [
    _rule(
        "pedicle",
        value,
        rf"\b{kind}(?:,? (?:and )?{kind})* {_STALK}\b"
        rf"|{_STALK_IS}{kind}\b(?:,? and [^.,;]{{0,15}}?{kind}\b)?",
        denied="none",
    )
    for value, kind in (("short-thick", _BROAD), ("long-thin", _SLIM))
] + [
    # "Pedunculated" is a Paris type; its pedicle would be a guess.
    _rule("pedicle", "present-unspecified", rf"\b{_STALK}(?:ed)?\b", denied="none"),
]
_VESSEL = [
    _rule(
        "vessel_pit_pattern",
        "type-3",
        r"\b(?:NICE(?: type)?|JNET(?: type)?)[ :-]*(?:3|III)\b|\bSano(?: "
        r"(?:type|capillary pattern))?[ :-]*(?:3B|IIIB)\b|\bKudo(?:'s)?(?: type| pit(?: pattern)?"
        r"(?: type)?)?[ :-]*V[ -]?N\b|\b(?:pit pattern|type)[ :-]*V[ -]?N\b|\b(?:absent|disrupted"
        r"|interrupted"
        r"|loss of|missing|amorphous) (?:surface |micro)?(?:vessels?|vascular\w*|pits?)"
        r"|\b(?:vessels?|pits?) (?:\w+ )?(?:absent|disrupted|interrupted|lost)\b|\bavascular area",
    ),
    _rule(
        "vessel_pit_pattern",
        "type-2B",
        r"\bJNET(?: type)?[ :-]*(?:2|II)[ -]?B\b|\bSano(?: "
        r"(?:type|capillary pattern))?[ :-]*(?:3A|IIIA)\b|\bKudo(?:'s)?(?: type| pit(?: pattern)?"
        r"(?: type)?)?[ :-]*V[ -]?I?\b(?![ -]?N)|\birregular (?:micro)?(?:vessel|vascular|pit)\w*"
        r"(?: pattern)?|\b(?:pit pattern|type)[ :-]*V[ -]?I\b",
    ),
    _rule(
        "vessel_pit_pattern",
        "type-2",
        r"\bNICE(?: type)?[ :-]*(?:2|II)\b|\bJNET(?: type)?[ :-]*(?:2|II)"
        r"[ -]?A\b|\bSano(?: (?:type|capillary pattern))?[ :-]*(?:2|II)\b|\bKudo(?:'s)?(?: type"
        r"| pit"
        r"(?: pattern)?(?: type)?)?[ :-]*(?:III[ -]?[sSlL]|IV)\b"
        r"|\bpit pattern(?: type)?[ :-]*(?:III[ -]?[sSlL]"
        r"|IV)\b|\b(?:tubular|branched|gyrus-like) pits?\b|\btype (?:III[ -]?[sSlL]|IV) pits?\b"
        r"|\bregular (?:micro)?(?:vessel|vascular|pit)\w*(?: pattern)?"
        r"|\b(?:vessels?|pits?) (?:are |were |is )?regular\b",
    ),
    _rule(
        "vessel_pit_pattern",
        "type-1",
        r"\b(?:NICE|JNET|Sano)(?: type)?[ :-]*(?:1|I)\b|\bKudo(?:'s)?"
        r"(?: type| pit(?: pattern)?(?: type)?)?[ :-]*II?\b|\bpit pattern(?: type)?[ :-]*II?\b"
        r"|\b(?:round|stellar|stellate|papillary) pits?\b",
    ),
]

RULES: tuple[Rule, ...] = (
    *_COLOUR,
    *_TEXTURE,
    *_MARGIN,
    *_INTEGRITY,
    *_DEFORMITY,
    *_PEDICLE,
    *_VESSEL,
)

CONTEXT_RULES: tuple[Rule, ...] = (
    _rule("shape", "elongated", r"\b(?:elongated?|oblong|ribbon-like|stretched)\b"),
    _rule("shape", "oval", r"\b(?:oval|ovoid|egg-shaped|elliptical)\b"),
    _rule("shape", "round", r"\b(?:round(?:ed|ish)?|circular|spherical|globular)\b(?! pits?)"),
    _rule("segment", "caecum", r"\b(?:ca?ecum|ca?ecal|ileoca?ecal valve)\b"),
    _rule("segment", "ascending", r"\bascending\b"),
    _rule("segment", "hepatic flexure", r"\b(?:hepatic|right) flexure\b"),
    _rule("segment", "transverse", r"\btransverse\b"),
    _rule("segment", "splenic flexure", r"\b(?:splenic|left) flexure\b"),
    _rule("segment", "descending", r"\bdescending\b"),
    _rule("segment", "rectum", r"\brect(?:um|al)\b"),
    _rule("segment", "sigmoid", r"\b(?:recto)?sigmoid\b"),
    _rule("imaging_mode", "NBI", r"\b(?:NBI|narrow[- ]band)\b"),
    _rule("imaging_mode", "FICE", r"\bFICE\b"),
    _rule("imaging_mode", "BLI", r"\bBLI\b"),
    _rule("imaging_mode", "LCI", r"\bLCI\b"),
    _rule("imaging_mode", "chromo", r"\b(?:chromo\w*|indigo carmine|crystal violet)\b"),
    _rule("imaging_mode", "white light", r"\bwhite[- ]light\b|\bWLI\b"),
)
