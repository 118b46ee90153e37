"""Words by which a report states pathology: a laboratory, what it says, diagnoses, stages.

What an endoscopist thinks of a lesion uses the same diagnoses; ``CUE`` and ``OPTICAL`` tell it
apart.
"""

import re

from training.attribute_rules import LESION

__all__ = [
    "AFTERWARDS",
    "CUE",
    "DIAGNOSIS",
    "DISEASE",
    "EXAMINES",
    "EXCISED",
    "HISTOLOGY",
    "HISTOLOGY_NOUN",
    "HOLLOW",
    "LABORATORY",
    "LATER",
    "LEADS",
    "MICROSCOPIC",
    "OPTICAL",
    "PROVEN",
    "SEEN",
    "TELLS",
    "TISSUE",
    "TISSUE_TELLS",
    "TURNED_OUT",
]

HISTOLOGY_NOUN = (
    r"(?:(?:tubulo[- ]?villous|tubular|villous|traditional|sessile|serrated|sporadic)[ /-]+)*"
    r"(?:adenomas?(?:/polyps?)?|(?:adeno)?carcinomas?|neoplasms?|pseudopolyps?|cancers?)"
)
_HISTOLOGY_WORD = (
    r"(?:(?:non|pre)[- ]?)?(?:adenomatous|neoplas(?:tic|ia|m)|hyperplas(?:tic|ia)|dysplas(?:tic|ia)"
    r"|malignan(?:t|cy)|cancerous)|benign|(?:post[- ])?inflammatory|TVA"
    r"|(?:sessile[ -]+)?serrated|SS[ALP](?:/P)?|TSA"
    r"|tubulo[- ]?villous|villous|suspicious|sinister|(?:submucosal |deep )*invasi(?:on|ve)"
)
HISTOLOGY = rf"\b(?:{HISTOLOGY_NOUN}|{_HISTOLOGY_WORD})\b"
"""What a lesion turned out to be or might be: said of the record's outcome, whoever says it."""

CUE = (
    r"\b(?:favou?rs?|favou?red|favou?ring|appear\w*|look\w*|suggest\w*|consistent|compatible"
    r"|in keeping|(?:un)?likely|evidence"
    r"|probabl[ey]|suspicious|suspected|impression|endoscopic\w*|optical diagnosis|features?"
    r"|judged|thought"
    r"|predict\w*|typical|character(?:istic)?s?|points? to|assess\w*|regarded|considered"
    r"|read as)\b"
)
"""Words of an opinion."""
OPTICAL = re.compile(
    r"\b(?:NBI|BLI|LCI|FICE|i-?scan|JNET|NICE|WASP|kudo|pit|chromo\w*|magnif\w*|optical\w*"
    r"|endoscopic\w*|inspection|visual\w*|views?)\b",
    re.IGNORECASE,
)
"""The endoscopist's own means of telling what a lesion is."""
HOLLOW = re.compile(
    rf"(?:[\W\d]|\b(?:an?|the|it|is|was|are|were|this|that|these|there|and|of|has|have|with|in"
    rf"|to|be|{LESION})\b)*",
    re.IGNORECASE,
)
"""What is left of a sentence that told only an opinion ("Lesion 2 .")."""

