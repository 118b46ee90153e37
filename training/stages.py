"""A record's way to weights: the three stages, one stamped folder each.

    <out>/1-cleansing   ledger.jsonl, weights.pt, report.json (where the archive has truth)
    <out>/2-attunement  weights.pt
    <out>/3-unification weights.pt

Stages hand over folders, never objects: each starts from the weights file and the ledger of the
one before.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training import attunement, cleansing, unification
from training.batches import FrameStore
from training.cleansing_report import report_cleansing
from training.config import Recipe, digest
from training.loop import Schedule
from training.model import (
    EndoClip,
    ModelSpec,
    build,
    freeze,
    load_spec,
    load_weights,
    save_weights,
)
from training.reading import Exam, read_exams
from training.records import Archive, read
from training.runs import archive_digest, run_stage

__all__ = ["Workshop", "open_workshop", "recipe_digest", "run_stages"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workshop:
    """What every stage of one recipe shares.

    Attributes:
        recipe: The recipe.
        spec: Its towers.
        archive: The archive, read.
        exams: Its records, read.
        store: Frames in memory.
    """

    recipe: Recipe
    spec: ModelSpec
    archive: Archive
    exams: list[Exam]
    store: FrameStore

    def towers(self, weights: Path | None) -> tuple[EndoClip, Callable[[list[str]], Tensor]]:
        """Model and tokenizer, from a stage's weights or as the recipe starts."""
        torch.manual_seed(self.recipe.seed)
        config = self.recipe.model
        initial = config.weights or None
        model, tokenize = build(
            self.spec, initial if config.pretrained else None, config.pretrained
        )
        if weights is not None:
            load_weights(model, weights)
        freeze(model, config.frozen_blocks, config.frozen_text_layers)
        return model.to(memory_format=torch.channels_last), tokenize

    def part(self, name: str) -> list[Exam]:
        """Exams of one part."""
        return [exam for exam in self.exams if exam.part == name]

    def schedule(self, steps: int, lr: float, stage: int) -> Schedule:
        """A stage's schedule with its own seed."""
        return Schedule(steps, lr, self.recipe.seed * 100 + stage, self.recipe.checkpoint_s)


def open_workshop(recipe: Recipe, archive: Path) -> Workshop:
    """Read archive and reports, set threads, keep the hub client offline."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    if recipe.threads:
        torch.set_num_threads(recipe.threads)
    found = read(archive)
    for error in found.errors:
        log.warning("record left out: %s", error)
    spec = load_spec(recipe.model.config)
    return Workshop(recipe, spec, found, read_exams(found.records), FrameStore(spec.contract))


def run_stages(shop: Workshop, out: Path) -> Path:
    """Run what is not done yet.

    Returns:
        The last stage's folder (with ``weights.pt``).

    Raises:
        StaleInput: A folder was made from other inputs.
    """
    key = {
        "archive": archive_digest(shop.archive.path),
        "model": digest(shop.recipe.model),
        "seed": shop.recipe.seed,
    }
    out.mkdir(parents=True, exist_ok=True)
    first = run_stage(
        out / "1-cleansing",
        key | {"config": digest(shop.recipe.cleansing)},
        lambda f: _cleanse(shop, f),
    )
    key |= {"cleansing": digest(shop.recipe.cleansing)}
    second = run_stage(
        out / "2-attunement",
        key | {"config": digest(shop.recipe.attunement)},
        lambda f: _attune(shop, first, f),
    )
    if not shop.recipe.unification.enabled:
        return second
    key |= {"attunement": digest(shop.recipe.attunement)}
    return run_stage(
        out / "3-unification",
        key | {"config": digest(shop.recipe.unification)},
        lambda f: _unify(shop, first, second, f),
    )


def _cleanse(shop: Workshop, folder: Path) -> dict[str, Any]:
    config = shop.recipe.cleansing
    model, tokenize = shop.towers(None)
    if not config.enabled:
        save_weights(model, folder / "weights.pt")
        return {"enabled": False}
    share = cleansing.read_share(shop.archive.path, config)
    exams = [e for e in shop.exams if e.part in ("train", "select")]
    schedule = shop.schedule(config.steps, config.lr, 1)
    figures = cleansing.cleanse(folder, model, tokenize, shop.store, exams, share, config, schedule)
    figures |= report_cleansing(shop.archive.path, folder, exams, share)
    return _tidy(folder, figures)


def _attune(shop: Workshop, first: Path, folder: Path) -> dict[str, Any]:
    config = shop.recipe.attunement
    model, tokenize = shop.towers(first / "weights.pt")
    sampler = attunement.Sampler(shop.part("train"), _kept(shop, first), config)
    schedule = shop.schedule(config.steps, config.lr, 2)
    return _tidy(folder, attunement.attune(folder, model, tokenize, shop.store, sampler, schedule))


def _unify(shop: Workshop, first: Path, second: Path, folder: Path) -> dict[str, Any]:
    config = shop.recipe.unification
    model, tokenize = shop.towers(second / "weights.pt")
    sampler = unification.PatientSampler(shop.part("train"), _kept(shop, first), config)
    figures = unification.unify_records(
        folder,
        model,
        tokenize,
        shop.store,
        sampler,
        shop.recipe.attunement.impression,
        shop.schedule(config.steps, config.lr, 3),
    )
    return _tidy(folder, figures)


def _kept(shop: Workshop, first: Path) -> dict[str, list[Path]]:
    """Kept frames by record: the ledger's, or every frame where cleansing is off."""
    if not shop.recipe.cleansing.enabled:
        return {e.record_id: list(e.frames) for e in shop.exams if e.positive}
    fates = cleansing.read_ledger(first / "ledger.jsonl")
    kept = {}
    for exam in shop.exams:
        flags = fates.get(exam.record_id, [])
        kept[exam.record_id] = [f for f, fate in zip(exam.frames, flags, strict=False) if fate.kept]
    return kept


def _tidy(folder: Path, figures: dict[str, Any]) -> dict[str, Any]:
    """A finished stage needs no checkpoints: its weights and histories stay."""
    for path in folder.glob("*.ckpt"):
        path.unlink()
    return figures


def recipe_digest(recipe: Recipe) -> str:
    """Digest of the whole recipe."""
    return digest(dataclasses.asdict(recipe))
