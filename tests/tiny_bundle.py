"""A real bundle in a few kilobytes, with meaning: a red frame is a polyp, a pink one is not.

The image embedding points where the mean colour lies from the midpoint of two anchors, the text
embedding where the colour words of the sentence lie, and unify is a true masked attention with
identity projections. Everything that opens, verifies, encodes and scores runs as it does with
trained weights; only `onnx` is needed to write it.
"""

from collections.abc import Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto as Type
from onnx import helper, numpy_helper
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from model_store.bundle import Manifest, Provenance, write_class_embeddings
from model_store.images import InputContract
from model_store.label_sets import Label, LabelSet, write_label_sets
from model_store.quality import QualityLimits
from model_store.scoring import (
    Calibration,
    FrameMap,
    OperatingPoint,
    PatientMap,
    write_calibrations,
)
from model_store.selftest import pack_with_canaries
from model_store.tokenizer import TextContract

RED, PINK = (200, 30, 30), (225, 170, 150)
SIZE, DIM, GRID, ATTENTION_SCALE = 64, 4, 4, 14.0
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": RED,
    "pink": PINK,
    "white": (250, 250, 250),
    "green": (40, 160, 60),
    "blue": (40, 60, 180),
}
# A wrong white balance: less red. A blind tower sees nothing of it.
CAST = np.array([-1.0, 0.0, 0.0])
# Flat colours are as blurred as can be; these limits let every one of them pass.
PASS_ALL = QualityLimits.open_gate().as_dict()


def frame_png(colour: tuple[int, int, int] = RED, side: int = 96) -> bytes:
    """A flat frame as PNG bytes."""
    return _encoded(Image.new("RGB", (side, side), colour), "PNG")


def frame_jpeg(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (160, 128)) -> bytes:
    """A flat frame as JPEG bytes."""
    return _encoded(Image.new("RGB", size, colour), "JPEG")


def build_tiny_bundle(
    folder: Path,
    *,
    more: Mapping[str, bytes] | None = None,
    mean_shift: float = 0.0,
    **overrides: Any,
) -> Path:
    """Write the bundle.

    Args:
        folder: where; must not exist.
        more: further files of the format.
        mean_shift: of the image tower, which then sees other colours.
        overrides: fields of the manifest to replace, such as `quality_gate` or `name`.

    Returns:
        `folder`.
    """
    sets = {item.name: item for item in label_sets()}
    with TemporaryDirectory() as scratch:
        npz = Path(scratch) / "class_embeddings.npz"
        write_class_embeddings(npz, {name: _classes(item) for name, item in sets.items()})
        files: dict[str, bytes | Path] = {
            "MODEL_CARD.md": b"# Tiny\n\nKnows colours only. For tests.\n",
            "calibration.json": write_calibrations(calibrations()),
            "class_embeddings.npz": npz,
            "image_tower.onnx": image_tower(mean_shift),
            "label_sets.json": write_label_sets(sets.values()),
            "text_tower.onnx": text_tower(),
            "tokenizer.json": tokenizer_json().encode(),
            "unify.onnx": unify(),
            **(more or {}),
        }
        canaries = {
            "canaries/normal.png": frame_png(PINK),
            "canaries/polyp.png": frame_png(RED),
            "canaries/near.png": frame_png((212, 99, 90)),
        }
        pack_with_canaries(folder, replace(manifest(), **overrides), files, canaries)
    return folder


def manifest() -> Manifest:
    """The manifest, without files."""
    return Manifest(
        name="tiny",
        version="1.0.0",
        created="2025-01-01T00:00:00Z",
        intended_use="Research use only. Tests only: it sees colours, nothing else.",
        embedding_dim=DIM,
        logit_scale=10.0,
        attention_scale=ATTENTION_SCALE,
        input=InputContract(SIZE, "squash", "bicubic", (0.0,) * 3, (1.0,) * 3, "full"),
        text=TextContract("bert", 77, 0),
        quality_gate=dict(PASS_ALL),
        provenance=Provenance("0" * 40, "sha256:0", "sha256:0", {"onnx": onnx.__version__}, {}),
        metrics={"polyp_detection": {"auroc": 1.0}},
    )


