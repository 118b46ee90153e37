"""ViT-B/32 in int8, as `bundle.image_precision` packs it: speed, and how far embeddings move.

Run in the training environment; random weights, which says what the arithmetic costs and nothing
about what it does to scores of a trained tower:

    python -m bench.vit_int8 --seconds 20
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import torch

from training.export import export_graphs
from training.model import build, load_spec
from training.precision import quantise_products

BATCHES = (1, 4)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    args = parser.parse_args()
    spec = load_spec("vit-b-32")
    with tempfile.TemporaryDirectory() as name, torch.random.fork_rng():
        torch.manual_seed(0)
        folder = Path(name)
        export_graphs(build(spec)[0], spec, folder)
        whole, small = (folder / f"{one}.onnx" for one in ("image_tower", "int8"))
        quantise_products(whole, small)
        sizes = [path.stat().st_size / 1e6 for path in (whole, small)]
        sessions = [_session(path) for path in (whole, small)]
        pixels = np.random.default_rng(0).integers(
            0, 256, (max(BATCHES), spec.contract.size, spec.contract.size, 3), np.uint8
        )
        rows = [one.run(["embedding"], {"pixels": pixels})[0] for one in sessions]
        print(
            f"{sizes[0]:.0f} MB -> {sizes[1]:.0f} MB; least cosine between the embeddings "
            f"{float((rows[0] * rows[1]).sum(axis=1).min()):.5f}"
        )
        print("| frames at once | fp32, CPU ms/frame | int8 | fp32 / int8 |")
        print("|---|---|---|---|")
        for batch in BATCHES:
            fp32, int8 = _interleaved(sessions, pixels[:batch], args.seconds)
            print(f"| {batch} | {fp32:.1f} | {int8:.1f} | {fp32 / int8:.2f} |", flush=True)


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _interleaved(
    sessions: list[ort.InferenceSession], pixels: np.ndarray, seconds: float
) -> list[float]:
    """Processor ms a frame of each, in turn, so that both see the same machine."""
    spent: list[list[float]] = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(spent[1]) < 5:
        for session, mine in zip(sessions, spent, strict=True):
            began = time.process_time()
            session.run(["embedding"], {"pixels": pixels})
            mine.append(1000 * (time.process_time() - began) / len(pixels))
    return [float(np.median(mine)) for mine in spent]


if __name__ == "__main__":
    main()
