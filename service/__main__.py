"""Starts the service: `python -m service`; settings are `ENDOCLIP_*` environment variables.

One process, one model, threads. Exit code 2 and one line on stderr when it cannot start; 0 after a
stop by SIGTERM or Ctrl-C. A failed self-test does not end it: `/readyz` says why.
"""

import logging
import os
import signal
import socket
import sys
from contextlib import suppress

# numpy's matrix library starts a thread for every core of the machine when it is imported, whatever
# the process's share; the products that are left to it here are too small for a second thread.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import uvicorn
from fastapi import FastAPI

from model_store.cores import usable_cores
from model_store.errors import EndoClipError
from service import __version__
from service.app import create_app
from service.engine import Engine
from service.protocol import HttpProtocol
from service.settings import Settings, read_settings

# An answer may take as long as a whole exam on a small machine; a stop waits for it that long.
_GRACE_S = 30
# Longer than the usual 60 s of load balancers: the side that closes first must not be this one.
_KEEP_ALIVE_S = 75


def main() -> int:
    """Run until stopped; gives the exit code."""
    try:
        settings = read_settings(os.environ)
        app = create_app(settings)
        listener = _listen(settings)
    except (EndoClipError, OSError) as error:
        print(f"endo-clip: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    _set_up_logging(settings.log_level.upper())
    print(_banner(listener, settings, app.state.engine), flush=True)
    # uvicorn stops in order on either signal and then raises it again, for whoever started it: both
    # end here, so that a stop that was asked for is exit code 0.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        uvicorn.Server(configure(app)).run(sockets=[listener])
    return 0


def configure(app: FastAPI) -> uvicorn.Config:
    """Say how uvicorn is to serve the app; its access log is off, for it holds query strings."""
    # Whatever handlers stand around it: `access_log=False` alone only takes its own away.
    logging.getLogger("uvicorn.access").disabled = True
    patience = {"patience_s": app.state.settings.client_patience_s}
    return uvicorn.Config(
        app,
        http=type("Connection", (HttpProtocol,), patience),
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )


def _set_up_logging(level: str) -> None:
    logging.basicConfig(
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        level=logging.WARNING,
        stream=sys.stderr,
    )
    # Only our own loggers follow the setting: at `debug`, Pillow's would write out image metadata.
    logging.getLogger("service").setLevel(level)
    # Its warnings count bytes of a body that is refused anyway.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything is announced; a port in use is one line, like all else."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name the protocol; without it every answer on a
    # kept connection waits 40 ms for a delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except (OSError, UnicodeError) as error:
        listener.close()
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


def _banner(listener: socket.socket, settings: Settings, engine: Engine) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    manifest, profile = engine.bundle.manifest, engine.site_profile
    cores = usable_cores()
    local = f" site_profile={profile.site} ({profile.digest[:19]})" if profile else ""
    return (
        f"endo-clip {__version__} listens on http://{shown}:{port} (docs at /docs) "
        f"bundle={manifest.name} {manifest.version} ({engine.bundle.digest[:19]}) "
        f"path={engine.bundle.path} provider={engine.encoder.provider} "
        f"cores={cores} encode_threads={settings.encode_threads or cores} "
        f"decode_threads={settings.decode_threads}{local}"
    )


if __name__ == "__main__":
    sys.exit(main())
