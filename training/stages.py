"""A record's way to weights: the three stages, one stamped folder each.

    <out>/1-cleansing   ledger.jsonl, weights.pt, report.json (where the archive has truth)
    <out>/2-attunement  weights.pt
    <out>/3-unification weights.pt

Stages hand over folders, never objects: each starts from the weights file and the ledger of the
one before.
"""

from __future__ import annotations

import ctypes
import dataclasses
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_store.bundle import Bundle
from training import attunement, cleansing, unification
from training.batches import FrameStore
from training.cleansing_report import report_cleansing
from training.compute import Machine, machine_for
from training.config import Recipe, digest
from training.errors import ConfigError, StaleInput
from training.loop import Schedule, follow
from training.model import (
    EndoClip,
    ModelSpec,
    build,
    freeze,
    load_spec,
    load_weights,
    save_weights,
)
from training.reading import Exam, attributes_digest, read_exams
from training.records import Archive, read
from training.runs import archive_digest, file_digest, run_stage
from training.sample import read_share
from training.sources import split_digest
from training.start import open_start, start_from
from training.step import Bench

__all__ = [
    "Workshop",
    "follow_stages",
    "open_workshop",
    "packed_from",
    "recipe_digest",
    "run_stages",
]

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
        machine: Device, precision and ranks; of training alone.
    """

    recipe: Recipe
    spec: ModelSpec
    archive: Archive
    exams: list[Exam]
    store: FrameStore
    machine: Machine

    def towers(self, weights: Path | None) -> tuple[EndoClip, Callable[[list[str]], Tensor]]:
        """Model and tokenizer on the CPU, from a stage's weights or as the recipe starts."""
        torch.manual_seed(self.recipe.seed)
        config, start = self.recipe.model, self.start
        initial = config.weights if config.pretrained and start is None else None
        model, tokenize = build(self.spec, initial or None, config.pretrained)
        if weights is not None:
            load_weights(model, weights)
        elif start is not None:
            start_from(model, self.spec, tokenize, start)
        freeze(model, config.frozen_blocks, config.frozen_text_layers)
        return model.to(memory_format=torch.channels_last), tokenize

    @property
    def start(self) -> Bundle | None:
        """The bundle that training goes on from; None = the towers' own weights."""
        return open_start(self.recipe.model, self.spec)

    def bench(self, weights: Path | None) -> Bench:
        """Towers on the run's machine, with what they train with."""
        model, tokenize = self.towers(weights)
        return Bench(self.machine.place(model), tokenize, self.store, self.machine)

    def part(self, name: str) -> list[Exam]:
        """Exams of one part."""
        return [exam for exam in self.exams if exam.part == name]

    def schedule(self, steps: int, lr: float, stage: int) -> Schedule:
        """A stage's schedule with its own seed."""
        return Schedule(steps, lr, self.recipe.seed * 100 + stage, self.recipe.compute.checkpoint_s)


def open_workshop(recipe: Recipe, archive: Path, machine: Machine | None = None) -> Workshop:
    """Read archive and reports, keep the hub client offline.

    Args:
        recipe: The recipe.
        archive: The archive's folder.
        machine: What to train on; None = as the recipe asks, in this process alone.
    """
    _prepare_process()
    machine = machine or machine_for(recipe.compute)
    found = read(archive)
    for error in found.errors:
        log.warning("record left out: %s", error)
    spec = load_spec(recipe.model.config)
    exams = read_exams(found.records, recipe.attributes, found.path, found.composed)
    return Workshop(recipe, spec, found, exams, _store(recipe, spec), machine)


def follow_stages(recipe: Recipe, machine: Machine) -> None:
    """Train along with the rank that runs the stages; nothing of the archive is read but frames.

    Raises:
        Stopped: This process was asked to stop.
    """
    _prepare_process()
    spec = load_spec(recipe.model.config)
    store = _store(recipe, spec)

    def bench() -> Bench:
        model, tokenize = build(spec, None, pretrained=False)
        freeze(model, recipe.model.frozen_blocks, recipe.model.frozen_text_layers)
        model = machine.place(model.to(memory_format=torch.channels_last))
        return Bench(model, tokenize, store, machine)

    follow(machine.ranks, bench)


def _store(recipe: Recipe, spec: ModelSpec) -> FrameStore:
    return FrameStore(spec.contract, recipe.compute.cache_mb, recipe.compute.workers)


