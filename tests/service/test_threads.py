"""Threads of the real process under a real quota."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import command, image, patient


@pytest.fixture
def one_core() -> Iterator[Path]:
    """A real control group with a quota of one core; skips where none can be made."""
    places = {"cpu/endoclip-test": "cpu.cfs_quota_us", "endoclip-test": "cpu.max"}
    for place, quota in places.items():
        group = Path("/sys/fs/cgroup") / place
        try:
            group.mkdir()
            (group / quota).write_text("100000")  # of a period of 100 ms
        except OSError:
            with suppress(OSError):
                group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("no control group with a quota can be made here: it takes root and a writable tree")


def test_quota_of_one_core_starts_the_threads_of_one_core(
    bundle: Path, one_core: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where there are exams, one thread more keeps them from the start on.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    settings = command(bundle=bundle, port=0)
    # The shell joins the group before it becomes the service: what follows is measured from inside.
    join = f'echo $$ > {one_core}/cgroup.procs && exec "$@"'
    settings["args"] = ["sh", "-c", join, "sh", sys.executable, "-m", "service"]
    with subprocess.Popen(**settings) as process:  # type: ignore[call-overload]
        line = process.stdout.readline()
        assert "cores=1 encode_threads=1 encode_workers=1 decode_threads=2" in line, (
            line + process.stderr.read()
        )
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]  # type: ignore[index]
        with httpx.Client(base_url=url, timeout=60) as client:
            document = {"patients": [patient(*[image()] * 12)], "texts": ["a red frame"] * 12}
            assert client.post("/v1/embeddings", json=document).status_code == 200
        names = [
            task.read_text().strip() for task in Path(f"/proc/{process.pid}/task").glob("*/comm")
        ]
        process.terminate()
        process.communicate(timeout=30)
    # The event loop's, the encode worker's, two that decode, two that parse, one that tokenises.
    assert len(names) <= 7, names
