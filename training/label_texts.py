"""The label sets of a bundle: definitions and evaluation prompts.

Prompts share no sentence with the class sentences (``claims.py``) or the composer's templates; a
test holds them apart. Two arms exist for ``malignancy``: with the endoscopist's impression seen
as text in training, prompts name it; with the impression withheld only morphology may be asked
for.
"""

from __future__ import annotations

from model_store.label_sets import Label, LabelSet

__all__ = ["INTENDED_USE", "label_sets"]

INTENDED_USE = (
    "Research use only. Not a medical device, not for diagnosis or treatment decisions; scores are "
    "model outputs on images and have not been validated clinically."
)

_MALIGNANT = (
    "neoplastic, adenoma included, as judged by endoscopists; not pathology, "
    "not a diagnosis of cancer"
)
_BENIGN = "non-neoplastic as judged by endoscopists, or no lesion at all; not pathology"

_POLYP = (
    "a colonoscopy frame of a polyp",
    "an endoscopic photograph showing a polyp on the colon wall",
    "a protruding growth in the large bowel",
    "close view of a colorectal polyp",
    "a small sessile polyp on a mucosal fold",
)
_NO_POLYP = (
    "a colonoscopy frame of normal mucosa",
    "an endoscopic photograph of a healthy colon wall",
    "an empty bowel lumen with regular folds",
    "close view of smooth colorectal mucosa with a regular vessel pattern",
    "nothing but clean mucosa on a fold",
)
_NEOPLASTIC = (
    "a colonoscopy frame of a neoplastic polyp",
    "an adenoma seen at colonoscopy",
    "a precancerous adenomatous growth in the large bowel",
    "close view of a polyp with neoplastic surface features",
)
_NON_NEOPLASTIC = (
    "a colonoscopy frame of a non-neoplastic polyp",
    "a hyperplastic polyp seen at colonoscopy",
    "a harmless hyperplastic growth in the large bowel",
    "close view of a polyp with non-neoplastic surface features",
)
_NEOPLASTIC_FORM = (
    "a large reddish polyp with a lobulated, irregular surface",
    "a stalked or nodular growth with coarse surface texture and a sharp edge",
    "a dark red lesion with prominent surface pattern",
)
_NON_NEOPLASTIC_FORM = (
    "a tiny pale polyp with a smooth surface",
    "a flat growth of the same colour as the mucosa around it",
    "a small whitish lesion with an indistinct edge",
)


def label_sets(impression: bool) -> list[LabelSet]:
    """All label sets of a bundle.

    Args:
        impression: Whether training text held endoscopists' impressions.
    """
    malignant = _NEOPLASTIC if impression else _NEOPLASTIC_FORM
    benign = _NON_NEOPLASTIC if impression else _NON_NEOPLASTIC_FORM
    return [
        LabelSet(
            "polyp_detection",
            (
                Label("polyp", "a polyp is visible, of any size, shape or kind", _POLYP),
                Label(
                    "no_polyp",
                    "no polyp is visible; claimed of every frame of a patient",
                    _NO_POLYP,
                ),
            ),
            "polyp",
        ),
        LabelSet(
            "malignancy",
            (Label("malignant", _MALIGNANT, malignant), Label("benign", _BENIGN, benign)),
            "malignant",
        ),
        _morphology(
            "size_band",
            {
                "small": "a tiny polyp taking up little of the view",
                "medium": "a polyp of middling size",
                "large": "a big polyp that fills much of the view",
            },
        ),
        _morphology(
            "colour",
            {
                "pale": "a polyp paler than the mucosa around it",
                "isochromatic": "a polyp of the same colour as the mucosa around it",
                "red": "a polyp redder than the mucosa around it",
            },
        ),
        _morphology(
            "surface_texture",
            {
                "smooth": "a polyp whose surface is even and smooth",
                "granular": "a polyp whose surface is finely granular",
                "irregular": "a polyp whose surface is irregular and nodular",
            },
        ),
        _morphology(
            "margin",
            {
                "well_defined": "a polyp with a sharp, clear edge",
                "indistinct": "a polyp whose edge fades into the mucosa",
            },
        ),
        _morphology(
            "shape",
            {
                "round": "a rounded polyp",
                "elongated": "an elongated polyp, longer than wide",
            },
        ),
    ]


def _morphology(name: str, prompts: dict[str, str]) -> LabelSet:
    """A set without a positive label: softmax scores, never a decision."""
    return LabelSet(name, tuple(Label(k, v.removeprefix("a "), (v,)) for k, v in prompts.items()))
