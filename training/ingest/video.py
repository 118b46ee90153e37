"""Pictures of a video at a chosen rate, through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from model_store.images import ImageLimits
from training.ingest.ledger import Reason
from training.ingest.raw import RawFrame, Trouble

__all__ = ["video_frames"]

_LIMITS = ImageLimits()


def video_frames(
    source: Path | BinaryIO, name: str, fps: float, device: str = "", burned_in: bool = False
) -> Iterator[RawFrame | Trouble]:
    """Sample a video: the first picture at or after 0, 1/fps, 2/fps, ... seconds.

    Metadata of the container is not read. Damaged stretches are stepped over and named once.

    Args:
        source: File, or an open one with ``read`` and ``seek``.
        name: Its path below the exam's folder; pictures are ``<name>#<n>``.
        fps: Pictures a second.
        device: As ``RawFrame.device``.
        burned_in: As ``RawFrame.burned_in``.
    """
    import av

    # None: libav's messages quote metadata, and with any level a thread that decodes waits for the
    # interpreter's lock to log an error, which whoever closes the file holds (PyAV's issue 751).
    av.logging.set_level(None)
    taken = 0
    try:
        with av.open(str(source) if isinstance(source, Path) else source) as container:
            if not container.streams.video:
                yield Trouble(name, Reason.VIDEO_UNREADABLE)
                return
            damage: list[bool] = []
            for picture in _sampled(container, fps, damage):
                yield RawFrame(f"{name}#{taken}", picture, device, burned_in)
                taken += 1
            if damage:
                yield Trouble(name, Reason.VIDEO_DAMAGED)
    # libav's errors are OSError, ValueError and its own, by what the bytes happen to be.
    except (av.FFmpegError, OSError, ValueError, MemoryError, OverflowError):
        yield Trouble(name, Reason.VIDEO_DAMAGED if taken else Reason.VIDEO_UNREADABLE)
        return
    if not taken:
        yield Trouble(name, Reason.VIDEO_UNREADABLE)


def _sampled(container: Any, fps: float, damage: list[bool]) -> Iterator[Image.Image]:
    stream = container.streams.video[0]
    rate = float(stream.average_rate or stream.guessed_rate or 25)
    start, due, index = None, 0.0, -1
    for frame in _decoded(container, stream, damage):
        index += 1
        time = frame.time if frame.time is not None else index / rate
        start = time if start is None else start
        # Half a millisecond: time stamps are rounded to the container's clock.
        if time - start + 5e-4 < due:
            continue
        due = max(due, (int((time - start + 5e-4) * fps) + 1) / fps)
        if frame.width * frame.height > _LIMITS.max_pixels:
            raise ValueError("more pixels than a frame may have")
        yield frame.to_image()


def _decoded(container: Any, stream: Any, damage: list[bool]) -> Iterator[Any]:
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, EOFError):
            damage.append(True)
            return
        try:
            yield from packet.decode()
        except av.FFmpegError:
            damage.append(True)
