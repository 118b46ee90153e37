"""Experiments: sets of arms of one recipe, on the same archive, towers and steps, over seeds.

    python -m training arms --of stages --recipe ablation --data path/to/colonoscopy/dev
    python -m training arms --of attributes --recipe ablation --data D --seed 1 --seed 2 --seed 3

``stages`` adds the stages one by one; ``share`` sweeps the share that cleansing keeps;
``attributes`` asks whether extraction errors hurt. Every arm is exported, packed and evaluated like
a bundle that ships; stages that two arms share, of whichever experiments below one folder, are
trained once. A seed is that of weights and batches: archive and split stay. Beside the stages
stands a supervised reference on the same split: ImageNet features of the same image tower under a
logistic probe.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from model_store.bundle import Bundle
from training.attributes import ATTRIBUTES
from training.batches import FrameStore, plain
from training.config import load
from training.errors import ConfigError, StaleInput
from training.items import Item
from training.metrics import auroc, auroc_interval, stratified_auroc
from training.model import ModelSpec, build, load_spec
from training.packing import make_bundle
from training.protocol import data_items
from training.reading import Exam
from training.records import read_truth
from training.runs import archive_digest, commit, write_json
from training.stages import Workshop, open_workshop, packed_from, run_stages

__all__ = ["EXPERIMENTS", "Arm", "extraction_f1", "figures_table", "probe_figures", "run_arms"]

log = logging.getLogger(__name__)

PLAIN = ("attunement.targets=plain", "unification.enabled=false")


@dataclass(frozen=True)
class Arm:
    """One arm of an experiment.

    Attributes:
        name: As tables call it.
        overrides: Of the recipe.
        x: Place on the experiment's axis, None where it has none.
    """

    name: str
    overrides: tuple[str, ...] = ()
    x: float | None = None


EXPERIMENTS: dict[str, tuple[Arm, ...]] = {
    # The stages add up from arm to arm; in "one-hot" attunement only the targets differ from the
    # stage's own, class sentences included; the last arm is the whole recipe without
    # endoscopists' impressions in the text, zero-shot in the strict sense.
    "stages": (
        Arm("plain CLIP", ("cleansing.enabled=false", *PLAIN)),
        Arm("+ cleansing", PLAIN),
        Arm("+ attunement, one-hot", ("attunement.targets=one_hot", "unification.enabled=false")),
        Arm("+ attunement", ("unification.enabled=false",)),
        Arm("+ unification"),
        Arm("impression withheld", ("attunement.impression=false",)),
    ),
    # METHOD 1.2: the share is not published.
    "share": tuple(Arm(f"share {x:.2f}", (f"cleansing.share={x}",), x) for x in (0.30, 0.45, 0.60)),
    "attributes": (
        Arm("rules", x=0.0),
        *(Arm(f"corrupted {x:.0%}", (f"attributes.corrupted={x}",), x) for x in (0.1, 0.3, 0.5)),
        *(Arm(f"dropped {x:.0%}", (f"attributes.dropped={x}",), x) for x in (0.3, 0.6, 1.0)),
    ),
}

COLUMNS = (
    ("crop", "polyp_detection"),
    ("scope", "polyp_detection"),
    ("crop", "malignancy"),
    ("frame", "malignancy"),
)


def run_arms(
    of: str,
    path: Path,
    overrides: Sequence[str],
    archive: Path,
    data: Path | None,
    out: Path,
    *,
    seeds: Sequence[int] = (1,),
    part: str = "select",
    names: Sequence[str] = (),
    ledger: Path | None = None,
) -> str:
    """Train, pack and evaluate every arm that is not done yet, seed by seed.

    Args:
        of: Key of ``EXPERIMENTS``.
        path: The recipe.
        overrides: Applied to every arm, before the arm's own.
        archive: One archive for all arms and seeds.
        data: Folder of real frames with an index, for the figures and the probe; None uses the
            archive alone.
        out: ``<of>.json`` is written in it, and ``<of>/<arm>/seed-<n>``, one run each.
        seeds: Of weights and batches.
        part: What is measured; ``report`` for closing figures only.
        names: Arms to run, in this order; all of them where empty.
        ledger: Attributes as ``training extract`` wrote them: one more arm of ``attributes``.

    Returns:
        The table, Markdown.

    Raises:
        ConfigError: An experiment or arm of that name does not exist.
    """
    arms = _chosen(of, names, ledger)
    # Runs that may have stages to share: the one whose archive it is, and arms of any experiment.
    done = [archive.parent, *sorted(out.glob("*/*/seed-*"))]
    rows: list[dict[str, Any]] = []
    if data is not None and of == "stages":
        spec = load_spec(load(path, overrides).model.config)
        figures = {"frames": probe_figures(spec, archive, data, part)}
        rows.append({"arm": "ImageNet features, logistic probe", "seed": 0, "figures": figures})
    head = {
        "name": of,
        "recipe": path.stem,
        "overrides": list(overrides),
        "archive_digest": archive_digest(archive),
        "commit": commit(),
        "part": part,
        "command": f"python -m training arms --of {of} --recipe {path.stem}",
    }
    store: FrameStore | None = None
    for seed in seeds:
        for arm in arms:
            recipe = load(path, [*overrides, *arm.overrides, f"seed={seed}"])
            slug = re.sub(r"[^a-z0-9.]+", "-", arm.name.lower()).strip("-")
            folder = out / of / slug / f"seed-{seed}"
            log.info("arm=%s seed=%d", arm.name, seed)
            shop = open_workshop(recipe, archive)
            store = store or shop.store
            shop = dataclasses.replace(shop, store=store)  # frames are decoded once for all arms
            rows.append(
                {
                    "arm": arm.name,
                    "x": arm.x,
                    "seed": seed,
                    "folder": folder.relative_to(out).as_posix(),
                    "extraction_f1": extraction_f1(archive, shop.part("train")),
                    "figures": _figures(shop, data, folder, done, part),
                }
            )
            done.append(folder)
            write_json(out / f"{of}.json", head | {"arms": rows})
    return figures_table(rows)


def _chosen(of: str, names: Sequence[str], ledger: Path | None) -> list[Arm]:
    if of not in EXPERIMENTS:
        raise ConfigError(f"expected an experiment among {', '.join(EXPERIMENTS)}; found {of}")
    known = {arm.name: arm for arm in EXPERIMENTS[of]}
    if ledger is not None and of == "attributes":
        source = json.dumps(str(ledger.resolve()))
        known["ledger"] = Arm("ledger", (f"attributes.source={source}",))
    if unknown := [name for name in names if name not in known]:
        raise ConfigError(f"expected arms among {', '.join(known)}; found {', '.join(unknown)}")
    return [known[name] for name in names] if names else list(known.values())


def _figures(
    shop: Workshop, data: Path | None, folder: Path, done: Sequence[Path], part: str
) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    bundle = folder / f"{shop.recipe.bundle.name}-{shop.recipe.bundle.version}"
    packed_from(bundle, shop.recipe)
    if not bundle.exists():
        last = run_stages(shop, folder, done)
        make_bundle(shop, last / "weights.pt", folder / "4-export", bundle, data, part)
    figures = dict(Bundle.open(bundle).manifest.metrics)
    if figures.get("part") != part:
        raise StaleInput(
            f"{folder.name}: its figures are of the part {figures.get('part')}, not of {part}; "
            "choose another output folder"
        )
    return figures


def extraction_f1(archive: Path, exams: Sequence[Exam]) -> float | None:
    """Micro-F1 of the attributes that training reads, against what the composer wrote.

    Counts mentioned values only; lesions of a record are compared in their order, and one that only
    one side has counts in full against the other.

    Args:
        archive: With ``truth.jsonl``; None is returned without.
        exams: As read, corrupted or not.
    """
    if not (archive / "truth.jsonl").is_file():
        return None
    truth = read_truth(archive)
    hits, mentioned = 0, 0
    for exam in exams:
        told = [
            {name: v for name, v in lesion["told"].items() if name in ATTRIBUTES}
            for lesion in truth[exam.record_id]["lesions"]
        ]
        found = [
            {
                name: values[code]
                for (name, values), code in zip(ATTRIBUTES.items(), lesion.codes, strict=True)
                if code >= 0
            }
            for lesion in exam.lesions
        ]
        mentioned += sum(map(len, told)) + sum(map(len, found))
        hits += sum(len(a.items() & b.items()) for a, b in zip(told, found, strict=False))
    return 2 * hits / mentioned if mentioned else None


def probe_figures(
    spec: ModelSpec, archive: Path, data: Path, part: str = "select"
) -> dict[str, Any]:
    """Supervised reference: frozen ImageNet features, logistic probe, trained on the train part.

    Args:
        spec: The recipe's towers; the image tower with its ImageNet weights is used.
        archive: Gives the split of the source groups.
        data: Folder of real frames with an index.
        part: What is measured.

    Returns:
        By kind and task, AUROC on the part with its interval over groups, as in a
        bundle's metrics.
    """
    model, _ = build(spec)
    trunk = model.clip.visual.trunk.eval()
    store = FrameStore(spec.contract)
    found: dict[str, dict[str, Any]] = {}
    sides = {name: data_items(data, archive, name) for name in ("train", part)}
    for kind, task in COLUMNS:
        told = {
            name: _known([i for i in items if i.kind == kind], task)
            for name, items in sides.items()
        }
        if any(len(set(y.tolist())) < 2 for _, y in told.values()):
            continue
        features = {name: _features(trunk, store, items) for name, (items, _) in told.items()}
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.003, max_iter=2000))
        probe.fit(features["train"], told["train"][1])
        items, y = told[part]
        score = probe.decision_function(features[part])
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


def figures_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """One row per arm: AUROC, its mean over seeds, "-" where the arm has no such figure.

    Beside it the 95 % interval over source groups, where there is one seed, or the range over the
    seeds.

    Args:
        rows: ``arm``, ``seed`` and ``figures`` (a bundle's metrics).
    """
    heads = ["polyp, crops", "polyp, whole-frame views", "malignancy, crops", "malignancy, frames"]
    heads += [f"malignancy per patient, {name}" for name in ("unify", "mean", "max")]
    lines = ["| arm | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for name in dict.fromkeys(row["arm"] for row in rows):
        mine = [row["figures"] for row in rows if row["arm"] == name]
        cells = [_cell([f["frames"].get(k, {}).get(t) for f in mine]) for k, t in COLUMNS]
        patients = [f.get("patients", {}).get("malignancy", {}) for f in mine]
        cells += [_cell([p.get(pool) for p in patients]) for pool in ("unify", "mean", "max")]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Sequence[Mapping[str, float] | None]) -> str:
    told = [one for one in found if one is not None and one["auroc"] is not None]
    if not told:
        return "-"
    if len(told) == 1:
        one = told[0]
        return f"{one['auroc']:.3f} ({one['auroc_low']:.3f}-{one['auroc_high']:.3f})"
    values = [one["auroc"] for one in told]
    return f"{np.mean(values):.3f} ({min(values):.3f}-{max(values):.3f}, {len(values)} seeds)"
