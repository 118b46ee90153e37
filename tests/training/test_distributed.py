"""Ranks: two processes compute what one does; whatever ends one of them ends both, and resumes."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")
pytest.importorskip("open_clip", reason="needs open_clip (extra `train`)")

from tests.training.tiny_stages import STAGES, run_stages, tiny_bench  # noqa: E402
from training.__main__ import main  # noqa: E402
from training.compute import Machine  # noqa: E402
from training.distributed import Ranks, join_ranks  # noqa: E402
from training.errors import ConfigError  # noqa: E402

ROOT = Path(__file__).parents[2]
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m")


@pytest.mark.parametrize("unit", [1, 8])
@pytest.mark.parametrize(("rows", "count"), [(33, 2), (44, 8), (2, 8), (0, 2), (7, 1), (64, 3)])
def test_shares_cover_every_row_once_and_tear_no_unit(rows: int, count: int, unit: int) -> None:
    shares = [Ranks(rank, count).share(rows, unit) for rank in range(count)]
    assert [row for share in shares for row in share] == list(range(rows))
    assert all(share.start % unit == 0 for share in shares if share)
    assert max(map(len, shares)) - min(map(len, shares)) <= 2 * unit - 1


def _start(out: Path, *told: str) -> subprocess.Popen[bytes]:
    command = [*TORCHRUN, "tests.training.tiny_stages", str(out), *told]
    with out.with_suffix(".log").open("a") as log:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)


def _losses(folder: Path) -> dict[str, list[float]]:
    found = {}
    for stage in STAGES:
        with (folder / f"{stage}.csv").open(encoding="utf-8") as file:
            found[stage] = [float(row["total"]) for row in csv.DictReader(file)]
    return found


def _weights(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    stages = dict.fromkeys(stage.partition("/")[0] for stage in STAGES)
    return {stage: torch.load(folder / stage / "weights.pt") for stage in stages}


def _length(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return float(torch.stack([(one[name] - other[name]).norm() for name in one]).norm())


@pytest.mark.parametrize(
    ("told", "machine", "dropout", "near", "apart"),
    [
        (["workers=1"], Machine(), 0.0, 2e-5, 1e-3),
        pytest.param(
            ["accumulate=3", "dropout=0.3"],
            Machine(accumulate=3),
            0.3,
            2e-5,
            1e-3,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["accumulate=2", "precision=bf16"],
            Machine(accumulate=2, precision="bf16"),
            0.0,
            2e-3,
            0.5,  # bf16 rounds by what it is multiplied with, and AdamW does not forgive it
            marks=pytest.mark.slow,
        ),
    ],
    ids=["whole", "in-pieces-with-dropout", "in-pieces-bf16"],
)
def test_two_ranks_compute_what_one_process_does(
    tmp_path: Path, told: list[str], machine: Machine, dropout: float, near: float, apart: float
) -> None:
    # 4 steps of each stage; 9, 39 and an odd number of frames a step, none divisible by 2 and 3.
    run_stages(tmp_path / "one", lambda: tiny_bench(machine, dropout), 4)
    two = _start(tmp_path / "two", "steps=4", *told)
    assert two.wait(600) == 0, (tmp_path / "two.log").read_text("utf-8")
    one = _losses(tmp_path / "one")
    for stage, losses in _losses(tmp_path / "two").items():
        assert len(losses) == 4
        assert losses == pytest.approx(one[stage], rel=near)
    first, second = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    begun = tiny_bench().model.state_dict()
    for stage, weights in first.items():
        # Of the way that training went: AdamW divides a gradient by its own size, and rounding too.
        assert _length(weights, second[stage]) < apart * _length(weights, begun), stage


def test_a_command_that_knows_no_ranks_is_refused_under_torchrun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["phantom", "--out", str(tmp_path / "x")]) == 1
    assert "torchrun is for `run` alone" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_ranks_without_torchrun_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun"):
        join_ranks(torch.device("cpu"))


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None
        time.sleep(0.05)
    raise AssertionError(f"{path} never came")


def _gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.slow
def test_ranks_end_together_however_they_are_ended_and_the_run_goes_on(
    tmp_path: Path,
) -> None:
    whole = _start(tmp_path / "whole", "steps=40")
    assert whole.wait(600) == 0
    out = tmp_path / "cut"
    # Who gets which signal in the middle of which stage, and what torchrun ends with: SIGTERM to
    # torchrun itself is its failure, though each rank has saved and ended with 0.
    for stage, rank, which, code in (
        (STAGES[0], "1", signal.SIGKILL, 1),
        (STAGES[1], "0", signal.SIGKILL, 1),
        (STAGES[2], "1", signal.SIGTERM, 0),
        (STAGES[2], "0", signal.SIGTERM, 0),
        (STAGES[3], "torchrun", signal.SIGTERM, 1),
        (STAGES[3], "torchrun", signal.SIGKILL, -signal.SIGKILL),
    ):
        process = _start(out, "steps=40", "pause=0.05")
        checkpoint = out / f"{stage}.ckpt"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        _wait_for(checkpoint, process)
        while checkpoint.stat().st_mtime_ns == before:
            time.sleep(0.02)
        pids = [int((out / f"pid.{i}").read_text("utf-8")) for i in range(2)]
        os.kill(process.pid if rank == "torchrun" else pids[int(rank)], which)
        assert process.wait(600) == code, (stage, rank, which)
        for _ in range(200):  # ranks that torchrun left behind save and go by themselves
            if all(map(_gone, pids)):
                break
            time.sleep(0.05)
        assert all(map(_gone, pids)), (stage, rank, which)
        assert not (out / f"{stage}.csv").exists()  # it was in the middle
    last = _start(out, "steps=40")
    assert last.wait(600) == 0
    for stage, losses in _losses(tmp_path / "whole").items():
        assert _losses(out)[stage] == pytest.approx(losses, abs=1e-5), stage
