"""Heat maps over frames, of answers of the real service."""

import asyncio
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from endo_clip_client import AsyncClient, Client, FrameUnreadable, Heatmap, InvalidRequest
from endo_clip_client.__main__ import main
from endo_clip_client.heatmaps import MEANING, Painter
from PIL import Image

from tests.service.conftest import BLACK, RED, Running, Serve, image

GREY = (100, 100, 100)
CORNER = Heatmap(2, 2, (1.0, 0.0, 0.0, 0.0), "polyp")


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    devices = tmp_path_factory.mktemp("devices") / "devices.json"
    devices.write_text('{"right_half": [0.5, 0.0, 1.0, 1.0]}')
    with serve(devices=devices) as running:
        yield running


def changed(data: bytes, before: tuple[int, int, int]) -> np.ndarray:
    """How far each pixel is from what the frame has there."""
    with Image.open(BytesIO(data)) as picture:
        assert picture.format == "PNG"
        return np.abs(np.asarray(picture, np.int32) - before).sum(axis=2)


def test_the_map_covers_what_the_service_looks_at() -> None:
    frame = image(GREY, (400, 200))
    whole = changed(Painter().paint(frame, CORNER), GREY)
    assert whole.shape == (200, 400)
    assert whole[40, 80] > 100
    assert not whole[180, 380]
    right = changed(Painter(box=(0.5, 0.0, 1.0, 1.0)).paint(frame, CORNER), GREY)
    assert not right[:, :200].any()
    assert right[40, 240] > 100
    middle = changed(Painter("shortest").paint(frame, CORNER), GREY)
    assert not middle[:, :100].any()
    assert not middle[:, 300:].any()
    assert middle[40, 140] > 100


def test_a_faint_map_stays_faint_and_says_what_it_is() -> None:
    frame = image(GREY, (96, 96))
    faint = Painter().paint(frame, Heatmap(1, 1, (0.1,), "polyp"))
    strong = Painter().paint(frame, Heatmap(1, 1, (1.0,), "polyp"))
    assert 0 < changed(faint, GREY).max() < changed(strong, GREY).min() / 4
    with Image.open(BytesIO(faint)) as picture:
        assert picture.info["Description"] == f"polyp: {MEANING}"


def test_the_frame_is_turned_upright() -> None:
    out = BytesIO()
    picture = Image.new("RGB", (200, 100), GREY)
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(out, "JPEG", exif=exif)
    assert changed(Painter().paint(out.getvalue(), CORNER), GREY).shape == (200, 100)


def test_client_lays_an_answers_map_over_its_frame(up: Running) -> None:
    frame = image(RED, (200, 100))
    with Client(f"http://127.0.0.1:{up.port}") as client:
        heat = client.malignancy([frame], explain=True, device="right_half")
        found = heat.patient.frames[0].heatmap
        assert found is not None
        there = changed(client.overlay(frame, found, device="right_half"), RED)
        assert not there[:, :100].any()
        assert there[:, 100:].any()
        with pytest.raises(InvalidRequest, match="right_half"):
            client.overlay(frame, found, device="none")
        with pytest.raises(FrameUnreadable):
            client.overlay(bytes(128) + b"DICM", found)

    async def ask() -> bytes:
        async with AsyncClient(f"http://127.0.0.1:{up.port}") as other:
            return await other.overlay(frame, found, device="right_half")

    assert (changed(asyncio.run(ask()), RED) == there).all()


def test_command_writes_an_overlay_for_each_scored_frame(
    up: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, colour in (("a.png", RED), ("b.png", BLACK)):
        (tmp_path / name).write_bytes(image(colour))
    out = tmp_path / "maps"
    frames = [str(tmp_path / name) for name in ("a.png", "b.png", "a.png")]
    url = f"http://127.0.0.1:{up.port}"
    assert main(["explain", *frames, "--out", str(out), "--url", url]) == 0
    told = capsys.readouterr()
    assert sorted(path.name for path in out.iterdir()) == ["a.2.heat.png", "a.heat.png"]
    assert "b.png: abstained: dark" in told.out
    assert "does not show where a lesion is" in told.err
