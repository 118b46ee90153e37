"""From weights to a bundle: export, parity, calibration, evaluation, pack.

Every figure is measured on a packed draft through ``model_store``. Beyond a tolerance or a gate
nothing is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_store.bundle import Bundle, Manifest, Provenance, pack, write_class_embeddings
from model_store.canaries import Canaries, write_canaries
from model_store.encoder import Encoder
from model_store.label_sets import LabelSet, write_label_sets
from model_store.quality import QualityLimits
from model_store.reference import REFERENCE, write_reference
from model_store.scoring import (
    Calibration,
    FrameMap,
    OperatingPoint,
    PatientMap,
    unit_rows,
    write_calibrations,
)
from model_store.selftest import pack_with_canaries
from model_store.tokenizer import TextContract
from training import precision
from training.canary_frames import canary_images, check_count
from training.card import model_card
from training.claims import OPINIONS, PRESENCE
from training.evaluate import TASKS
from training.example_check import check_examples
from training.export import check_parity, export_graphs, session
from training.figures import CLOSING, part_figures
from training.fitting import fit_calibrations, part_items
from training.label_texts import INTENDED_USE, label_sets
from training.model import EndoClip, text_folder
from training.precision_gate import gate_images, gate_prompts
from training.reference import LABEL_SET, make_reference
from training.runs import archive_digest, commit, libraries, write_json
from training.sources import split_digest
from training.stages import Workshop, recipe_digest
from training.start import mean_with
from training.tokenizer_files import write_tokenizer

__all__ = ["make_bundle"]

FP32, INT8, IMAGE_INT8 = "text_tower.onnx", "text_int8.onnx", "image_int8.onnx"
IDENTITY = Calibration(
    FrameMap(1.0, 0.0),
    PatientMap(1.0, 0.0, 0.0, 0.0),
    {"balanced": OperatingPoint("balanced", 0.5, 0.5)},
)


def make_bundle(
    shop: Workshop,
    weights: Path,
    work: Path,
    out: Path,
    data: Path | None,
    part: str = CLOSING,
) -> Bundle:
    """Export, calibrate, evaluate and pack.

    Args:
        shop: Recipe and archive.
        weights: Last stage's ``weights.pt``.
        work: Folder for graphs and drafts (made, kept).
        out: The bundle's folder; must not exist.
        data: Folder of real frames with an index, for calibration and figures; None uses the
            archive alone.
        part: What its figures are of; ``select`` while recipes are being compared.

    Returns:
        The packed bundle, which has passed its own self-test.

    Raises:
        ConfigError: The recipe asks for no canary.
        ParityError: An export or a lower-precision graph is beyond tolerance; nothing is packed.
        BundleError: ``out`` exists.
    """
    check_count(shop.recipe.bundle.canaries)
    work.mkdir(parents=True, exist_ok=True)
    model, tokenize = shop.towers(weights)
    if share := shop.recipe.bundle.start_share:
        mean_with(model, shop.towers(None)[0], share)
    sets = label_sets(shop.recipe.attunement.impression)
    parity = _graphs(shop, model, tokenize, sets, work)
    files = _files(shop, model, tokenize, sets, work)
    manifest = _manifest(shop, model, parity)
    path, precisions = shop.archive.path, shop.recipe.bundle
    encoder = _uncalibrated(work / "draft", manifest, files)
    found = part_items(encoder, path, data, "calibrate")
    if precisions.text_precision == "int8" or precisions.image_precision == "int8":
        items = [found, part_items(encoder, path, data, "select")]
        if precisions.text_precision == "int8":
            classes = [_class_embeddings(work / name, tokenize, sets) for name in (FP32, INT8)]
            parity |= gate_prompts(encoder, items, *classes)
        if precisions.image_precision == "int8":
            precision.quantise_products(work / "image_tower.onnx", work / IMAGE_INT8)
            files["image_tower.onnx"] = work / IMAGE_INT8
            encoder = _uncalibrated(work / "draft", manifest, files)
            lower = [part_items(encoder, path, data, part) for part in ("calibrate", "select")]
            parity |= gate_images(encoder, items, lower)
            found = lower[0]
        manifest = dataclasses.replace(
            manifest, provenance=dataclasses.replace(manifest.provenance, parity=parity)
        )
    calibrations = fit_calibrations(encoder, path, found)
    files["calibration.json"] = write_calibrations(calibrations)
    reference = make_reference(encoder, path, found, calibrations[LABEL_SET])
    if reference is not None:
        files[REFERENCE] = write_reference(reference)
    calibrated = Encoder(_draft(work / "calibrated", manifest, files))
    metrics = part_figures(calibrated, path, data, part)
    # Composed archives hold drawn frames besides real ones; elsewhere the examples claim nothing.
    metrics["examples"] = check_examples(calibrated) if shop.archive.kind == "composed" else {}
    write_json(work / "metrics.json", metrics)
    manifest = dataclasses.replace(manifest, metrics=metrics)
    files["MODEL_CARD.md"] = model_card(manifest, sets, calibrations).encode()
    images = canary_images(calibrated, shop.recipe.bundle.canaries, shop.recipe.seed)
    return pack_with_canaries(out, manifest, files, images)


def _graphs(
    shop: Workshop,
    model: EndoClip,
    tokenize: Callable[[list[str]], Tensor],
    sets: Sequence[LabelSet],
    work: Path,
) -> dict[str, float]:
    """Export, prove parity on golden and real frames, quantise behind the gate."""
    export_graphs(model, shop.spec, work)
    side = shop.spec.contract.size
    golden = np.random.default_rng(0).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    real = [f for e in shop.part("select") for f in e.frames][:40]
    frames = np.concatenate([golden, *([shop.store.get(real).numpy()] if real else [])])
    prompts = [p for s in sets for label in s.labels for p in label.prompts]
    reports = [lesion.text for e in shop.exams for lesion in e.lesions]
    texts = precision.sample_sentences([prompts, reports, list(PRESENCE[0] + OPINIONS[0])], 60)
    found = check_parity(
        model, shop.spec, work, tokenize, frames, [*texts[:20], " ".join(texts[:12])]
    )
    if shop.recipe.bundle.text_precision == "int8":
        precision.quantise_weights(work / FP32, work / INT8)
        found |= precision.gate_text(*(_encode(work / n, tokenize, texts) for n in (FP32, INT8)))
    return found


def _encode(
    path: Path, tokenize: Callable[[list[str]], Tensor], texts: list[str]
) -> npt.NDArray[np.float32]:
    graph, rows = session(path), []
    for text in texts:
        ids = tokenize([text]).numpy()
        ids = ids[:, : max(2, int((ids != 0).sum()))]
        rows.append(
            graph.run(["embedding"], {"ids": ids, "mask": (ids != 0).astype(np.int64)})[0][0]
        )
    return np.stack(rows)


def _class_embeddings(
    path: Path, tokenize: Callable[[list[str]], Tensor], sets: Sequence[LabelSet]
) -> dict[str, npt.NDArray[np.float32]]:
    """Class embeddings as a text graph gives them to a caller's own prompts."""
    found = {}
    for label_set in sets:
        means = [_encode(path, tokenize, list(e.prompts)).mean(0) for e in label_set.labels]
        found[label_set.name] = unit_rows(np.stack(means)).astype(np.float32)
    return found


