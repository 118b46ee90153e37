"""Recipes: one TOML file each, read into frozen dataclasses.

Every unknown, missing or ill-typed key is reported at once; a key may be left out only where its
dataclass has a default. ``--set attunement.lr=1e-4`` overrides one value; there is no other
mechanism, no inheritance between files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import tomllib
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from training.errors import ConfigError
from training.ingest.config import IngestConfig

__all__ = [
    "AttributesConfig",
    "AttunementConfig",
    "BundleConfig",
    "CleansingConfig",
    "ComputeConfig",
    "ModelConfig",
    "Recipe",
    "UnificationConfig",
    "digest",
    "load",
]


@dataclass(frozen=True)
class ComputeConfig:
    """The machine and how it is used; what a run computes does not depend on it, up to rounding.

    Attributes:
        device: ``auto`` (CUDA where there is one), ``cpu`` or ``cuda``.
        precision: ``fp32``, or autocast to ``bf16`` or ``fp16`` (with loss scaling).
        threads: Torch threads; 0 = all cores.
        workers: Threads that decode frames ahead; 0 = none.
        cache_mb: Decoded frames kept in memory, MB; the rest is decoded again.
        accumulate: Pieces a step's frames are encoded in; the contrast still sees the whole batch,
            as embeddings are cached and gradients taken in a second pass.
        checkpointing: Recompute activations in the backward pass instead of keeping them.
        compile: Run the image tower through ``torch.compile``.
        checkpoint_s: Seconds between step checkpoints.
        scoring: Engine of the passes over all frames: ``local`` processes or ``ray``.
    """

    device: str
    precision: str
    threads: int
    workers: int
    cache_mb: int
    accumulate: int
    checkpointing: bool
    compile: bool
    checkpoint_s: float
    scoring: str


@dataclass(frozen=True)
class AttributesConfig:
    """Where the attributes of a report come from.

    Attributes:
        source: ``rules``, or a ledger of ``training extract``, relative to the archive's folder.
        corrupted: Share of mentioned values replaced by another value (an ablation; 0 = none).
        dropped: Share of mentioned values taken away (an ablation; 0 = none).
    """

    source: str
    corrupted: float
    dropped: float


@dataclass(frozen=True)
class ModelConfig:
    """Towers and what of them stays frozen.

    Attributes:
        config: Name of a file in ``model_configs/``; the one line that switches towers.
        weights: What training starts from. For CLIP towers an open_clip tag or a local file; for
            towers from packages the folder of a packed bundle of theirs (``training.start``); "" =
            the packages' weights, or none.
        pretrained: False starts from random towers (smoke runs).
        frozen_blocks: Leading blocks of a timm trunk kept frozen. Two of EfficientNet-Lite0's seven
            cost 60 % of a training step (17 -> 46 frames/s at 160 px).
        frozen_text_layers: Leading text layers (and the token embeddings) kept frozen.
    """

    config: str
    weights: str
    pretrained: bool
    frozen_blocks: int
    frozen_text_layers: int


@dataclass(frozen=True)
class CleansingConfig:
    """Stage 1.

    Attributes:
        enabled: False keeps every frame (an ablation arm).
        steps: Optimiser steps of each of the two rounds.
        batch: Frames a step.
        lr: Peak learning rate.
        px: Side of the training pixels.
        share: Kept share of the positive exams' frames; 0 = from the labelled sample.
        selection: ``pooled`` ranks the frames of all positive exams together, ``per_exam``
            keeps the same share of each.
        negative_cap: Frames of polyp-free exams used at most, as a multiple of the kept ones.
    """

    enabled: bool
    steps: int
    batch: int
    lr: float
    px: int
    share: float
    selection: str
    negative_cap: float


@dataclass(frozen=True)
class AttunementConfig:
    """Stage 2.

    Attributes:
        steps: Optimiser steps.
        batch: Lesion frames a step (paper: 32).
        background: Background frames added to each step for the class sentences.
        lr: Peak learning rate.
        px: Side of the training pixels.
        targets: ``soft`` (attributes); ablation arms: ``one_hot`` (nothing else changes) and
            ``plain`` (CLIP as it is: record texts, no class sentences).
        tau: Temperature of the soft targets.
        minimum_joint: Attributes that must be known on both sides.
        impression: Use the endoscopist's impression sentences as text.
        class_weight: Weight of the class-sentence losses.
        single_source: Share of batches drawn from one source.
        runs: Trainings of the stage with their own order and augmentation; weights are averaged.
        hard_background: Share of the background frames that are ``cleansing.hardest``.
    """

    steps: int
    batch: int
    background: int
    lr: float
    px: int
    targets: str
    tau: float
    minimum_joint: int
    impression: bool
    class_weight: float
    single_source: float
    runs: int = 1
    hard_background: float = 0.0


@dataclass(frozen=True)
class UnificationConfig:
    """Stage 3.

    Attributes:
        enabled: False skips the stage (an ablation arm).
        steps: Optimiser steps.
        records: Records a step (paper: 8).
        frames: Frames of a record at most.
        longest: Background frames that lengthen a record at most, log-uniformly; 0 = none.
        lr: Peak learning rate of the towers; the unify module takes twice as much.
        px: Side of the training pixels.
        tau: Temperature of the unified soft labels.
        class_weight: Weight of the class sentences pooled by their positive query.
        attention_steps: Steps of the unify module alone at the end; 0 = none.
        attention_lr: Their peak learning rate.
    """

    enabled: bool
    steps: int
    records: int
    frames: int
    longest: int
    lr: float
    px: int
    tau: float
    class_weight: float
    attention_steps: int = 0
    attention_lr: float = 3e-4


@dataclass(frozen=True)
class BundleConfig:
    """What is packed.

    Attributes:
        name: Bundle name.
        version: Bundle version.
        text_precision: ``fp32`` or ``int8`` (weights only, quality-gated).
        canaries: Drawn canary frames.
        image_precision: ``fp32``, or ``int8`` for a transformer's products (quality-gated).
        start_share: Of the bundle gone on from, in the packed towers; above 0 its unify is kept.
    """

    name: str
    version: str
    text_precision: str
    canaries: int
    image_precision: str = "fp32"
    start_share: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """A whole recipe.

    Attributes:
        name: For folders and stamps.
        seed: Of everything random.
        compute: The machine.
        attributes: What reads the reports.
        model: Towers.
        cleansing: Stage 1.
        attunement: Stage 2.
        unification: Stage 3.
        bundle: Packing.
        ingest: A hospital's raw data; None where exams are composed or an archive is given.
    """

    name: str
    seed: int
    compute: ComputeConfig
    attributes: AttributesConfig
    model: ModelConfig
    cleansing: CleansingConfig
    attunement: AttunementConfig
    unification: UnificationConfig
    bundle: BundleConfig
    ingest: IngestConfig | None = None


_TABLES = ("model", "cleansing", "attunement", "unification")
POSITIVE = (
    *("batch", "lr", "px", "tau", "records", "frames", "steps", "runs", "canaries"),
    *("cache_mb", "accumulate", "checkpoint_s"),
)
SHARES = (
    *("cleansing.share", "attunement.single_source", "attunement.hard_background"),
    *("attributes.corrupted", "attributes.dropped", "bundle.start_share"),
)
CHOICES = {
    "compute.device": ("auto", "cpu", "cuda"),
    "compute.precision": ("fp32", "bf16", "fp16"),
    "compute.scoring": ("local", "ray"),
    "cleansing.selection": ("pooled", "per_exam"),
    "attunement.targets": ("soft", "one_hot", "plain"),
    "bundle.text_precision": ("fp32", "int8"),
    "bundle.image_precision": ("fp32", "int8"),
}


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: TOML file.
        overrides: ``table.key=value`` strings, value in TOML or a bare word.

    Raises:
        ConfigError: With every problem found, one a line.
    """
    if not path.is_file():
        beside = sorted(path.parent.glob("*.toml"))
        known = ", ".join(p.stem for p in beside if _is_recipe(p)) or "none"
        raise ConfigError(
            f"expected a recipe file, found none at {path.name}; recipes there: {known}"
        )
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path.name}: {error}") from error
    problems: list[str] = []
    for override in overrides:
        _override(raw, override, problems)
    recipe = _build(Recipe, raw, "", problems)
    if problems:
        raise ConfigError("\n".join([f"{path.name}:", *problems]))
    return recipe  # type: ignore[no-any-return]


