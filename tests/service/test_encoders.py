"""An encoder replica without its cluster: bundles by digest, and when it is of no use."""

import asyncio
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleCorrupt, BundleNotFound
from service.bundles import find_digest, look
from service.cluster.encoders import Encoded, Encoders
from service.errors import NotReady
from service.settings import Settings
from service.towers import Kind
from tests.service.conftest import edited

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(scope="module")
def folder(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three bundles that differ by a word of their cards, each of another digest."""
    root = tmp_path_factory.mktemp("held") / "bundles"
    for number in (1, 2):
        edited(
            bundle,
            root / f"b{number}",
            "label_sets.json",
            lambda document, n=number: document["polyp_detection"]["labels"][0].update(
                definition=f"the {n}th"
            ),
        )
    return root


def digests(folder: Path) -> list[str]:
    return [look(path).digest for path in sorted(folder.iterdir())]


def run(steps: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(steps)


def pixels(bundle: Path) -> Any:
    size = Bundle.open(bundle).manifest.input.size
    return np.full((size, size, 3), (200, 90, 80), np.uint8)


def test_item_is_encoded_by_the_bundle_that_is_asked_for(bundle: Path, folder: Path) -> None:
    wanted = Encoder(Bundle.open(bundle), threads=1).encode_images(pixels(bundle)[None])[0]

    async def steps() -> Encoded:
        encoders = Encoders(Settings(bundle=bundle, bundles=folder), cores=2)
        assert not encoders.ready
        try:
            return await encoders.encode(look(bundle).digest, Kind.FRAMES, pixels(bundle))
        finally:
            assert encoders.ready
            assert b"endoclip_encode_workers 2.0" in encoders.exposition()
            await encoders.stop()

    encoded = run(steps())
    assert (encoded.provider, encoded.failed) == ("CPUExecutionProvider", "")
    assert np.abs(encoded.result - wanted).max() < 1e-6


def test_bundle_that_is_not_on_the_machine_is_another_replicas(bundle: Path) -> None:
    async def steps() -> Encoded:
        encoders = Encoders(Settings(bundle=bundle), cores=1)
        with pytest.raises(BundleNotFound):
            await encoders.open(ABSENT)
        return await encoders.encode(ABSENT, Kind.FRAMES, pixels(bundle))

    encoded = run(steps())
    assert encoded.unavailable
    assert encoded.result is None


def test_bundle_that_was_tampered_with_is_not_served(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "bad")
    (tmp_path / "bad" / "card.json").write_text("{}")
    settings = Settings(bundle=tmp_path / "bad")
    with pytest.raises(BundleCorrupt):
        run(Encoders(settings, cores=1).open(look(bundle).digest))


def test_the_two_latest_bundles_are_held_and_an_older_one_is_opened_again(
    bundle: Path, folder: Path
) -> None:
    names = [look(bundle).digest, *digests(folder)]
    assert len(set(names)) == 3

    async def steps() -> None:
        encoders = Encoders(Settings(bundle=bundle, bundles=folder), cores=1)
        for name in names:
            await encoders.open(name)
        assert list(encoders._held) == names[1:]
        assert not (await encoders.encode(names[0], Kind.TEXTS, "a polyp")).failed
        assert list(encoders._held) == [names[2], names[0]]
        await encoders.stop()

    run(steps())


def test_bundle_asked_for_by_many_at_once_is_opened_once(bundle: Path) -> None:
    async def steps() -> int:
        encoders = Encoders(Settings(bundle=bundle), cores=1)
        name = look(bundle).digest
        asked = [encoders.encode(name, Kind.FRAMES, pixels(bundle)) for _ in range(8)]
        waiting = [asyncio.ensure_future(one) for one in asked]
        await asyncio.sleep(0)
        opening = len(encoders._opening)
        waiting[0].cancel()  # whoever leaves stops nothing for the others
        done = await asyncio.gather(*waiting[1:])
        assert all(one.result is not None for one in done)
        await encoders.stop()
        return opening

    assert run(steps()) == 1


def test_worker_that_has_died_is_told_to_the_cluster(bundle: Path) -> None:
    async def steps() -> None:
        encoders = Encoders(Settings(bundle=bundle), cores=1)
        await encoders.open(look(bundle).digest)
        encoders.check()
        await encoders.stop()
        with pytest.raises(NotReady) as caught:
            encoders.check()
        assert caught.value.reason == "worker_dead"

    run(steps())


def test_graph_that_fails_fails_its_caller_and_is_no_reason_to_ask_another(bundle: Path) -> None:
    async def steps() -> Encoded:
        encoders = Encoders(Settings(bundle=bundle), cores=1)
        wrong = np.zeros((3, 3, 3), np.uint8)
        encoded = await encoders.encode(look(bundle).digest, Kind.FRAMES, wrong)
        await encoders.stop()
        return encoded

    encoded = run(steps())
    assert encoded.failed
    assert not encoded.unavailable


def test_bundles_are_found_by_digest_wherever_they_are(bundle: Path, folder: Path) -> None:
    assert find_digest(bundle, folder, look(bundle).digest) == bundle
    assert find_digest(bundle, folder, digests(folder)[1]) == folder / "b2"
    with pytest.raises(BundleNotFound):
        find_digest(bundle, None, digests(folder)[0])
