"""int8 for the text graph (weights only) and for a transformer's image graph, and the first gate.

Weights are stored as int8 in blocks of 32 with a scale each, and multiplied back when the graph
is loaded (rows of the token table: after the lookup); activations stay fp32. Dynamic int8
activations are visibly worse on CLIP text towers, and fp16 of MiniLM alone would be 45 MB. The
graph serves free prompts only: named sets' class embeddings come from the unquantised tower.

An image graph is multiplied in int8 itself, activations too, by onnxruntime's own dynamic
quantisation: there the aim is time (ViT-B/32 on one core: 2.9 times, `bench.vit_int8`), not size.
Weights take seven bits, so that integer sums are the same with and without int8 dot products.
Convolutions stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.shape_inference import quant_pre_process

from training.errors import ConfigError, ParityError

__all__ = [
    "MINIMUM_COSINE",
    "gate_text",
    "quantise_products",
    "quantise_weights",
    "sample_sentences",
]

MINIMUM_COSINE = 0.999
SMALLEST = 4096  # elements; below that scales save nothing
# One scale per output channel left a cosine of 0.9987 on MiniLM, one per 32 inputs 0.9996, for 3
# MB.
BLOCK = 32
PRODUCTS = ("MatMul", "Gemm")

Array = npt.NDArray[np.float32]


def quantise_weights(source: Path, target: Path) -> None:
    """Rewrite the large fp32 weights of MatMul and Gather as int8.

    Args:
        source: fp32 graph.
        target: Where the int8 graph goes.
    """
    model = onnx.load(str(source))
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    done: dict[str, list[onnx.TensorProto]] = {}
    for node in graph.node:
        tensor = weights.get(
            node.input[0] if node.op_type == "Gather" else (list(node.input) + [""] * 2)[1]
        )
        array = numpy_helper.to_array(tensor) if tensor is not None else None
        fits = (
            array is not None
            and array.dtype == np.float32
            and array.ndim == 2
            and array.size >= SMALLEST
        )
        if not fits or node.op_type not in ("MatMul", "Gather") or tensor is None or array is None:
            nodes.append(node)
        elif node.op_type == "Gather":
            nodes += _gather(node, tensor.name, array, done)
        else:
            nodes += _matmul(node, tensor.name, array, done)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for name, tensor in weights.items() if name in used]
    extra = [tensor for tensors in done.values() for tensor in tensors if tensor.name in used]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*kept, *extra])
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def quantise_products(source: Path, target: Path) -> None:
    """Rewrite a graph's products with constant matrices to int8.

    Args:
        source: fp32 graph.
        target: Where the int8 graph goes.

    Raises:
        ConfigError: Less than half of the graph's weights are in such products: a convolutional
            tower gains nothing by it.
    """
    ready = target.with_suffix(".ready")
    try:
        quant_pre_process(str(source), str(ready), skip_symbolic_shape=True)
        graph = onnx.load(str(ready)).graph
        inner = {name for node in graph.node if node.op_type in PRODUCTS for name in node.input}
        sizes = {one.name: math.prod(one.dims) for one in graph.initializer}
        if 2 * sum(sizes[name] for name in inner & sizes.keys()) < sum(sizes.values()):
            raise ConfigError(
                f"bundle.image_precision: int8 leaves most of {source.name} in fp32; expected fp32 "
                "for a convolutional tower"
            )
        quantize_dynamic(
            str(ready),
            str(target),
            weight_type=QuantType.QInt8,
            per_channel=True,
            # 7 bits: without int8 dot products (AVX2 alone) pairs of products are added in 16 bits,
            # which 8 bits overflow: a least cosine of 0.9978 there, of 0.9999 so.
            reduce_range=True,
            op_types_to_quantize=list(PRODUCTS),
        )
    finally:
        ready.unlink(missing_ok=True)


def _quantise(name: str, array: Array, axis: int) -> list[onnx.TensorProto]:
    """int8 in blocks of ``BLOCK`` along an axis, each with its scale: max |x| / 127."""
    size = array.shape[axis]
    block = BLOCK if size % BLOCK == 0 else size
    shape = list(array.shape)
    shape[axis : axis + 1] = [size // block, block]
    blocks = array.reshape(shape)
    peak = np.abs(blocks).max(axis=axis + 1, keepdims=True)
    scale = np.maximum(peak / 127.0, 1e-12).astype(np.float32)
    values = np.clip(np.rint(blocks / scale), -127, 127).astype(np.int8)
    return [
        numpy_helper.from_array(values, f"{name}.q"),
        numpy_helper.from_array(scale, f"{name}.scale"),
        numpy_helper.from_array(np.array(array.shape[-1:], np.int64), f"{name}.width"),
        numpy_helper.from_array(np.array(array.shape, np.int64), f"{name}.shape"),
    ]


def _gather(
    node: onnx.NodeProto, name: str, array: Array, done: dict[str, list[onnx.TensorProto]]
) -> list[onnx.NodeProto]:
    """Row lookup in int8, scaled after the lookup: the table is never expanded."""
    done.setdefault(name, _quantise(name, array, 1))
    ids, out = node.input[1], node.output[0]
    return [
        helper.make_node("Gather", [f"{name}.q", ids], [f"{out}.q"], axis=0),
        helper.make_node("Gather", [f"{name}.scale", ids], [f"{out}.scale"], axis=0),
        helper.make_node("Cast", [f"{out}.q"], [f"{out}.f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}.f", f"{out}.scale"], [f"{out}.b"]),
        helper.make_node("Shape", [ids], [f"{out}.ids"]),
        helper.make_node("Concat", [f"{out}.ids", f"{name}.width"], [f"{out}.shape"], axis=0),
        helper.make_node("Reshape", [f"{out}.b", f"{out}.shape"], [out]),
    ]


def _matmul(
    node: onnx.NodeProto, name: str, array: Array, done: dict[str, list[onnx.TensorProto]]
) -> list[onnx.NodeProto]:
    """Cast, scale and reshape of constants: the runtime folds them once, at load."""
    expand = (
        []
        if name in done
        else [
            helper.make_node("Cast", [f"{name}.q"], [f"{name}.c"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}.c", f"{name}.scale"], [f"{name}.m"]),
            helper.make_node("Reshape", [f"{name}.m", f"{name}.shape"], [f"{name}.f"]),
        ]
    )
    done.setdefault(name, _quantise(name, array, 0))
    multiply = helper.make_node(
        "MatMul", [node.input[0], f"{name}.f"], list(node.output), name=node.name
    )
    return [*expand, multiply]


def gate_text(reference: Array, lower: Array) -> dict[str, float]:
    """Compare unit embeddings of the fp32 and the lower-precision graph.

    Args:
        reference: (m, d) fp32.
        lower: (m, d) of the candidate.

    Returns:
        Smallest and mean cosine.

    Raises:
        ParityError: The smallest cosine is below ``MINIMUM_COSINE``.
    """
    cosine = (reference * lower).sum(-1)
    if not float(cosine.min()) >= MINIMUM_COSINE:
        raise ParityError(
            1.0 - float(cosine.min()), 1.0 - MINIMUM_COSINE, "lower-precision text tower"
        )
    return {"text_cosine_min": float(cosine.min()), "text_cosine_mean": float(cosine.mean())}


def sample_sentences(groups: Sequence[Sequence[str]], limit: int) -> list[str]:
    """Distinct sentences, taken in turn from each group, at most ``limit``."""
    distinct = [list(dict.fromkeys(group)) for group in groups]
    found: list[str] = []
    for i in range(max((len(g) for g in distinct), default=0)):
        found += [g[i] for g in distinct if i < len(g)]
    return list(dict.fromkeys(found))[:limit]
