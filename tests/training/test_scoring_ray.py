"""Ray scores as processes do, on a real cluster of two nodes, and nobody is told of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

ray = pytest.importorskip("ray", reason="needs ray (extra `train`)")

from tests.training.scored_archive import coloured, dark_gate_bundle, write_records  # noqa: E402
from tests.training.test_scoring_runs import (  # noqa: E402
    COMMAND,
    ROOT,
    alive,
    command_line,
    descendants,
    wait_for,
)
from training.errors import ArchiveRefused, ScoringStopped  # noqa: E402
from training.records import read  # noqa: E402
from training.scoring import parts as parts_module  # noqa: E402
from training.scoring.models import PackedBundle  # noqa: E402
from training.scoring.scores import read_scores, score_archive  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    # Sockets and files of ray's own that it leaves to the collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        node = {"num_cpus": 1, "object_store_memory": 80_000_000}
        found = Cluster(initialize_head=True, head_node_args=node | {"include_dashboard": False})
        found.add_node(**node)
        yield found
        found.shutdown()


@pytest.fixture
def joined(cluster: Any) -> Iterator[None]:
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    bundle = dark_gate_bundle(folder / "tiny")
    return write_records(folder / "a", coloured(80, 50)), bundle


def scored(out: Path, made: tuple[Path, Path], **options: Any) -> pa.Table:
    archive, bundle = made
    found = read(archive)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_module, "PART_FRAMES", 100)
        score_archive(out, found.path, found.records, PackedBundle.open(bundle), **options)
    return pa.concat_tables(read_scores(out))


@pytest.mark.usefixtures("joined")
def test_two_nodes_score_as_one_process_does(made: tuple[Path, Path], tmp_path: Path) -> None:
    here = scored(tmp_path / "here", made, workers=1)
    there = scored(tmp_path / "there", made, engine="ray", workers=64)
    assert there.equals(here)
    worked = {actor["Address"]["NodeID"] for actor in ray._private.state.actors().values()}
    assert len(worked) == 2
    records = [
        pa.concat_tables(read_scores(tmp_path / n, table="records")) for n in ("here", "there")
    ]
    assert records[0].equals(records[1])


@pytest.mark.usefixtures("joined")
def test_an_error_of_an_actor_is_raised_as_it_was(made: tuple[Path, Path], tmp_path: Path) -> None:
    archive, bundle = made
    found = read(archive)
    model = PackedBundle.open(bundle)
    archive.rename(tmp_path / "elsewhere")
    try:
        with pytest.raises(ArchiveRefused, match="the archive cannot be read any more"):
            score_archive(tmp_path / "out", found.path, found.records, model, engine="ray")
    finally:
        (tmp_path / "elsewhere").rename(archive)


def test_a_cluster_that_is_not_there_is_named(
    made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with pytest.raises(ScoringStopped, match=r"RAY_ADDRESS=127\.0\.0\.1:1: expected a"):
        scored(tmp_path / "out", made, engine="ray")


def finished(partial: Path) -> list[Path]:
    return list(partial.glob("frames/part-*.parquet"))


def environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_ray_started_here_reports_to_nobody_stops_on_sigterm_and_another_cluster_resumes(
    cluster: Any, made: tuple[Path, Path], tmp_path: Path
) -> None:
    archive, bundle = made
    here = scored(tmp_path / "here", made, workers=1)
    out, partial = tmp_path / "out", tmp_path / "out.partial"
    command = [sys.executable, "-c", COMMAND, "100", "--archive", archive, "--out", out]
    command += ["--bundle", bundle, "--engine", "ray", "--workers", "1"]
    asking_for_it = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    asking_for_it |= {"RAY_USAGE_STATS_ENABLED": "1"}
    options = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, env=asking_for_it, **options) as run:
        wait_for(
            lambda: run.poll() is not None or len(list(partial.glob("frames/part-*.parquet"))) >= 2
        )
        assert run.poll() is None, run.stdout.read()
        below = list(descendants(run.pid))
        told = {command_line(pid): environment(pid) for pid in below}
        run.send_signal(signal.SIGTERM)
        said = run.communicate(timeout=300)[0]
    # One process of ray's holds both its web page and its reports; it logs what it serves.
    (reporter,) = [line for line in told if "dashboard/dashboard.py" in line]
    log = Path(reporter.partition("--log-dir=")[2].split()[0]) / "dashboard.log"
    assert "Usage reporting is disabled" in log.read_text("utf-8")
    assert any("gcs_server" in line for line in told)
    # Actors write their titles over their environment, as /proc shows it; servers do not.
    servers = [env for line, env in told.items() if "site-packages/ray/" in line]
    assert len(servers) >= 4
    assert {env.get("RAY_USAGE_STATS_ENABLED") for env in servers} == {"0"}
    assert "--modules-to-load=UsageStatsHead --disable-frontend" in reporter
    assert "the same command resumes" in said
    # Most are gone within a second; one of ray's that misses its head first looks for it for 60 s.
    wait_for(lambda: not any(alive(pid) for pid in below), 90)
    assert 2 <= len(finished(partial)) < 40

    elsewhere = os.environ | {"RAY_ADDRESS": cluster.address}
    done = subprocess.run(command, env=elsewhere, timeout=600, check=False, **options)
    assert done.returncode == 0, done.stdout
    assert pa.concat_tables(read_scores(out)).equals(here)
