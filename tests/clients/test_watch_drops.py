"""`endo-clip-watch` when its source drops: opened again, given up in time, stopped in any state."""

import http.server
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("av")

from endo_clip_client.sources import Source, SourceFailed, SourceLost
from endo_clip_client.video import Captured, Clock, Player, Quiet
from PIL import Image

from tests.clients.broadcasts import FPS, Broadcast, transport_stream
from tests.clients.test_watch import APART, number, pictures, up, video, watch
from tests.service.conftest import PINK, RED, Running
from tests.waiting import wait_until

__all__ = ["up", "video"]

# Three seconds: what a source is looked at for before it counts as open is passed over.
COUNT = 3 * FPS
Broadcasts = Callable[..., Broadcast]


@pytest.fixture
def broadcast() -> Iterator[Broadcasts]:
    opened: list[Broadcast] = []

    def make(*recordings: bytes | None) -> Broadcast:
        opened.append(Broadcast(*recordings))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def playing(source: str, reopen_s: float) -> Player:
    player = Player(source, None, {}, Clock(), reopen_s)
    player.open()
    player.play()
    return player


def test_the_exam_goes_on_when_the_source_is_back(
    up: Running, broadcast: Broadcasts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # It comes back as another camera, whose pictures are larger.
    first = transport_stream([RED] * COUNT)
    second = transport_stream([PINK] * COUNT, size=(256, 192))
    source, out = broadcast(first, second), tmp_path / "overlay.mp4"
    arguments = ("--exam", "dropped", "--keep-every-ms", "100", "--reopen-s", "4")
    began = time.monotonic()
    assert watch(up, source.url, "--out", str(out), *arguments) == 3
    told = capsys.readouterr()
    assert time.monotonic() - began >= 4
    lines = [line.partition(": ")[2] for line in told.err.splitlines() if ": the " in line]
    assert re.match(r"the source is gone \(.+\); opening it again", lines[0])
    assert re.match(r"the source is back after \d+ s", lines[1])
    assert "the exam stays open; --exam dropped goes on with it" in lines
    assert f"tcp://127.0.0.1:{source.port}: gone, and not to be had again in 4 s (" in told.err
    assert "secret" not in told.err + told.out
    assert "source: opened again 1 times" in told.out
    assert number(r"captured, (\d+) answered", told.out) > 0
    exam = up.client.get("/v1/exams/dropped").json()
    assert exam["state"] == "open"
    labels = {one["label"] for one in exam["results"][0]["segments"]}
    assert labels == {"polyp", "no_polyp"}  # the first camera's frames and the second's
    drawn = pictures(out)
    assert {one.size for one in drawn} == {drawn[0].size}


def test_frames_are_counted_on_over_a_drop(broadcast: Broadcasts) -> None:
    recording = transport_stream([RED] * COUNT)
    player = playing(broadcast(recording, recording).url, 3)
    seen: list[Captured | Quiet] = []
    with pytest.raises(SourceLost, match="in 3 s"):
        seen.extend(player)
    frames = [one for one in seen if isinstance(one, Captured)]
    numbers = [one.number for one in frames]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] + 1 == len(frames) + player.skipped > FPS // 2
    times = [one.at for one in frames]
    assert times == sorted(times)
    assert player.reopened == 1
    assert any(isinstance(one, Quiet) and one.reason for one in seen)


def test_a_source_that_opens_and_gives_nothing_is_asked_less_often(broadcast: Broadcasts) -> None:
    recording = transport_stream([RED] * COUNT)
    header = recording[: 4 * 188]
    source = broadcast(recording, *[header] * 40)
    player = playing(source.url, 5)
    with pytest.raises(SourceLost):
        list(player)
    assert player.reopened == 0
    assert 3 <= source.asked <= 5  # after half a second, one, two


