"""The conformance kit passes the real service, fails others, and its faults reach real clients."""

import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from endo_clip_client import Client, Retry

from service.keys import Scope
from tests.clients.conftest import ROOT
from tests.clients.meddling import meddling
from tests.clients.samples import csharp, javascript
from tests.service.conftest import RED, Running, Serve, command, image
from tests.service.keys_file import add_key

KIT = ROOT / "clients" / "conformance"


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("kit") / "exams.sqlite3"
    with serve(exam_store=str(store)) as running:
        yield running


def check(url: str, *more: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(KIT), url, *map(str, more)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_service_conforms(serve: Serve, tmp_path: Path) -> None:
    keys, file = tmp_path / "keys.json", tmp_path / "key"
    file.write_text(add_key(keys, Scope.SCORE))
    store = tmp_path / "exams.sqlite3"
    with serve(keys=keys, exam_store=str(store)) as up:
        done = check(f"http://127.0.0.1:{up.port}", "--key-file", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL  " not in done.stdout
    assert " 0 FAIL, 0 skip" in done.stdout
    assert done.stdout.count("pass  ") >= 40
    with closing(sqlite3.connect(store)) as database:  # what it opened it has removed
        assert database.execute("SELECT COUNT(*) FROM exams").fetchone() == (0,)


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


def test_lines_about_exams_can_fail(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "exams.sqlite3"), max_exam_frames=1) as up:
        done = check(f"http://127.0.0.1:{up.port}", "--json")
    verdicts = {row["line"]: row["verdict"] for row in json.loads(done.stdout)}
    assert (
        verdicts["Frames of an exam in any order, sent again or not, come to one result"] == "FAIL"
    )
    assert verdicts["DELETE /v1/exams/{id} is 204, and 404 not_found from then on"] == "pass"


def change_answer(path: str, body: bytes, document: dict[str, Any]) -> None:
    """Change what is said of DICOM, each so that one line is broken."""
    for patient in document.get("patients", ()) if b"DICM" in body else ():
        for frame in patient["frames"]:
            if frame["frame_id"].startswith("film"):
                frame["frame_id"] = frame["frame_id"].replace(".", "-")
            elif "CT Image" in frame.get("error", {}).get("message", ""):
                frame["error"]["code"] = "image_undecodable"
            elif len(patient["frames"]) == 1:
                if "probability" in frame:
                    frame["probability"] += 0.01
                else:
                    frame["error"]["message"] += " of Zebrafink"


def change_message(message: dict[str, Any]) -> None:
    """Change what a stream says, each so that one line is broken."""
    if message["type"] == "open":
        message["keep_every_ms"] += message["keep_every_ms"] != 1000
        message["last_captured_at"] = None
    if message["type"] == "frame":
        message["dropped"]["newer"] += 1
        if message["received"] == 1:
            message["captured_at"] = message["captured_at"].replace("2025", "2026")
    if message["type"] == "problem":
        message["code"] = "internal"


def test_lines_about_streams_and_dicom_can_fail(up: Running) -> None:
    with meddling(up.port, change_answer, change_message) as url:
        done = check(url, "--json")
    rows = {row["line"]: row for row in json.loads(done.stdout)}
    failed = {line: row["said"] for line, row in rows.items() if row["verdict"] == "FAIL"}
    about = {line for line in rows if re.search(r"(?i)\bstream\b|\bDICOM\b", line)}
    assert len(about) == 9
    assert set(failed) == about, failed
    words = ["250 ms", "capture time", "accounted for", "malformed_request", "its time"]
    words += ["JPEG: expected 0.", "film.1", "CT: found", "the name"]
    assert all(any(word in said for said in failed.values()) for word in words), failed


WITHOUT = "import sys; sys.modules['pydicom'] = None; from service.__main__ import main; main([])"


def test_dicom_that_is_not_offered_is_said_and_proven(up: Running, bundle: Path) -> None:
    """Said, where the service says so and refuses it; one that says so and takes it fails."""
    start = {**command(bundle=bundle, port=0), "args": [sys.executable, "-c", WITHOUT]}
    with subprocess.Popen(**start) as process:  # type: ignore[call-overload]
        try:
            port = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert port is not None
            done = check(f"http://127.0.0.1:{port[1]}", "--json")
        finally:
            process.terminate()
            process.communicate(timeout=60)
    found = [row for row in json.loads(done.stdout) if "DICOM" in row["line"]]
    assert [row["verdict"] for row in found] == ["skip"] * 4
    assert all(row["said"].startswith("not offered: ") for row in found)

    def hide(path: str, body: bytes, document: dict[str, Any]) -> None:
        if path == "/v1/limits":
            document["formats"].remove("DICOM")

    with meddling(up.port, hide, lambda _: None) as url:
        done = check(url, "--json")
    found = [row for row in json.loads(done.stdout) if "DICOM" in row["line"]]
    assert [row["verdict"] for row in found] == ["FAIL"] * 4


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
    program = javascript()
    (tmp_path / "red.png").write_bytes(image(RED))

    def run(url: str, path: Path) -> subprocess.CompletedProcess[str]:
        command = [*program, url, str(path)]
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
    program = csharp(tmp_path)
    (tmp_path / "red.png").write_bytes(image(RED))
    (tmp_path / "bad.png").write_bytes(b"no image")

    def run(url: str, *names: str) -> subprocess.CompletedProcess[str]:
        command = [*program, url, *(str(tmp_path / name) for name in names)]
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
