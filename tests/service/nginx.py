"""A real nginx with the project's own configuration, for the tests of what stands before it."""

import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.service.conftest import ROOT

CONF = ROOT / "docker" / "nginx" / "endo-clip.conf"
# The name that an installation has changed in the file; it resolves nowhere.
NAME = "endo-clip.example"


@dataclass(frozen=True)
class Nginx:
    """A proxy that answers.

    Attributes:
        port: where it speaks TLS.
        trust: believes its certificate and no other.
        certificate: PEM file of it.
        folder: all that it may write to.
    """

    port: int
    trust: ssl.SSLContext
    certificate: Path
    folder: Path

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def spooled(self) -> list[int]:
        """When something was last put on the disk for a while: bodies, answers."""
        return [path.stat().st_mtime_ns for path in sorted((self.folder / "tmp").iterdir())]

    def written(self) -> str:
        """Everything that it has written, logs and files beside them."""
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        return "".join(
            path.read_text("utf-8", "replace") for path in paths if path.suffix != ".key"
        )


def missing() -> str:
    """Say why there is no nginx here; empty where there is one."""
    for name in ("nginx", "openssl"):
        if _program(name) is None:
            return f"{name} is not installed"
    return ""


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@contextmanager
def nginx(folder: Path, service: int, change: tuple[str, str] = ("", "")) -> Iterator[Nginx]:
    """Start nginx before a service on loopback, with a certificate made here and signed by itself.

    Args:
        folder: made for it.
        service: the port before which it stands.
        change: text of the configuration and what stands in its place, for guards that must fail.
    """
    program = _program("nginx")
    assert program
    (folder / "tmp").mkdir(parents=True)
    certificate = _certificate(folder)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    site = folder / "endo-clip.conf"
    text = CONF.read_text("utf-8")
    assert change[0] in text
    site.write_text(
        _installed(text.replace(*change) if change[0] else text, folder, port, service), "utf-8"
    )
    main = folder / "nginx.conf"
    main.write_text(_main(folder, site), "utf-8")
    command = [program, "-e", str(folder / "error.log"), "-c", str(main)]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr
    process = subprocess.Popen(command)
    try:
        _wait(process, port)
        trust = ssl.create_default_context(cafile=str(certificate))
        yield Nginx(port, trust, certificate, folder)
    finally:
        process.terminate()
        process.wait(30)


def _certificate(folder: Path) -> Path:
    names = f"subjectAltName=DNS:localhost,DNS:{NAME},IP:127.0.0.1"
    made = folder / "endo-clip.pem"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", f"/CN={NAME}", "-addext", names, "-days", "2"]
    files = ["-keyout", folder / "endo-clip.key", "-out", made]
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *subject, *files],
        check=True,
        capture_output=True,
        timeout=60,
    )
    return made


def _installed(text: str, folder: Path, port: int, service: int) -> str:
    """Change of the configuration what an installation changes, and where it writes."""
    changes = {
        "listen 443 ssl;": f"listen 127.0.0.1:{port} ssl;",
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{service};",
        "/etc/nginx/tls/endo-clip.pem": str(folder / "endo-clip.pem"),
        "/etc/nginx/tls/endo-clip.key": str(folder / "endo-clip.key"),
        "/var/log/nginx/endo-clip.log": str(folder / "access.log"),
        "/var/log/nginx/endo-clip.error.log": str(folder / "errors.log"),
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def _main(folder: Path, site: Path) -> str:
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "\n".join(f"  {kind}_temp_path {folder / 'tmp' / kind};" for kind in kinds)
    # Its workers as the account of the test, so that what is buffered on a disk is seen there.
    return (
        "daemon off;\nmaster_process off;\nworker_processes 1;\n"
        f"pid {folder / 'nginx.pid'};\nevents {{ worker_connections 256; }}\n"
        f"http {{\n{places}\n  include {site};\n}}\n"
    )


def _wait(process: "subprocess.Popen[bytes]", port: int) -> None:
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
            continue
        return
    raise AssertionError("nginx did not start")
