"""The shipped bundle behind a real process of the service, and what its frames score alone."""

from collections.abc import Iterator

import pytest

from bench.reference import Reference
from bench.served import Served, served


@pytest.fixture(scope="session")
def shipped() -> Iterator[Served]:
    """One process for all tests that only ask; slow clients are given up on after two seconds."""
    with served(client_patience_s=2.0) as up:
        yield up


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()
