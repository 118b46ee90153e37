"""From weights to a bundle: export, parity, calibration, evaluation, pack.

Every figure is measured on a packed draft through ``model_store``. Beyond a tolerance or a gate
nothing is written.
"""

from __future__ import annotations

import dataclasses
import io
import logging
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
from model_store.quality import QualityLimits, assess
from model_store.scoring import (
    Calibration,
    FrameMap,
    OperatingPoint,
    PatientMap,
    write_calibrations,
)
from model_store.selftest import pack_with_canaries
from model_store.tokenizer import TextContract
from training import precision
from training.card import model_card
from training.claims import OPINIONS, PRESENCE
from training.evaluate import TASKS, frame_margins
from training.export import check_parity, export_graphs, session
from training.figures import CLOSING, part_figures
from training.fitting import fit_calibrations, part_items
from training.items import Embedded, Item
from training.label_texts import INTENDED_USE, label_sets
from training.model import EndoClip, text_folder
from training.phantom import draw_frame, random_lesion, random_spec
from training.runs import commit, libraries, write_json
from training.stages import Workshop, recipe_digest
from training.tokenizer_files import write_tokenizer

__all__ = ["make_bundle"]

log = logging.getLogger(__name__)

IDENTITY = Calibration(
    FrameMap(1.0, 0.0),
    PatientMap(1.0, 0.0, 0.0),
    {"balanced": OperatingPoint("balanced", 0.5, 0.5)},
)


def make_bundle(shop: Workshop, weights: Path, work: Path, out: Path, data: Path | None) -> Bundle:
    """Export, calibrate, evaluate and pack.

    Args:
        shop: Recipe and archive.
        weights: Last stage's ``weights.pt``.
        work: Folder for graphs and drafts (made, kept).
        out: The bundle's folder; must not exist.
        data: Folder of real frames with an index, for calibration and figures; None uses the
            archive alone.

    Returns:
        The packed bundle, which has passed its own self-test.

    Raises:
        ParityError: An export or a lower-precision graph is beyond tolerance; nothing is packed.
        BundleError: ``out`` exists.
    """
    work.mkdir(parents=True, exist_ok=True)
    model, tokenize = shop.towers(weights)
    sets = label_sets(shop.recipe.attunement.impression)
    parity = _graphs(shop, model, tokenize, sets, work)
    files = _files(shop, model, tokenize, sets, work)
    manifest = _manifest(shop, model, parity)
    plain = write_calibrations(dict.fromkeys(TASKS, IDENTITY))
    draft = _draft(work / "draft", manifest, {**files, "calibration.json": plain})
    encoder = Encoder(draft)
    found = part_items(encoder, shop.archive.path, data, "calibrate")
    calibrations = fit_calibrations(encoder, shop.archive.path, found)
    files["calibration.json"] = write_calibrations(calibrations)
    calibrated = Encoder(_draft(work / "calibrated", manifest, files))
    metrics = part_figures(calibrated, shop.archive.path, data, CLOSING)
    write_json(work / "metrics.json", metrics)
    manifest = dataclasses.replace(manifest, metrics=metrics)
    files["MODEL_CARD.md"] = model_card(manifest, sets, calibrations).encode()
    images = _canary_images(calibrated, shop.recipe.bundle.canaries, shop.recipe.seed)
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
    frames = np.concatenate([golden, shop.store.get(real).numpy()])
    prompts = [p for s in sets for label in s.labels for p in label.prompts]
    reports = [lesion.text for e in shop.exams for lesion in e.lesions]
    texts = precision.sample_sentences([prompts, reports, list(PRESENCE[0] + OPINIONS[0])], 60)
    found = check_parity(
        model, shop.spec, work, tokenize, frames, [*texts[:20], " ".join(texts[:12])]
    )
    if shop.recipe.bundle.text_precision == "int8":
        precision.quantise_weights(work / "text_tower.onnx", work / "text_int8.onnx")
        found |= precision.gate_text(
            *(_encode(work / n, tokenize, texts) for n in ("text_tower.onnx", "text_int8.onnx"))
        )
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
    text = "text_int8.onnx" if shop.recipe.bundle.text_precision == "int8" else "text_tower.onnx"
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
            split_digest=shop.archive.digest,
            libraries=libraries(),
            parity=dict(parity),
            extra={
                "recipe": shop.recipe.name,
                "seed": float(shop.recipe.seed),
                "archive": shop.archive.kind,
                "text_precision": bundle.text_precision,
            },
        ),
        metrics={},
    )


def _draft(folder: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
    return pack(
        folder, manifest, {**files, "canaries.json": write_canaries(Canaries(1e-3, (), {}))}
    )


def _canary_images(encoder: Encoder, count: int, seed: int) -> dict[str, bytes]:
    """Drawn frames from both ends of the polyp score, and the one nearest the threshold."""
    rng = np.random.default_rng([seed, 13])
    drawn = []
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    side = encoder.bundle.manifest.input.size
    for i in range(24):
        lesions = (random_lesion(rng),) if i % 2 else ()
        image = draw_frame(random_spec(rng, lesions), rng, (side, side))
        pixels = np.asarray(image)
        if assess(pixels, limits) is None:
            drawn.append((image, pixels))
    embeddings = encoder.encode_images(np.stack([pixels for _, pixels in drawn]))
    items = [Item(Path(), "view", None, None, "", "", "")] * len(drawn)
    z = frame_margins(encoder, "polyp_detection", Embedded(items, embeddings, [None] * len(drawn)))
    p = encoder.bundle.calibrations["polyp_detection"].frame.probability(z)
    threshold = (
        encoder.bundle.calibrations["polyp_detection"].operating_point("balanced").frame_threshold
    )
    order = np.argsort(p)
    half = max(1, (count - 1) // 2)
    near = int(np.argmin(np.abs(p - threshold)))
    chosen = list(
        dict.fromkeys([near, *order[-half:].tolist(), *order[: count - 1 - half].tolist()])
    )
    images = {}
    for i, row in enumerate(chosen):
        buffer = io.BytesIO()
        drawn[row][0].save(buffer, "PNG", optimize=True)
        images[f"canaries/drawn_{i}.png"] = buffer.getvalue()
    return images
