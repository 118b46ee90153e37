"""The service as a process of its own, started for a measurement and looked at from outside."""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

__all__ = ["Served", "State", "served"]

ROOT = Path(__file__).parents[1]
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class State:
    """What the operating system says of the process at one moment.

    Attributes:
        at_s: of the monotonic clock.
        cpu_s: processor time used so far, all threads.
        rss_mib: memory in RAM.
        descriptors: open files and sockets.
        threads: of the process.
    """

    at_s: float
    cpu_s: float
    rss_mib: float
    descriptors: int
    threads: int


class Served:
    """A running service."""

    def __init__(self, popen: "subprocess.Popen[str]", url: str, log: Path) -> None:
        self.popen, self.url = popen, url
        self.port = int(url.rpartition(":")[2])
        self._log = log
        self._process = psutil.Process(popen.pid)

    def state(self) -> State:
        """Look at the process."""
        with self._process.oneshot():
            times = self._process.cpu_times()
            return State(
                time.monotonic(),
                times.user + times.system,
                self._process.memory_info().rss / _MIB,
                self._process.num_fds(),
                self._process.num_threads(),
            )

    def failures(self) -> list[str]:
        """Give the log lines that tell of an error of the service's own."""
        lines = self._log.read_text("utf-8").splitlines()
        return [line for line in lines if '"level": "error"' in line or "Traceback" in line]

    def told_of(self, request_ids: Sequence[str]) -> list[str]:
        """Give the log lines about some requests."""
        lines = self._log.read_text("utf-8").splitlines() if request_ids else []
        return [line for line in lines if any(f'"{one}"' in line for one in request_ids)]

    def figures(self) -> dict[str, float]:
        """Give the service's own figures, as /metrics writes them."""
        text = httpx.get(f"{self.url}/metrics", timeout=60).text
        pairs = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def stop(self, within_s: float = 60) -> int:
        """Ask it to end and give its exit code."""
        self.popen.terminate()
        return self.popen.wait(within_s)


@contextmanager
def served(**settings: Any) -> Iterator[Served]:
    """Start the service with these settings (the shipped bundle where none is named).

    Raises:
        RuntimeError: it does not start, or is not ready.
    """
    settings = {"port": 0} | settings
    environment = {key: value for key, value in os.environ.items() if "ENDOCLIP_" not in key}
    environment |= {f"ENDOCLIP_{name.upper()}": str(value) for name, value in settings.items()}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with (
            log.open("w") as stderr,
            subprocess.Popen(
                [sys.executable, "-m", "service"],
                cwd=ROOT,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=stderr,
            ) as popen,
        ):
            try:
                line = popen.stdout.readline() if popen.stdout else ""
                url = re.search(r"https?://\S+", line)
                if url is None or httpx.get(f"{url[0]}/readyz", timeout=60).status_code != 200:
                    raise RuntimeError(f"the service did not start: {log.read_text('utf-8')}")
                yield Served(popen, url[0], log)
            finally:
                popen.kill()
