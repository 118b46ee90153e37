"""What every test gets: no network but loopback, a state folder, an environment put back."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest


class NetworkUsed(AssertionError):
    """A test reached for an address outside this machine."""


def is_local(address: object) -> bool:
    """Whether an address stays on this machine: a Unix path, ``localhost`` or a loopback IP."""
    if isinstance(address, (str, bytes)):
        return True  # Unix domain socket
    host = str(address[0]) if isinstance(address, tuple) and address else ""
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False  # any other name would have to be resolved


def pytest_configure() -> None:
    """Let Ctrl-C work in tests that send it, also where a shell started them in the background."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def no_network() -> Iterator[None]:
    """Let ``connect`` and ``connect_ex`` fail for any address that is not on this machine."""
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        original = getattr(socket.socket, name)

        def guarded(self: socket.socket, address: Any, _original: Any = original) -> Any:
            if not is_local(address):
                raise NetworkUsed(f"expected no network, got a connection to {address!r}")
            return _original(self, address)

        patch.setattr(socket.socket, name, guarded)
    yield
    patch.undo()


@pytest.fixture(autouse=True, scope="session")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep services that tests start off the exams of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def environment_restored() -> Iterator[None]:
    """Put ``os.environ`` and the working directory back; start without any ENDOCLIP_* setting."""
    before, folder = dict(os.environ), os.getcwd()  # noqa: PTH109 (restored with chdir)
    for key in [key for key in os.environ if key.startswith("ENDOCLIP_")]:
        del os.environ[key]
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)
