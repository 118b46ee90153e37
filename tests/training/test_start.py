"""Training goes on from a packed bundle: from its very towers, or not at all."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from torch import Tensor, nn  # noqa: E402

from model_store.bundle import Bundle  # noqa: E402
from model_store.encoder import Encoder  # noqa: E402
from model_store.images import decode  # noqa: E402
from tests.tiny_bundle import build_tiny_bundle  # noqa: E402
from training.config import load  # noqa: E402
from training.errors import ConfigError, ParityError  # noqa: E402
from training.export import TOLERANCE, check_parity, export_graphs, unify_difference  # noqa: E402
from training.model import EndoClip, ModelSpec, build, freeze, load_spec  # noqa: E402
from training.run import run  # noqa: E402
from training.stages import open_workshop, run_stages  # noqa: E402
from training.start import mean_with, start_from  # noqa: E402

ROOT = Path(__file__).parents[2]
SMOKE = ROOT / "training" / "configs" / "smoke.toml"
SHIPPED = max((ROOT / "model_store" / "bundles").glob("endo-clip-lite0-*"))

Towers = tuple[EndoClip, ModelSpec, Callable[[list[str]], Tensor]]


def _towers() -> Towers:
    spec = load_spec("lite0-minilm")
    model, tokenize = build(spec)
    freeze(model, 2, 6)
    return model, spec, tokenize


@pytest.fixture(scope="module")
def started() -> Towers:
    model, spec, tokenize = _towers()
    start_from(model, spec, tokenize, Bundle.open(SHIPPED))
    return model, spec, tokenize


def test_the_towers_are_the_bundles(started: Towers) -> None:
    model, spec, tokenize = started
    encoder = Encoder(Bundle.open(SHIPPED))
    drawn = sorted((ROOT / "examples").glob("*_*.jpg"))
    pixels = np.stack([decode(path.read_bytes(), spec.contract) for path in drawn])
    mean, std = (
        torch.tensor(v).reshape(1, 3, 1, 1) for v in (spec.contract.mean, spec.contract.std)
    )
    model.eval()
    with torch.inference_mode():
        x = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std
        assert (
            np.abs(model.encode_images(x).numpy() - encoder.encode_images(pixels)).max() < TOLERANCE
        )
        texts = ["a sessile polyp", "no polyp in this frame"]
        rows = model.encode_ids(tokenize(texts)).numpy()
    assert (rows * encoder.encode_texts(texts)).sum(axis=1).min() > 0.999  # its text is in int8
    scale = Bundle.open(SHIPPED).manifest.logit_scale
    assert model.logit_scale.item() == pytest.approx(scale, rel=1e-6)
    with torch.inference_mode():
        found = unify_difference(model.unify, SHIPPED / "unify.onnx", 256, scale)
    assert max(found.values()) < TOLERANCE


def test_channels_keep_the_norms_that_rates_were_chosen_for(started: Towers) -> None:
    found = dict(started[0].clip.visual.trunk.named_modules())
    for name, module in build(started[1])[0].clip.visual.trunk.named_modules():
        if isinstance(module, nn.Conv2d):
            wanted = module.weight.flatten(1).norm(dim=1)
            assert torch.allclose(found[name].weight.flatten(1).norm(dim=1), wanted, rtol=1e-4)


def test_what_goes_on_is_exported_again_with_parity(started: Towers, tmp_path: Path) -> None:
    model, spec, tokenize = started
    export_graphs(model, spec, tmp_path)
    frames = np.random.default_rng(1).integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    found = check_parity(model, spec, tmp_path, tokenize, frames, ["a polyp", "a flat red lesion"])
    assert max(found.values()) <= TOLERANCE


def test_a_channel_that_is_switched_off_stays_off() -> None:
    from training.start import _unfold

    convolution, norm = nn.Conv2d(3, 2, 1, bias=False), nn.BatchNorm2d(2).eval()
    start, folded = torch.ones(2, 3, 1, 1), torch.tensor([0.5, -0.5])
    with torch.no_grad():
        norm.running_mean.fill_(0.3)
        convolution.weight[0] = 0.0
        convolution.weight[1] = torch.tensor([1.0, -2.0, 3.0]).reshape(3, 1, 1)
        x = torch.randn(1, 3, 4, 4)
        expected = convolution(x) + folded.reshape(1, 2, 1, 1)
        _unfold(convolution, norm, start, folded)
        assert torch.allclose(norm(convolution(x)), expected, atol=1e-6)
    assert convolution.weight[0].norm() > 0  # and can be learned again


def test_another_architecture_or_no_bundle_is_refused_before_an_archive_is_made(
    tmp_path: Path,
) -> None:
    for folder, found in (
        (build_tiny_bundle(tmp_path / "tiny"), "expected a bundle of the towers lite0-minilm"),
        (tmp_path / "none", "model.weights: expected a bundle folder"),
    ):
        recipe = load(SMOKE, [f"model.weights={json.dumps(str(folder))}"])
        with pytest.raises(ConfigError, match=found):
            run(recipe, tmp_path / "out")
    assert not (tmp_path / "out" / "0-archive").exists()


def test_a_mean_with_nothing_is_refused_before_an_archive_is_made(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="start_share: expected 0"):
        run(load(SMOKE, ["bundle.start_share=0.5"]), tmp_path / "out")
    assert not (tmp_path / "out" / "0-archive").exists()


def test_what_is_packed_may_be_the_mean_of_both(started: Towers) -> None:
    start, (trained, _, _) = started[0], _towers()
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    mean_with(trained, start, 0.25)
    for name, value in trained.state_dict().items():
        if name.startswith("unify."):
            assert torch.equal(value, start.state_dict()[name]), name
        elif value.is_floating_point():
            expected = 0.75 * before[name] + 0.25 * start.state_dict()[name]
            assert torch.allclose(value, expected, atol=1e-6), name


def test_a_text_transformer_that_was_trained_is_refused() -> None:
    model, spec, tokenize = _towers()
    with torch.no_grad():
        for weights in model.clip.text.transformer.encoder.layer[5].parameters():
            weights.add_(0.1 * torch.randn_like(weights) * weights.std())
    with pytest.raises(ConfigError, match="transformer was trained"):
        start_from(model, spec, tokenize, Bundle.open(SHIPPED))


def test_towers_that_compute_something_else_are_refused() -> None:
    model, spec, tokenize = _towers()
    model.clip.visual.trunk.bn2.register_forward_hook(lambda *told: told[2] + 1e-3)
    with pytest.raises(ParityError, match="image"):
        start_from(model, spec, tokenize, Bundle.open(SHIPPED))


def test_a_run_goes_on_from_a_bundle_and_says_so(smoke_run: Path, tmp_path: Path) -> None:
    start = smoke_run / "endo-clip-smoke-0.0.0"
    quick = ["attunement.steps=1", "cleansing.enabled=false", "unification.enabled=false"]
    recipe = load(SMOKE, [*quick, f"model.weights={json.dumps(str(start))}"])
    shop = open_workshop(recipe, smoke_run / "0-archive")
    last = run_stages(shop, tmp_path)
    key = json.loads((last / "stamp.json").read_text("utf-8"))["key"]
    assert key["start"] == Bundle.open(start).digest
    begun = torch.load(tmp_path / "1-cleansing" / "weights.pt", weights_only=True)
    model, spec, tokenize = _towers()
    start_from(model, spec, tokenize, Bundle.open(start))
    assert torch.equal(begun["clip.visual.head.proj.weight"], model.clip.visual.head.proj.weight)


def test_public_frames_that_were_split_otherwise_are_refused(
    smoke_run: Path, tmp_path: Path
) -> None:
    recipe = load(SMOKE, [f"model.weights={json.dumps(str(SHIPPED))}"])
    shop = open_workshop(recipe, smoke_run / "0-archive")
    composed = dataclasses.replace(shop.archive, kind="composed")
    with pytest.raises(ConfigError, match="split otherwise"):
        run_stages(dataclasses.replace(shop, archive=composed), tmp_path)