def _is_recipe(path: Path) -> bool:
    """Whether a TOML file has the tables of a recipe, sound or not."""
    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return False
    return {"name", *_TABLES} <= raw.keys()


def digest(config: object) -> str:
    """SHA-256 of a dataclass or mapping as sorted JSON, ``sha256:...``."""
    plain = (
        dataclasses.asdict(config)
        if dataclasses.is_dataclass(config) and not isinstance(config, type)
        else config
    )
    return "sha256:" + hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _override(raw: dict[str, Any], override: str, problems: list[str]) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        problems.append(f"--set {override}: expected key=value")
        return
    try:
        value = tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    node = raw
    for table in tables:
        node = node.setdefault(table, {})
        if not isinstance(node, dict):
            problems.append(f"--set {override}: {table} is not a table")
            return
    node[last] = value


def _build(cls: type, raw: Mapping[str, Any], prefix: str, problems: list[str]) -> Any:
    hints = get_type_hints(cls)
    optional = {
        field.name
        for field in dataclasses.fields(cls)
        if field.default is not dataclasses.MISSING
        or field.default_factory is not dataclasses.MISSING
    }
    problems += [f"  {prefix}{key}: unknown key" for key in raw if key not in hints]
    values: dict[str, Any] = {}
    for key, hint in hints.items():
        where = f"{prefix}{key}"
        kind = _without_none(hint)
        if key not in raw:
            if key not in optional:
                problems.append(f"  {where}: missing")
        else:
            values[key] = _of_kind(where, raw[key], kind, problems)
    return cls(**values) if not problems else None


