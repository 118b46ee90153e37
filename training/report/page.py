"""The page: one self-contained HTML file per run, nothing loaded, no script.

    python -m training report RUN --data path/to/colonoscopy/dev

The same input gives the same bytes. A section whose input is absent or broken says so and costs no
other section. The page shows frames and sentences of the archive: it is as sensitive as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from rich.console import Console
from rich.progress import Progress

from model_store.errors import EndoClipError
from training.label_texts import INTENDED_USE
from training.report import (
    attended,
    attuned,
    cleansed,
    curves,
    downstream,
    evaluated,
    gallery,
    mentions,
    overview,
    signatures,
    strata,
)
from training.report.blocks import Finding, Missing, Section
from training.report.inputs import Inputs

__all__ = ["write_report"]

Maker = Callable[[Inputs], list[Finding | Missing]]


@dataclass(frozen=True)
class _Plan:
    """A section before its input is looked at."""

    key: str
    title: str
    lead: str
    makers: Sequence[Maker]


_PLANS = (
    _Plan("summary", "Summary", "", (overview.the_run, overview.headline)),
    _Plan(
        "curves",
        "Training curves",
        "Every step's loss, faint, with its running mean.",
        (curves.stage_curves,),
    ),
    _Plan(
        "cleansing",
        "Cleansing",
        "Stage 1 drops frames without a lesion, guided by how common lesions are.",
        (cleansed.score_histogram, cleansed.contact_sheets, cleansed.share_sweep, downstream.share),
    ),
    _Plan(
        "attributes",
        "Attributes",
        "Nine morphological attributes are read from each lesion's sentences.",
        (mentions.mention_rates, mentions.accuracy, downstream.extraction_error),
    ),
    _Plan(
        "attunement",
        "Attunement",
        "Stage 2 contrasts frames and sentences; targets are soft where lesions are alike.",
        (attuned.soft_targets, downstream.stages),
    ),
    _Plan(
        "unification",
        "Unification",
        "Stage 3 lets a sentence attend to all frames of an exam.",
        (attended.attention, attended.pooling),
    ),
    _Plan(
        "evaluation",
        "Evaluation",
        "The packed bundle, through the code that serves it.",
        (evaluated.curves_of_tasks, evaluated.decisions_of_tasks, strata.by_stratum),
    ),
    _Plan("failures", "Failures", "", (gallery.failures, signatures.failure_signatures)),
)

_CHECKS = (
    (
        "First experiment 1: Validation of Cleansing",
        "Visualize “probability of containing a polyp” scores for sample batch. Verify Stage 1 "
        "successfully separates clear mucosa from polyp-bearing frames before thresholding.",
        ("cleansing-scores", "cleansing-sheets"),
    ),
    (
        "First experiment 2: Ablation on Soft Labels",
        "Train Stage 2 with one-hot labels vs. soft labels. Plot t-SNE to see if soft labels "
        "result in tighter clustering of similar morphological types.",
        ("attunement-tsne", "stages-downstream"),
    ),
    (
        "First experiment 3: Attention Visualization",
        "In Stage 3, visualize cross-attention maps. Check if specific polyp image correctly "
        "attends to corresponding text description in multi-polyp record.",
        ("attention-maps", "attention-scores"),
    ),
    (
        "Next check 1: LLM Extraction Accuracy Validation",
        "Manually evaluate the LLM's morphological attribute extraction on 50 randomly sampled "
        "diagnostic reports. Calculate attribute-wise precision/recall and assess if extraction "
        "errors correlate with downstream performance drops.",
        ("extraction-accuracy", "extraction-downstream"),
    ),
    (
        "Next check 2: Cleansing Stage Ablation",
        "Run Stage 1 with multiple prevalence thresholds (e.g., 30%, 45%, 60%). Compare downstream "
        "AUROC on malignancy classification for each setting to identify sensitivity and optimal "
        "threshold.",
        ("cleansing-sweep", "share-downstream"),
    ),
    (
        "Next check 3: Cross-Attention Visualization and Ablation",
        "For multi-polyp cases, visualize cross-attention maps to verify that the correct polyp "
        "image attends to its corresponding text. Additionally, compare performance of the full "
        "Unification stage to a baseline that uses independent instance matching without "
        "cross-attention.",
        ("attention-maps", "attention-scores", "attention-pooling"),
    ),
)
"""What the project's seed document asks for, in its words, and where the page answers."""


@dataclass(frozen=True)
class _Check:
    """One of ``_CHECKS`` with the findings that answer it."""

    title: str
    words: str
    answers: Sequence[Finding | Missing]


def write_report(inputs: Inputs, out: Path) -> Path:
    """Write the page.

    Args:
        inputs: The run and what lies beside it.
        out: The file; replaced whole.

    Returns:
        ``out``.

    Raises:
        StaleInput: The folder is no run, or the archive is not the one it was made from.
    """
    inputs.check()
    with Progress(console=Console(stderr=True)) as progress:
        inputs.progress = progress
        sections = [_section(inputs, p) for p in progress.track(_PLANS, description="report")]
    by_key = {finding.key: finding for section in sections for finding in section.findings}
    checks = [_Check(t, w, [by_key[k] for k in keys if k in by_key]) for t, w, keys in _CHECKS]
    closing = Section(
        "reproduction", "Reproduction", "", _made(inputs, overview.reproduction, "reproduction")
    )
    environment = Environment(
        loader=PackageLoader("training.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=f"Run {inputs.run.resolve().name}",
        kind=inputs.archive.kind if inputs.archive else "",
        part=inputs.part,
        archive_change=inputs.archive_change,
        intended_use=INTENDED_USE,
        sections=sections,
        checks=checks,
        closing=closing,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(page, "utf-8")
    temporary.replace(out)
    return out


def _section(inputs: Inputs, plan: _Plan) -> Section:
    findings: list[Finding | Missing] = []
    for number, maker in enumerate(plan.makers, 1):
        findings += _made(inputs, maker, f"{plan.key}-{number}")
    return Section(plan.key, plan.title, plan.lead, findings)


def _made(inputs: Inputs, maker: Maker, key: str) -> list[Finding | Missing]:
    """What a maker gives; its errors become a box on the page instead of the end of it."""
    try:
        return maker(inputs)
    except (EndoClipError, OSError) as error:
        return [Missing(key, "Not shown", str(error), "")]
