"""Measures live streams: rooms that send video frames, from capture to result.

    python -m bench.live --rooms 1 2 4 --fps 25 --seconds 20

Starts the service on loopback with the shipped bundle (or takes `--url`), opens an exam and a
stream for each room, and sends drawn full-HD JPEG frames at a constant rate, as an encoder in the
endoscopy tower would: a frame is captured when it is due, whether or not the last one is answered.
Glass to result is from that moment to the result's arrival. Sender and service share the machine.
"""

import argparse
import io
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import Request as Upgrade

from examples.draw import draw

__all__ = ["Refused", "Stream", "main"]

BARS_MS = (77.0, 120.0)
_RECEIVE_BYTES = 65536


class Refused(Exception):
    """The service answered the handshake with something else."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status}: {body[:200]!r}")
        self.status, self.body = status, body


class Stream:
    """A client's end of `/v1/exams/{id}/stream`; one thread may send while another receives."""

    def __init__(
        self,
        url: str,
        exam_id: str,
        query: str = "",
        headers: Sequence[tuple[str, str]] = (),
        protocols: Sequence[str] = (),
    ) -> None:
        """Connect, offering protocols as a browser does.

        Raises:
            Refused: the handshake was answered with an error.
        """
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), timeout=60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._lock = threading.Lock()
        self._events: list[Any] = []
        self.close_code: int | None = None
        raw = [(name.encode(), value.encode()) for name, value in headers]
        target = f"/v1/exams/{exam_id}/stream{query}"
        offered = list(protocols)
        self._write(Upgrade(parts.netloc, target, subprotocols=offered, extra_headers=raw))
        first = self._next()
        if isinstance(first, RejectConnection):
            raise Refused(first.status_code, self._rest())
        assert isinstance(first, AcceptConnection)
        self.protocol = first.subprotocol

    def send(self, image: bytes, captured_us: int) -> None:
        """Send a frame."""
        self._write(BytesMessage(struct.pack(">q", captured_us) + image))

    def send_text(self, text: str) -> None:
        """Send what the service does not expect."""
        self._write(TextMessage(text))

    def receive(self) -> dict[str, Any] | None:
        """Wait for a message; None once the connection is closed."""
        text = ""
        while (event := self._next()) is not None:
            if isinstance(event, CloseConnection):
                self.close_code = event.code
                break
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    document: dict[str, Any] = json.loads(text)
                    return document
        self.drop()
        return None

    def finish(self) -> None:
        """Say that there is no more; whoever receives reads to the end."""
        self._write(CloseConnection(code=1000))

    def close(self) -> None:
        """End the connection in order."""
        self.finish()
        while self.receive() is not None:
            pass

    def drop(self) -> None:
        """End it as a pulled cable would."""
        self._socket.close()

    def _write(self, event: Any) -> None:
        with self._lock:
            self._socket.sendall(self._connection.send(event))

    def _next(self) -> Any:
        while not self._events:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                return None
            with self._lock:
                self._connection.receive_data(data)
                self._events = list(self._connection.events())
            for event in self._events:
                if isinstance(event, Ping) and self._connection.state is ConnectionState.OPEN:
                    self._write(event.response())
        return self._events.pop(0)

    def _rest(self) -> bytes:
        body = b""
        while isinstance(event := self._next(), RejectData):
            body += event.data
            if event.body_finished:
                break
        self._socket.close()
        return body


class _Room(threading.Thread):
    """A sender and, in a thread of its own, its receiver."""

    def __init__(self, url: str, frames: Sequence[bytes], fps: float, seconds: float) -> None:
        super().__init__()
        self._frames, self._fps, self._seconds = frames, fps, seconds
        self._stream = Stream(url, _open_exam(url))
        self.latencies_ms: list[float] = []
        self.sent = 0
        self.last: dict[str, Any] = {}
        self._receiver = threading.Thread(target=self._receive)

    def run(self) -> None:
        self._receiver.start()
        begun = time.time()
        for number in range(int(self._fps * self._seconds)):
            due = begun + number / self._fps
            time.sleep(max(0.0, due - time.time()))
            self._stream.send(self._frames[number % len(self._frames)], int(due * 1e6))
            self.sent += 1
        time.sleep(1.0)
        self._stream.finish()
        self._receiver.join()

    def _receive(self) -> None:
        while (told := self._stream.receive()) is not None:
            if told["type"] == "frame":
                captured = _seconds_of(told["captured_at"])
                self.latencies_ms.append((time.time() - captured) * 1000)
            self.last = told


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.live", description=__doc__)
    parser.add_argument("--rooms", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--fps", type=float, default=25.0)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--url", help="of a running service without keys")
    parser.add_argument("--store", help="of the service started (default: one that is removed)")
    given = parser.parse_args(arguments)
    frames = [_jpeg(name) for name in ("polyp_1", "polyp_2", "normal_1", "normal_2")]
    print(
        "| rooms | frames sent | answered | dropped | results/s a room, least to most | p50 ms "
        "| p99 ms | over 77 ms | over 120 ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    with _service(given.url, given.store) as url:
        for count in given.rooms:
            print(_measured(url, frames, count, given.fps, given.seconds), flush=True)
    return 0


def _measured(url: str, frames: Sequence[bytes], count: int, fps: float, seconds: float) -> str:
    rooms = [_Room(url, frames, fps, seconds) for _ in range(count)]
    for room in rooms:
        room.start()
    for room in rooms:
        room.join()
    latencies = np.concatenate([room.latencies_ms for room in rooms])
    rates = [len(room.latencies_ms) / seconds for room in rooms]
    sent = sum(room.sent for room in rooms)
    over = [f"{(latencies > bar).mean():.1%}" for bar in BARS_MS]
    p50, p99 = np.percentile(latencies, [50, 99])
    return (
        f"| {count} | {sent} | {len(latencies)} | {sent - len(latencies)} | {min(rates):.1f}-"
        f"{max(rates):.1f} | {p50:.0f} | {p99:.0f} | {over[0]} | {over[1]} |"
    )


@contextmanager
def _service(url: str | None, store: str | None) -> Iterator[str]:
    if url is not None:
        yield url
        return
    if store is None:
        with TemporaryDirectory() as folder, _service(None, f"{folder}/exams.sqlite3") as url:
            yield url
        return
    settings = {"ENDOCLIP_PORT": "0", "ENDOCLIP_EXAM_STORE": store}
    process = subprocess.Popen(
        [sys.executable, "-m", "service"],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://[^ ]+", process.stdout.readline())
        assert found is not None
        urlopen(f"{found[0]}/readyz", timeout=60).close()
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def _open_exam(url: str) -> str:
    request = Request(f"{url}/v1/exams", b"{}", {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["exam_id"])


def _jpeg(name: str) -> bytes:
    out = io.BytesIO()
    draw(name).resize((1920, 1080)).save(out, "JPEG", quality=90)
    return out.getvalue()


def _seconds_of(text: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    sys.exit(main())
