"""Frames are read alike from files and from tar shards."""

import tarfile
from pathlib import Path

import pytest

from training.errors import ArchiveRefused
from training.frame_files import frame_exists, read_frame, shard_of


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    for i in range(3):
        (tmp_path / f"{i}.bin").write_bytes(bytes([i]) * (700 * i + 1))
    with tarfile.open(tmp_path / "000000.tar", "w") as tar:
        for i in range(3):
            tar.add(tmp_path / f"{i}.bin", f"e1/{i:04}.jpg")
    return tmp_path / "000000.tar"


def test_a_member_has_the_bytes_of_its_file(shard: Path) -> None:
    for i in (2, 0, 1):
        frame = shard / f"e1/{i:04}.jpg"
        assert frame_exists(frame)
        assert read_frame(frame) == (shard.parent / f"{i}.bin").read_bytes()
        assert shard_of(frame) == (shard, f"e1/{i:04}.jpg")
    assert read_frame(shard.parent / "1.bin") == bytes([1]) * 701


def test_what_is_not_there_is_said_so(shard: Path) -> None:
    assert not frame_exists(shard / "e1/9999.jpg")
    assert not frame_exists(shard.parent / "none.jpg")
    with pytest.raises(FileNotFoundError, match=r"000000\.tar: holds no member e1/9999\.jpg"):
        read_frame(shard / "e1/9999.jpg")


def test_a_broken_shard_refuses_the_archive(tmp_path: Path) -> None:
    (tmp_path / "000000.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(ArchiveRefused, match=r"000000\.tar"):
        read_frame(tmp_path / "000000.tar" / "e1/0000.jpg")
