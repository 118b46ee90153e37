"""Vocabulary of the nine morphological attributes of METHOD 3.3.

The nine names and their values are our choice (the paper gives only the number); values are
taken as reported and none is guessed from another. Histology is no attribute: it is the
evaluation label.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "AROUND",
    "ATTRIBUTES",
    "BACKGROUND",
    "BE",
    "CONTEXT_RULES",
    "DENIAL_WITHIN",
    "FILL",
    "IS",
    "LESION",
    "MUCOSA",
    "ORDINAL",
    "PARIS_GROUPS",
    "SHAPES",
    "Rule",
    "rules",
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
    r"(?:pol+[yi]+ps?|polyos?|polpys?|ployps?|plyps?|polypoid (?:lesions?|growths?|mass(?:es)?)"
    r"|les+ions?|leisons?"
    r"|adenomas?|(?:laterally spreading )?(?:tumou?rs?)|LS[TL]s?|SS[ALP]s?|neoplasms?"
    r"|neoplas(?:tic|ia)"
    r"[- ]looking area|growths?|nodules?|mass(?:es)?|carcinomas?)"
)


@dataclass(frozen=True)
class Rule:
    """One pattern that speaks for one value.

    Attributes:
        name: attribute or context key.
        value: value it speaks for.
        pattern: compiled pattern; the whole match is the evidence.
        denied: value when the words are negated; None where a denial says nothing.
    """

    name: str
    value: str
    pattern: re.Pattern[str]
    denied: str | None = None


def rules(
    name: str, table: Mapping[str, tuple[str, ...]], denied: Mapping[str, str] | None = None
) -> tuple[Rule, ...]:
    """Make one rule a value; the order of values is their precedence."""
    return tuple(
        Rule(name, value, re.compile("|".join(lines), re.IGNORECASE), (denied or {}).get(value))
        for value, lines in table.items()
    )


# A match that opens with these holds its own denial ("did not lift", "no clear border").
DENIAL_WITHIN = re.compile(
    r"(?:not?|did|does|do|was|would|will|could|can|cannot|can't|couldn't|won't|fail\w*"
    r"|unable|absen[tc]e?|without|lack\w*|loss|missing|never)\b",
    re.IGNORECASE,
)
AROUND = r"(?:surrounding|adjacent|neighbou?ring|background|adjoining|nearby|normal)"
MUCOSA = r"(?:mucosae?|tissues?|epithelium|colon|bowel)"
# Said of what lies about the lesion, not of it.
BACKGROUND = re.compile(
    rf"(?P<before>\blandmarks?\b[^.;]{{0,50}}$|\b{AROUND} (?:\w+ )?{MUCOSA}:? (?:(?:is|was"
    rf"|appears?|appeared|looks?|looked)"
    rf" )?(?:(?!(?:with|but|and|which|an?)\b)\w+(?:,| and) |very |mildly |slightly )?$)"
    rf"|(?P<after>^ {AROUND} (?:\w+ )?{MUCOSA}\b)",
    re.IGNORECASE,
)
BE = r"(?:is|are|was|were|appears?|appeared|looks?|looked|seems?|seemed|being|remains?)"
# Between a part and its adjective: "margins are rather", "Surface:", "edge raised and".
FILL = r"(?:(?!(?:not|and|an?|the|with|but|no|without)\b)\w+(?:,| and)? ){0,2}?"
IS = rf"(?: ?[:=-])? (?:{BE} )?{FILL}"
# Told and measured, but none of the nine.
CONTEXT_RULES: tuple[Rule, ...] = (
    *rules(
        "shape",
        {
            "elongated": (r"\b(?:elongated?|oblong|ribbon-like|stretched)\b",),
            "oval": (r"\b(?:oval|ovoid|egg-shaped|elliptical)\b",),
            "round": (r"\b(?:round(?:ed|ish)?|circular|spherical|globular)\b(?! pits?)",),
        },
    ),
    *rules(
        "segment",
        {
            "caecum": (r"\b(?:ca?ecum|ca?ecal|ileoca?ecal valve)\b",),
            "ascending": (r"\bascending\b",),
            "hepatic flexure": (r"\b(?:hepatic|right) flexure\b",),
            "transverse": (r"\btransverse\b",),
            "splenic flexure": (r"\b(?:splenic|left) flexure\b",),
            "descending": (r"\bdescending\b",),
            "rectum": (r"\brect(?:um|al)\b",),
            "sigmoid": (r"\b(?:recto)?sigmoid\b",),
        },
    ),
    *rules(
        "imaging_mode",
        {
            "NBI": (r"\b(?:NBI|narrow[- ]band)\b",),
            "FICE": (r"\bFICE\b",),
            "BLI": (r"\bBLI\b",),
            "LCI": (r"\bLCI\b",),
            "chromo": (r"\b(?:chromo\w*|indigo carmine|crystal violet)\b",),
            "white light": (r"\bwhite[- ]light\b|\bWLI\b",),
        },
    ),
)
