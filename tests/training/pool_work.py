"""Work for the tests of the process pool; alone here, so that a spawned process imports little."""

import os
import signal
from pathlib import Path


def ready() -> None:
    """Nothing to prepare."""


def crash_or_mark(task: Path) -> None:
    """Crash as native code does when the task says so, otherwise leave a mark."""
    if task.name == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    task.write_text("done", "utf-8")
