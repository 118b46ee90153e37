"""The coded concepts that structured reports and FHIR bundles use, in one table.

SNOMED CT where it has the concept, as DICOM's context groups choose it; what is this service's own
(a probability, why a frame was set aside) is of the scheme 99ENDOCLIP, whose meanings stand here
and in docs/dialects.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ABSENT",
    "COLONOSCOPY",
    "DECISIONS",
    "IMAGE_QUALITY",
    "OWN",
    "PRESENT",
    "REASONS",
    "SYSTEMS",
    "TASKS",
    "UNDETERMINED",
    "Concept",
    "TaskConcepts",
]

OWN = "99ENDOCLIP"
# DICOM's designators of coding schemes → the URIs that FHIR has for them.
SYSTEMS: Mapping[str, str] = {
    "SCT": "http://snomed.info/sct",
    "UCUM": "http://unitsofmeasure.org",
    OWN: "urn:endo-clip:concepts",
}


@dataclass(frozen=True, slots=True)
class Concept:
    """A code, its scheme as DICOM designates it, and its meaning (at most 64 characters)."""

    code: str
    scheme: str
    meaning: str


@dataclass(frozen=True, slots=True)
class TaskConcepts:
    """What a named task is about.

    Attributes:
        finding: what may be there.
        question: whether it is, of a frame or of a patient.
        probability: of the positive label, calibrated.
    """

    finding: Concept
    question: Concept
    probability: Concept


COLONOSCOPY = Concept("73761001", "SCT", "Colonoscopy")
# DICOM's own answers to whether something is there: CID 240.
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")
DECISIONS: Mapping[str, Concept] = {
    "positive": PRESENT,
    "negative": ABSENT,
    "abstained": UNDETERMINED,
}
IMAGE_QUALITY = Concept("image-quality", OWN, "Why the image was set aside")
REASONS: Mapping[str, Concept] = {
    "blurred": Concept("blurred", OWN, "Blurred"),
    "dark": Concept("dark", OWN, "Too dark"),
    "overexposed": Concept("overexposed", OWN, "Overexposed"),
    "not_endoscopic": Concept("not_endoscopic", OWN, "Not an endoscopic image"),
}
TASKS: Mapping[str, TaskConcepts] = {
    "polyp_detection": TaskConcepts(
        Concept("68496003", "SCT", "Polyp of colon"),
        Concept("polyp", OWN, "Polyp visible"),
        Concept("polyp-prob", OWN, "Probability that a polyp is visible"),
    ),
    # "Malignant" is the label's name; neoplastic, adenoma included, is what it means.
    "malignancy": TaskConcepts(
        Concept("108369006", "SCT", "Neoplasm"),
        Concept("neoplastic", OWN, "Lesion looks neoplastic, adenoma included"),
        Concept("neoplastic-prob", OWN, "Probability that a lesion looks neoplastic"),
    ),
}
