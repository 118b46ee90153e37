"""The command `endo-clip`, as a process of its own, against the real service."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT, exam_folder
from tests.service.conftest import BLACK, PINK, RED, Running, Serve, image

# Escape sequences and formulas are legal in names of files.
FORMULA = "=1+1.png"


@pytest.fixture(scope="module")
def up(serve: Serve) -> Iterator[Running]:
    with serve() as running:
        yield running


@pytest.fixture
def exams(tmp_path: Path) -> Iterator[Path]:
    frames = {
        "Mueller/img_10.png": image(PINK),
        "Mueller/img_2.png": image(RED),
        "Mueller/notes.txt": b"no picture",
        "Mueller/.hidden.png": image(RED),
        "second/a.png": image(BLACK),
        f"third/{FORMULA}": image(PINK),
        "third/\x1b[31m.png": b"damaged",
        "fourth/a.png": b"damaged",
    }
    with exam_folder(tmp_path / "exams", frames) as folder:
        yield folder


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT / "clients" / "python"), *sys.path])
    return subprocess.run(
        [sys.executable, "-m", "endo_clip_client", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_folder_becomes_a_table(up: Running, exams: Path) -> None:
    done = run("score", exams, "--url", f"http://127.0.0.1:{up.port}")
    assert done.returncode == 1, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == [
        *("patient", "decision", "probability", "frames", "strongest", "frame", "remarks")
    ]
    rows = {line.split()[0]: line for line in lines[2:]}
    assert list(rows) == ["fourth", "Mueller", "second", "third"]
    assert "img_2.png" in rows["Mueller"]
    assert "positive" in rows["Mueller"]
    assert "2/2" in rows["Mueller"]
    assert "1 dark" in rows["second"]
    assert "1 unsupported_format" in rows["third"]
    assert "\x1b" not in done.stdout
    assert "Research use only" in done.stderr
    assert "What to do" in done.stderr


def test_csv_and_json_have_every_frame(up: Running, exams: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.csv"
    url = f"http://127.0.0.1:{up.port}"
    done = run("score", exams, "--format", "csv", "--out", out, ENDO_CLIP_URL=url)
    assert done.returncode == 1
    assert done.stdout == ""
    rows = list(csv.DictReader(StringIO(out.read_text("utf-8"))))
    frames = [row["frame"] for row in rows if row["patient"] == "Mueller"]
    assert frames == ["", "img_2.png", "img_10.png"]
    assert f"'{FORMULA}" in [row["frame"] for row in rows]
    assert next(row for row in rows if row["patient"] == "Mueller")["decision"] == "positive"
    assert all(row["digest"].startswith("sha256:") for row in rows if row["patient"] == "third")
    documents = json.loads(run("score", exams, "--url", url, "--format", "json").stdout)
    answers = {one["patient"]: one for one in documents}
    assert answers["Mueller"]["files"] == ["img_2.png", "img_10.png"]
    assert answers["Mueller"]["answer"]["patients"][0]["patient_id"] == "0"
    assert "error" in answers["fourth"]


def test_no_name_leaves_the_machine(up: Running, exams: Path) -> None:
    bodies: list[bytes] = []
    read = up.app.state.engine.admit

    async def admit(request: object, permit: object) -> None:
        bodies.append(repr(request).encode())
        await read(request, permit)

    up.app.state.engine.admit = admit
    try:
        done = run("score", exams / "Mueller", "--url", f"http://127.0.0.1:{up.port}", "--shrink")
    finally:
        up.app.state.engine.admit = read
    assert done.returncode == 0, done.stderr
    assert "Mueller" in done.stdout
    assert bodies
    assert not any(b"Mueller" in body or b"img_2" in body for body in bodies)


def test_info_shows_what_there_is_to_choose(up: Running) -> None:
    done = run("info", "--url", f"http://127.0.0.1:{up.port}")
    assert done.returncode == 0
    for word in ("tiny 1.0.0", "full_frame", "max_frames: 512", "sensitivity_first"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("score", "no-such-folder"), "expected a folder"),
        (("score", "."), "found none"),
        (("info", "--url", "http://127.0.0.1:1"), "curl URL/healthz"),
        (("info", "--url", "localhost"), "expected http"),
        (("info", "--key-file", "no-such-file"), "no-such-file"),
    ],
)
def test_what_cannot_be_asked_is_said_in_words(
    arguments: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help_teaches() -> None:
    text = run("score", "--help").stdout
    for word in ("Examples:", "Exit code:", "leaves this machine", "ENDO_CLIP_KEY", "--shrink"):
        assert word in text
