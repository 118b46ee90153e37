"""How the service ends: it says so, finishes what it has begun, and is gone within its grace.

uvicorn alone closes its sockets the moment it is told to stop: whoever comes then is refused the
connection, and a balancer that asks for readiness learns nothing. Here a first signal only drops
readiness, and new work is answered 503 `shutting_down`, while requests that have begun run on; when
the last is done the sockets close. What is not done shortly before the grace ends is given up, and
answered 503 as well. A second signal does not wait.

A service whose encode worker is dead or stuck ends by itself: no thread can be ended from outside,
and a supervisor starts another process in a second, where one that is up and never ready again
waits for a person.
"""

import asyncio
import logging
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from model_store.encoder import trim_memory
from service.admission import Admission
from service.exams.live import MAX_MESSAGE_BYTES
from service.listening import tls_context
from service.logs import Event
from service.models import Models
from service.protocol import HttpProtocol, SocketProtocol
from service.settings import Settings

__all__ = ["Server", "configure"]

# Of the grace, kept for writing the last answers.
_LAST_WORDS_S = 2.0
# A machine that was asleep wakes with its time run out; its worker is then given time to move.
_SECOND_LOOK_S = 5.0
# So often a service that is used gives back what requests have left with the allocator: the holes
# between bodies that wait would stay otherwise for as long as there is work. It takes 1 to 10 ms.
_TIDY_S = 10.0
# Longer than the usual 60 s of load balancers: the side that closes first must not be this one.
_KEEP_ALIVE_S = 75
_logger = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, with an end in order.

    Attributes:
        lost: whether it ended because the worker was dead or stuck.
    """

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._models: Models = app.state.models
        self._admission: Admission = app.state.admission
        self._settings: Settings = app.state.settings
        self._asked: float | None = None
        self._told = False
        self._suspected: tuple[float, float | None] | None = None
        self._used, self._tidied = False, time.monotonic()
        self.lost = False

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
            self._tell()
            self._end(time.monotonic() - self._asked)
        else:
            self._look()
            self._tidy()
        return await super().on_tick(counter)

    def _tell(self) -> None:
        # Not in the signal's handler, which may have interrupted the writing of another line.
        if not self._told and not self.lost:
            self._told = True
            _logger.warning(Event("stopping", within_s=self._settings.grace_s))

    def _look(self) -> None:
        engine, now = self._models.active, time.monotonic()
        lost = engine.lost
        if lost is None:
            self._suspected = None
        elif self._suspected is None:
            self._suspected = now, engine.oldest_batch
        elif engine.oldest_batch != self._suspected[1]:
            self._suspected = None
            engine.health.suspect()
        elif now - self._suspected[0] >= _SECOND_LOOK_S:
            self.lost, self._asked = True, now - self._settings.grace_s  # nothing can be finished
            _logger.critical(Event("lost", reason=lost.value))
            self._models.refuse()

    def _tidy(self) -> None:
        now = time.monotonic()
        self._used = self._used or not self._admission.idle
        if self._used and now - self._tidied >= _TIDY_S:
            self._used, self._tidied = False, now
            asyncio.get_running_loop().run_in_executor(None, trim_memory)

    def _end(self, since_s: float) -> None:
        left_s = self._settings.grace_s - since_s
        out_of_time = left_s <= _LAST_WORDS_S
        if out_of_time:
            self._admission.give_up()
        if out_of_time or (self._admission.idle and since_s >= self._settings.drain_s):
            self.config.timeout_graceful_shutdown = max(1, int(left_s))
            self.should_exit = True


def configure(app: FastAPI) -> uvicorn.Config:
    """Say how uvicorn is to serve the app; its access log is off, for it holds query strings.

    Raises:
        SettingsInvalid: the TLS files cannot be used.
    """
    # Whatever handlers stand around it: `access_log=False` alone only takes its own away.
    logging.getLogger("uvicorn.access").disabled = True
    patience = {"patience_s": app.state.settings.client_patience_s}
    tls = tls_context(app.state.settings)
    return uvicorn.Config(
        app,
        http=type("Connection", (HttpProtocol,), patience),
        ssl_context_factory=(lambda *_: tls) if tls else None,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws=SocketProtocol,
        ws_max_size=MAX_MESSAGE_BYTES,
        # Images do not shrink, and a few bytes could unfold to gigabytes.
        ws_per_message_deflate=False,
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_S,
    )
