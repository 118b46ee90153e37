"""Starts a server as a process of its own, and reads from the system what it costs."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.load import Address

__all__ = ["Server", "free_port", "serving", "serving_ours"]

_PATIENCE_S = 180.0
_MIB = 1024 * 1024


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: where it listens.
        ready_s: from the start of its process until it said that it was ready.
        process: the first of its processes.
    """

    address: Address
    ready_s: float
    process: psutil.Process

    def cpu_s(self) -> float:
        """Processor seconds, user and system, of the process and those it started."""
        spent = 0.0
        for one in self._processes():
            with suppress(psutil.NoSuchProcess):
                times = one.cpu_times()
                spent += times.user + times.system
        return spent

    def resident_mib(self) -> float:
        """Memory in RAM of all its processes; shared pages count in each."""
        held = 0
        for one in self._processes():
            with suppress(psutil.NoSuchProcess):
                held += one.memory_info().rss
        return held / _MIB

    def threads(self) -> int:
        """Threads of all its processes."""
        return sum(one.num_threads() for one in self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def serving(
    command: Sequence[str],
    port: int,
    *,
    environment: Mapping[str, str] | None = None,
    ready_path: str = "/readyz",
    folder: Path | None = None,
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end it and its children afterwards.

    Args:
        command: to run.
        port: it will listen there, on 127.0.0.1.
        environment: beside the present one.
        ready_path: answers 200 once requests can be answered.
        folder: working directory.

    Raises:
        RuntimeError: it ended, or was not ready in time; with the end of what it said.
    """
    # Without it SIGTERM ends this process at once, and leaves the server behind.
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    address = ("127.0.0.1", port)
    log = Path(os.environ.get("TMPDIR", "/tmp")) / f"bench-{os.getpid()}-{port}.log"
    began = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            list(command),
            stdout=out,
            stderr=out,
            cwd=folder,
            env={**os.environ, **(environment or {})},
        )
    try:
        while not _says_ready(address, ready_path):
            late = time.perf_counter() - began > _PATIENCE_S
            if late or process.poll() is not None:
                said = log.read_text("utf-8", "replace")[-2000:]
                raise RuntimeError(f"{command}: not ready after {_PATIENCE_S:.0f} s:\n{said}")
            time.sleep(0.01)
        yield Server(address, time.perf_counter() - began, psutil.Process(process.pid))
    finally:
        _end(process)
        log.unlink(missing_ok=True)


@contextmanager
def serving_ours(settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """Start this service in this interpreter; settings by their lower-case names."""
    port = free_port()
    # Saturation is what is measured; it must not be turned away. 16 clients of 64 frames are 1024.
    chosen = {
        **{"port": str(port), "log_level": "error", "max_queue_s": "60"},
        **{"max_pending_frames": "4096", "max_pending_bytes": "2147483648"},
        **(settings or {}),
    }
    environment = {f"ENDOCLIP_{name.upper()}": value for name, value in chosen.items()}
    with serving([sys.executable, "-m", "service"], port, environment=environment) as server:
        yield server


def free_port() -> int:
    """Find a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _says_ready(address: Address, path: str) -> bool:
    connection = http.client.HTTPConnection(*address, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _end(process: "subprocess.Popen[bytes]") -> None:
    children: list[psutil.Process] = []
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in children:
        with suppress(psutil.NoSuchProcess):
            child.kill()
