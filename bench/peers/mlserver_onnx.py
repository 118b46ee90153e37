"""(e) MLServer: a custom runtime with adaptive batching on two workers, the ONNX graph.

PEER_BUNDLE=... MLSERVER_HTTP_PORT=8001 mlserver start bench/peers/mlserver
"""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import Base64Codec, NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.common import OnnxModel, decode


class Scorer(MLModel):
    """Decodes and scores in the worker; frames come as base64, the protocol's form of bytes."""

    async def load(self) -> bool:
        """Load the graph; two workers share two cores."""
        self.model = OnnxModel(threads=1)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Score all frames that MLServer has gathered."""
        frames = [decode(data) for data in Base64Codec.decode_input(payload.inputs[0])]
        found = np.asarray(self.model.cosines(frames), np.float32)
        outputs = [NumpyCodec.encode_output("cosine", found)]
        return InferenceResponse(model_name=self.name, outputs=outputs)