def _files(
    shop: Workshop,
    model: EndoClip,
    tokenize: Callable[[list[str]], Tensor],
    sets: Sequence[LabelSet],
    work: Path,
) -> dict[str, bytes | Path]:
    """Everything but manifest, calibration and canaries; class embeddings from fp32 towers."""
    classes = {}
    model.eval()
    with torch.inference_mode():
        for label_set in sets:
            rows = []
            for label in label_set.labels:
                mean = model.encode_ids(tokenize(list(label.prompts))).mean(0)
                rows.append(torch.nn.functional.normalize(mean, dim=0))
            classes[label_set.name] = torch.stack(rows).numpy()
    write_class_embeddings(work / "class_embeddings.npz", classes)
    kind: Literal["bert", "clip"] = shop.spec.tokenizer
    source = text_folder(shop.spec) if kind == "bert" else _clip_vocabulary()
    write_tokenizer(kind, source, work / "tokenizer.json")
    text = INT8 if shop.recipe.bundle.text_precision == "int8" else FP32
    return {
        "image_tower.onnx": work / "image_tower.onnx",
        "text_tower.onnx": work / text,
        "unify.onnx": work / "unify.onnx",
        "tokenizer.json": work / "tokenizer.json",
        "class_embeddings.npz": work / "class_embeddings.npz",
        "label_sets.json": write_label_sets(sets),
        "MODEL_CARD.md": b"draft\n",
    }


def _clip_vocabulary() -> Path:
    import open_clip

    return Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"


def _manifest(shop: Workshop, model: EndoClip, parity: Mapping[str, float]) -> Manifest:
    bundle = shop.recipe.bundle
    kind = shop.spec.tokenizer
    return Manifest(
        name=bundle.name,
        version=bundle.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        intended_use=INTENDED_USE,
        embedding_dim=model.dim,
        logit_scale=model.logit_scale.item(),
        attention_scale=model.unify.log_scale.exp().item(),
        input=shop.spec.contract,
        text=TextContract(kind, shop.spec.context_length, 0),
        quality_gate=QualityLimits().as_dict(),
        provenance=Provenance(
            commit=commit(),
            config_digest=recipe_digest(shop.recipe),
            split_digest=split_digest(shop.archive),
            libraries=libraries(),
            parity=dict(parity),
            extra={
                "recipe": shop.recipe.name,
                "seed": float(shop.recipe.seed),
                "archive": shop.archive.kind,
                "archive_digest": archive_digest(shop.archive.path),
                "impression": "in text" if shop.recipe.attunement.impression else "withheld",
                "model": shop.recipe.model.config,
                "weights": _weights(shop),
                "start_share": bundle.start_share,
                "text_precision": bundle.text_precision,
                "image_precision": bundle.image_precision,
            },
        ),
        metrics={},
    )


def _weights(shop: Workshop) -> str:
    """What the towers start from: a bundle, a tag or the name of a file, never its folder."""
    model = shop.recipe.model
    if (start := shop.start) is not None:
        return f"bundle {start.manifest.name} {start.manifest.version} {start.digest}"
    if model.pretrained and model.weights:
        return Path(model.weights).name
    return "packages" if model.pretrained and shop.spec.image_weights else "none"


def _uncalibrated(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Encoder:
    plain = write_calibrations(dict.fromkeys(TASKS, IDENTITY))
    return Encoder(_draft(folder, manifest, {**files, "calibration.json": plain}))


def _draft(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    return pack(
        folder, manifest, {**files, "canaries.json": write_canaries(Canaries(1e-3, (), {}))}
    )
