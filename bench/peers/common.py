"""What every peer's server does with a frame: decode, and cosines with the classes.

Two ways of decoding: `full`, as their users write it (Pillow, every pixel, then the resize), and
`ours`, the service's (`model_store.images`). This module needs numpy, Pillow and onnxruntime alone,
and runs in each peer's environment with this repository on its path.
"""

import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["BUNDLE", "OnnxModel", "classes", "decode"]

BUNDLE = Path(os.environ.get("PEER_BUNDLE", ""))


def decode(data: bytes) -> npt.NDArray[np.uint8]:
    """Bring a frame to uint8 (size, size, 3)."""
    contract = json.loads((BUNDLE / "manifest.json").read_text("utf-8"))["input"]
    if os.environ.get("PEER_DECODE") == "ours":
        from model_store.images import InputContract
        from model_store.images import decode as decode_ours

        contract["mean"], contract["std"] = tuple(contract["mean"]), tuple(contract["std"])
        return decode_ours(data, InputContract(**contract))
    size = contract["size"]
    with Image.open(BytesIO(data)) as image:
        return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC))


def classes() -> npt.NDArray[np.float32]:
    """Class embeddings (2, d) of polyp detection."""
    with np.load(BUNDLE / "class_embeddings.npz") as file:
        return np.asarray(file["polyp_detection"], np.float32)


class OnnxModel:
    """The bundle's image tower in a session with the number of threads that the peer wants."""

    def __init__(self, threads: int) -> None:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        path = str(BUNDLE / "image_tower.onnx")
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._classes = classes()

    def cosines(self, frames: list[npt.NDArray[np.uint8]]) -> list[list[float]]:
        """Score frames: (n, 2)."""
        embeddings: Any = self._session.run(["embedding"], {"pixels": np.stack(frames)})[0]
        found: list[list[float]] = (embeddings @ self._classes.T).tolist()
        return found
