"""A PostgreSQL server of the machine's own package, started for the tests that need one."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def missing() -> str:
    """Say why there is no server here; empty where there is one."""
    if _program("postgres") is None:
        return "PostgreSQL's server is not installed (Debian: postgresql)"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "PostgreSQL's server does not run as root, and there is no setpriv"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed (extra `postgres`)"
    return ""


def _program(name: str) -> str | None:
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return shutil.which(name) or (str(newest[-1]) if newest else None)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server that listens on a socket in its own folder only; gives its URL."""
    # Not below pytest's folder, which the server's account could not enter.
    folder = Path(tempfile.mkdtemp(prefix="endo-clip-pg-"))
    account: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody")
        account = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    data = folder / "data"
    try:
        initdb, server = _program("initdb"), _program("postgres")
        assert initdb
        assert server
        subprocess.run(
            [*account, initdb, "-D", data, "-U", "exams", "-A", "trust", "-E", "UTF8", "--no-sync"],
            check=True,
            cwd=folder,
            **quiet,
        )
        process = subprocess.Popen(
            [*account, server, "-D", data, "-k", folder, "-c", "listen_addresses="],
            cwd=folder,
            **quiet,
        )
        try:
            url = f"postgresql://exams@/postgres?host={folder}"
            _wait(url, process)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # does not wait for who is connected
            process.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def exams_in(url: str) -> int:
    """Count the exams that a server holds."""
    import psycopg

    with psycopg.connect(url) as connection:
        [[count]] = connection.execute("SELECT count(*) FROM exams")
    return int(count)


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    import psycopg

    while process.poll() is None:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            continue
        return
    raise AssertionError("PostgreSQL did not start")
