"""(c) BentoML: a batchable endpoint on two workers, the ONNX graph.

PEER_BUNDLE=... bentoml serve bench.peers.bentoml_onnx:Scorer --port 8001
"""

from pathlib import Path

import bentoml

from bench.peers.common import OnnxModel, decode


@bentoml.service(
    workers=2,
    traffic={"timeout": 120, "max_concurrency": 256},
    logging={"access": {"enabled": False}},
)
class Scorer:
    """Decodes and scores in the worker; BentoML gathers the frames of several requests."""

    def __init__(self) -> None:
        """Load the graph; two workers share two cores."""
        self.model = OnnxModel(threads=1)

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=60_000)
    def predict(self, frames: list[Path]) -> list[list[float]]:
        """Score frames; BentoML hands uploaded files over by their paths."""
        return self.model.cosines([decode(path.read_bytes()) for path in frames])
