"""An int8 image graph: what it is of a transformer, and that a recipe packs it behind its gates."""

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

import onnx  # noqa: E402

from model_store.bundle import Bundle  # noqa: E402
from training import model as towers  # noqa: E402
from training import packing  # noqa: E402
from training.config import Recipe, load  # noqa: E402
from training.errors import ConfigError, ParityError  # noqa: E402
from training.export import export_graphs, session  # noqa: E402
from training.model import build, load_spec, save_weights  # noqa: E402
from training.precision import quantise_products  # noqa: E402
from training.stages import open_workshop  # noqa: E402

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "training" / "configs" / "smoke.toml"
BUNDLES = ROOT / "model_store" / "bundles"


@pytest.fixture
def small_vit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The paper's architecture file with towers of a tenth of its width."""
    raw = json.loads((towers.CONFIGS / "vit-b-32.json").read_text("utf-8"))
    raw["open_clip"]["embed_dim"] = 64
    raw["open_clip"]["vision_cfg"] |= {"width": 192, "layers": 3}
    raw["open_clip"]["text_cfg"] |= {"width": 64, "heads": 2, "layers": 1}
    (tmp_path / "small-vit.json").write_text(json.dumps(raw), "utf-8")
    monkeypatch.setattr(towers, "CONFIGS", tmp_path)
    return "small-vit"


def _recipe(config: str, *more: str) -> Recipe:
    plain = [f"model.config={config}", "model.pretrained=false", "model.frozen_blocks=0"]
    plain += ["model.frozen_text_layers=0", "bundle.text_precision=fp32", "bundle.canaries=2"]
    return load(SMOKE, [*plain, "bundle.image_precision=int8", *more])


def test_a_transformers_products_are_in_int8_and_its_embeddings_stay(
    small_vit: str, tmp_path: Path
) -> None:
    spec = load_spec(small_vit)
    torch.manual_seed(0)
    export_graphs(build(spec, None, pretrained=False)[0], spec, tmp_path)
    whole, lower = tmp_path / "image_tower.onnx", tmp_path / "int8.onnx"
    quantise_products(whole, lower)
    assert lower.stat().st_size < 0.5 * whole.stat().st_size
    kinds = [node.op_type for node in onnx.load(lower).graph.node]
    assert "MatMulInteger" in kinds
    pixels = np.random.default_rng(0).integers(0, 256, (5, 224, 224, 3), dtype=np.uint8)
    rows = [session(path).run(["embedding"], {"pixels": pixels})[0] for path in (whole, lower)]
    assert (rows[0] * rows[1]).sum(axis=1).min() > 0.999
    assert not np.array_equal(*rows)


def test_a_convolutional_tower_is_refused(tmp_path: Path) -> None:
    shipped = max(BUNDLES.glob("endo-clip-lite0-*")) / "image_tower.onnx"
    with pytest.raises(ConfigError, match="expected fp32 for a convolutional tower"):
        quantise_products(shipped, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_a_recipe_packs_it_with_its_gates_figures(
    small_vit: str, smoke_run: Path, tmp_path: Path
) -> None:
    shop = open_workshop(_recipe(small_vit), smoke_run / "0-archive")
    save_weights(shop.towers(None)[0], tmp_path / "weights.pt")
    bundle = packing.make_bundle(
        shop, tmp_path / "weights.pt", tmp_path / "4-export", tmp_path / "bundle", None
    )
    found = bundle.manifest.provenance
    assert found.extra["image_precision"] == "int8"
    assert found.parity["image_cosine_min"] >= 0.999
    packed = (bundle.path / "image_tower.onnx").read_bytes()
    assert packed == (tmp_path / "4-export" / "image_int8.onnx").read_bytes()
    assert Bundle.open(bundle.path).digest == bundle.digest


def test_a_graph_that_is_too_coarse_is_not_packed(
    small_vit: str, smoke_run: Path, tmp_path: Path
) -> None:
    shop = open_workshop(_recipe(small_vit), smoke_run / "0-archive")
    model = shop.towers(None)[0]
    with torch.no_grad():  # one weight that is far larger than all others takes the whole scale
        for block in model.clip.visual.transformer.resblocks:
            block.mlp.c_fc.weight[:, 0] *= 3000.0
    save_weights(model, tmp_path / "weights.pt")
    with pytest.raises(ParityError, match="lower-precision image tower"):
        packing.make_bundle(
            shop, tmp_path / "weights.pt", tmp_path / "4-export", tmp_path / "bundle", None
        )
    assert not (tmp_path / "bundle").exists()
