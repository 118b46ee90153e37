"""Ingestion that is interrupted, killed, crashed or given very long exams."""

import _thread
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.pool_work import crash_or_mark, ready
from tests.training.raw_hospital import (
    PLAIN,
    ROOT,
    Exam,
    config,
    digests,
    jpeg,
    picture,
    small_exams,
    write_recipe,
    write_table,
)
from training.ingest.pipeline import ingest
from training.ingest.pool import run_tasks
from training.records import read


def test_an_interrupted_run_is_taken_up_and_ends_alike(tmp_path: Path) -> None:
    small_exams(tmp_path, 60)  # enough to be cut in, however fast they are read
    chosen = config(tmp_path, output="shards")
    ingest(chosen, tmp_path / "raw", tmp_path / "whole")
    done = tmp_path / "cut" / ".ingest" / "exams"

    def stop() -> None:
        while len(list(done.glob("*.json"))) < 3:
            time.sleep(0.001)
        _thread.interrupt_main()

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        ingest(chosen, tmp_path / "raw", tmp_path / "cut")
    kept = {path: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert 3 <= len(kept) < 60
    half = tmp_path / "cut" / ".ingest" / "frames" / "r0"
    half.mkdir()
    seen: dict[Path, int] = {}

    def watch() -> None:
        while done.exists():
            for path in kept:
                if path.exists():
                    seen[path] = path.stat().st_mtime_ns
            time.sleep(0.002)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    ingest(chosen, tmp_path / "raw", tmp_path / "cut")
    watcher.join()
    assert seen == kept, "a finished exam was done again"
    assert digests(tmp_path / "whole") == digests(tmp_path / "cut")


def test_a_run_killed_before_its_last_deletion_is_cleaned_up(tmp_path: Path) -> None:
    small_exams(tmp_path, 1)
    summary = ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    before = digests(tmp_path / "out")
    left = tmp_path / "out" / ".ingest" / "exams"
    left.mkdir(parents=True)
    (left / "r0.json").write_text("{}", "utf-8")
    assert ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out") == summary
    assert digests(tmp_path / "out") == before


def test_a_crash_costs_only_its_task(tmp_path: Path) -> None:
    tasks = [tmp_path / name for name in ("a", "b", "crash", "c", "d", "e", "f")]
    done = dict(run_tasks(tasks, crash_or_mark, 2, ready))
    assert done == {task: task.name != "crash" for task in tasks}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c", "d", "e", "f"]


@pytest.fixture
def hospital(tmp_path: Path) -> Path:
    small_exams(tmp_path, 40, PLAIN + " Seen by Dr Quarlinghaus.")
    return tmp_path


@pytest.mark.slow
def test_a_killed_command_is_taken_up_and_ends_alike(hospital: Path) -> None:
    recipe = write_recipe(hospital)

    def command(out: str) -> list[str]:
        words = [sys.executable, "-m", "training", "ingest", "--config", str(recipe)]
        return [*words, "--out", str(hospital / out), "--set", "ingest.workers=2"]

    subprocess.run(command("whole"), cwd=ROOT, check=True, capture_output=True)
    running = subprocess.Popen(
        command("cut"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    done = hospital / "cut.partial" / ".ingest" / "exams"
    while len(list(done.glob("*.json"))) < 5:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert not (hospital / "cut").exists()
    subprocess.run(command("cut"), cwd=ROOT, check=True, capture_output=True)
    whole, cut = digests(hospital / "whole"), digests(hospital / "cut")
    assert {k: v for k, v in whole.items() if k != "stamp.json"} == {
        k: v for k, v in cut.items() if k != "stamp.json"
    }


@pytest.mark.slow
def test_an_exam_of_4000_frames_is_read_in_bounded_memory(tmp_path: Path) -> None:
    """Memory of the command over an exam of 4,000 frames stays near that over one of 40."""
    noise = np.random.default_rng(0)
    peaks = []
    for count in (40, 4000):
        folder = tmp_path / str(count)
        write_table(folder / "raw" / "reports.csv", [Exam("E", "P", PLAIN, "")])
        place = folder / "raw" / "E"
        place.mkdir()
        base = jpeg(picture(1, (640, 512)), quality=95)
        for i in range(count):
            mark = noise.bytes(16).hex().encode()
            (place / f"{i}.jpg").write_bytes(base[:2] + b"\xff\xfe\x00\x22" + mark + base[2:])
            if i % 2:
                (place / f"{i}.jpg").write_bytes(jpeg(picture(i, (640, 512))))
        recipe, out = write_recipe(folder), folder / "out"
        code = (
            "import resource, sys; from training.__main__ import main; code = main(sys.argv[1:]);"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss); sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "ingest", "--config", str(recipe), "--out", str(out)],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        )
        peaks.append(int(done.stdout.split()[-1]) / 1024)
        (record,) = read(out).records
        assert len(record.frames) == count // 2 + 1
    assert peaks[1] - peaks[0] < 100, peaks
