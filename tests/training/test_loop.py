"""The loop: what was stopped and resumed equals what was not."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.loop import Schedule, train  # noqa: E402


class _Stop(Exception):
    pass


def _model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(6, 16), torch.nn.Dropout(0.3), torch.nn.Linear(16, 1)
    )


def _run(
    folder: Path, model: torch.nn.Module, stop_at: int | None = None, every: float = 0.0
) -> list[float]:
    def losses(step: int, rng: np.random.Generator) -> Mapping[str, torch.Tensor]:
        if step == stop_at:
            raise _Stop
        x = torch.from_numpy(rng.normal(size=(8, 6))).float()
        return {"fit_loss": (model(x) - x.sum(1, keepdim=True)).square().mean()}

    schedule = Schedule(steps=30, lr=1e-2, seed=3, checkpoint_s=every)
    return train(folder, "fit", model, [{"params": model.parameters()}], schedule, losses)


@pytest.mark.parametrize("stop_at", [1, 11, 29])
def test_stopped_and_resumed_gives_the_losses_of_an_uninterrupted_run(
    tmp_path: Path, stop_at: int
) -> None:
    whole = _run(tmp_path / "whole", _model())
    with pytest.raises(_Stop):
        _run(tmp_path / "cut", _model(), stop_at)
    fresh = _model()
    resumed = _run(tmp_path / "cut", fresh)
    assert resumed == whole
    reference = _model()
    _run(tmp_path / "again", reference)
    for a, b in zip(fresh.parameters(), reference.parameters(), strict=True):
        assert torch.equal(a, b)


def test_losses_fall_and_are_written_as_csv_and_tensorboard(tmp_path: Path) -> None:
    losses = _run(tmp_path, _model())
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert len((tmp_path / "fit.csv").read_text("utf-8").splitlines()) == 31
    assert list((tmp_path / "tensorboard" / "fit").iterdir())


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = _model()
    with pytest.raises(FloatingPointError, match="step 0"):
        train(
            tmp_path,
            "fit",
            model,
            [{"params": model.parameters()}],
            Schedule(2, 1e-3, 1, 60.0),
            lambda _s, _r: {"bad_loss": model(torch.zeros(1, 6)).sum() * float("nan")},
        )


def test_only_names_ending_in_loss_are_trained_on(tmp_path: Path) -> None:
    model = _model()
    history = train(
        tmp_path,
        "fit",
        model,
        [{"params": model.parameters()}],
        Schedule(1, 1e-3, 1, 60.0),
        lambda _s, _r: {
            "a_loss": model(torch.ones(1, 6)).sum() * 0 + 2.0,
            "watched": torch.tensor(9.0),
        },
    )
    assert history == [2.0]
