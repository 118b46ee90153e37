"""SIGTERM and Ctrl-C: a run ends where nothing is lost, and says which of the two ended it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "stop_at_once", "stop_later"]

_WISHES = {signal.SIGTERM: 1, signal.SIGINT: 2}
_EXIT_CODES = {1: 0, 2: 130}
Handler = Callable[[int, FrameType | None], object]


class Stopped(KeyboardInterrupt):
    """The run was asked to stop, and did; the same command resumes it.

    Attributes:
        exit_code: 0 after SIGTERM (a scheduler took the machine back: nothing went wrong), 130
            after Ctrl-C.
    """

    def __init__(self, wish: int, message: str = "") -> None:
        super().__init__(message)
        self.exit_code = _EXIT_CODES[wish]


@contextmanager
def stop_at_once() -> Iterator[None]:
    """Within, SIGTERM raises ``Stopped`` wherever the program is, as Ctrl-C does by itself.

    For work that writes whole files or none, and is redone or resumed by the same command.
    """
    here = os.getpid()

    def stop(signum: int, _frame: FrameType | None) -> None:
        if os.getpid() != here:  # a forked child, which whoever terminates it expects to be gone
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        raise Stopped(_WISHES[signal.SIGTERM])

    with _handlers({signal.SIGTERM: stop}):
        yield


@contextmanager
def stop_later() -> Iterator[Callable[[], int]]:
    """Within, SIGTERM and Ctrl-C are noted.

    Yields:
        A function that says what was asked for: 0 nothing, 1 SIGTERM, 2 Ctrl-C. The larger wins, so
        that ranks which were asked for different things can agree.

    Raises:
        Stopped: On leaving, when a signal came that nobody looked at any more.
    """
    asked = 0

    def note(signum: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = max(asked, _WISHES[signal.Signals(signum)])

    with _handlers(dict.fromkeys(_WISHES, note)):
        yield lambda: asked
    if asked:
        raise Stopped(asked)


@contextmanager
def _handlers(wanted: dict[signal.Signals, Handler]) -> Iterator[None]:
    try:
        previous = {which: signal.signal(which, handler) for which, handler in wanted.items()}
    except ValueError:  # not the main thread: a notebook or a test stops otherwise
        previous = {}
    try:
        yield
    finally:
        for which, handler in previous.items():
            signal.signal(which, handler)
