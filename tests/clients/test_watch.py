"""`endo-clip-watch` with real video: files and live sources drawn here, against a real service."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from endo_clip_client.sources import pyav
from endo_clip_client.watch import main
from PIL import Image

from tests.clients.conftest import ROOT
from tests.service.conftest import PINK, RED, Running, Serve
from tests.waiting import wait_until

av = pytest.importorskip("av")
Colour = tuple[int, int, int]
FPS = 25
SIZE = (192, 160)
# The colours below the picture, as they come back out of the video.
YELLOW, GREEN = (255, 196, 0), (120, 200, 120)


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("watch") / "exams.sqlite3"
    with serve(exam_store=str(store)) as running:
        yield running


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seconds: red, in which the tiny bundle sees a polyp, then pink, in which it sees none."""
    path = tmp_path_factory.mktemp("video") / "drawn.mp4"
    with av.open(str(path), "w") as container:
        write(container, [RED] * FPS + [PINK] * FPS)
    return path


def write(container: Any, colours: list[Colour], *, step: int = 1) -> None:
    stream = container.add_stream("libx264", rate=FPS)
    stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
    for number, colour in enumerate(colours):
        frame = av.VideoFrame.from_image(Image.new("RGB", SIZE, colour))
        frame.pts = number * step
        for packet in stream.encode(frame):
            container.mux(packet)
    for packet in stream.encode(None):
        container.mux(packet)


def watch(up: Running, *arguments: str) -> int:
    return main([*arguments, "--url", f"http://127.0.0.1:{up.port}"])


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found, text
    return int(found[1])


