"""The service's real server for the clients, and a proxy that does what networks do."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.service.conftest import bundle, serve

__all__ = ["Faults", "bundle", "exam_folder", "faults", "serve"]

ROOT = Path(__file__).parents[2]
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"


class Faults:
    """A TCP port before a server: each connection meets the next of the given faults, then none."""

    def __init__(self, target: int, faults: Sequence[bytes | None]) -> None:
        self._target, self._faults = target, list(faults)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.seen: list[bytes] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        """Answer with the fault (b"": drop without a word), or pass the bytes through."""
        fault = self._faults.pop(0) if self._faults else None
        with client:
            head = client.recv(65536)
            self.seen.append(head)
            if fault is not None:
                client.sendall(fault)
                client.shutdown(socket.SHUT_WR)
                while fault and client.recv(65536):
                    pass
                return
            with socket.create_connection(("127.0.0.1", self._target)) as server:
                server.sendall(head)
                back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                back.start()
                _pump(client, server)
                back.join(10)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


@pytest.fixture
def faults() -> Iterator[Callable[..., Faults]]:
    """Put a faulty port before a server's."""
    opened: list[Faults] = []

    def before(target: int, *faults: bytes | None) -> Faults:
        opened.append(Faults(target, faults))
        return opened[-1]

    yield before
    for one in opened:
        one.close()


@contextmanager
def exam_folder(folder: Path, frames: dict[str, bytes]) -> Iterator[Path]:
    """A folder with these files."""
    for name, data in frames.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    yield folder