def test_a_recording_ends_and_is_not_opened_again(
    up: Running, video: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = partial(http.server.SimpleHTTPRequestHandler, directory=str(video.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), folder) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        for source in (f"file:{video}", f"http://127.0.0.1:{server.server_port}/{video.name}"):
            began = time.monotonic()
            assert watch(up, source, "--no-window") == 0
            assert time.monotonic() - began < 20
            told = capsys.readouterr()
            assert number(r"(\d+) captured", told.out) == 2 * FPS
            assert "opened again" not in told.out
            assert "the source is gone" not in told.err
        server.shutdown()
        serving.join()


def test_without_reopening_a_dropped_source_is_the_end(broadcast: Broadcasts) -> None:
    player = playing(broadcast(transport_stream([RED] * COUNT)).url, 0)
    frames: list[Captured | Quiet] = []
    with pytest.raises(SourceFailed) as raised:
        frames.extend(player)
    assert not isinstance(raised.value, SourceLost)
    assert any(isinstance(one, Captured) for one in frames)


@pytest.mark.parametrize("device", ["/dev/video9", "/dev/v4l/by-id/usb-none-index0"])
def test_a_capture_card_that_is_not_there_is_looked_for_as_one(device: str) -> None:
    source = Source(device, None, {})
    assert source.kind == "v4l2"  # FFmpeg would read it as a file, which ends
    with pytest.raises(SourceFailed, match="No such file"):
        source.open()


def test_a_damaged_picture_is_passed_over(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("RGB", (192, 160), RED).save(out, "JPEG")
    whole = out.getvalue()
    path = tmp_path / "card.mjpeg"  # as capture cards give it
    path.write_bytes(whole * 5 + (whole[:20] + b"\xff\xd9") * 2 + whole * 5)
    opened = Source(str(path), None, {}).open()
    assert len(list(opened.frames())) == 10
    opened.close()


# Three seconds of pictures, and then a source that is silent, or nobody.
@pytest.mark.parametrize(
    ("recordings", "number_", "said", "code"),
    [
        ((None,), signal.SIGINT, "endo-clip-watch: stopped", 130),
        ((None,), signal.SIGTERM, "endo-clip-watch: stopped", 130),
        ((b"red", None), signal.SIGTERM, "the source is gone", 0),
        ((b"red",), signal.SIGTERM, "the source is gone", 0),
        ((b"red",), signal.SIGINT, "the source is gone", 0),
    ],
    ids=["opening", "opening, SIGTERM", "opening again", "waiting to", "waiting to, SIGINT"],
)
def test_a_signal_stops_it_cleanly_in_every_state(
    up: Running,
    broadcast: Broadcasts,
    recordings: tuple[bytes | None, ...],
    number_: int,
    said: str,
    code: int,
) -> None:
    red = transport_stream([RED] * COUNT)
    source = broadcast(*(red if one else None for one in recordings))
    running = started(up, source.url)
    try:
        read = read_until(running, said) if code == 0 else ""
        wait_until(lambda: source.asked == len(recordings))  # until then it is not in the state
        time.sleep(0.5)
        began = time.monotonic()
        running.send_signal(number_)
        told, errors = running.communicate(timeout=30)
    finally:
        running.kill()
    assert running.returncode == code, errors
    assert time.monotonic() - began < 20  # --reopen-s is 120
    assert said in read + errors
    assert "Traceback" not in read + errors
    if code == 0:
        assert number(r"captured, (\d+) answered", told) > 0
        assert ", so far: polyp_detection" in told


def test_a_signal_stops_it_though_the_service_is_away(serve: Any, broadcast: Broadcasts) -> None:
    red = transport_stream([RED] * COUNT)
    source = broadcast(*[red] * 20)
    with serve() as running_service:
        running = started(running_service, source.url)
        assert running.stderr is not None
        running.stderr.readline()  # the exam is open
        time.sleep(4)  # some frames long
    began = time.monotonic()
    running.send_signal(signal.SIGTERM)
    told, errors = running.communicate(timeout=60)
    assert time.monotonic() - began < 50
    assert running.returncode == 2, errors  # the result could not be asked for
    assert "captured" in told
    assert "Traceback" not in errors


def started(up: Running, source: str) -> "subprocess.Popen[str]":
    # A crash in FFmpeg says where it was.
    python = [sys.executable, "-X", "faulthandler"]
    command = [*python, "-m", "endo_clip_client.watch", source, "--no-window"]
    return subprocess.Popen(
        [*command, "--url", f"http://127.0.0.1:{up.port}"],
        **APART,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read_until(running: "subprocess.Popen[str]", said: str) -> str:
    assert running.stderr is not None
    read = ""
    while said not in read:
        line = running.stderr.readline()
        assert line, read
        read += line
    return read