def _of_kind(where: str, value: object, kind: Any, problems: list[str]) -> object:
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            return _build(kind, value, f"{where}.", problems)  # type: ignore[arg-type]
        problems.append(f"  {where}: expected a table")
        return None
    if get_origin(kind) in (tuple, dict):
        return _collection(where, value, kind, problems)
    return _value(where, value, kind, problems)


def _without_none(hint: Any) -> Any:
    """``X`` of ``X | None``; TOML has no null, so None is what a left-out table gives."""
    if isinstance(hint, types.UnionType):
        return next(kind for kind in get_args(hint) if kind is not type(None))
    return hint


def _collection(where: str, value: object, kind: Any, problems: list[str]) -> object:
    """``tuple[X, ...]`` from an array, ``dict[str, X]`` from a table."""
    of = get_args(kind)
    if get_origin(kind) is dict:
        if not isinstance(value, dict):
            problems.append(f"  {where}: expected a table, found {value!r}")
            return None
        return {key: _of_kind(f"{where}.{key}", one, of[1], problems) for key, one in value.items()}
    if not isinstance(value, list):
        problems.append(f"  {where}: expected an array, found {value!r}")
        return None
    return tuple(_value(f"{where}[{i}]", one, of[0], problems) for i, one in enumerate(value))


def _value(where: str, value: object, kind: type, problems: list[str]) -> object:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        problems.append(f"  {where}: expected {kind.__name__}, found {value!r}")
    elif isinstance(value, int | float) and not isinstance(value, bool) and value < 0:
        problems.append(f"  {where}: expected a number of at least 0, found {value!r}")
    elif where.rpartition(".")[2] in POSITIVE and value == 0:
        problems.append(f"  {where}: expected a number above 0, found {value!r}")
    elif where in SHARES and isinstance(value, int | float) and value > 1:
        problems.append(f"  {where}: expected a share of at most 1, found {value!r}")
    elif where in CHOICES and value not in CHOICES[where]:
        problems.append(f"  {where}: expected one of {', '.join(CHOICES[where])}, found {value!r}")
    return value
