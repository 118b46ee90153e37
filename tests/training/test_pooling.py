"""Ways of pooling are compared over one set of embeddings; the trained rival can learn."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from training.__main__ import main
from training.metrics import auroc
from training.pooling import GatedPooling, train_gated


@torch.inference_mode()
def test_gated_pooling_is_its_formula_and_ignores_order_and_padding() -> None:
    torch.manual_seed(0)
    model = GatedPooling(6)
    frames, mask = torch.randn(2, 5, 6), torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    found = model(frames, mask)
    for record, count in enumerate((5, 3)):
        weights = []
        for h in frames[record, :count]:
            told = torch.tanh(model.tanh(h)) * torch.sigmoid(model.gate(h))
            weights.append(torch.exp(model.weight.weight[0] @ told))
        pooled = sum(w * h for w, h in zip(weights, frames[record, :count], strict=True))
        twin = model.head(pooled / sum(weights))[0]
        assert float(found[record]) == pytest.approx(float(twin), abs=1e-5)
    frames[1, 3:] = 1e3
    turned = frames[:, [2, 0, 1, 3, 4]]
    assert torch.allclose(model(turned, mask)[1], found[1], atol=1e-5)


def test_gated_pooling_learns_what_the_mean_hides() -> None:
    rng = np.random.default_rng(0)

    def bag(positive: bool) -> torch.Tensor:
        rows = 0.25 * rng.normal(size=(30, 16)) + 2.0 * np.eye(16)[2]
        rows[0] += 2.0 * np.eye(16)[0 if positive else 1]
        return torch.from_numpy((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype("f4"))

    y = [bool(i % 2) for i in range(400)]
    bags = [bag(one) for one in y]
    model = train_gated(bags[:350], y[:350], seed=1)
    with torch.inference_mode():
        score = [float(model(b[None], torch.ones(1, 30, dtype=torch.bool))) for b in bags[350:]]
    truth = np.array(y[350:])
    mean = np.array([float(b.mean(0)[0] - b.mean(0)[1]) for b in bags[350:]])
    assert auroc(truth, np.array(score)) > max(0.9, auroc(truth, mean) + 0.01)


@pytest.mark.slow
def test_the_command_measures_a_packed_bundle(
    smoke_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pooling.json"
    command = ["pooling", "--bundle", str(smoke_run / "endo-clip-smoke-0.0.0"), "--seed", "1"]
    command += ["--archive", str(smoke_run / "0-archive"), "--part", "select", "--out", str(out)]
    assert main(command) == 0
    figures = json.loads(out.read_text())
    assert "| malignancy " in capsys.readouterr().out
    for told in figures["tasks"].values():
        assert set(told) == {"patients", "unify", "mean", "max", "gated"}
        assert len(told["gated"]["per_seed"]) == 1
