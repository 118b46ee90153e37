"""The tiny bundle, built once for all tests of this folder."""

from pathlib import Path

import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from tests.tiny_bundle import build_tiny_bundle


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture(scope="session")
def tiny(tiny_path: Path) -> Bundle:
    return Bundle.open(tiny_path)


@pytest.fixture(scope="session")
def encoder(tiny: Bundle) -> Encoder:
    return Encoder(tiny, threads=1)
