"""What `serve run` is given: ingress replicas that answer HTTP, encoder replicas that run towers.

    serve run docker/ray/service.yaml

Settings are the `ENDOCLIP_*` variables of each node, or of the configuration's `runtime_env`. An
ingress is the whole service of `python -m service` but for the towers, and listens itself, on the
port of its settings: the same parser, limits, deadlines and errors, and no second hop for a body of
a hundred frames. All ingresses of one machine share the port; between machines a balancer chooses,
by `/readyz`. What Ray Serve does is all the rest: it places replicas, watches and restarts them,
scales them, routes frames to encoders, and takes new configurations to every one of them.
"""

import asyncio
import logging
import os
import signal
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle

from model_store.bundle import Bundle
from model_store.errors import EndoClipError
from service.app import create_app
from service.bundles import find_digest, look
from service.cluster.encoders import Encoded, Encoders
from service.cluster.figures import Figures
from service.cluster.remote import RemoteWorker
from service.errors import NotReady, SettingsInvalid
from service.listening import listen
from service.logs import Event, set_up_logging
from service.models import Models
from service.operations import exposition
from service.server import Server, configure
from service.settings import Settings, newest_bundle, read_settings
from service.towers import Kind

__all__ = ["Encoder", "Ingress", "application"]

_logger = logging.getLogger(__name__)


class Encoder:
    """A replica that runs towers."""

    def __init__(self) -> None:
        self._settings = _settings()
        # Not the machine's: `num_cpus` of the configuration says what is the replica's.
        cores = ray.get_runtime_context().get_assigned_resources().get("CPU", 1.0)
        self._encoders = Encoders(self._settings, max(1, int(cores)))
        self._figures = Figures(self._encoders.exposition)

    async def reconfigure(self, config: dict[str, str]) -> None:
        """Hold the bundle of a configuration, beside the one that was.

        One that cannot be held is an error at the start alone. Later it would cost a replica that
        works: it is asked for by digest, so nobody is answered from another one.
        """
        try:
            path = await asyncio.to_thread(_bundle, self._settings, _digest(config))
            await self._encoders.open((await asyncio.to_thread(look, path)).digest)
        except (EndoClipError, OSError) as error:
            if not self._encoders.ready:
                raise
            _logger.error(Event("encoder", state="refused", reason=_word(error)))
        self._figures.start()

    async def encode(self, digest: str, kind: str, value: Any) -> Encoded:
        """Encode one item; see `Encoders.encode`."""
        return await self._encoders.encode(digest, Kind(kind), value)

    async def check_health(self) -> None:
        """Tell Serve when only another process is of help."""
        self._encoders.check()

    async def __del__(self) -> None:
        await self._figures.stop()
        await self._encoders.stop()


class Ingress:
    """A replica that answers HTTP on the port of its settings."""

    def __init__(self, encoders: DeploymentHandle[Any]) -> None:
        self._encoders = encoders
        self._server: Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def reconfigure(self, config: dict[str, str]) -> None:
        """Serve the bundle of a configuration: at the start, or instead of the one that was.

        Whatever stands against another bundle, the one before is served on, and the log and
        `endoclip_model_changes_total` say so: a replica that failed here would be replaced by one
        that cannot start.
        """
        if self._server is None:
            await self._start(_digest(config))
            return
        try:
            digest = _digest(config)
            await self._models.load_from(lambda: _bundle(self._settings, digest))
        except EndoClipError as error:
            _logger.error(Event("ingress", state="refused", reason=_word(error)))

    async def check_health(self) -> None:
        """Tell Serve when it listens no more."""
        if self._task is not None and self._task.done():
            raise NotReady("The server has ended.", "ended")

    async def __del__(self) -> None:
        if self._server is None or self._task is None:
            return
        await self._figures.stop()
        self._server.handle_exit(signal.SIGTERM, None)
        await self._task

    async def _start(self, digest: str | None) -> None:
        self._settings = settings = _settings()
        _check(settings)
        path = await asyncio.to_thread(_bundle, settings, digest)
        loop = asyncio.get_running_loop()

        def remote(bundle: Bundle) -> RemoteWorker:
            return RemoteWorker(self._encoders, loop, bundle.digest, settings.provider)

        app = create_app(settings.model_copy(update={"bundle": path}), remote)
        self._models: Models = app.state.models
        self._server = Server(app, configure(app))
        listener = listen(settings, shared=True)
        self._figures = Figures(lambda: exposition(app.state))
        self._task = asyncio.create_task(self._server.serve([listener]))
        while not self._server.started:
            if self._task.done():
                await self._task
                raise NotReady("The server has ended.", "ended")
            await asyncio.sleep(0.02)
        self._figures.start()


# An empty configuration and not none: `reconfigure` is what begins.
_encoders = serve.deployment(name="encoder", user_config={})(Encoder)
_ingress = serve.deployment(name="ingress", user_config={})(Ingress)
application = _ingress.bind(_encoders.bind())


def _settings() -> Settings:
    settings = read_settings(os.environ)
    set_up_logging(settings.log_level, settings.log_format)
    return settings


def _check(settings: Settings) -> None:
    """Refuse what would be another thing in each replica."""
    if settings.audit_log is not None:
        raise SettingsInvalid("ENDOCLIP_AUDIT_LOG is for one process, not for replicas")
    if settings.exam_store is None:
        raise SettingsInvalid("ENDOCLIP_EXAM_STORE must name a database that all replicas reach")
    if settings.port == 0:
        raise SettingsInvalid("ENDOCLIP_PORT must be the same for all replicas; found 0")


def _bundle(settings: Settings, digest: str | None) -> Path:
    """Find the bundle of a configuration on this machine: by its digest, else that of the settings.

    Raises:
        BundleError: there is none of that digest.
    """
    configured = settings.bundle or newest_bundle()
    return find_digest(configured, settings.bundles, digest) if digest else configured


def _digest(config: dict[str, str]) -> str | None:
    unknown = ", ".join(sorted(set(config) - {"bundle"}))
    if unknown:
        raise SettingsInvalid(f"user_config: expected bundle; found {unknown}")
    return config.get("bundle")


def _word(error: Exception) -> str:
    return str(getattr(error, "reason", type(error).__name__))