def pictures(path: Path) -> list[Image.Image]:
    with av.open(str(path)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def has(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    """Whether the band below the picture has text of about this colour."""
    band = np.asarray(picture, np.int32)[SIZE[1] :]
    return bool((np.abs(band - colour).sum(axis=2) < 120).any())


def test_a_video_is_watched_and_its_overlay_written(
    up: Running, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "overlay.mp4"
    arguments = ("--exam", "watched", "--patient-id", "p-1", "--close", "--keep-every-ms", "200")
    assert watch(up, str(video), "--out", str(out), *arguments) == 0
    text = capsys.readouterr().out
    captured = number(r"frames: (\d+) captured", text)
    answered = number(r"captured, (\d+) answered", text)
    before = number(r"dropped: (\d+) before", text)
    replaced = number(r"sent, (\d+) for a newer", text)
    newer = number(r"line, (\d+) newer", text)
    assert captured == 2 * FPS
    assert answered + before + replaced + newer == captured
    assert re.search(r"glass to result: p50 \d+ ms, p99 \d+ ms, longest \d+ ms", text)
    assert "exam watched, final: polyp_detection positive" in text
    result = up.client.get("/v1/exams/watched").json()
    assert (result["final"], result["patient_id"]) == (True, "p-1")
    assert result["revision"] >= 2
    segments = result["results"][0]["segments"]
    assert [one["label"] for one in segments][:1] == ["polyp"]
    drawn = pictures(out)
    assert len(drawn) == captured - before
    assert drawn[0].height > SIZE[1]
    assert any(has(picture, YELLOW) for picture in drawn)
    assert has(drawn[-1], GREEN)
    # The picture itself is as it was: what is drawn stands below it.
    middle = drawn[-1].getpixel((SIZE[0] // 2, SIZE[1] // 2))
    assert isinstance(middle, tuple)
    assert max(abs(a - b) for a, b in zip(middle, PINK, strict=True)) < 24


@pytest.mark.parametrize(
    ("form", "url", "options"),
    [
        ("mpegts", "tcp://user:secret@127.0.0.1:{port}?listen=1", ()),
        (
            "rtsp",
            "rtsp://user:secret@127.0.0.1:{port}/live",
            ("--option", "rtsp_flags=listen", "--option", "listen_timeout=60"),
        ),
    ],
)
def test_a_live_source_is_watched_until_it_ends(
    up: Running,
    capsys: pytest.CaptureFixture[str],
    form: str,
    url: str,
    options: tuple[str, ...],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = url.format(port=free.getsockname()[1])
    target = url.removesuffix("?listen=1")
    camera = subprocess.Popen([sys.executable, "-c", CAMERA, target, form], **APART)
    code = watch(up, url, "--no-window", "--reopen-s", "0", "--task", "polyp_detection", *options)
    told = capsys.readouterr()
    camera.wait(60)
    assert code == 0, told.err
    assert number(r"captured, (\d+) answered", told.out) > 0
    assert "secret" not in told.out + told.err


APART: dict[str, Any] = {
    "cwd": ROOT,
    "env": {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'clients' / 'python'}"},
}
# A process of its own: PyAV holds the interpreter while it waits for an RTSP sender. It sends for
# two seconds, once somebody listens.
CAMERA = """
import sys, time
import av
from PIL import Image

url, form = sys.argv[1:]
end = time.monotonic() + 30
while True:
    try:
        with av.open(url, "w", format=form, options={"rtsp_transport": "tcp"}) as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 192, 160, "yuv420p"
            for number in range(50):
                frame = av.VideoFrame.from_image(Image.new("RGB", (192, 160), (220, 20, 20)))
                frame.pts = number
                for packet in stream.encode(frame):
                    container.mux(packet)
                time.sleep(0.04)
            for packet in stream.encode(None):
                container.mux(packet)
        break
    except OSError:
        if time.monotonic() > end:
            raise
        time.sleep(0.1)
"""


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("not-there.mp4", "not-there.mp4: No such file"),
        ("rtsp://user:secret@127.0.0.1:9/live", "rtsp://127.0.0.1:9/live: Connection refused"),
        ("README.md", "README.md: "),
    ],
)
def test_what_cannot_be_watched_is_said(
    up: Running, capsys: pytest.CaptureFixture[str], source: str, said: str
) -> None:
    assert watch(up, source, "--no-window") == 2
    told = capsys.readouterr().err
    assert said in told
    assert "secret" not in told
    assert "Traceback" not in told


def test_no_thread_of_ffmpegs_waits_for_the_interpreter() -> None:
    """With any level one that logs an error does, and hangs a watch that is ending: one in four."""
    av.logging.set_level(av.logging.PANIC)
    assert pyav().logging.get_level() is None


def test_a_service_that_is_not_there_is_said(
    video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(video), "--no-window", "--url", "http://127.0.0.1:9"]) == 2
    assert "cannot be reached" in capsys.readouterr().err


def test_without_a_screen_the_file_is_advised(
    up: Running,
    video: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    assert watch(up, str(video)) == 2
    assert "--out FILE.mp4" in capsys.readouterr().err


@pytest.fixture
def display(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A screen without a monitor."""
    program = shutil.which("Xvfb")
    if program is None:
        pytest.skip("Xvfb is not installed (Debian: xvfb)")
    reader, writer = os.pipe()
    command = [program, "-displayfd", str(writer), "-screen", "0", "160x120x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[writer], stderr=subprocess.DEVNULL)
    os.close(writer)
    with os.fdopen(reader) as told:
        number = told.readline().strip()
    monkeypatch.setenv("DISPLAY", f":{number}")
    yield f":{number}"
    server.terminate()
    server.wait(20)


def test_results_are_shown_in_a_window(
    up: Running, video: Path, display: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[Image.Image] = []

    def look() -> None:
        while not has_ended.wait(0.2):
            grabbed = av.open(display, format="x11grab", options={"video_size": "160x120"})
            with grabbed:
                seen.append(next(grabbed.decode(video=0)).to_image())

    has_ended = threading.Event()
    looking = threading.Thread(target=look)
    looking.start()
    try:
        # The window is larger than the screen, so its pictures are made smaller.
        assert watch(up, str(video), "--task", "polyp_detection") == 0
    finally:
        has_ended.set()
        looking.join()
    assert "glass to result" in capsys.readouterr().out

    def shows(colour: Colour) -> bool:
        return any(
            (np.abs(np.asarray(one, np.int32) - colour).sum(axis=2) < 60).mean() > 0.2
            for one in seen
        )

    assert shows(RED)
    assert shows(PINK)


def test_the_first_interrupt_ends_it_with_its_summary(up: Running, tmp_path: Path) -> None:
    long = tmp_path / "long.mp4"
    with av.open(str(long), "w") as container:
        write(container, [RED] * 60, step=FPS // 2)
    command = [sys.executable, "-m", "endo_clip_client.watch", str(long), "--no-window"]
    command += ["--exam", "interrupted", "--keep-every-ms", "100"]
    running = subprocess.Popen(
        [*command, "--url", f"http://127.0.0.1:{up.port}"],
        **APART,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: up.client.get("/v1/exams/interrupted").json().get("revision"))
    running.send_signal(signal.SIGINT)
    told, errors = running.communicate(timeout=60)
    assert running.returncode == 0, errors
    assert number(r"captured, (\d+) answered", told) > 0
    assert "glass to result" in told
    assert "Traceback" not in errors
