"""The paper's towers at full size, 151 million random parameters: a step, export, parity."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from training.batches import Augmentation  # noqa: E402
from training.config import load  # noqa: E402
from training.export import check_parity, export_graphs  # noqa: E402
from training.model import build, load_spec, parameter_groups, train_mode  # noqa: E402

PAPER = Path(__file__).parents[2] / "training" / "configs" / "paper.toml"


@pytest.mark.slow
def test_the_papers_towers_train_a_step_and_export_with_parity(tmp_path: Path) -> None:
    recipe = load(PAPER)
    spec = load_spec(recipe.model.config)
    torch.manual_seed(0)
    model, tokenize = build(spec, None, pretrained=False)
    assert sum(p.numel() for p in model.clip.parameters()) == 151_277_313  # METHOD 1.1: 151.3 M
    assert "QuickGELU" in repr(model.clip)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 224, 224, 3), dtype=np.uint8)
    train_mode(model)
    optimiser = torch.optim.AdamW(parameter_groups(model), lr=recipe.attunement.lr)
    look = Augmentation.draw(len(frames), rng, keep_shape=True)
    pixels = look.apply(torch.from_numpy(frames), spec.contract, 224)
    texts = model.encode_ids(tokenize(["a polyp", "no polyp", "a red polyp", "mucosa"]))
    before = texts.detach().clone()
    loss = torch.nn.functional.cross_entropy(
        model.logit_scale * model.encode_images(pixels) @ texts.T, torch.arange(4)
    )
    loss.backward()
    optimiser.step()
    model.eval()
    with torch.inference_mode():
        after = model.encode_ids(tokenize(["a polyp", "no polyp", "a red polyp", "mucosa"]))
    assert not torch.equal(before, after)
    export_graphs(model, spec, tmp_path)
    found = check_parity(model, spec, tmp_path, tokenize, frames, ["a polyp", "x " * 100])
    assert max(found.values()) <= 1e-5
