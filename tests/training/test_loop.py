"""The loop: what was stopped and resumed equals what was not, whatever stopped it."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from tests.training.tiny_stages import (  # noqa: E402
    STAGES,
    kept_frames,
    run_stages,
    tiny_bench,
    tiny_exams,
    tiny_recipe,
)
from training.attunement import AttunementTask, Sampler, attune  # noqa: E402
from training.batches import Augmentation  # noqa: E402
from training.errors import ConfigError, Diverged, FrameUnreadable, StaleInput  # noqa: E402
from training.loop import Schedule, train  # noqa: E402
from training.model import EndoClip  # noqa: E402
from training.step import Encoded, Step  # noqa: E402
from training.stopping import Stopped, stop_at_once, stop_later  # noqa: E402

ROOT = Path(__file__).parents[2]
STEPS = 30


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    from PIL import Image

    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    paths = [folder / f"{i}.png" for i in range(40)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    return paths


@dataclass(frozen=True)
class _Fit:
    """A task: every frame is to meet the one sentence."""

    frames: list[Path]
    at: Callable[[int], None] = lambda _drawn: None
    factor: float = 1.0
    name = "fit"
    px = 32

    def draw(self, rng: np.random.Generator) -> Step:
        self.at(1)
        chosen = [self.frames[i] for i in rng.integers(len(self.frames), size=7)]
        return Step(chosen, Augmentation.draw(7, rng, True), ["a polyp"], None)

    def losses(self, _model: EndoClip, encoded: Encoded, _told: None) -> dict[str, torch.Tensor]:
        loss = (1 - encoded.images @ encoded.texts.T).mean() * self.factor
        return {"fit_loss": loss, "watched": torch.tensor(9.0)}


def _run(folder: Path, task: _Fit, workers: int = 0, every: float = 0.0) -> list[float]:
    bench = tiny_bench(dropout=0.3, workers=workers, cache_mb=1)
    return train(folder, task, bench, Schedule(STEPS, 1e-2, 3, every))


class _Crash(Exception):
    pass


def _at(draw: int, what: Callable[[], None]) -> Callable[[int], None]:
    """Do something at the n-th draw."""
    counted = [0]

    def at(_drawn: int) -> None:
        counted[0] += 1
        if counted[0] == draw:
            what()

    return at


def _crash() -> None:
    raise _Crash


@pytest.mark.parametrize(("draw", "workers"), [(4, 0), (14, 2), (30, 2)])
def test_stopped_and_resumed_gives_the_losses_and_weights_of_an_uninterrupted_run(
    tmp_path: Path, frames: list[Path], draw: int, workers: int
) -> None:
    whole = _run(tmp_path / "whole", _Fit(frames))
    with pytest.raises(_Crash):
        _run(tmp_path / "cut", _Fit(frames, _at(draw, _crash)), workers)
    assert _run(tmp_path / "cut", _Fit(frames), workers) == whole
    first, second = (torch.load(tmp_path / name / "fit.ckpt") for name in ("whole", "cut"))
    for key, value in first["model"].items():
        assert torch.equal(value, second["model"][key])


def test_losses_fall_and_are_written_as_csv_and_tensorboard(
    tmp_path: Path, frames: list[Path]
) -> None:
    losses = _run(tmp_path, _Fit(frames))
    assert np.mean(losses[-5:]) < np.mean(losses[:5])
    assert len((tmp_path / "fit.csv").read_text("utf-8").splitlines()) == STEPS + 1
    assert list((tmp_path / "tensorboard" / "fit").iterdir())
    assert max(losses) < 3  # "watched" is 9: what does not end in _loss is not trained on


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, frames: list[Path]) -> None:
    with pytest.raises(Diverged, match="step 0"):
        _run(tmp_path, _Fit(frames, factor=float("nan")))


def test_a_loader_that_yields_nothing_is_an_error(tmp_path: Path, frames: list[Path]) -> None:
    class Nothing(_Fit):
        def draw(self, rng: np.random.Generator) -> Step:
            return Step([], Augmentation.draw(0, rng, True), ["a polyp"], None)

    with pytest.raises(ConfigError, match="found none at step 0"):
        _run(tmp_path, Nothing(frames))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_step_with_an_unreadable_frame_is_drawn_again_and_named(
    tmp_path: Path, frames: list[Path], workers: int, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "half.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    task = _Fit([*frames, broken / "half.jpg", broken / "gone.jpg"])
    whole = _run(tmp_path / "whole", task, workers)
    assert len(whole) == STEPS
    assert "broken/half.jpg" in caplog.text
    assert "broken/gone.jpg: No such file" in caplog.text
    task = _Fit(task.frames, _at(9, _crash))
    with pytest.raises(_Crash):
        _run(tmp_path / "cut", task, workers)
    assert _run(tmp_path / "cut", _Fit(task.frames), workers) == whole


def test_frames_that_are_all_unreadable_end_the_run_with_one_named(tmp_path: Path) -> None:
    with pytest.raises(FrameUnreadable, match=r"gone\.jpg"):
        _run(tmp_path, _Fit([tmp_path / "gone.jpg"]), workers=1)


def test_a_checkpoint_that_cannot_be_read_is_named(tmp_path: Path, frames: list[Path]) -> None:
    (tmp_path / "fit.ckpt").write_bytes(b"half a file")
    with pytest.raises(StaleInput, match=r"fit\.ckpt"):
        _run(tmp_path, _Fit(frames))


@pytest.mark.parametrize(
    ("which", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_the_step_and_leaves_a_checkpoint(
    tmp_path: Path, frames: list[Path], which: signal.Signals, code: int
) -> None:
    whole = _run(tmp_path / "whole", _Fit(frames))
    kill = _at(9, lambda: signal.raise_signal(which))
    with pytest.raises(Stopped, match="checkpoint written") as stop:
        _run(tmp_path / "cut", _Fit(frames, kill), every=1e9)
    assert stop.value.exit_code == code
    assert (tmp_path / "cut" / "fit.ckpt").exists()
    assert _run(tmp_path / "cut", _Fit(frames)) == whole


def test_a_signal_outside_the_loop_ends_the_program_where_it_is() -> None:
    with pytest.raises(Stopped) as stop, stop_at_once():
        signal.raise_signal(signal.SIGTERM)
    assert stop.value.exit_code == 0


def test_a_signal_that_nobody_looked_at_is_not_lost() -> None:
    with pytest.raises(Stopped), stop_later():
        signal.raise_signal(signal.SIGTERM)


def _start(out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.training.tiny_stages", str(out)]
    command += ["steps=40", "pause=0.02", "workers=2"]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)


def _wait_for(path: Path) -> None:
    for _ in range(1200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the programs that tests start: more threads sum in another order, and AdamW amplifies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_run_killed_once_and_stopped_once_gives_the_losses_of_one_that_was_not(
    tmp_path: Path, one_thread: None
) -> None:
    run_stages(tmp_path / "whole", lambda: tiny_bench(), 40)
    out = tmp_path / "cut"
    for stage, which, code in (
        (STAGES[0], signal.SIGKILL, -signal.SIGKILL),
        (STAGES[2], signal.SIGTERM, 0),
    ):
        process = _start(out)
        _wait_for(out / f"{stage}.ckpt")
        process.send_signal(which)
        assert process.wait(60) == code
        assert not (out / f"{stage}.csv").exists()  # it was in the middle
    run_stages(out, lambda: tiny_bench(workers=1), 40)
    for stage in STAGES:
        first, second = (
            np.loadtxt(tmp_path / name / f"{stage}.csv", delimiter=",", skiprows=1)
            for name in ("whole", "cut")
        )
        assert len(first) == 40
        assert second == pytest.approx(first, abs=1e-5)


def test_stage_2_of_several_runs_is_the_mean_of_them_and_resumes(tmp_path: Path) -> None:
    exams, schedule = tiny_exams(tmp_path / "frames"), Schedule(2, 1e-3, 1, 1e9)
    config = tiny_recipe(**{"attunement.runs": 2}).attunement
    sampler = Sampler(exams, kept_frames(exams), config)
    (whole := tmp_path / "whole").mkdir()
    attune(whole, tiny_bench(), sampler, schedule)
    found = torch.load(whole / "weights.pt", weights_only=True)
    alone = []
    for run in (1, 2):
        (folder := tmp_path / str(run)).mkdir()
        bench = tiny_bench()
        train(folder, AttunementTask(sampler, run), bench, schedule)
        alone.append(bench.model.state_dict())
    assert not torch.equal(alone[0]["clip.visual.head.weight"], alone[1]["clip.visual.head.weight"])
    for name, value in found.items():
        assert torch.allclose(value, (alone[0][name] + alone[1][name]) / 2, atol=1e-7), name
    # Cut off after the first run: its checkpoint stands, the second has none.
    (whole / "weights.pt").unlink()
    (whole / "attunement2.ckpt").unlink()
    attune(whole, tiny_bench(), sampler, schedule)
    again = torch.load(whole / "weights.pt", weights_only=True)
    assert all(torch.equal(value, again[name]) for name, value in found.items())
