"""The conformance kit passes the real service, fails others, and its faults reach real clients."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from endo_clip_client import Client, Retry

from service.keys import Scope
from tests.clients.conftest import ROOT
from tests.service.conftest import RED, Running, Serve, image
from tests.service.keys_file import add_key

KIT = ROOT / "clients" / "conformance"


@pytest.fixture(scope="module")
def up(serve: Serve) -> Iterator[Running]:
    with serve() as running:
        yield running


def check(url: str, *more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT), url, *map(str, more)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_service_conforms(serve: Serve, tmp_path: Path) -> None:
    keys, file = tmp_path / "keys.json", tmp_path / "key"
    file.write_text(add_key(keys, Scope.SCORE))
    with serve(keys=keys) as up:
        done = check(f"http://127.0.0.1:{up.port}", "--key-file", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL  " not in done.stdout
    assert " 0 FAIL, 0 skip" in done.stdout
    assert done.stdout.count("pass  ") >= 24


@contextmanager
def faulty(target: int, *faults: str) -> Iterator[str]:
    """The kit's own proxy, as a process."""
    command = [sys.executable, str(KIT), "faults", f"http://127.0.0.1:{target}", "--port", "0"]
    command += ["--slow-s", "0.2", "--retry-after-s", "0", "--faults", ",".join(faults)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[0]
        finally:
            process.terminate()


def test_kit_can_fail(up: Running) -> None:
    with faulty(up.port, "503", "ok") as url:
        done = check(url, "--json")
    assert done.returncode == 1
    rows = {row["line"]: row for row in json.loads(done.stdout)}
    assert rows["Three request forms, one meaning"]["verdict"] == "FAIL"
    assert "503" in rows["Three request forms, one meaning"]["said"]
    assert any(row["verdict"] == "skip" for row in rows.values())


def test_nobody_there_is_told_apart_from_failing() -> None:
    done = check("http://127.0.0.1:1")
    assert done.returncode == 2
    assert "cannot be asked" in done.stderr
    done = check("faults", "http://127.0.0.1:1", "--faults", "flood")
    assert done.returncode == 2
    assert "flood" in done.stderr


def test_python_client_gets_through_every_fault(up: Running) -> None:
    retry = Retry(attempts=6, first_s=0.01)
    with Client(f"http://127.0.0.1:{up.port}") as direct:
        wanted = direct.malignancy([image(RED)]).patient
    with (
        faulty(up.port, "429", "503", "drop", "cut", "slow", "ok") as url,
        Client(url, retry=retry) as client,
    ):
        for _ in range(4):
            assert client.malignancy([image(RED)]).patient == wanted


def test_javascript_sample_gets_through_busy_and_dropped(up: Running, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    (tmp_path / "red.png").write_bytes(image(RED))
    script = ROOT / "clients" / "javascript" / "endo-clip.mjs"

    def run(url: str, path: Path) -> subprocess.CompletedProcess[str]:
        command = [node, str(script), url, str(path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    with faulty(up.port, "429", "503", "drop", "ok") as url:
        done = run(url, tmp_path / "red.png")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["decision"] == "positive"
    assert told["model"].startswith("sha256:")
    (tmp_path / "bad.png").write_bytes(b"no image")
    done = run(f"http://127.0.0.1:{up.port}", tmp_path / "bad.png")
    assert done.returncode == 1
    assert "all_frames_rejected" in done.stderr


def test_csharp_sample_is_compiled_and_gets_through_busy_and_dropped(
    up: Running, tmp_path: Path
) -> None:
    compiler, mono = shutil.which("mcs"), shutil.which("mono")
    if compiler is None or mono is None:
        pytest.skip("Mono is not installed (Debian: mono-mcs, libmono-system-net-http4.0-cil)")
    program = tmp_path / "EndoClip.exe"
    parts = ["-r:System.Net.Http.dll", "-r:System.Runtime.Serialization.dll", f"-out:{program}"]
    source = ROOT / "clients" / "csharp" / "EndoClip.cs"
    subprocess.run([compiler, "-warnaserror", *parts, str(source)], check=True, timeout=120)
    (tmp_path / "red.png").write_bytes(image(RED))
    (tmp_path / "bad.png").write_bytes(b"no image")

    def run(url: str, *names: str) -> subprocess.CompletedProcess[str]:
        command = [mono, str(program), url, *(str(tmp_path / name) for name in names)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    with faulty(up.port, "429", "503", "drop", "ok") as url:
        done = run(url, "red.png", "bad.png")
    assert done.returncode == 0, done.stderr
    first, red, bad, use = done.stdout.splitlines()
    assert first.startswith("positive ")
    assert "sha256:" in first
    assert red.startswith("frame 0: scored positive")
    assert bad.startswith("frame 1: rejected")
    assert use
    done = run(f"http://127.0.0.1:{up.port}", "bad.png")
    assert done.returncode == 1
    assert "all_frames_rejected" in done.stderr


def test_kit_needs_httpx_alone() -> None:
    from tests.test_architecture import imported

    own = {path.stem for path in KIT.glob("*.py")}
    foreign = set().union(*(imported(path.read_text("utf-8")) for path in KIT.glob("*.py")))
    assert foreign - own - set(sys.stdlib_module_names) == {"httpx"}