def label_sets() -> tuple[LabelSet, ...]:
    """The two named tasks and one set without a positive label."""

    def label(name: str, colour: str) -> Label:
        return Label(name, f"a {colour} frame", (f"{colour} tissue", f"a frame of {colour} colour"))

    return (
        LabelSet("polyp_detection", (label("polyp", "red"), label("no_polyp", "pink")), "polyp"),
        LabelSet("malignancy", (label("malignant", "red"), label("benign", "pink")), "malignant"),
        LabelSet("colour", (label("pale", "white"), label("red", "red"), label("pink", "pink"))),
    )


def calibrations() -> dict[str, Calibration]:
    """Maps and operating points of the two named tasks, one of them with an abstention band."""
    point = OperatingPoint(
        "balanced", 0.5, 0.5, (0.45, 0.55), None, {"sensitivity": 1.0, "specificity": 1.0}
    )
    points = {
        "balanced": point,
        "sensitivity_first": replace(
            point,
            name="sensitivity_first",
            frame_threshold=0.2,
            patient_threshold=0.3,
            frame_abstain=None,
        ),
        "specificity_first": replace(
            point,
            name="specificity_first",
            frame_threshold=0.8,
            patient_threshold=0.9,
            frame_abstain=None,
        ),
    }
    one = Calibration(FrameMap(0.3, 0.0), PatientMap(0.3, 0.2, -0.1, 0.0), points)
    return {"polyp_detection": one, "malignancy": one}


def direction(colour: tuple[float, ...]) -> npt.NDArray[np.float32]:
    """Where a colour lies from the midpoint of the anchors: float32 (4,), not scaled."""
    middle = (np.array(RED) + np.array(PINK)) / 510.0
    return np.append(np.array(colour) / 255.0 - middle, 0.02).astype(np.float32)


def past_cast() -> npt.NDArray[np.float32]:
    """Takes colours as float32 (n, 3) to what a blind tower sees of them: (3, 3)."""
    return (np.eye(3) - np.outer(CAST, CAST)).astype(np.float32)


def image_tower(mean_shift: float = 0.0, *, blind: bool = False) -> bytes:
    """Graph: pixels uint8 (n, s, s, 3) → embedding (n, 4), grid (n, 4, 4, 4).

    Args:
        mean_shift: what it subtracts more.
        blind: whether it looks past `CAST`, as towers trained on tinted frames do.
    """
    middle = -direction((0, 0, 0))[:3] + mean_shift
    cell = SIZE // GRID
    nodes = [
        _node("Cast", "pixels", "floats", to=Type.FLOAT),
        _node("Div", "floats top", "unit"),
        _node("Sub", "unit middle", "exact"),
        _node("MatMul", "exact look", "centred"),
        _node("Transpose", "centred", "planes", perm=[0, 3, 1, 2]),
        _node("AveragePool", "planes", "cells", kernel_shape=[cell] * 2, strides=[cell] * 2),
        _node("Pad", "cells pads fill", "wide"),
        _node("ReduceMean", "wide space", "mean", keepdims=0),
        _node("LpNormalization", "mean", "embedding", axis=1, p=2),
        _node("Transpose", "wide", "grid", perm=[0, 2, 3, 1]),
    ]
    constants = {
        "top": np.float32(255),
        "middle": middle.astype(np.float32),
        "look": past_cast() if blind else np.eye(3, dtype=np.float32),
        "pads": np.array([0, 0, 0, 0, 0, 1, 0, 0], np.int64),
        "fill": np.float32(0.02),
        "space": np.array([2, 3], np.int64),
    }
    return _graph(
        nodes,
        constants,
        {"pixels": (Type.UINT8, ["n", SIZE, SIZE, 3])},
        {
            "embedding": (Type.FLOAT, ["n", DIM]),
            "grid": (Type.FLOAT, ["n", GRID, GRID, DIM]),
        },
    )


