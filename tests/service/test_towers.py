"""The seam between an engine and the towers: with them elsewhere, everything is answered alike."""

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import EncodeFailed
from service.app import create_app
from service.metrics import Metrics
from service.settings import Settings
from service.towers import Kind, Towers, Worker
from tests.service.conftest import BLACK, Running, as_form, image, serving
from tests.service.test_health import becomes
from tests.tiny_bundle import PINK


class Elsewhere(Towers):
    """Towers with an encoder of their own, which can be out of reach."""

    def __init__(self, bundle: Bundle) -> None:
        self.reachable = True
        super().__init__(Encoder(bundle, threads=1), Metrics([]), 4)

    def submit(self, kind: str, value: Any) -> "Future[Any]":
        if not self.reachable:
            raise EncodeFailed("out of reach")
        return super().submit(kind, value)


@contextmanager
def apart(bundle: Path, *, reachable: bool = True) -> Iterator[tuple[Running, list[Elsewhere]]]:
    made: list[Elsewhere] = []

    def remote(opened: Bundle) -> Worker:
        worker = Elsewhere(opened)
        worker.reachable = reachable
        made.append(worker)
        return worker

    settings = Settings(bundle=bundle, health_interval_s=0.2)
    with serving(create_app(settings, remote)) as up:
        yield up, made


def answered(client: httpx.Client, path: str, **request: Any) -> dict[str, Any]:
    document: dict[str, Any] = client.post(path, **request).raise_for_status().json()
    del document["request_id"]
    return document


@pytest.mark.parametrize(
    ("path", "request_part"),
    [
        ("/v1/polyp-detection", {"explain": True}),
        ("/v1/malignancy", None),
        ("/v1/zero-shot", {"labels": "polyp_detection"}),
        (
            "/v1/zero-shot",
            {"labels": [{"label": one, "prompts": [f"a {one}"]} for one in ("polyp", "fold")]},
        ),
        ("/v1/embeddings", {"texts": ["a polyp", "a fold"]}),
    ],
)
def test_towers_elsewhere_change_no_answer(bundle, client, path, request_part):
    frames = [image(), image(PINK), image(BLACK), b"no image"]
    form = as_form(frames, request_part)
    with apart(bundle) as (up, _):
        assert answered(up.client, path, **form) == answered(client, path, **form)


def test_an_engine_without_towers_loads_none(bundle):
    with apart(bundle) as (up, _):
        assert not isinstance(up.app.state.engine.encoder, Encoder)


def test_readiness_follows_towers_that_come_and_go(bundle):
    with apart(bundle, reachable=False) as (up, made):
        found = up.client.get("/readyz")
        assert (found.status_code, found.json()["reason"]) == (503, "self_test_failed")
        made[0].reachable = True
        becomes(up.client, 200)
        made[0].reachable = False
        becomes(up.client, 503)
        assert up.client.post("/v1/polyp-detection", **as_form([image()])).status_code == 503
        made[0].reachable = True
        becomes(up.client, 200)


def test_every_kind_of_item_has_a_lane(bundle):
    towers = Towers(Encoder(Bundle.open(bundle), threads=1), Metrics([]), 4)
    assert set(towers._lanes) == set(Kind)
