"""Waiting for a condition, for as long as a slow and busy machine may need."""

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE_S", "wait_until"]

# Nothing waits that long where all is well: it is when a test gives up.
PATIENCE_S = 120.0
Found = TypeVar("Found")


def wait_until(ask: Callable[[], Found], seconds: float = PATIENCE_S) -> Found:
    """Ask until the answer is true, and give it.

    Raises:
        AssertionError: it never was.
    """
    end = time.monotonic() + seconds
    while not (found := ask()):
        assert time.monotonic() < end, f"waited {seconds:.0f} s in vain; the last answer: {found!r}"
        time.sleep(0.02)
    return found
