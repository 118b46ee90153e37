"""Starts the service: `python -m service`; settings are `ENDOCLIP_*` environment variables.

One process, one model, threads. Exit code 2 and one line on stderr when it cannot start; 0 after a
stop by SIGTERM or Ctrl-C; 3 when the encode worker is dead or stuck, for the supervisor to start
another. A failed self-test does not end it: `/readyz` says why. SIGHUP reads keys
and certificate again. `python -m service keys` makes, lists and revokes keys,
`python -m service models` exchanges the bundle of a running service, and `python -m service audit`
(the same as the command `endo-clip-audit`) checks an audit log.
"""

import argparse
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

# numpy's matrix library starts a thread for every core of the machine when it is imported, whatever
# the process's share; the products that are left to it here are too small for a second thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn
from fastapi import FastAPI

from model_store.cores import usable_cores
from model_store.errors import EndoClipError
from service import __version__
from service.app import create_app
from service.audit_commands import make_audit_parser, run_audit
from service.commands import make_parser, run_keys
from service.engine import Engine
from service.errors import SettingsInvalid
from service.keys import Keyring
from service.listening import listen, load_certificate
from service.logs import Event, set_up_logging
from service.remote import run_models
from service.server import Server, configure
from service.settings import Settings, read_settings

LOST = 3
"""Exit code of a service that ended because its encode worker was dead or stuck."""
_logger = logging.getLogger("service")


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line asks, and give the exit code."""
    given = make_parser().parse_args(arguments)
    try:
        if given.command == "keys":
            print(run_keys(given))
            return 0
        if given.command == "audit":
            return _audit(given)
        if given.command == "models":
            print(run_models(given))
            return 0
        settings = read_settings(os.environ)
        app = create_app(settings)
        config = configure(app)
        listener = listen(settings)
    except (EndoClipError, OSError) as error:
        return _failed("endo-clip", error)
    set_up_logging(settings.log_level, given.log_format or settings.log_format)
    print(_banner(listener, settings, app.state.engine), flush=True)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: _read_again(app, config))
    # The server ends in order on either signal and raises it again, for whoever started it: both
    # end here, so that a stop that was asked for is exit code 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    server = Server(app, config)
    with suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    return LOST if server.lost else 0


def audit(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line of `endo-clip-audit` asks, and give the exit code."""
    try:
        return _audit(make_audit_parser().parse_args(arguments))
    except (EndoClipError, OSError) as error:
        return _failed("endo-clip-audit", error)


def leave(code: int) -> NoReturn:
    """End the process; with a worker that is stuck inside the runtime, without asking it."""
    if code == LOST:
        logging.shutdown()
        os._exit(code)
    sys.exit(code)


def _audit(given: argparse.Namespace) -> int:
    said, code = run_audit(given)
    print(said)
    return code


def _failed(program: str, error: Exception) -> int:
    print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _read_again(app: FastAPI, config: uvicorn.Config) -> None:
    """Take over keys and certificate as they are now; what cannot be read stays as it was."""
    keyring: Keyring | None = app.state.keyring
    if keyring is not None:
        keyring.look_again(even_if_unchanged=True)
    if config.loaded and config.ssl is not None:
        try:
            load_certificate(config.ssl, app.state.settings)
        except SettingsInvalid as error:
            _logger.error(Event("certificate", state="unusable", reason=error))
        else:
            _logger.info(Event("certificate", state="read"))


def _banner(listener: socket.socket, settings: Settings, engine: Engine) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if settings.tls_cert else "http"
    manifest, profile = engine.bundle.manifest, engine.site_profile
    cores = usable_cores()
    local = f" site_profile={profile.site} ({profile.digest[:19]})" if profile else ""
    return (
        f"endo-clip {__version__} listens on {scheme}://{shown}:{port} (docs at /docs) "
        f"bundle={manifest.name} {manifest.version} ({engine.bundle.digest[:19]}) "
        f"path={engine.bundle.path} provider={engine.provider} "
        f"cores={cores} encode_threads={settings.encode_threads} "
        f"encode_workers={settings.encode_workers(engine.provider)} "
        f"decode_threads={settings.decode_threads} "
        f"keys={'on' if settings.keys else 'off'}{local}"
    )


if __name__ == "__main__":
    leave(main())
