"""Frames: a bounded store that decodes ahead; augmentation that says nothing untrue of a row."""

import dataclasses
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from training.batches import Augmentation, FrameStore  # noqa: E402
from training.errors import FrameUnreadable  # noqa: E402
from training.model import load_spec  # noqa: E402

CONTRACT = load_spec("lite0-minilm").contract
LARGE = dataclasses.replace(CONTRACT, size=577)  # a square takes 0.999 MB


def _discs(count: int) -> torch.Tensor:
    y, x = np.mgrid[0:96, 0:96]
    disc = np.hypot(x - 47.5, y - 47.5) < 24
    frame = np.where(disc[..., None], 255, 0).astype(np.uint8).repeat(3, axis=-1)
    return torch.from_numpy(np.stack([frame] * count))


def _areas(keep_shape: bool) -> np.ndarray:
    look = Augmentation.draw(32, np.random.default_rng(0), keep_shape)
    pixels = look.apply(_discs(32), CONTRACT, 96)
    lit = (pixels[:, 0] * CONTRACT.std[0] + CONTRACT.mean[0]) > 0.4
    return lit.float().mean((1, 2)).numpy() * 96 * 96 / (np.pi * 24**2)


def test_sizes_and_shapes_stay_where_texts_state_them() -> None:
    assert np.abs(_areas(True) - 1.0).max() < 0.06
    assert np.ptp(_areas(False)) > 0.3


def test_the_same_generator_gives_the_same_pixels() -> None:
    first, second = (
        Augmentation.draw(4, np.random.default_rng(7), True).apply(_discs(4), CONTRACT, 64)
        for _ in range(2)
    )
    assert torch.equal(first, second)


def test_a_row_looks_the_same_whatever_company_it_is_augmented_in() -> None:
    look = Augmentation.draw(13, np.random.default_rng(3), False)
    assert look.soft.any()
    whole = look.apply(_discs(13), CONTRACT, 64)
    for rows in (range(0, 1), range(1, 6), range(6, 13)):
        part = look.rows(rows).apply(_discs(len(rows)), CONTRACT, 64)
        assert torch.equal(part, whole[rows.start : rows.stop])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for i, path in enumerate(paths):
        Image.new("RGB", (64, 64), (60 * i, 10, 10)).save(path)
    return paths


@pytest.mark.parametrize("workers", [0, 2])
def test_frames_come_in_order_and_none_is_an_empty_batch(files: list[Path], workers: int) -> None:
    store = FrameStore(CONTRACT, workers=workers)
    store.ahead(files[::-1])
    got = store.get([files[2], files[0], files[2]])
    assert got.shape == (3, CONTRACT.size, CONTRACT.size, 3)
    assert got[:, 0, 0, 0].tolist() == [120, 0, 120]
    assert store.get([]).shape == (0, CONTRACT.size, CONTRACT.size, 3)


def test_the_most_recently_used_frames_stay_and_the_rest_is_decoded_again(
    files: list[Path],
) -> None:
    store = FrameStore(LARGE, cache_mb=2)
    store.get(files[:2])
    store.get(files[:1])
    store.get(files[2:3])  # 1 goes: 0 was used after it
    for path in files:
        path.unlink()
    assert store.get([files[0], files[2]])[:, 0, 0, 0].tolist() == [0, 120]
    with pytest.raises(FrameUnreadable):
        store.get([files[1]])


def test_a_store_without_room_gives_frames_all_the_same(files: list[Path]) -> None:
    store = FrameStore(LARGE, cache_mb=0, workers=1)
    store.ahead(files)
    assert store.get(files)[:, 0, 0, 0].tolist() == [0, 60, 120, 180]


def test_workers_decode_ahead_and_their_errors_come_out_where_the_frame_is_asked_for(
    files: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "text.jpg").write_text("no image", "utf-8")
    store = FrameStore(CONTRACT, workers=2)
    store.ahead([*files, tmp_path / "text.jpg"])
    assert any(thread.name.startswith("decode") for thread in threading.enumerate())
    assert len(store.get(files)) == 4  # the neighbours are not concerned
    with pytest.raises(FrameUnreadable, match=r"text\.jpg: .*format"):
        store.get([tmp_path / "text.jpg"])
    (tmp_path / "text.jpg").unlink()
    with pytest.raises(FrameUnreadable, match="No such file") as error:
        store.get([tmp_path / "text.jpg"])
    assert str(tmp_path.parent) not in str(error.value)  # a log may be read by anyone
