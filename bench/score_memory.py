"""Peak memory and frames/s of ``python -m training score`` as the archive grows.

Run from the repository's root, in the training environment:

    python -m bench.score_memory --frames 10000 100000
    python -m bench.score_memory --frames 3000 --bundle model_store/bundles/endo-clip-lite0-0.5.0

The archives hold 600 distinct drawn frames (256 x 256 JPEG), hard-linked as often as it takes, in
records of 60. Without ``--bundle`` the tests' tiny bundle scores, whose towers cost next to
nothing: what is measured is then reading, decoding, the quality gate and writing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from tests.tiny_bundle import build_tiny_bundle
from training.phantom import draw_exam
from training.records import write_jsonl, write_split

RECORD_FRAMES = 60


def main() -> None:
    """Measure each setting once and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--engine", nargs="+", default=["local"], help="local, ray")
    parser.add_argument("--workers", type=int, nargs="+", default=[2])
    parser.add_argument("--bundle", type=Path, help="default: the tests' tiny bundle")
    parser.add_argument("--work", type=Path, default=Path("runs/bench"), help="scratch folder")
    args = parser.parse_args()
    bundle = args.bundle or args.work / "tiny"
    if not bundle.exists():
        build_tiny_bundle(bundle)
    columns = ["engine", "workers", "frames", "frames/s", "CPU, ms/frame"]
    columns += ["starter, MB", "worker, MB", "others, MB"]
    say(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for count in args.frames:
        archive = archive_of(args.work, count)
        for engine in args.engine:
            for workers in args.workers:
                out = args.work / f"scores-{os.getpid()}"  # two measurements may run at once
                say(measured(archive, bundle, out, engine, workers, count))
                shutil.rmtree(out)


def archive_of(work: Path, count: int) -> Path:
    """An archive of ``count`` frames; made once."""
    archive = work / f"archive-{count}"
    if (archive / "archive.json").exists():
        return archive
    drawn = islice(cycle(distinct(work)), count)
    rows = []
    for start in range(0, count, RECORD_FRAMES):
        name = f"r{start // RECORD_FRAMES:06}"
        (archive / "frames" / name).mkdir(parents=True, exist_ok=True)
        frames = []
        for i, source in enumerate(islice(drawn, RECORD_FRAMES)):
            frames.append(f"frames/{name}/{i:03}.jpg")
            os.link(source, archive / frames[-1])
        rows.append({"record_id": name, "patient_id": name, "report": "Drawn.", "frames": frames})
    write_jsonl(archive / "records.jsonl", rows)
    write_split(archive / "split.json", {row["patient_id"]: "train" for row in rows})
    (archive / "archive.json").write_text(json.dumps({"format": 1, "kind": "phantom"}), "utf-8")
    return archive


def distinct(work: Path) -> list[Path]:
    """600 drawn frames, made once."""
    folder = work / "drawn"
    for i in range(60):
        found = sorted((folder / "frames").rglob("*.jpg"))
        if len(found) >= 600:
            break
        draw_exam(folder, f"d{i:03}", "train", i, np.random.default_rng((1, i)))
    return sorted((folder / "frames").rglob("*.jpg"))[:600]


def measured(archive: Path, bundle: Path, out: Path, engine: str, workers: int, count: int) -> str:
    """Run the command once; a row of the table."""
    for left in (out, out.with_name(out.name + ".partial")):
        shutil.rmtree(left, ignore_errors=True)
    out.with_name(out.name + ".key.json").unlink(missing_ok=True)
    command = ["-m", "training", "score", "--archive", archive, "--out", out, "--bundle", bundle]
    command += ["--engine", engine, "--workers", workers]
    peak: dict[str, dict[int, int]] = defaultdict(dict)
    cpu: dict[int, float] = {}
    with out.with_suffix(".txt").open("w") as said:
        run = subprocess.Popen(
            [sys.executable, *map(str, command)], stdout=said, stderr=subprocess.STDOUT
        )
        while run.poll() is None:
            for pid in (run.pid, *descendants(run.pid)):
                kind, peak_kb = seen(pid, run.pid)
                peak[kind][pid] = max(peak[kind].get(pid, 0), peak_kb)
                cpu[pid] = max(cpu.get(pid, 0.0), cpu_seconds(pid))
            time.sleep(0.2)
    if run.returncode:
        raise SystemExit(out.with_suffix(".txt").read_text("utf-8"))
    rate = rate_of(out)
    mb = {kind: [kb / 1024 for kb in found.values()] for kind, found in peak.items()}
    per_frame = 1000 * sum(cpu.values()) / count
    return (
        f"| {engine} | {workers} | {count:,} | {rate:.0f} | {per_frame:.1f} "
        f"| {max(mb['starter']):.0f} | {max(mb.get('worker', [0])):.0f} "
        f"| {sum(mb.get('others', [0])):.0f} |"
    )


def rate_of(out: Path) -> float:
    """Frames/s between the first and the last part: start-up is left out."""
    files = sorted((out / "frames").glob("part-*"), key=lambda path: path.stat().st_mtime_ns)
    frames = sum(pq.read_metadata(path).num_rows for path in files[1:])
    return frames * 1e9 / (files[-1].stat().st_mtime_ns - files[0].stat().st_mtime_ns)


def descendants(pid: int) -> Iterator[int]:
    """Processes below one, at this moment."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text("utf-8").split()
        except OSError:
            continue
        for child in map(int, children):
            yield child
            yield from descendants(child)


def seen(pid: int, starter: int) -> tuple[str, int]:
    """What a process is, and its peak resident memory so far in kB."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return "others", 0
    kb = next((int(x.split()[1]) for x in status.splitlines() if x.startswith("VmHWM")), 0)
    if pid == starter:
        return "starter", kb
    return ("worker" if "spawn_main" in line or "ray::MapWorker" in line else "others"), kb


def cpu_seconds(pid: int) -> float:
    """Processor time of a process so far: its cost, whatever else the machine is doing."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(told[11]) + int(told[12])) / os.sysconf("SC_CLK_TCK")


def say(line: str) -> None:
    """Print at once, so that a long measurement can be watched."""
    print(line, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