def _prepare_process() -> None:
    _keep_pages()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _keep_pages() -> None:
    """Tell glibc to keep freed pages: a third of a step's CPU time went into faulting them anew."""
    trim_threshold, mmap_max = -1, -4  # of malloc.h
    with suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def run_stages(shop: Workshop, out: Path, twins: Sequence[Path] = ()) -> Path:
    """Run what is not done yet.

    Args:
        shop: Recipe and archive.
        out: Folder of the run.
        twins: Folders of other runs, whose stages serve where they were made from the same.

    Returns:
        The last stage's folder (with ``weights.pt``).

    Raises:
        StaleInput: A folder was made from other inputs.
        ConfigError: The bundle that the recipe starts from does not fit the recipe or the archive.
    """
    recipe = shop.recipe
    stages: list[tuple[str, Any, Callable[..., dict[str, Any]]]] = [
        ("1-cleansing", recipe.cleansing, _cleanse),
        ("2-attunement", recipe.attunement, _attune),
    ]
    if recipe.unification.enabled:
        stages.append(("3-unification", recipe.unification, _unify))
    key = {
        "archive": archive_digest(shop.archive.path),
        "model": digest(recipe.model),
        "seed": recipe.seed,
        "attributes": attributes_digest(recipe.attributes, shop.archive.path),
    }
    if (start := shop.start) is not None:
        _check_split(start, shop.archive)
        key |= {"start": start.digest}
    if recipe.compute.precision != "fp32":
        key |= {"precision": recipe.compute.precision}  # the one setting of [compute] that rounds
    told = {"corrupted": recipe.attributes.corrupted, "dropped": recipe.attributes.dropped}
    out.mkdir(parents=True, exist_ok=True)
    done: list[Path] = []
    for name, config, body in stages:
        others = [twin / name for twin in twins]
        own = key | {"config": digest(config)}
        done.append(run_stage(out / name, own, partial(body, shop, tuple(done)), others))
        key |= {f"weights of {name}": file_digest(done[-1] / "weights.pt")}
        if (done[-1] / "ledger.jsonl").exists():
            key |= {f"ledger of {name}": file_digest(done[-1] / "ledger.jsonl")}
        # Cleansing counts lesions and does not look at their attributes.
        key |= told
    return done[-1]


def _check_split(start: Bundle, archive: Archive) -> None:
    """See that a bundle was not trained on what the archive's figures would be of.

    Raises:
        ConfigError: The same public frames were split otherwise for it.
    """
    before = start.manifest.provenance
    if before.extra.get("archive") != archive.kind or before.split_digest == split_digest(archive):
        return
    told = (
        f"{start.path.name} was trained on {archive.kind} exams that were split otherwise: it may "
        "have seen what is measured here"
    )
    if archive.kind == "composed":
        raise ConfigError(f"model.weights: {told}")
    log.warning("%s; figures are fair only of patients whom it did not see", told)


def _cleanse(shop: Workshop, _done: Sequence[Path], folder: Path) -> dict[str, Any]:
    config = shop.recipe.cleansing
    if not config.enabled:
        save_weights(shop.towers(None)[0], folder / "weights.pt")
        return {"enabled": False}
    root = shop.archive.path.resolve()
    asked = (f for e in shop.part("train") if e.positive for f in e.frames)
    share = read_share(root, config.share, {f.relative_to(root).as_posix() for f in asked})
    exams = [e for e in shop.exams if e.part in ("train", "select")]
    schedule = shop.schedule(config.steps, config.lr, 1)
    figures = cleansing.cleanse(folder, shop.bench(None), root, exams, share, shop.recipe, schedule)
    figures |= report_cleansing(shop.archive.path, folder, exams, share)
    return figures


def _attune(shop: Workshop, done: Sequence[Path], folder: Path) -> dict[str, Any]:
    config, hard = shop.recipe.attunement, frozenset[Path]()
    if config.hard_background:
        if not shop.recipe.cleansing.enabled:
            raise ConfigError("attunement.hard_background: expected 0 where cleansing is off")
        fates = cleansing.read_ledger(done[0] / "ledger.jsonl")
        hard = cleansing.hardest(fates, shop.part("train"))
    sampler = attunement.Sampler(*_cleansed(shop, done[0]), config, hard)
    schedule = shop.schedule(config.steps, config.lr, 2)
    return attunement.attune(folder, shop.bench(done[-1] / "weights.pt"), sampler, schedule)


def _unify(shop: Workshop, done: Sequence[Path], folder: Path) -> dict[str, Any]:
    config = shop.recipe.unification
    sampler = unification.PatientSampler(*_cleansed(shop, done[0]), config)
    bench = shop.bench(done[-1] / "weights.pt")
    schedule = shop.schedule(config.steps, config.lr, 3)
    impression = shop.recipe.attunement.impression
    return unification.unify_records(folder, bench, sampler, impression, schedule)


def _cleansed(shop: Workshop, first: Path) -> tuple[list[Exam], dict[str, list[Path]]]:
    """Train exams without the frames set aside, and their kept frames by record.

    Where cleansing is off every frame of a positive exam counts as kept.
    """
    exams = shop.part("train")
    if not shop.recipe.cleansing.enabled:
        return exams, {e.record_id: list(e.frames) for e in exams if e.positive}
    fates = cleansing.read_ledger(first / "ledger.jsonl")
    passed, kept = [], {}
    for exam in exams:
        told = list(zip(exam.frames, fates[exam.record_id], strict=True))
        kept[exam.record_id] = [frame for frame, fate in told if fate.kept]
        usable = tuple(frame for frame, fate in told if fate.reason is None)
        if usable:
            passed.append(dataclasses.replace(exam, frames=usable))
    return passed, kept


def recipe_digest(recipe: Recipe) -> str:
    """Digest of the whole recipe."""
    return digest(dataclasses.asdict(recipe))


def packed_from(bundle: Path, recipe: Recipe) -> None:
    """See that a bundle which stands already is this recipe's.

    Raises:
        StaleInput: It was packed from another one.
    """
    if not bundle.exists():
        return
    found = Bundle.open(bundle).manifest.provenance.config_digest
    if found != recipe_digest(recipe):
        raise StaleInput(
            f"{bundle.name} was packed from another recipe (expected {recipe_digest(recipe)}, "
            f"found {found}); choose another output folder or delete it"
        )
