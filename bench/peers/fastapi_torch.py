"""(a) What a user would write: FastAPI, an open_clip model on torch, Pillow, the thread pool.

PEER_BUNDLE=... uvicorn bench.peers.fastapi_torch:app
"""

from io import BytesIO
from typing import Annotated

import numpy as np
import onnx
import open_clip
import torch
from fastapi import FastAPI, File
from onnx import numpy_helper
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import nn

from bench.peers.common import BUNDLE, classes
from training.model import load_spec


def load() -> nn.Module:
    """The shipped tower as an open_clip module; the graph's folded weights, and all its layers."""
    spec = load_spec("lite0-minilm")
    vision = spec.open_clip["vision_cfg"]
    tower = open_clip.timm_model.TimmModel(
        vision["timm_model_name"],
        spec.open_clip["embed_dim"],
        vision["image_size"],
        pool=vision["timm_pool"],
        proj=vision["timm_proj"],
        pretrained=False,
    )
    graph = onnx.load(str(BUNDLE / "image_tower.onnx")).graph
    arrays = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        layer = tower.get_submodule(node.input[1].removeprefix("visual.").removesuffix(".weight"))
        weight = arrays[node.input[1]]
        layer.weight = nn.Parameter(weight.reshape(layer.weight.shape))
        if len(node.input) > 2:
            layer.bias = nn.Parameter(arrays[node.input[2]])
    for layer in tower.modules():  # the graph holds them inside the convolutions
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.zero_()
            layer.running_var.fill_(1.0)
            layer.eps = 0.0
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return tower.eval()


model = load()
text = torch.from_numpy(classes())
contract = load_spec("lite0-minilm").contract
preprocess = image_transform_v2(
    PreprocessCfg(
        size=contract.size,
        mean=contract.mean,
        std=contract.std,
        interpolation="bicubic",
        resize_mode="squash",
    ),
    is_train=False,
)
app = FastAPI()


@app.post("/predict")
def predict(frames: Annotated[list[bytes], File()]) -> dict[str, list[list[float]]]:
    """Score the frames of one request."""
    images = torch.stack([preprocess(Image.open(BytesIO(one))) for one in frames])
    with torch.inference_mode():
        features = model(images)
        features /= features.norm(dim=-1, keepdim=True)
        return {"cosine": np.asarray(features @ text.T).tolist()}


@app.get("/health")
def health() -> str:
    """Say that the model is loaded."""
    return "ok"
