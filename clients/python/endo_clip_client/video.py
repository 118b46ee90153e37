"""Video in and out through PyAV: a file, a capture device or a network stream; a file with overlay.

Needs PyAV and Pillow: `pip install 'endo-clip-client[watch]'`.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from endo_clip_client.errors import ClientError

__all__ = ["Captured", "Clock", "Player", "Recorder", "SourceFailed"]

_OPEN_S = 20.0
# Of a source that sends nothing; then it is over.
_SILENCE_S = 15.0
_DEVICES = {"/dev/video": "v4l2"}
_FILE_FPS = 25
_MILLISECOND = Fraction(1, 1000)


class SourceFailed(ClientError):
    """A video source cannot be opened or read."""


class Clock:
    """Time of day that a correction of the machine's clock does not move."""

    def __init__(self) -> None:
        self._began, self._from = datetime.now(UTC), time.perf_counter()

    def now(self) -> datetime:
        """Give the time, UTC."""
        return self._began + timedelta(seconds=time.perf_counter() - self._from)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame as the camera gave it: PyAV's, the time, its number."""

    frame: Any
    at: datetime
    number: int


class Player(threading.Thread):
    """Reads a source as fast as it gives frames and holds the newest; a file plays at its own pace.

    Iterating gives each newest frame once and ends with the source.

    Attributes:
        fps: of the source as it says itself, or 25.
        skipped: frames that were not taken before a newer one came.
    """

    def __init__(
        self, source: str, kind: str | None, more: Mapping[str, str], clock: Clock
    ) -> None:
        """Open the source.

        Args:
            source: path, device or URL.
            kind: FFmpeg's name of the input (`v4l2`, `dshow`, `avfoundation`); None: by the source.
            more: FFmpeg's options of that input.
            clock: gives the times of capture.

        Raises:
            SourceFailed: it cannot be opened, or has no video.
        """
        super().__init__(name="endo-clip-player", daemon=True)
        self._av, self._name, self._clock = _pyav(), _without_password(source), clock
        kind = kind or next((k for start, k in _DEVICES.items() if source.startswith(start)), None)
        self._is_file = kind is None and "://" not in source
        options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        if not self._is_file:
            options |= {"fflags": "nobuffer", "flags": "low_delay"}
        try:
            self._container = self._av.open(
                source, format=kind, options=options | dict(more), timeout=(_OPEN_S, _SILENCE_S)
            )
            self._stream = self._container.streams.video[0]
        except IndexError:
            self._container.close()
            raise SourceFailed(f"{self._name}: expected video; found none in it") from None
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SourceFailed(f"{self._name}: {_reason(error)}") from None
        # Threads over whole frames hold as many frames back; slices do not.
        self._stream.thread_type = "AUTO" if self._is_file else "SLICE"
        rate = float(self._stream.average_rate or 0)
        self.fps = rate if 1 <= rate <= 240 else float(_FILE_FPS)
        self.skipped = 0
        self._newest: Captured | None = None
        self._error: Exception | None = None
        self._is_over = False
        self._change = threading.Condition()

    def run(self) -> None:
        """Read until the source ends or `stop`."""
        try:
            self._read()
        except (OSError, ValueError, self._av.FFmpegError) as error:
            if not isinstance(error, self._av.EOFError):
                self._error = SourceFailed(f"{self._name}: {_reason(error)}")
        finally:
            self._container.close()
            self.stop()

    def stop(self) -> None:
        """End; whoever iterates gets what is there and no more."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def __iter__(self) -> Iterator[Captured]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._newest is not None or self._is_over)
                taken, self._newest = self._newest, None
            if taken is None:
                break
            yield taken
        if self._error:
            raise self._error

    def _read(self) -> None:
        began = time.perf_counter()
        first: float | None = None
        for number, frame in enumerate(self._container.decode(self._stream)):
            if self._is_file:
                at = number / self.fps if frame.time is None else frame.time
                first = at if first is None else first
                time.sleep(max(0.0, began + at - first - time.perf_counter()))
            with self._change:
                if self._is_over:
                    return
                self.skipped += self._newest is not None
                self._newest = Captured(frame, self._clock.now(), number)
                self._change.notify_all()


class Recorder:
    """Writes pictures into a video file, each at its time.

    Attributes:
        pictures: how many are in it.
    """

    def __init__(self, path: Path, fps: float) -> None:
        """Make the file; its kind is that of its name (.mp4, .mkv).

        Raises:
            SourceFailed: it cannot be made.
        """
        self._av, self._path, self.pictures = _pyav(), path, 0
        self._first: datetime | None = None
        self._last = -1
        try:
            self._container = self._av.open(str(path), "w")
            self._stream: Any = self._container.add_stream("libx264", rate=round(fps))
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SourceFailed(f"{path}: {_reason(error)}") from None
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "ultrafast", "crf": "20", "tune": "zerolatency"}
        self._stream.codec_context.time_base = self._stream.time_base = _MILLISECOND

    def write(self, picture: Any, at: datetime) -> None:
        """Add a picture of Pillow's; all must have one size, an even one."""
        if self._first is None:
            self._first = at
            self._stream.width, self._stream.height = picture.size
        frame = self._av.VideoFrame.from_image(picture)
        # Two of one millisecond would be refused.
        self._last = max(self._last + 1, round((at - self._first) / timedelta(milliseconds=1)))
        frame.pts, frame.time_base = self._last, _MILLISECOND
        for packet in self._stream.encode(frame):
            self._container.mux(packet)
        self.pictures += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pictures:
            for packet in self._stream.encode(None):
                self._container.mux(packet)
        self._container.close()


def _without_password(source: str) -> str:
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _reason(error: Exception) -> str:
    """Say why in words, without the source: its address may hold a password."""
    return getattr(error, "strerror", None) or type(error).__name__


def _pyav() -> Any:
    try:
        import av
    except ImportError as error:
        raise ClientError(
            "endo-clip-watch needs PyAV\nWhat to do: pip install 'endo-clip-client[watch]'"
        ) from error
    av.logging.set_level(av.logging.PANIC)  # its lines hold the source's address, password and all
    return av
