"""The local engine: workers change nothing; however a run is stopped, nothing is lost or left."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from tests.tiny_bundle import RED, frame_png
from tests.training.scored_archive import coloured, dark_gate_bundle, write_records
from training.errors import ScoringStopped, StaleInput
from training.records import read
from training.scoring import parts as parts_module
from training.scoring.engines import _at_most
from training.scoring.models import PackedBundle
from training.scoring.scores import read_scores, score_archive

ROOT = Path(__file__).resolve().parents[2]
COMMAND = """
import sys
from training.scoring import parts
parts.PART_FRAMES = int(sys.argv[1])
from training.__main__ import main
sys.exit(main(["score", *sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_gate_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3,000 frames: some seconds of work, so that a run can be met in its middle."""
    return write_records(tmp_path_factory.mktemp("archive") / "a", coloured(60, 50))


@pytest.fixture(scope="module")
def undisturbed(archive: Path, bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    found = read(archive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "PART_FRAMES", 100)
        score_archive(out, found.path, found.records, PackedBundle.open(bundle), workers=1)
    return pa.concat_tables(read_scores(out))


def command(archive: Path, out: Path, bundle: Path, *more: str) -> subprocess.Popen[str]:
    arguments = ["--archive", archive, "--out", out, "--bundle", bundle, *more]
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "100", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, task.read_text("utf-8").split()):
            yield child
            yield from descendants(child)


def wait_for(what: object, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_workers_change_nothing(
    archive: Path,
    bundle: Path,
    undisturbed: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts_module, "PART_FRAMES", 100)
    monkeypatch.setattr("training.scoring.engines.usable_cores", lambda: 2)
    found, model = read(archive), PackedBundle.open(bundle)
    score_archive(tmp_path / "out", found.path, found.records, model, workers=2)
    assert pa.concat_tables(read_scores(tmp_path / "out")).equals(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "code"),
    [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGTERM, 0), (signal.SIGINT, 130)],
)
def test_a_run_stopped_in_the_middle_leaves_no_process_and_resumes(
    archive: Path,
    bundle: Path,
    undisturbed: pa.Table,
    tmp_path: Path,
    how: signal.Signals,
    code: int,
) -> None:
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    with command(archive, out, bundle, "--workers", "2") as run:
        wait_for(lambda: len(list(descendants(run.pid))) >= 2)
        wait_for(lambda: len(list(partial.glob("frames/part-*.parquet"))) >= 2)
        below = list(descendants(run.pid))
        for pid in below:  # all is done within a second: nobody gets ahead of the signal
            os.kill(pid, signal.SIGSTOP)
        run.send_signal(how)
        for pid in below:
            os.kill(pid, signal.SIGCONT)
        said = run.communicate(timeout=300)[0]
    assert "Traceback" not in said
    assert run.returncode == code, said
    assert how == signal.SIGKILL or "the same command resumes" in said
    wait_for(lambda: not any(alive(pid) for pid in below), 20)
    assert not out.exists()
    kept = {path: path.stat().st_mtime_ns for path in partial.glob("frames/part-*.parquet")}
    assert 2 <= len(kept) < 30
    with command(archive, out, bundle, "--workers", "2") as run:
        said = run.communicate(timeout=300)[0]
    assert run.returncode == 0, said
    assert "3000 frames of 60 records: 2667 scored, 333 dark" in said
    assert all((out / "frames" / p.name).stat().st_mtime_ns == t for p, t in kept.items())
    assert pa.concat_tables(read_scores(out)).equals(undisturbed)
    assert sorted(p.name for p in out.iterdir()) == ["frames", "records", "stamp.json"]


@pytest.mark.slow
def test_a_worker_that_is_killed_is_told_of_and_the_run_resumes(
    archive: Path, bundle: Path, undisturbed: pa.Table, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with command(archive, out, bundle, "--workers", "2") as run:
        wait_for(lambda: list(tmp_path.glob("out.partial/frames/part-*.parquet")))
        busy = [pid for pid in descendants(run.pid) if "spawn_main" in command_line(pid)]
        os.kill(busy[0], signal.SIGKILL)
        said = run.communicate(timeout=300)[0]
    assert run.returncode == 1
    assert "error: a worker was killed (out of memory? fewer --workers need less)" in said
    with command(archive, out, bundle, "--workers", "1") as run:
        said = run.communicate(timeout=300)[0]
    assert run.returncode == 0, said
    assert pa.concat_tables(read_scores(out)).equals(undisturbed)


def command_line(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def test_a_disk_that_is_full_stops_the_run_with_its_name(bundle: Path, tmp_path: Path) -> None:
    archive = write_records(tmp_path / "a", coloured(40, 10))
    limited = (
        "import resource, sys\nresource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n" + COMMAND
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            limited,
            "100",
            "--archive",
            archive,
            "--out",
            tmp_path / "out",
            "--bundle",
            bundle,
            "--workers",
            "1",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large; what is scored stays, the same command resumes" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("out.partial/*/*.tmp"))


def test_two_runs_do_not_share_a_folder(bundle: Path, tmp_path: Path) -> None:
    archive = write_records(tmp_path / "a", {"e1": [frame_png(RED)]})
    found, model = read(archive), PackedBundle.open(bundle)
    (tmp_path / "out.partial").mkdir()
    other = os.open(tmp_path / "out.partial", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ScoringStopped, match="another run is scoring into this folder"):
        score_archive(tmp_path / "out", found.path, found.records, model, workers=1)
    os.close(other)  # as when the other run ends, however it ends
    score_archive(tmp_path / "out", found.path, found.records, model, workers=1)


def test_more_workers_than_cores_are_not_started(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert _at_most(64, 2, "cores") == 2
    assert "workers=64 asked for, 2 cores: using 2" in caplog.text
    assert (_at_most(0, 2, "cores"), _at_most(1, 2, "cores")) == (2, 1)


def test_what_a_worker_cannot_load_is_raised_here(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.scoring.engines.usable_cores", lambda: 2)
    model = PackedBundle.open(dark_gate_bundle(tmp_path / "tiny"))
    (tmp_path / "tiny").rename(tmp_path / "old")
    dark_gate_bundle(tmp_path / "tiny", version="9.0.0")
    found = read(archive)
    with pytest.raises(StaleInput, match="tiny: expected sha256"):
        score_archive(tmp_path / "out", found.path, found.records, model, workers=2)


def test_the_command_names_what_it_left_out_and_scores_the_rest(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from training.__main__ import main

    archive = write_records(tmp_path / "a", coloured(3, 4))
    (archive / "frames" / "e001" / "0002.png").unlink()
    with (archive / "records.jsonl").open("a", encoding="utf-8") as file:
        file.write("{no record\n")
    out = str(tmp_path / "out")
    arguments = ["score", "--archive", str(archive), "--out", out, "--bundle", str(bundle)]
    assert main([*arguments, "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "bundle tiny 1.0.0: 12 frames of 3 records: 10 scored, 1 unreadable, 1 dark" in said
    assert "1 records left out; lines and reasons:" in said
    (left_out,) = (tmp_path / "out" / "left_out.jsonl").read_text("utf-8").splitlines()
    assert '"line": 4, "reason": "expected JSON in UTF-8' in left_out
    assert main([*arguments, "--part", "report"]) == 1
    assert "expected records in report, found none (3 in other parts" in capsys.readouterr().err
