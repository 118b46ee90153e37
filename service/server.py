"""How the service ends: it says so, finishes what it has begun, and is gone within its grace.

uvicorn alone closes its sockets the moment it is told to stop: whoever comes then is refused the
connection, and a balancer that asks for readiness learns nothing. Here a first signal only drops
readiness, and new work is answered 503 `shutting_down`, while requests that have begun run on; when
the last is done the sockets close. What is not done shortly before the grace ends is given up, and
answered 503 as well. A second signal does not wait.
"""

import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from service.admission import Admission
from service.models import Models
from service.settings import Settings

__all__ = ["Server"]

# Of the grace, kept for writing the last answers.
_LAST_WORDS_S = 2.0


class Server(uvicorn.Server):
    """uvicorn, with an end in order."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._models: Models = app.state.models
        self._admission: Admission = app.state.admission
        self._settings: Settings = app.state.settings
        self._asked: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end, at the first signal; end, at the second."""
        if self._asked is not None:
            super().handle_exit(sig, frame)
            return
        self._asked = time.monotonic()
        self._models.refuse()
        # Raised again by uvicorn when all is done.
        self._captured_signals.append(sig)

    async def on_tick(self, counter: int) -> bool:
        """Look whether the end has come."""
        if self._asked is not None:
            self._end(time.monotonic() - self._asked)
        return await super().on_tick(counter)

    def _end(self, since_s: float) -> None:
        left_s = self._settings.grace_s - since_s
        out_of_time = left_s <= _LAST_WORDS_S
        if out_of_time:
            self._admission.give_up()
        if out_of_time or (self._admission.idle and since_s >= self._settings.drain_s):
            self.config.timeout_graceful_shutdown = max(1, int(left_s))
            self.should_exit = True
