"""Starts the service: `python -m service`; settings are `ENDOCLIP_*` environment variables.

One process, one model, threads. Exit code 2 and one line on stderr when it cannot start.
"""

import logging
import os
import socket
import sys

import uvicorn

from model_store.errors import EndoClipError
from service import __version__
from service.app import create_app
from service.engine import Engine
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
    logging.basicConfig(
        level=settings.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    # uvicorn's own start-up and access lines: the first are said below, the second leak queries.
    for name in ("uvicorn.error", "python_multipart.multipart"):
        logging.getLogger(name).setLevel(logging.WARNING)
    print(_banner(listener, app.state.engine), flush=True)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        lifespan="on",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_GRACE_S,
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _listen(settings: Settings) -> socket.socket:
    """Take the port before anything is announced; a port in use is one line, like all else."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error}") from error
    listener.listen(2048)
    listener.set_inheritable(False)
    return listener


def _banner(listener: socket.socket, engine: Engine) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    manifest = engine.bundle.manifest
    return (
        f"endo-clip {__version__} listens on http://{shown}:{port} (docs at /docs) "
        f"bundle={manifest.name} {manifest.version} ({engine.bundle.digest[:19]}) "
        f"path={engine.bundle.path} provider={engine.encoder.provider}"
    )


if __name__ == "__main__":
    sys.exit(main())
