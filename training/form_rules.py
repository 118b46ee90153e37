"""Wordings of deformity, pedicle, vessels and pits in reports: one line a class of wording.

Values follow ``extract/labels/GUIDELINES.md``; scales follow METHOD 3.1 (NICE,
JNET, Kudo, Sano). Every repeat is bounded, so that a report of any
size is read in linear time.
"""

from training.attribute_rules import BE, LESION, Rule, rules

__all__ = ["FORM_RULES"]

# --------------------------------------------------------------------------------- deformity
_NOT = (
    r"(?:(?:did|does|do|would|will|could|can|may)(?: not|n't)|cannot|fail(?:ed|s|ing|ure)? to"
    r"|unable to|never)"
)
_FOLD = r"(?:folds?|walls?|haustra|haustral folds?)"
_BENT = (
    r"(?:deform\w*|distort\w*|rigid(?:ity)?|stiff\w*|tether\w*|retract(?:ed|ion|ing|s)?|kink\w*"
    r"|tent(?:ed|ing)|indrawn|pull(?:ed|ing|s)|fixed|fixation|angulat\w+|warp\w*|buckl\w+)"
)
_MEET = (
    r"(?:converg\w*|radiat\w+|gather\w*|pucker\w*|drawn (?:in|to)\w*|pulled (?:in|to)\w*"
    r"|run(?:ning)? to\w*)"
)
_MIDDLE = r"(?:centr(?:e|al|ally)|center|middle|mid-?portion)"
_HOLLOW = (
    r"(?:dimpl\w*|dip(?:s|ped|ping)?|pit(?:ted)?(?!s| ?pattern)|indent\w*|sunk\w*|sink\w*"
    r"|hollow\w*|concav\w+"
    r"|excavat\w+|pulled[- ]in|drawn[- ]in|notch\w*|recess\w*|depress\w+|retracted|dell)"
)
_DEFORMITY = rules(
    "depression_or_deformity",
    {
        "non-lifting": (
            r"\bnon[- ]?lift\w*(?: sign)?(?: (?:was |is )?positive)?",
            rf"\b{_NOT} (?:\w+ly |even |really )?(?:lift(?:ed)?|rise(?! in)|elevate|be (?:lifted"
            rf"|raised|elevated))\b",
            r"\bnot lifting\b",
            r"\b(?:lift|elevat|rose|ris)\w* (?:only )?(?:very )?(?:poorly|incompletely|partially"
            r"|partly|badly|minimally|inadequately)",
            r"\b(?:poor|incomplete|partial|inadequate|absent|minimal|no|lack of|limited|failed"
            r"|absence"
            r" of) (?:\w+ )?(?:lift|elevation (?:on|with|after|following))(?:ing)?\b"
            r"(?! (?:\w+ )?(?:attempt|perform|done|requir|need|inject|agent)\w*)",
            r"\blift(?:ing)?(?: sign)?(?: ?:| was| is) (?:only )?(?:\w+ )?(?:poor|incomplete"
            r"|partial"
            r"|absent|none|nil|no\b|negative|inadequate|unsuccessful|failed)",
            r"\bstuck down\b|\bremained flat (?:after|on|despite|following)",
        ),
        "fold-convergence": (
            rf"\bfolds? (?:\w+ ){{0,2}}?{_MEET}|\b{_MEET} (?:of (?:the )?)?(?:\w+ )?folds?\b",
        ),
        "fold-deformation": (
            rf"\b{_FOLD} (?:(?!(?:and|with|no|not|without|which)\b)\w+ ){{0,4}}?{_BENT}\b",
            rf"\b{_BENT} (?:of |to |on |at )?(?:the |an? |its )?(?:(?!(?:no|not"
            rf"|with)\b)\w+ ){{0,2}}?"
            rf"{_FOLD}\b",
            r"\bdeform(?:ity|ed|ation)\b|\brigid(?:ity)?\b(?! (?:scop\w+|sigmoidosc\w+|proctosc\w+"
            r"|instrument))",
            r"\btether(?:ed|ing|s)\b(?! (?:sigmoid|colon|bowel|loop|by adhesions))",
            r"\bnon[- ]?extension sign\b|\btrapezoid\w*",
        ),
        "central-depression": (
            r"(?<!pseudo)(?<!pseudo-)(?<!pseudo )\b(?:central(?:ly)? )?depress(?:ed|ion)s?\b"
            rf"(?![- ]type\b| {LESION}\b)",
            rf"\bumbilicat\w+|\b{_MIDDLE} (?:{BE} )?(?:\w+ )?{_HOLLOW}\b(?! pattern)",
            rf"\b{_HOLLOW}(?:,? \w+)? {_MIDDLE}\b|\b(?:{_HOLLOW}) in (?:its|the) {_MIDDLE}",
            r"\bsunken\b(?! eyes)|\bdimpl(?:e|ed|ing)\b",
        ),
    },
    denied=dict.fromkeys(
        ("non-lifting", "fold-convergence", "fold-deformation", "central-depression"), "none"
    ),
)
# ----------------------------------------------------------------------------------- pedicle
_STALK = r"(?:stalk|pedicle|stem|peduncle)s?"
_VERY = r"(?:very|rather|quite|fairly|relatively|extremely|moderately)"
_BROAD = (
    r"(?:short|thick(?:ened)?|broad(?:[- ]based)?|stubby|wide|fat|stout|chunky|squat|stumpy|bulky"
    r"|sturdy|plump|fleshy)"
)
_SLIM = (
    r"(?:long(?!er)|lengthy|thin|slender|narrow|slim|elongated|fine|delicate|thread-like|spindly"
    r"|filiform|stretched)"
)
# Its own length may stand between a stalk and its kind: "stalk 15 mm long and thin".
_STALK_IS = (
    rf"\b{_STALK}(?: ?[:=-]|,)? (?:(?:which |that )?{BE} )?(?:(?:about "
    rf"|approximately )?\d+(?:\.\d+)? ?[mc]m )?"
    rf"(?:{_VERY} )?"
)
_THEN = rf"(?:[-/]|,? (?:(?:and|but|yet) )?(?:{_VERY} )?)"


