"""One cluster of two nodes for all tests here, and what tests of the single process ask for.

The tests are those of the single process wherever there are some: they are imported, and run as
they are against the cluster's address. A fixture says which bundle they are of; where it is not the
one that is served, the cluster is brought to it as an operator would, by its configuration.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from bench.cluster import Clustered, clustered, missing
from bench.reference import Reference
from service.settings import newest_bundle
from tests.service.conftest import bundle, pink, red

__all__ = ["bundle", "pink", "red"]


@dataclass(frozen=True)
class Answering:
    """As `tests.service.conftest.Running`, as far as that looks from outside."""

    client: httpx.Client
    port: int


def digest_of(folder: Path) -> str:
    return f"sha256:{hashlib.sha256((folder / 'manifest.json').read_bytes()).hexdigest()}"


@pytest.fixture(scope="session")
def cluster(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    """The application on two nodes, an ingress and an encoder on each; serves the tiny bundle."""
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "devices.json").write_text(json.dumps({"left-half": [0.0, 0.0, 0.5, 1.0]}))
    shutil.copytree(newest_bundle(), folder / "bundles" / "shipped")
    with clustered(
        bundle=bundle,
        bundles=folder / "bundles",
        devices=folder / "devices.json",
        exam_store=folder / "exams.sqlite3",
        client_patience_s=2.0,
        health_interval_s=5.0,
        max_queue_s=3600,
        max_pending_frames=100_000,
    ) as up:
        yield up


def figures(cluster: Clustered) -> list[str]:
    """What Prometheus would scrape from the agents of all nodes."""
    texts = [httpx.get(url, timeout=30).text for url in cluster.agents]
    return [line for text in texts for line in text.splitlines()]


def brought_to(cluster: Clustered, wanted: str) -> Clustered:
    served = httpx.get(f"{cluster.url}/v1/models", timeout=60).json()["models"][0]["digest"]
    if served != wanted:
        cluster.deploy(bundle=wanted)
    return cluster


@pytest.fixture(scope="module")
def shipped(cluster: Clustered) -> Clustered:
    """The cluster with the shipped bundle."""
    return brought_to(cluster, digest_of(newest_bundle()))


@pytest.fixture(scope="module")
def server(cluster: Clustered, bundle: Path) -> Iterator[Answering]:
    """The cluster with the tiny bundle."""
    brought_to(cluster, digest_of(bundle))
    with httpx.Client(base_url=cluster.url, timeout=60) as client:
        yield Answering(client, cluster.port)


@pytest.fixture(scope="module")
def up(server: Answering) -> Answering:
    return server


@pytest.fixture(scope="module")
def client(server: Answering) -> httpx.Client:
    return server.client


@pytest.fixture(scope="session")
def reference() -> Reference:
    return Reference()