# Abbreviations in capitals only: "ta" and "hp" are other words.
DIAGNOSIS = (
    rf"(?:{HISTOLOGY}|\b(?:\w*adenom(?!y)\w*|\w*[ck]arcinom\w*|\w*karzinom\w*|dysplas\w*"
    r"|hyperplast\w*|lymphoma|carcinoid|neuroendocrine|intra-?epithelial"
    r"|(?-i:TA|TVA|VA|TSA|HP|[LH]GD|[LH]GIN)s?)\b)"
)
"""The kind of a lesion, in full or abbreviated."""
TELLS = re.compile(
    rf"{DIAGNOSIS}|\b(?:microscop\w*|sections?|stain\w*|fragments?|cassettes?|tissue|margins?"
    r"|excised|crypts?|metaplas\w*|granulom\w*|formalin|no malignan\w*|(?-i:R[01]|p?T[1-4]))\b",
    re.IGNORECASE,
)
"""What a laboratory's line says, where its header alone could be another's."""
_FINDING = (
    rf"(?:{DIAGNOSIS}|\b(?:normal|negative|positive|unremarkable|inflam\w+|(?:non-?)?specific"
    r"|chronic|acute|active|granulom\w*|(?:microscopic|lymphocytic|collagenous|ulcerative) colitis"
    r"|metaplas\w+)\b)"
)

# What was done with a lesion ("sent for histology", "specimen retrieved", "awaiting pathology") and
# "no pathology seen" say nothing of what it was, and often stand in the lesion's own sentence.
_SENT = r"(?<!\bfor )(?<!\bto )(?<!\bawait )(?<!\bawaiting )(?<!\bpending )(?<!\bno )"
_LAB = (
    r"(?:h?istolog\w*|histopath\w*|histo(?!\w)|hist(?=\.? ?:)|h?istol(?!\w)|patholog\w*"
    r"|pathol(?!\w)|(?:anatom[ií]a )?patol[oó]g\w*|anapath\w*"
    r"|path(?= ?: | (?:report|result|show|confirm|came|diagnos)))"
)
LATER = re.compile(
    r"\W*(?:(?:is|was|are|were|results?|report)\s+){0,3}(?:still\s+)?"
    r"(?:pending|awaited|outstanding|to follow|requested|sent|not (?:sent|taken|available))\b",
    re.IGNORECASE,
)
"""Follows a word of ``LABORATORY`` that has told nothing yet."""
LABORATORY = re.compile(
    rf"\b(?:{_SENT}{_LAB}|for {_LAB}(?=\W*\w)(?!\W+(?:and|as|by|clip|x|\d))"
    r"|microscop(?:y|ic)|micro(?= ?:)|h ?& ?e(?= ?[:=]| (?:stain|section|show))|ha?ematoxylin\w*"
    r"|immunohisto\w*|nature of specimens?)(?!\w)",
    re.IGNORECASE,
)
"""A laboratory's own words."""
_KIND = (
    r"(?:other|further|additional|significant|obvious|gross|major|relevant|luminal|mucosal|colonic"
    r"|rectal|anal|perianal|ano-?rectal|focal|ileal|or|and)"
)
DISEASE = re.compile(
    rf"\b(?:no|nil|any|without)(?:[ /,-]+{_KIND}){{0,4}} $|\b{_KIND} $", re.IGNORECASE
)
"""Stands before "pathology" that is disease ("no significant pathology"), not a laboratory."""