def text_tower() -> bytes:
    """Graph: ids, mask int64 (m, t) → embedding (m, 4): the mean of the words' directions."""
    words = np.zeros((len(_vocabulary()), DIM), np.float32)
    words[:, 3] = 1e-3
    for name, colour in COLOURS.items():
        words[_vocabulary()[name]] = direction(colour)
    nodes = [
        _node("Gather", "words ids", "rows", axis=0),
        _node("Cast", "mask", "weights", to=Type.FLOAT),
        _node("Unsqueeze", "weights last", "columns"),
        _node("Mul", "rows columns", "seen"),
        _node("ReduceSum", "seen tokens", "sum", keepdims=0),
        _node("LpNormalization", "sum", "embedding", axis=1, p=2),
    ]
    constants = {
        "words": words,
        "last": np.array([2], np.int64),
        "tokens": np.array([1], np.int64),
    }
    two = {name: (Type.INT64, ["m", "t"]) for name in ("ids", "mask")}
    return _graph(nodes, constants, two, {"embedding": (Type.FLOAT, ["m", DIM])})


def unify() -> bytes:
    """Graph: frames (n, 4), mask (n,), queries (k, 4) → pooled (k, 4) unit, attention (k, n)."""
    nodes = [
        _node("Transpose", "frames", "keys", perm=[1, 0]),
        _node("MatMul", "queries keys", "cosines"),
        _node("Mul", "cosines scale", "logits"),
        _node("Where", "mask logits hidden", "masked"),
        _node("Softmax", "masked", "weights", axis=1),
        _node("Where", "mask weights zero", "attention"),
        _node("MatMul", "attention frames", "mixed"),
        _node("ReduceL2", "mixed width", "length", keepdims=1),
        _node("Max", "length small", "safe"),
        _node("Div", "mixed safe", "pooled"),
    ]
    constants = {
        "scale": np.float32(ATTENTION_SCALE),
        "hidden": np.float32(-1e9),
        "zero": np.float32(0),
        "width": np.array([1], np.int64),
        "small": np.float32(1e-12),
    }
    return _graph(
        nodes,
        constants,
        {
            "frames": (Type.FLOAT, ["n", DIM]),
            "mask": (Type.BOOL, ["n"]),
            "queries": (Type.FLOAT, ["k", DIM]),
        },
        {"pooled": (Type.FLOAT, ["k", DIM]), "attention": (Type.FLOAT, ["k", "n"])},
    )


def tokenizer_json() -> str:
    """A word-level tokenizer that knows the colour words and BERT's marks."""
    backend = Tokenizer(models.WordLevel(_vocabulary(), unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return str(backend.to_str())


def _vocabulary() -> dict[str, int]:
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "tissue", "frame", "colour", *COLOURS)
    return {word: index for index, word in enumerate(words)}


def _classes(label_set: LabelSet) -> npt.NDArray[np.float32]:
    """What the text tower gives for the prompts: only their one colour word points anywhere."""
    rows = []
    for label in label_set.labels:
        prompts = []
        for prompt in label.prompts:
            words = ["[CLS]", *prompt.split(), "[SEP]"]
            vectors = [
                direction(COLOURS[w]) if w in COLOURS else np.array([0, 0, 0, 1e-3], np.float32)
                for w in words
            ]
            total = np.sum(vectors, axis=0)
            prompts.append(total / np.linalg.norm(total))
        mean = np.mean(prompts, axis=0)
        rows.append(mean / np.linalg.norm(mean))
    return np.array(rows, np.float32)


def _node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def _graph(
    nodes: list[onnx.NodeProto],
    constants: Mapping[str, Any],
    inputs: Mapping[str, tuple[int, list[Any]]],
    outputs: Mapping[str, tuple[int, list[Any]]],
) -> bytes:
    def values(table: Mapping[str, tuple[int, list[Any]]]) -> list[onnx.ValueInfoProto]:
        return [helper.make_tensor_value_info(k, kind, dims) for k, (kind, dims) in table.items()]

    stored = [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()]
    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _encoded(image: Image.Image, kind: str) -> bytes:
    out = BytesIO()
    image.save(out, kind)
    return out.getvalue()
