"""Wordings for ``training.report_text``; several for each value, none tied to a source."""

__all__ = [
    "ADJECTIVES",
    "CLAUSES",
    "DISTRACTORS",
    "ENDINGS",
    "EXTENTS",
    "INDICATIONS",
    "NEGATIVE_FINDINGS",
    "NEGATIVE_IMPRESSIONS",
    "OPENINGS",
    "OPINIONS",
    "PLAIN_IMPRESSIONS",
    "PREPARATIONS",
    "UNCERTAIN",
]

ADJECTIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "size_band": {
        "<=5": ("diminutive", "tiny", "minute"),
        "6-9": ("small",),
        "10-19": ("medium-sized", "moderate-sized", "intermediate-sized"),
        "20-29": ("large", "bulky"),
        ">=30": ("very large", "giant"),
    },
    "shape": {
        "round": ("round", "rounded", "circular"),
        "oval": ("oval", "ovoid"),
        "elongated": ("elongated", "oblong"),
    },
}
CLAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "colour": {
        "pale": (
            "a paler colour than the surrounding mucosa",
            "pale mucosa",
            "a whitish hue",
            "a colour lighter than its surroundings",
        ),
        "isochromatic": (
            "an isochromatic appearance",
            "the same colour as the surrounding mucosa",
            "a colour similar to the surrounding mucosa",
        ),
        "red": (
            "a reddish colour",
            "an erythematous appearance",
            "a hue redder than the mucosa around it",
            "a red tinge",
        ),
        "dark-red": (
            "a dark red colour",
            "a brownish hue",
            "a deep red tone",
            "a colour darker than the surrounding mucosa",
        ),
    },
    "surface_texture": {
        "smooth": ("a smooth surface", "smooth texture", "a smooth mucosal surface"),
        "granular": ("a granular surface", "a finely granular texture", "granular mucosal relief"),
        "nodular": ("a nodular surface", "nodular relief"),
        "lobulated": ("a lobulated surface", "a multilobulated surface", "cerebriform relief"),
        "irregular": ("an irregular surface", "a rough surface", "an uneven surface texture"),
    },
    "margin": {
        "well-defined": (
            "well-defined margins",
            "a sharply demarcated border",
            "clear margins",
            "a distinct edge",
            "a well-circumscribed outline",
        ),
        "indistinct": (
            "indistinct margins",
            "an ill-defined border",
            "poorly demarcated margins",
            "a vague outline",
        ),
    },
}
OPENINGS = (
    "{body} was found",
    "there is {body}",
    "{body} is seen",
    "{body} was identified on withdrawal",
    "we saw {body}",
    "{body} came into view",
)
ENDINGS = (
    "The remaining mucosa is normal.",
    "No other lesions seen.",
    "Otherwise normal mucosa throughout.",
    "No further polyps were found.",
    "The rest of the examination was unremarkable.",
)
EXTENTS = (
    "Complete examination to the caecum.",
    "The caecum was reached.",
    "Colonoscope advanced to the terminal ileum.",
    "Full examination with careful withdrawal.",
    "Caecal intubation confirmed by the appendix orifice.",
)
PREPARATIONS = (
    "Good bowel preparation.",
    "Bowel preparation was adequate.",
    "Preparation fair, residual fluid aspirated.",
    "Excellent views throughout.",
    "Some residual stool was washed away.",
)
INDICATIONS = (
    "screening.",
    "change in bowel habit.",
    "positive stool test.",
    "iron deficiency anaemia.",
    "surveillance after previous polypectomy.",
    "abdominal pain.",
    "rectal bleeding.",
    "family history of bowel disease.",
)
NEGATIVE_FINDINGS = (
    "No polyps seen.",
    "Normal mucosa throughout, no polyp or other lesion identified.",
    "The mucosa looked normal with a regular vascular pattern.",
    "No mucosal abnormality was detected.",
    "Normal folds and vessels, without any polyps.",
    "Careful inspection showed normal colonic mucosa only; no lesions found.",
    "Unremarkable examination, no evidence of polyps.",
    "Healthy mucosa in all segments. Polyps were not seen.",
    "The colon is free of polyps.",
    "Normal appearances with haustral folds and an open lumen.",
)
NEGATIVE_IMPRESSIONS = (
    "Normal colonoscopy.",
    "No polyps.",
    "Normal examination, no lesion detected.",
    "No abnormality seen.",
    "Normal colon.",
    "Negative examination without polyps.",
)
PLAIN_IMPRESSIONS = {
    "one": ("Colonic polyp.", "Single polyp.", "One polyp found.", "Solitary colonic lesion."),
    "many": (
        "Colonic polyps.",
        "Multiple polyps.",
        "Several polyps found.",
        "More than one colonic lesion.",
    ),
}
OPINIONS: dict[str, tuple[str, ...]] = {
    "neoplastic": (
        "{name}: appearance favours an adenomatous, neoplastic lesion.",
        "{name} looks adenomatous.",
        "{name} has features of a neoplastic polyp.",
        "{name}: endoscopic appearance in keeping with an adenoma.",
        "{name} is suspicious for neoplasia.",
        "{name} appears neoplastic.",
        "{name}: optical diagnosis neoplastic.",
        "{name} was judged to be adenomatous.",
        "{name}: surface and vessels suggest an adenoma.",
        "{name} is likely a neoplastic, adenomatous polyp.",
        "{name}: typical adenomatous appearance.",
        "{name} was considered dysplastic on inspection.",
    ),
    "non-neoplastic": (
        "{name}: appearance favours a non-neoplastic, hyperplastic lesion.",
        "{name} looks hyperplastic.",
        "{name} has features of a non-neoplastic polyp.",
        "{name}: endoscopic appearance in keeping with a hyperplastic polyp.",
        "{name} is unlikely to be neoplastic.",
        "{name} appears benign and non-neoplastic.",
        "{name}: optical diagnosis non-neoplastic.",
        "{name} was judged to be hyperplastic.",
        "{name}: surface and vessels suggest a hyperplastic polyp.",
        "{name} is likely a benign, hyperplastic polyp.",
        "{name}: typical hyperplastic appearance.",
        "{name} was considered non-neoplastic on inspection.",
    ),
}
UNCERTAIN = (
    "{name}: optical diagnosis uncertain.",
    "{name} was not classified further.",
    "{name}: nature to be determined.",
    "{name} could not be characterised with confidence.",
    "{name}: appearance indeterminate.",
    "{name} awaits further assessment.",
)
# Drawn at random, true or not: a reader of pathology would learn noise, and the tests see that
# every one of these is stripped.
DISTRACTORS = (
    ("Pathology", "Tubular adenoma with low grade dysplasia."),
    ("Histology", "Hyperplastic polyp. No dysplasia."),
    ("Pathology", "Specimen sent, result awaited."),
    ("Histology", "Normal colonic mucosa."),
    ("Pathology", "Tubulovillous adenoma, resection margins clear."),
    ("Histology", "Fragments of hyperplastic mucosa in the specimen."),
)
