"""(b) LitServe: one frame a request, batches of 8, two workers, the ONNX graph.

PEER_BUNDLE=... PEER_PORT=8001 python bench/peers/litserve_onnx.py
"""

import os

import litserve as ls
from fastapi import Request
from starlette.datastructures import UploadFile

from bench.peers.common import OnnxModel, decode


class Api(ls.LitAPI):
    """Decodes in the worker, as LitServe's documentation has it."""

    def setup(self, _device: str) -> None:
        """Load the graph; two workers share two cores."""
        self.model = OnnxModel(threads=1)

    def decode_request(self, request: Request) -> list:
        """Take the frames of a form."""
        files = [one for _, one in request.multi_items() if isinstance(one, UploadFile)]
        return [decode(one.file.read()) for one in files]

    def batch(self, inputs: list) -> list:
        """Keep requests apart."""
        return inputs

    def predict(self, requests: list) -> list:
        """Score all frames of all requests at once."""
        found = iter(self.model.cosines([frame for one in requests for frame in one]))
        return [[next(found) for _ in one] for one in requests]

    def unbatch(self, output: list) -> list:
        """Give each request its own."""
        return output

    def encode_response(self, output: list) -> dict:
        """Answer."""
        return {"cosine": output}


if __name__ == "__main__":
    batch = int(os.environ.get("PEER_BATCH", "8"))
    server = ls.LitServer(
        Api(max_batch_size=batch, batch_timeout=0.005),
        accelerator="cpu",
        devices=1,
        workers_per_device=2,
        timeout=120,
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["PEER_PORT"]),
        generate_client_file=False,
        log_level="error",
        num_api_servers=1,
    )
