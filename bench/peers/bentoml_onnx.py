"""(c) BentoML: adaptive batching over frames, two workers, the ONNX graph.

PEER_BUNDLE=... bentoml serve bench.peers.bentoml_onnx:Polyps --port 8001
"""

from pathlib import Path

import bentoml

from bench.peers.common import OnnxModel, decode


@bentoml.service(workers=2, traffic={"timeout": 120}, metrics={"enabled": False})
class Polyps:
    """Decodes in the worker, on files that BentoML has written."""

    def __init__(self) -> None:
        """Load the graph; two workers share two cores."""
        self.model = OnnxModel(threads=1)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60000)
    def predict(self, frames: list[Path]) -> list[list[float]]:
        """Score the frames of several requests at once."""
        return self.model.cosines([decode(path.read_bytes()) for path in frames])