def _of_kind(kind: str) -> tuple[str, ...]:
    return (
        rf"\b{kind}(?:{_THEN}{kind}){{0,3}}[, ]+(?:\(?\d+(?:\.\d+)? ?[mc]m\)? )?{_STALK}\b",
        rf"\b{kind}[- ](?:stalked|pedicled|stemmed)\b",
        rf"{_STALK_IS}{kind}\b(?:,? and [^.,;]{{0,15}}?{kind}\b)?",
    )


_PEDICLE = (
    # "A long thick stalk" is neither of the two kinds.
    *rules(
        "pedicle",
        {
            "present-unspecified": (
                rf"\b(?:{_BROAD}{_THEN}{_SLIM}|{_SLIM}{_THEN}{_BROAD}) {_STALK}\b",
            )
        },
        denied={"present-unspecified": "none"},
    ),
    *rules(
        "pedicle",
        {
            "short-thick": _of_kind(_BROAD),
            "long-thin": _of_kind(_SLIM),
            # "Pedunculated" is a Paris type; its pedicle would be a guess.
            "present-unspecified": (rf"\b{_STALK}\b|\b(?:stalk|pedicl)ed\b",),
        },
        denied=dict.fromkeys(("short-thick", "long-thin", "present-unspecified"), "none"),
    ),
    *rules("pedicle", {"none": (r"\bstalkless\b",)}),
)
# -------------------------------------------------------------------------------- vessels, pits
_TYPE = (
    r"(?:'?s\b)?(?:[ -](?:class(?:ification)?|type|category|grade|group|stage|pattern|subtype"
    r"|capillary|pit))*(?: (?:is|was|of))?[ :=()-]*"
)
_KUDO = (
    rf"(?:\bKudo{_TYPE}|\bpit[- ]?patterns?(?: Kudo)?{_TYPE}|\bpits?,? type ?"
    r"|\btype (?=\S{1,5}(?: ?[sSlL])? pits?\b))"
)
_NO_SIZE = r"\b(?! ?[mc]m|[.,]\d)"
_ONE, _TWO, _THREE = (rf"(?:{n}){_NO_SIZE}" for n in ("1|I|one", "2|II|two", "3|III|three"))
_VESSEL_WORD = (
    r"(?:micro-?)?(?:vessels?|vascular(?:ity|isation|ization)?|vasculature|capillar(?:y|ies))"
)
_PATTERN = rf"(?:(?:{_VESSEL_WORD}|pits?)(?:[- ](?:pattern|network|architecture|structure)s?)?)"
_CHAOTIC = (
    r"(?:irregular(?:ly)?|tortuous|distorted|uneven|chaotic|disorgani[sz]ed|disordered|bizarre"
    r"|corkscrew|variable|varying|varied|unequal|differing)"
)
_GONE = (
    r"(?:absent|disrupted|interrupted|lost|destroyed|obliterated|effaced|missing|amorphous"
    r"|structureless|broken(?: off)?|cut off|not (?:recogni[sz]able|discernible))"
)
# A scale is the endoscopist's verdict, and outranks words for what was seen.
_SCALE = rules(
    "vessel_pit_pattern",
    {
        "type-3": (
            rf"\b(?:NICE|JNET){_TYPE}{_THREE}|\bSano{_TYPE}(?:3|III)[ -]?B\b",
            rf"\bHiroshima{_TYPE}C[ -]?3\b|{_KUDO}(?:V|5)[ -]?N\b|\btype[ :-]*V[ -]?N\b",
        ),
        "type-2B": (
            rf"\bJNET{_TYPE}(?:2|II|two)[ -]?B\b|\bSano{_TYPE}(?:3|III)[ -]?A\b",
            rf"\bHiroshima{_TYPE}C[ -]?[12]?\b|\btype[ :-]*V[ -]I\b",
            rf"{_KUDO}(?:V|5|five)[ -]?I?\b(?![ -]?N)",
        ),
        "type-2": (
            rf"\bNICE{_TYPE}{_TWO}|\bJNET{_TYPE}(?:2|II|two)[ -]?A\b|\bSano{_TYPE}{_TWO}",
            rf"\bHiroshima{_TYPE}B\b|{_KUDO}(?:III|3|three)[ -]?[sl]?\b|{_KUDO}(?:IV|4|four)\b",
            r"\b(?:(?:III|3)[ -]?[sl]|IV) (?:pits?|pit[- ]pattern)\b",
        ),
        "type-1": (
            rf"\b(?:NICE|JNET|Sano){_TYPE}{_ONE}|\bHiroshima{_TYPE}A\b",
            rf"{_KUDO}(?:II?(?:-?O)?|[12]|one|two)\b(?!\.\d)|\b(?:II?) pits?\b",
        ),
    },
)
_PATTERN_WORDS = rules(
    "vessel_pit_pattern",
    {
        "type-3": (
            rf"\b(?:loss of|{_GONE}) (?:surface (?:and )?)?{_PATTERN}\b",
            rf"\b{_PATTERN}(?: ?[:=-])? (?:{BE} )?(?:\w+ )?{_GONE}\b|\bavascular area",
        ),
        "type-2B": (
            rf"\b{_CHAOTIC}(?: (?:surface|and|or|micro)[, ]){{0,2}}? ?(?:\w+ )?{_PATTERN}\b"
            r"(?: of \w+ calib(?:re|er))?",
            rf"\b{_PATTERN}(?: ?[:=-])? (?:{BE} |with |of |showing )?"
            rf"(?:(?!(?:not|no|and|regular|with)\b)\w+ ){{0,2}}?{_CHAOTIC}\b"
            r"(?: (?:in )?calib(?:re|er))?",
        ),
        "type-2": (
            r"\b(?:tubular|branched|branching|gyrus-like|gyrate|elongated) pits?\b",
            r"\b(?:regular|uniform|meshed|honeycomb)(?: (?:and )?\w+| \w+ (?:and|or))? "
            rf"{_PATTERN}\b",
            rf"\b{_PATTERN}(?: ?[:=-])? (?:{BE} )?(?:(?!not\b)\w+ )?(?:regular|uniform|meshed)\b",
            r"\b(?:brown|brownish|spiral) vessels?\b",
        ),
        "type-1": (
            r"\b(?:round|roundish|stellar|stellate|star-?(?:shaped|like)|papillary|open|asteroid)"
            r" pits?\b|\b(?:isolated )?lacy vessels?\b",
        ),
    },
)

FORM_RULES: tuple[Rule, ...] = (*_DEFORMITY, *_PEDICLE, *_SCALE, *_PATTERN_WORDS)
