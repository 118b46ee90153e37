"""A real server on loopback with the tiny bundle; nothing of ours is replaced by a stand-in."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from model_store.quality import QualityLimits
from service.app import create_app
from service.server import configure
from service.settings import Settings
from tests.tiny_bundle import PINK, RED, build_tiny_bundle
from tests.waiting import PATIENCE_S

ROOT = Path(__file__).parents[2]
BLACK = (4, 4, 4)
# Exactly between the anchors: its probability falls into the balanced point's abstention band.
BETWEEN = (212, 100, 90)


@dataclass(frozen=True)
class Running:
    """A server that answers, and the app behind it."""

    client: httpx.Client
    app: FastAPI
    port: int
    server: uvicorn.Server
    thread: threading.Thread


Serve = Callable[..., AbstractContextManager[Running]]


def image(colour: tuple[int, int, int] = RED, size: tuple[int, int] = (96, 80)) -> bytes:
    """A flat frame as PNG: every form carries the very same pixels."""
    out = BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


def as_form(frames: list[bytes], request: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keyword arguments of httpx for form 1."""
    parts: list[tuple[str, Any]] = [("frames", ("x.bin", data)) for data in frames]
    if request is not None:
        parts.append(("request", (None, json.dumps(request))))
    return {"files": parts}


def b64(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def patient(*frames: bytes, **more: Any) -> dict[str, Any]:
    """A patient of form 2."""
    return {"frames": [{"image": b64(data)} for data in frames], **more}


def problem_of(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that an answer is the problem document it should be, and give it."""
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["code"]) == (status, code), document
    assert response.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["request_id"] == response.headers["x-request-id"]
    assert {"type", "title", "detail"} <= set(document)
    return document


def command(**settings: object) -> dict[str, object]:
    """Keyword arguments of subprocess that start the service with these settings."""
    environment = {key: value for key, value in os.environ.items() if "ENDOCLIP" not in key}
    environment |= {f"ENDOCLIP_{key.upper()}": str(value) for key, value in settings.items()}
    return {
        "args": [sys.executable, "-m", "service"],
        "cwd": ROOT,
        "env": environment,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def refused(**settings: object) -> str:
    """Run a start that must fail; gives its one line."""
    done = subprocess.run(**command(**settings), timeout=PATIENCE_S, check=False)  # type: ignore[call-overload]
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    return str(done.stderr)


def edited(bundle: Path, out: Path, name: str, edit: Any) -> Path:
    """Copy a bundle with one JSON file changed and its digest put right again."""
    shutil.copytree(bundle, out)
    path, manifest_path = out / name, out / "manifest.json"
    document = json.loads(path.read_text())
    edit(document)
    path.write_text(json.dumps(document))
    manifest = json.loads(manifest_path.read_text())
    data = path.read_bytes()
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    manifest["files"][name] = entry
    manifest_path.write_text(json.dumps(manifest))
    return out


@contextmanager
def running(settings: Settings, port: int = 0) -> Iterator[Running]:
    with serving(create_app(settings), port) as up:
        yield up


@contextmanager
def serving(app: FastAPI, port: int = 0) -> Iterator[Running]:
    listener = socket.create_server(("127.0.0.1", port))
    port = listener.getsockname()[1]
    server = uvicorn.Server(configure(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        # The socket listens already; the first request waits in its queue until the app is up.
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield Running(client, app, port, server, thread)
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        listener.close()
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny bundle; its gate sets aside dark frames and nothing else."""
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    return build_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny", quality_gate=gate)


@pytest.fixture(scope="session")
def serve(bundle: Path) -> Serve:
    """Start a server with other settings."""

    def start(**settings: Any) -> AbstractContextManager[Running]:
        return running(Settings(**({"bundle": bundle} | settings)))

    return start


@pytest.fixture(scope="session")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server for all tests that only ask."""
    devices = tmp_path_factory.mktemp("devices") / "devices.json"
    devices.write_text(json.dumps({"left-half": [0.0, 0.0, 0.5, 1.0]}))
    with serve(devices=devices) as up:
        yield up


@pytest.fixture(scope="session")
def client(server: Running) -> httpx.Client:
    return server.client


@pytest.fixture(scope="session")
def red() -> bytes:
    return image(RED)


@pytest.fixture(scope="session")
def pink() -> bytes:
    return image(PINK)
