"""The Python client and its watch behind nginx: https and wss, trusting the proxy's certificate."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from endo_clip_client import Client, ClientError, Kept, Opened, Result, Retry

from tests.clients.conftest import ROOT
from tests.clients.samples import csharp, javascript
from tests.service.conftest import RED, Running, Serve, image
from tests.service.keys_file import add_key
from tests.service.nginx import Nginx, missing, nginx

BEGAN = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("behind")


@pytest.fixture(scope="module")
def token(folder: Path) -> str:
    return add_key(folder / "keys.json")


@pytest.fixture(scope="module")
def up(serve: Serve, folder: Path, token: str) -> Iterator[Running]:
    store = str(folder / "exams.sqlite3")
    with serve(keys=folder / "keys.json", exam_store=store) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(up: Running, folder: Path) -> Iterator[Nginx]:
    with nginx(folder / "nginx", up.port) as found:
        yield found


def test_frames_exam_and_stream(proxy: Nginx, token: str) -> None:
    with Client(proxy.url, key=token, verify=proxy.trust) as client:
        answer = client.polyp_detection([image(RED)])
        assert answer.patients[0].decision == "positive"
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        with exam.stream(keep_every_ms=0) as stream:
            told = iter(stream)
            assert isinstance(next(told), Opened)
            for number in range(3):
                sent = BEGAN + timedelta(seconds=number)
                stream.send(image((200 + number, 30, 30)), sent)
                answered = [next(told), next(told)]
                assert {type(one) for one in answered} == {Kept, Result}
            stream.finish()
            assert list(told) == []
        result = exam.close()
        assert (result.final, result.revision) == (True, 3)


@pytest.mark.parametrize(("place", "cuts"), [("610s", 0), ("1h", 1)])
def test_a_stream_may_be_quiet_for_longer_than_a_request(
    up: Running, token: str, tmp_path: Path, place: str, cuts: int
) -> None:
    short = (f"proxy_read_timeout {place};", "proxy_read_timeout 1s;")
    with (
        nginx(tmp_path / "own", up.port, short) as proxy,
        Client(proxy.url, key=token, verify=proxy.trust) as client,
    ):
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        with exam.stream() as stream:
            told = iter(stream)
            assert isinstance(next(told), Opened)
            time.sleep(2)
            stream.send(image(RED), BEGAN)
            while not isinstance(next(told), Result):
                pass
            assert min(stream.counts.reconnects, 1) == cuts


@contextmanager
def below(folder: Path, service: int) -> Iterator[str]:
    """The service below a path that it does not know of, over plain HTTP; gives that root."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = f"listen 127.0.0.1:{port};\n    location /endo/ {{ proxy_pass http://endo_clip/; }}"
    with nginx(folder, service, ("server_tokens off;", f"server_tokens off;\n    {place}")):
        yield f"http://127.0.0.1:{port}/endo/"


def test_a_root_below_a_path_is_kept_to(up: Running, token: str, tmp_path: Path) -> None:
    with below(tmp_path / "own", up.port) as root, Client(root, key=token) as client:
        assert client.malignancy([image(RED)]).patients[0].decision == "positive"
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        with exam.stream(keep_every_ms=0) as stream:
            told = iter(stream)
            assert isinstance(next(told), Opened)
            stream.send(image(RED), BEGAN)
            assert {type(next(told)), type(next(told))} == {Kept, Result}
        assert exam.close().revision == 1
        headers = {"Authorization": f"Bearer {token}"}
        opened = httpx.post(f"{root}v1/exams", json={"exam_id": "where"}, headers=headers)
        where = opened.url.join(opened.headers["location"])
        assert httpx.get(where, headers=headers).json()["exam_id"] == "where"


@pytest.mark.parametrize("sample", ["javascript", "csharp"])
def test_samples_keep_to_a_root_below_a_path(
    up: Running, token: str, tmp_path: Path, sample: str
) -> None:
    program = javascript() if sample == "javascript" else csharp(tmp_path)
    (tmp_path / "red.png").write_bytes(image(RED))
    with below(tmp_path / "own", up.port) as root:
        done = subprocess.run(
            [*program, root, str(tmp_path / "red.png")],
            env={**os.environ, "ENDO_CLIP_KEY": token},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "positive" in done.stdout


def test_another_certificate_is_not_believed(proxy: Nginx, token: str) -> None:
    with (
        Client(proxy.url, key=token, retry=Retry(attempts=1)) as client,
        pytest.raises(ClientError),
    ):
        client.polyp_detection([image(RED)])


def test_a_video_is_watched(proxy: Nginx, token: str, up: Running, folder: Path) -> None:
    pytest.importorskip("av")
    import av

    from tests.clients.test_watch import FPS, write

    video = folder / "drawn.mp4"
    with av.open(str(video), "w") as container:
        write(container, [RED] * FPS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")}
    environment |= {"ENDO_CLIP_KEY": token, "SSL_CERT_FILE": str(proxy.certificate)}
    words = [str(video), "--url", proxy.url, "--no-window", "--exam", "watched", "--close"]
    done = subprocess.run(
        [sys.executable, "-m", "endo_clip_client.watch", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "exam watched, final: polyp_detection positive" in done.stdout
    assert token not in done.stdout + done.stderr
