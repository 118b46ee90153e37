"""What each stage adds: the arms of one recipe, on the same archive, seed, towers and steps.

    python -m training arms --recipe default --data path/to/colonoscopy/dev --out runs/arms

Every arm is exported, packed and evaluated like a bundle that ships; stages that two arms share
are trained once. Beside them stands a supervised reference on the same split: ImageNet features of
the same image tower under a logistic probe.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model_store.bundle import Bundle
from training.batches import FrameStore, plain
from training.config import Recipe, load
from training.errors import ConfigError
from training.items import Item
from training.metrics import auroc, auroc_interval, stratified_auroc
from training.model import ModelSpec, build, load_spec
from training.packing import make_bundle
from training.protocol import data_items
from training.runs import write_json
from training.stages import open_workshop, run_stages

__all__ = ["ARMS", "figures_table", "probe_figures", "run_arms"]

log = logging.getLogger(__name__)

PLAIN = ("attunement.targets=plain", "unification.enabled=false")
ARMS: dict[str, tuple[str, ...]] = {
    "plain CLIP": ("cleansing.enabled=false", *PLAIN),
    "+ cleansing": PLAIN,
    "+ attunement, one-hot": ("attunement.targets=one_hot", "unification.enabled=false"),
    "+ attunement": ("unification.enabled=false",),
    "+ unification": (),
    "impression withheld": ("attunement.impression=false",),
}
"""Overrides of the recipe by arm. The stages add up from arm to arm; in "one-hot" attunement only
the targets differ from the stage's own, class sentences included; the last arm is the whole recipe
without endoscopists' impressions in the text, zero-shot in the strict sense."""

COLUMNS = (
    ("crop", "polyp_detection"),
    ("scope", "polyp_detection"),
    ("crop", "malignancy"),
    ("frame", "malignancy"),
)


def run_arms(
    path: Path,
    overrides: Sequence[str],
    archive: Path,
    data: Path | None,
    out: Path,
    names: Sequence[str] = tuple(ARMS),
) -> str:
    """Train, pack and evaluate every arm that is not done yet.

    Args:
        path: The recipe.
        overrides: Applied to every arm, before the arm's own.
        archive: One archive for all arms.
        data: Folder of real frames with an index, for the figures and the probe; None uses the
            archive alone.
        out: One folder per arm is made in it, and ``arms.json``.
        names: Arms to run, in this order.

    Returns:
        The table, Markdown.

    Raises:
        ConfigError: An arm of that name does not exist.
    """
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise ConfigError(f"expected arms among {', '.join(ARMS)}; found {', '.join(unknown)}")
    done = [archive.parent]  # a finished run whose archive it is may have stages to share
    figures: dict[str, Any] = {}
    if data is not None:
        spec = load_spec(load(path, overrides).model.config)
        figures["ImageNet features, logistic probe"] = {
            "frames": probe_figures(spec, archive, data)
        }
    for name in names:
        recipe = load(path, [*overrides, *ARMS[name]])
        folder = out / re.sub(r"[^a-z]+", "-", name.lower()).strip("-")
        log.info("arm=%s folder=%s", name, folder.name)
        figures[name] = _arm(recipe, archive, data, folder, done)
        done.append(folder)
        write_json(out / "arms.json", figures)
    return figures_table(figures)


def _arm(
    recipe: Recipe, archive: Path, data: Path | None, folder: Path, done: Sequence[Path]
) -> dict[str, Any]:
    shop = open_workshop(recipe, archive)
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"{recipe.bundle.name}-{recipe.bundle.version}"
    if not bundle.exists():
        last = run_stages(shop, folder, done)
        make_bundle(shop, last / "weights.pt", folder / "4-export", bundle, data)
    return dict(Bundle.open(bundle).manifest.metrics)


def probe_figures(spec: ModelSpec, archive: Path, data: Path) -> dict[str, Any]:
    """Supervised reference: frozen ImageNet features, logistic probe, trained on the train part.

    Args:
        spec: The recipe's towers; the image tower with its ImageNet weights is used.
        archive: Gives the split of the source groups.
        data: Folder of real frames with an index.

    Returns:
        By kind and task, AUROC on the report part with its interval over groups, as in a
        bundle's metrics.
    """
    model, _ = build(spec)
    trunk = model.clip.visual.trunk.eval()
    store = FrameStore(spec.contract)
    found: dict[str, dict[str, Any]] = {}
    parts = {part: data_items(data, archive, part) for part in ("train", "report")}
    for kind, task in COLUMNS:
        sides = {
            part: _known([i for i in items if i.kind == kind], task)
            for part, items in parts.items()
        }
        if any(len(set(y.tolist())) < 2 for _, y in sides.values()):
            continue
        features = {part: _features(trunk, store, items) for part, (items, _) in sides.items()}
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000))
        probe.fit(features["train"], sides["train"][1])
        items, y = sides["report"]
        score = probe.decision_function(features["report"])
        low, high = auroc_interval(y, score, [item.group for item in items])
        found.setdefault(kind, {})[task] = {
            "auroc": auroc(y, score),
            "auroc_low": low,
            "auroc_high": high,
            "auroc_within_dimensions": stratified_auroc(y, score, [i.dims for i in items]),
        }
    return found


def _known(items: Sequence[Item], task: str) -> tuple[list[Item], npt.NDArray[np.bool_]]:
    """Items whose truth is known, and the truth."""
    truth = [(i, i.polyp if task == "polyp_detection" else i.neoplastic) for i in items]
    known = [(item, value) for item, value in truth if value is not None]
    return [item for item, _ in known], np.array([value for _, value in known], dtype=bool)


def _features(
    trunk: torch.nn.Module, store: FrameStore, items: Sequence[Item]
) -> npt.NDArray[np.float32]:
    rows = []
    with torch.inference_mode():
        for start in range(0, len(items), 32):
            frames = store.get([item.path for item in items[start : start + 32]])
            rows.append(trunk(plain(frames, store.contract, store.contract.size)).numpy())
    return np.concatenate(rows)


def figures_table(figures: Mapping[str, Any]) -> str:
    """One row per arm: AUROC with its 95 % interval, "-" where the arm has no such figure.

    Args:
        figures: By arm, a bundle's metrics.
    """
    heads = ["polyp, crops", "polyp, whole-frame views", "malignancy, crops", "malignancy, frames"]
    heads += [f"malignancy per patient, {name}" for name in ("unify", "mean", "max")]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name, found in figures.items():
        cells = [_cell(found["frames"].get(kind, {}).get(task)) for kind, task in COLUMNS]
        patients = found.get("patients", {}).get("malignancy", {})
        cells += [_cell(patients.get(pooling)) for pooling in ("unify", "mean", "max")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{found['auroc']:.3f} ({found['auroc_low']:.3f}-{found['auroc_high']:.3f})"
