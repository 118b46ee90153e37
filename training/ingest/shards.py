"""Frames in WebDataset shards: plain tar files whose members are ``<record_id>/NNNN.jpg``."""

from __future__ import annotations

import tarfile
from pathlib import Path

__all__ = ["SHARD_BYTES", "SHARD_FRAMES", "ShardPacker"]

SHARD_FRAMES = 1000
SHARD_BYTES = 256 * 1024 * 1024


class ShardPacker:
    """Packs frames in the order in which they are added; the same frames give the same bytes.

    A shard is written beside its place and renamed, then its frames are deleted from where they
    waited, so a packing that was cut off is taken up again by adding the same frames.
    """

    def __init__(self, waiting: Path, shards: Path) -> None:
        """Pack.

        Args:
            waiting: Folder of ``<record_id>/NNNN.jpg``.
            shards: Folder of ``NNNNNN.tar``.
        """
        self._waiting = waiting
        self._shards = shards
        self._members: list[str] = []
        self._bytes = 0
        self._number = 0
        shards.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, size: int) -> int:
        """Add a frame.

        Args:
            name: ``<record_id>/NNNN.jpg``.
            size: Bytes of the file, which may be packed already.

        Returns:
            Number of the shard it goes to.
        """
        if self._members and (
            len(self._members) >= SHARD_FRAMES or self._bytes + size > SHARD_BYTES
        ):
            self.flush()
        self._members.append(name)
        self._bytes += size
        return self._number

    def flush(self) -> None:
        """Write the shard that is open, unless it is there already."""
        if not self._members:
            return
        shard = self._shards / f"{self._number:06d}.tar"
        if not shard.exists():
            partial = shard.with_suffix(".partial")
            with tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar:
                for name in self._members:
                    self._put(tar, name)
            partial.replace(shard)
        for name in self._members:
            (self._waiting / name).unlink(missing_ok=True)
        self._members, self._bytes, self._number = [], 0, self._number + 1

    def _put(self, tar: tarfile.TarFile, name: str) -> None:
        path = self._waiting / name
        member = tarfile.TarInfo(name)  # no owner, no time: nothing of the machine or the day
        member.size = path.stat().st_size
        member.mode = 0o644
        with path.open("rb") as file:
            tar.addfile(member, file)