TISSUE = (
    r"(?:biops(?:y|ies|ien?)|bx|specimens?|samples?|fragments?|pots?|jar|vial|cassette"
    r"|lab(?:oratory)?|cytology)"
)
_SHOWED = (
    r"(?:show(?:s|ed|n)?|confirm(?:s|ed)?|reveal(?:s|ed)?|demonstrat(?:es?|ed)|report(?:s|ed)"
    r"|found|identif(?:y|ies|ied)|diagnos(?:es|ed)|(?:came|comes?) back|return(?:s|ed)|read as"
    r"|suggest(?:s|ed)?|favou?r(?:s|ed)?)"
)
TISSUE_TELLS = re.compile(
    # "to confirm" is why a biopsy was taken
    rf"\b{TISSUE}(?:\s+[\w/]+){{0,6}}?\s+(?<!\bto ){_SHOWED}\b(?=.{{0,80}}?{_FINDING})"
    rf"|\b{TISSUE}(?:\s+[\w/]+){{0,4}}?\s+(?:(?:is|are|was|were)\s+(?:(?:all|both|\w+ly)\s+)?"
    rf"{_FINDING}|(?:negative|positive|consistent|compatible|diagnostic)\b)"
    r"|\bspecimens? (?:show|contain|consist|compris|measur|collected|confirm|reveal|demonstrat"
    r"|receiv|report)\w*|\bbiops(?:y|ies) (?:show|confirm|reveal|demonstrat|report)\w*"
    rf"|(?:^|[,(]|\s[-–]\s)\W*(?:serial )?sections? {_SHOWED}\b"
    rf"|\b(?:tissue|slides?) {_SHOWED} (?:\w+ ){{0,3}}?{DIAGNOSIS}"
    rf"|\b(?:bx|fragments? of(?: an?)?) {DIAGNOSIS}|{DIAGNOSIS} \((?:biops|histo|path|lab)\w*\)"
    rf"|\b(?:on|by|at|per) (?:the )?biops(?:y|ies)\b(?=.{{0,60}}?{_FINDING})"
    rf"|{DIAGNOSIS} (?:\w+ )?(?:on|at|by) biops(?:y|ies)\b"
    r"|\b(?:biopsy|lab|tissue)[ -](?:proven|confirmed|verified|diagnos\w+)"
    # "Biopsies: hyperplastic polyp", not "Biopsies: taken from inflamed mucosa"
    rf"|\b{TISSUE}(?:\s+[\w/().]+){{0,4}}?\s*(?::\s*-?|=|\s[-–])\s*"
    rf"(?!\d+\s?(?:mm|cm) (?:\w+ ){{0,3}}{DIAGNOSIS})"
    rf"(?:(?!taken|obtain|from|random|for\b|to\b|of\b)[\w/,:-]+\s+){{0,5}}?{_FINDING}",
    re.IGNORECASE,
)
"""Tissue, or who looked at it, tells what it is."""
_MARGIN = r"(?:(?:\w+ )?margins?|resection line)"
MICROSCOPIC = re.compile(
    r"\b(?:(?:tubular|villous|tubulovillous|serrated) adenomas?|(?:low|high)[- ]grade dysplasia"
    r"|(?:moderately|well)[- ]differentiated|resection margins?|muscularis (?:propria|mucosae))\b",
    re.IGNORECASE,
)
"""What only a microscope shows, whoever says it."""
PROVEN = re.compile(
    r"\b(?:(?-i:[LH]GD|[LH]GIN|TVA|TA)|(?:low|high)[- ]grade (?:\w+[ -]){0,2}(?:dys|neo)plas\w*"
    r"|poorly[- ]differentiated|undifferentiated|carcinoma in situ|lamina propria"
    r"|crypt (?:distortion|abscess\w*|architecture)|intra-?epithelial lymphocytes|IELs"
    r"|(?:lympho-?vascular|perineural|venous|lymphatic) invasion|tumou?r budding"
    # Stages, markers and codes.
    r"|(?-i:[ycr]{0,2}p(?:T(?:is|[0-4xX])[a-d]?|N[0-3xX]|M[01xX]))\w*"
    r"|(?-i:R[01])(?=[,;.)]|\W*$| resect)|(?-i:sm[123])|haggitt|kikuchi|dukes'?"
    r"|(?-i:T[1-4][a-d]?) (?:\w+ )?(?:cancer|\w*carcinoma)|(?:grade |(?-i:G)|grade-)[1-3]"
    r" \w*carcinoma|(?:\w*carcinoma|tumou?r|cancer),? (?-i:G[1-3])"
    r"|(?-i:IHC|d?MMR|MSI|[KN]RAS|BRAF|CK\d+|CDX-?2|CD\d+|[Kk]i-?67|p53|MLH1|MSH[26]|PMS2)"
    r"|SNOMED|(?-i:M-?8\d{4}|T-?6\d{4})"
    r"|(?:positive|negative) for (?:\w+[ -]){0,3}?(?:dysplas|malignan|neoplasia|adenom|\w*carcinom)"
    r"\w*)\b"
    rf"|{DIAGNOSIS},? (?:(?:is|was|has been|been|now) ){{0,2}}(?:confirmed|proven|verified)\b"
    rf"|{DIAGNOSIS} results?\b"
    rf"|{DIAGNOSIS} (?:\w+ ){{0,2}}(?:to|at|the) (?:the )?{_MARGIN}\b"
    rf"|\b{_MARGIN} (?:\w+ ){{0,2}}(?:free|clear) of {DIAGNOSIS}"
    r"|\b(?:deep|circumferential|stalk|diathermy|excision) margins? (?:(?:is|are|appears?) )?"
    r"(?:clear|free|involved|negative|positive)\b",
    re.IGNORECASE,
)
"""Grades, stages and proofs; an endoscopist may yet suspect them."""
EXCISED = re.compile(
    rf"(?:{DIAGNOSIS},? \w+ly excised|\b\w+ly excised {DIAGNOSIS})\b"
    r"(?!,? (?:by|with|using|via|cold|hot|en bloc|piecemeal|in |snare))",
    re.IGNORECASE,
)
"""How a diagnosis was removed; the endoscopist's too, where the lesion has a size."""
TURNED_OUT = re.compile(
    r"(?<!\bto )\b(?:pro(?:ved?|ves|ven)(?: (?:to be|to have|as))?|turn(?:s|ed) out|came back"
    r"|come back|returned|transpired|diagnosed|confirm(?:s|ed)|verified|reported (?:as|to)"
    r"|found to be|(?:up|down)graded|re-?classified|informed|notified|told"
    r"|(?:later|subsequently|finally|eventually) (?:\w+ )?(?:shown|found|reported))\b"
    rf"(?P<between>[^.;]{{0,60}}?){DIAGNOSIS}",
    re.IGNORECASE,
)
"""What a lesion was in the end."""
EXAMINES = re.compile(
    r"\b(?:(?:endo|colono)?scope|position|caecum|cecum|intubation|ileum|extent|instrument|valve"
    r"|orifice)\b[^,;:.]*$",
    re.IGNORECASE,
)
"""Stands before a verb of ``TURNED_OUT`` that tells of the examination ("scope returned")."""
SEEN = re.compile(
    r"\d\s?(?:mm|cm)\b|\b(?:circumferential|obstructing|stenosing|ulcerat\w+|fungating|bulky"
    r"|pedunculated)\b",
    re.IGNORECASE,
)
"""Stands between a verb and a diagnosis where the endoscopist describes what is seen."""
LEADS = re.compile(
    r"(?:^|[,;(\[]|\s[-–]\s)\W*(?:(?:(?:\d+|late|new)[.)]?\s+)?"
    r"(?:(?:[\w ]{1,30}, ){0,3}(?:polypectomy|(?:\w+ )?excisions?|resection|EMR|ESD)"
    r"|[\w ]{1,30}, polyps?|(?:final )?diagnos[ei]s|final|dx|addend(?:um|a)|supplement\w*|update"
    r"|outcome|results?|letter|comment|post-?script|P\.?S|befund|MDT)"
    r"(?:\s+[\w/().-]+){0,4}?\s*(?::-?|=|\s[-–])|(?-i:[A-H])\d?[:)]\s)"
    rf"(?P<between>[^.;]{{0,60}}?){DIAGNOSIS}",
    re.IGNORECASE,
)
"""A heading before a diagnosis; the endoscopist's too, where the lesion has a size."""
AFTERWARDS = re.compile(
    rf"{DIAGNOSIS}|\bgrade\b|\bexcised\b|\bmargins?(?: (?:is|are|appear))? (?:clear|free|involved"
    r"|negative|positive|uninvolved)\b",
    re.IGNORECASE,
)
"""What goes on about pathology in the sentences after it."""
