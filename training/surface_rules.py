"""Wordings of colour, texture, margin and integrity in reports: one line a class of wording.

Values follow ``extract/labels/GUIDELINES.md``. Every repeat is bounded, so that a report of any
size is read in linear time.
"""

from training.attribute_rules import AROUND, BE, FILL, IS, MUCOSA, Rule, rules

__all__ = ["SURFACE_RULES"]

# ------------------------------------------------------------------------------------ colour
# "white light", "brown stool" and the like describe something else than the lesion.
_NOT_COLOUR = (
    r"(?![- ](?:light|balance|stool|fluid|liquid|debris|faec\w*|fec\w*|out\b|spots?\b|structures?"
    r"|dots?|mucus|exudate|slough|fur|plaques?|opaque|substance|cells?|blood|clots?|flags?|lens"
    r"|vessels?|line|coat))"
)
_HUE = r"(?:colou?r(?:ation)?|hue|shade|tint|tone)"
_SAME = (
    r"(?:same|similar|identical|equal|comparable|alike|match\w*|close|like|indistinguishable"
    r"|no different|not (?:so |any )?different|unchanged)"
)
_COLOUR = rules(
    "colour",
    {
        "mixed": (
            r"\b(?:mixed|variegated|heterogen\w+|patchy|uneven|mottled|variable)[- ]?(?:red and "
            rf"(?:white|pale) )?(?:in )?{_HUE}\w*",
            rf"\b{_HUE}{IS}(?:mixed|patchy|uneven|heterogen\w+|variable|inhomogen\w+)\b",
            r"\bvariegat\w+|\bmottl(?:ed|ing)\b|\b(?:two|dual|multi)[- ]?(?:tone\w*|colou?r\w*)",
            r"\bbi-?colou?r\w*|\bpatchy (?:red|pale|white|brown)\b",
        ),
        "isochromatic": (
            r"\biso-?chro(?:mat|m|ous)\w*|\bnormo-?chrom\w+|\bcon-?colou?r\w*",
            rf"\b(?:same|similar|matching|identical|equal)(?: in)? {_HUE}\b(?: (?:as|to|with)\b)?",
            rf"\b{_HUE}(?: {BE}| of the (?:polyp|lesion)){{0,2}}:?(?: (?:the|almost|very|much"
            rf"|nearly)){{0,2}} {_SAME}\b(?: (?:to|as|from|with)\b)?",
            rf"\b(?:normal|mucosa)[- ]{_HUE}(?:ed)?\b|\b{_HUE}{IS}normal\b",
            rf"\b(?:no|without(?: any)?) (?:\w+ )?{_HUE} (?:change|difference|contrast)",
            rf"\b(?:no different|not different|does not differ|unchanged"
            rf"|indistinguishable) in {_HUE}",
            rf"\b(?:same|similar|identical|{_SAME}) (?:as|to|from) (?:the |its )?{AROUND} (?:\w+ )?"
            rf"{MUCOSA} in {_HUE}|\bmatch\w* (?:the )?{AROUND} (?:\w+ )?{MUCOSA} in {_HUE}",
            rf"\b(?:of|in|has|with) (?:the )?{_HUE} of (?:the |its )?{AROUND}",
            rf"\b{_HUE} (?:as|like) (?:the |its )?(?:{AROUND}|surroundings|rest)",
        ),
        "dark-red": (
            r"\b(?:dusky,? )?(?:dark(?:er|ish)?|deep(?:er|ly)?)[- ](?:red(?:dish)?|brown\w*|purple"
            r"|violet)\b" + _NOT_COLOUR,
            r"\b(?:brown(?:er|ish)?|dark(?:er)? than|darker|purpl?ish|violaceous|dusky|maroon"
            r"|burgundy|plum[- ]colou?red|(?<!stained )purple)\b" + _NOT_COLOUR,
        ),
        "pale": (
            r"\b(?:pal(?:e|er|ish|lid|lor)|(?:off|grey(?:ish)?|yellow(?:ish)?)-?white|whit(?:e|er"
            r"|ish"
            r")|light(?:er|ly)(?:[- ]colou?red)?|light[- ]colou?red|blanched|milky)\b"
            r"(?! than 1|[- ]weight|[- ]headed)" + _NOT_COLOUR,
        ),
        "red": (
            r"(?<!dark )(?<!dark-)(?<!darker )(?<!deep )(?<!deeper )\b(?:(?:bright|cherry|beefy"
            r"|brick|fiery)[- ])?(?:red(?:der|dish|dened|ness)?|scarlet|crimson)\b" + _NOT_COLOUR,
            r"\b(?:erythe?mat\w+|hypera?emi[ac]\w*|hypera?emic)\b",
        ),
    },
)
# ----------------------------------------------------------------------------------- texture
_FACE = r"(?:surface|texture|mucosa|relief|surface (?:texture|pattern|structure|relief))"
_NO_LST = r"(?!(?:[- ](?:type|mixed|homogeneous))?,?[- ](?:LST|laterally))"
_ROUGH = (
    r"(?:irregular|uneven|rough(?:ened)?|bumpy|lumpy|coarse|craggy|corrugated|rugged|wrinkled"
    r"|rugose)"
)
_MUCUS = r"(?:muc(?:us|ous|in|oid))"
_TEXTURE = rules(
    "surface_texture",
    {
        "cloud-like": (
            r"\bcloud(?:[- ]?like|y|ed)\b",
            rf"\b{_MUCUS}[- ](?:cap(?:ped)?|coat(?:ed|ing)?|cover(?:ed|ing)?|layer|film|blanket)\b",
            rf"\bcap(?:ped)? (?:of|with|by|in) (?:\w+ )?{_MUCUS}|\badherent {_MUCUS}",
            rf"\bcover(?:ed|ing) (?:of|with|by|in) (?:an? |the )?(?:\w+ )?(?:\w+ of )?{_MUCUS}\b",
        ),
        "lobulated": (
            r"\b(?:multi|bi|tri|poly)?-?lob(?:ul|ul?at|ed\b)\w*|\bcerebr(?:i|o)form\b|\bgyriform\b",
            r"\b(?:brain|gyrus)[- ]like\b(?! pits?)|\bgyrated\b|\bconvoluted\b",
        ),
        "nodular": (
            r"\b(?:multi|micro|macro)?-?nodul(?:ar(?:ity)?|ated)\b(?![- ]mixed)",
            r"\bknobb?ly\b|\bbosselated\b|\bstudded with (?:\w+ )?nodules",
        ),
        "granular": (
            r"(?<!non-)(?<!non )\b(?:finely |fine |coarsely )?granul(?:ar(?:ity)?|ated)\b"
            + _NO_LST,
            r"\bgrainy\b|\bpebbl(?:y|ed)\b|\bsandpaper\w*",
        ),
        "amorphous": (
            r"\b(?:amorphous|structureless)\b(?! (?:pits?|vessels?|vascular))",
            rf"\bfeatureless (?:\w+ )?{_FACE}|\b{_FACE}{IS}featureless\b",
        ),
        "irregular": (
            rf"\b{_ROUGH}(?: \w+)?,? {_FACE}(?! and vessel)",
            rf"\b{_FACE}{IS}{_ROUGH}\b|\b{_FACE} of the \w+ {BE} (?:\w+ )?{_ROUGH}\b",
        ),
        "smooth": (
            r"\bsmooth\b(?![- ](?:\w+ )?(?:margin|border|edge|outline|contour|rim|transition"
            r"|muscle|passage|insertion|procedure))",
        ),
    },
)
# ------------------------------------------------------------------------------------ margin
_EDGE = (
    r"(?<!resection )(?<!defect )(?<!EMR )(?<!site )(?<!excision )(?:margins?|borders?|edges?"
    r"|outlines?|limits?|boundar(?:y|ies)|rims?|contours?|perimeter"
    r"|periphery|(?:lateral|peripheral) extent|lines? of demarcation|demarcation(?: lines?)?)"
)
# "margins clear of the surface": the adjective is the surface's.
_NO_FACE = rf"\b(?! (?:\w+ )?(?:{_FACE}|colou?r))"
_OF_EDGE = rf"\b{_EDGE}(?: ?[:=-]|,)? (?:all round )?(?:{BE} |can be )?{FILL}"
_DRAWN = (
    r"(?:(?:de)?limited|defined|marked|demarc?ated|demarked|circumscribed|delineated|outlined"
    r"|visible|seen|discernible|discerned|identif\w+|appreciated|traced|traceable|made out"
    r"|recogni[sz]\w+|visuali[sz]ed|separated|distinguish\w*|apparent|perceptible|defin(?:able"
    r"|ite))"
)
_STRICT = (
    r"(?:defined|limited|delimited|demarc?ated|demarked|circumscribed|delineated|outlined|marked)"
)
_EDGED = r"(?:edged|bordered|margined|contoured)\b"
_DRAW = (
    r"(?:delineate|define|see|trace|discern|make out|identify|appreciate|tell|say|judge"
    r"|visuali[sz]e"
    r"|determine|distinguish|recogni[sz]e|follow|assess|demarcate|find)"
)
_WELL = (
    r"(?:well|clear(?:ly)?|sharp(?:ly)?|crisp(?:ly)?|eas(?:ily|y)|readily|distinctly|cleanly"
    r"|neatly)"
)
_ILL = (
    r"(?:ill|poor(?:ly)?|vague(?:ly)?|badly|weakly|barely|hardly|loosely|imprecisely|incompletely"
    r"|not (?:so |very |entirely |at all )?(?:well|clearly|sharply|easily|readily|crisply))"
)
_SHARP = (
    r"(?:clear(?:[- ]cut|ly)?|distinct|sharp(?:ly)?|crisp|discrete|definite|obvious|precise|clean)"
)
_DIM = (
    r"(?:indistinct|unclear|vague|blurr(?:ed|y|ing)|fuzzy|faint|subtle|hazy|obscured?|imperceptible"
    r"|diffuse|inconspicuous|smudged|indefinite|undefined|undemarcated|imprecise|feathered|feathery"
    r"|uncertain|invisible)"
)
_RAGGED = (
    r"(?:irregular|rolled(?:[- ](?:up|out|over))?|ragged|jagged|everted|heaped(?:[- ]up)?|scalloped"
    r"|notched|serpiginous|spiculated|stellate|uneven)"
)
_HARD = r"(?:difficult|hard|tricky|impossible|challenging|tough|not (?:easy|possible))"
_FADE = r"(?:merg|blend|fad|melt|taper|dissolv|shad)(?:s|es|e|ing|ed)?"
_MARGIN = rules(
    "margin",
    {
        "irregular": (
            rf"\b{_RAGGED}(?:,? (?:and )?\w+)? {_EDGE}",
            rf"{_OF_EDGE}{_RAGGED}{_NO_FACE}",
        ),
        "indistinct": (
            rf"\b{_ILL}[- ]{_STRICT}\b(?! (?:folds?|vessels?|pits?|vascular|pit))",
            rf"\b{_STRICT} (?:poorly|badly|vaguely)\b|\b(?:ill|poorly|vaguely|{_DIM})[- ]{_EDGED}",
            rf"\b{_DIM}(?:,? (?:and )?\w+)? {_EDGE}|{_OF_EDGE}{_DIM}\b|\bindistinct\b(?! (?:\w+ )?"
            r"(?:pits?|vessels?|vascular|vasculature))",
            rf"\b{_EDGE}{IS}(?:lost|absent)\b|{_OF_EDGE}{_ILL} {_DRAWN}\b",
            rf"{_OF_EDGE}(?:{_HARD} to(?: \w+)?|cannot be|could not be|can't be"
            r"|not (?:be )?(?:defin|delineat|demarcat|discern|identifi|distinguish)\w*"
            r"|not (?:clear|distinct|sharp|crisp|obvious|well))",
            rf"\b{_HARD} to (?:delineate|demarcate|define|distinguish)\b"
            rf"|\b{_HARD} to {_DRAW}(?:,? (?:and )?[\w']+){{0,4}}? (?:{_EDGE}|where|extent)\b",
            rf"\b(?:no|lack of|without|absent|loss of)(?: an?| any)? (?:(?:clear|visible|definite"
            rf"|obvious|distinct|sharp|discernible|identifiable|real)[, ]+){{0,2}}{_EDGE}",
            rf"\b{_EDGE}(?: [\w,]+){{0,4}}? {_FADE}\b(?: (?!\w+ing)\w+ly)?",
            rf"\b{_FADE} (?:\w+ly )?(?:in(?:to)?|with|to) (?:the |its )?(?:{AROUND}|surroundings"
            rf"|{MUCOSA})\b|\b{_FADE} (?:\w+ly )?into the\b",
        ),
        "well-defined": (
            rf"\b{_STRICT} (?:well|clearly|sharply)\b|\b(?:{_WELL}|{_SHARP})[- ]{_EDGED}",
            rf"\b{_WELL}[- ]{_STRICT}\b(?! (?:folds?|vessels?|pits?|vascular|pit))",
            rf"\b{_SHARP}(?:,? (?:and )?(?!(?:of|view)\b)\w+)? {_EDGE}(?! (?:\w+ ){{0,2}}(?:after"
            rf"|following|post)\b)",
            rf"{_OF_EDGE}(?:{_WELL} {_DRAWN}|{_SHARP}{_NO_FACE}|{_DRAWN}\b|easy to)",
            rf"\b(?:easy|possible) to {_DRAW}(?: \w+){{0,3}}? {_EDGE}|\bdemarcation line present",
            r"\b(?:stands?|standing|stood) out (?:clearly|sharply|well) (?:from|against)",
            r"\b(?:sharp|abrupt|clear) transition\b",
        ),
    },
    denied={"well-defined": "indistinct"},
)
# --------------------------------------------------------------------------------- integrity
_BLEED = r"(?:bl(?:eeding|eeds?|ed)|ooz(?:e[sd]?|ing))"
# Bleeding that a removal caused.
_NOT_CUT = (
    r"(?! (?:\w+ ){0,4}(?:after|post|following|base|site|defect|resection|cut|controlled"
    r"|stopped|treated|polypectomy|snare|biops\w+)\b)"
)
_TOUCHED = (
    r"(?:contact|touch\w*|brush\w*|wash\w*|rins\w+|irrigat\w+|prob(?:ed|ing)|palpat\w+|rubb\w+"
    r"|manipulat\w+|insufflation|scope|instrument|tip of the scope)"
)
_INTEGRITY = rules(
    "surface_integrity",
    {
        "spontaneous-bleeding": (
            rf"\bspontaneous(?:ly)? (?:\w+ )?(?:{_BLEED}|ha?emorrhag\w+)",
            rf"\b{_BLEED} (?:was )?spontaneous\w*|\bactive(?:ly)? {_BLEED}{_NOT_CUT}",
            rf"\boozing\b(?! (?:\w+ ){{0,2}}(?:on|upon|with|to"
            rf"|when) (?:\w+ )?{_TOUCHED}){_NOT_CUT}",
            r"\btrickl(?:e|ing)(?: of)?(?: fresh)? blood\b|\bblood (?:was )?(?:trickl|ooz|seep|drip"
            r"|spurt)ing\b",
            r"\b(?:fresh|bright red) blood (?:seen |was )?(?:on|over|from|at) (?:its"
            r"|the) (?:surface"
            r"|head|tip|polyp|lesion|tumou?r|mass)\b|\b(?:already|found) bleeding\b",
            rf"\b{_BLEED} (?:\w+ )?(?:without|before) (?:\w+ ){{0,2}}{_TOUCHED}",
        ),
        "ulcerated": (r"\bulcer(?:s|ated|ations?|ating|ous|o)?\b(?!-like)",),
        "eroded": (r"\berod(?:ed|ing)\b|\berosions?\b|\bexcoriat\w+|\babraded\b|\babrasions?\b",),
        "friable": (
            r"\bfriab\w+|\bfragile\b|\b(?:contact|touch)[- ](?:bleed\w*|ha?emorrhage)",
            rf"\b{_BLEED} (?:\w+ )?(?:on|with|at|to|upon|when|after|from|under|during|if) "
            rf"(?:(?!not\b)\w+ ){{0,3}}?{_TOUCHED}\b",
            rf"\b{_BLEED} (?:very )?(?:easily|readily)|\b(?:easily|readily) bleed\w*",
            r"\bcrumbl(?:y|es?|ing)\b",
        ),
        "intact": (
            r"(?<!sphincter )(?<!anastomosis )(?<!pattern )(?<!valve )(?<!folds )(?<!vasculature )"
            r"(?<!sphincter is )(?<!anastomosis is )(?<!pattern is )\b(?:intact|unbroken|(?:un"
            r"|non)ulcerated)"
            r"\b(?! (?:anal|sphincter|anastomosis|vascular|valve|perianal|ileocolonic|rectal))",
            r"\bno (?:mucosal |surface |epithelial )(?:breaks?|defects?|breach)\b",
        ),
    },
    denied={"ulcerated": "intact", "eroded": "intact"},
)

SURFACE_RULES: tuple[Rule, ...] = (*_COLOUR, *_TEXTURE, *_MARGIN, *_INTEGRITY)
