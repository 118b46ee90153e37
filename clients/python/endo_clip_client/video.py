"""Video in and out: a source's newest frame, and a file of pictures.

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

from endo_clip_client.sources import Input, Source, SourceFailed, SourceLost, pyav, reason_of

__all__ = ["Captured", "Clock", "Player", "Quiet", "Recorder"]

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 5.0
# So often whoever iterates hears of a source that gives nothing, once it is quiet.
_TICK_S, _QUIET_S = 0.25, 2.0
_MILLISECOND = Fraction(1, 1000)


class Clock:
    """Time of day that a correction of the machine's clock does not move."""

    def __init__(self) -> None:
        self._began, self._from = datetime.now(UTC), time.perf_counter()

    def now(self) -> datetime:
        """Give the time, UTC."""
        return self._began + timedelta(seconds=time.perf_counter() - self._from)


@dataclass(frozen=True, slots=True)
class Captured:
    """A frame as the camera gave it: PyAV's, the time, its number since the first opening."""

    frame: Any
    at: datetime
    number: int


@dataclass(frozen=True, slots=True)
class Quiet:
    """No frame for a while.

    Attributes:
        for_s: seconds since the last one, or since the source was opened.
        reason: why the source is gone and is being opened again; None: it is open.
    """

    for_s: float
    reason: str | None


class Player(threading.Thread):
    """Reads a source as fast as it gives frames and holds the newest.

    Iterating gives each newest frame once, and `Quiet` four times a second while there is none for
    long. A recording plays at its own pace and ends. A device or a broadcast that drops is opened
    again, with growing pauses, and its frames are counted on.

    Attributes:
        fps: of the source as it says itself, or 25; from `open` on.
        skipped: frames that were not taken before a newer one came.
        reopened: how often the source was to be had again.
    """

    def __init__(
        self,
        source: str,
        kind: str | None,
        more: Mapping[str, str],
        clock: Clock,
        reopen_s: float = 0.0,
    ) -> None:
        """Say what is read; nothing is opened yet.

        Args:
            source: path, device or URL.
            kind: FFmpeg's name of the input (`v4l2`, `dshow`, `avfoundation`); None: by the source.
            more: FFmpeg's options of that input.
            clock: gives the times of capture.
            reopen_s: seconds since its last frame after which a source that is gone is given up;
                0: it is not opened again, and its end is the end.

        Raises:
            ClientError: PyAV is not installed.
        """
        super().__init__(name="endo-clip-player", daemon=True)
        self._source, self._clock, self._reopen_s = Source(source, kind, more), clock, reopen_s
        self.fps = 0.0
        self.skipped = self.reopened = 0
        self._number = 0
        self._newest: Captured | None = None
        self._last_s, self._pause_s = 0.0, _FIRST_PAUSE_S
        self._away: str | None = None
        self._error: SourceFailed | None = None
        self._is_open = self._is_wanted = self._is_over = False
        self._change = threading.Condition()

    def open(self) -> None:
        """Open the source, in the player's thread: an interrupt is heard meanwhile.

        Raises:
            SourceFailed: it cannot be opened, or has no video.
        """
        self.start()
        with self._change:
            self._change.wait_for(lambda: self._is_open or self._is_over)
        if self._error:
            raise self._error

    def play(self) -> None:
        """Begin to read."""
        with self._change:
            self._is_wanted, self._last_s = True, time.monotonic()
            self._change.notify_all()

    def stop(self) -> None:
        """End; whoever iterates gets what is there and no more."""
        with self._change:
            self._is_over = True
            self._change.notify_all()

    def run(self) -> None:
        """Open, and read until the source ends or `stop`."""
        try:
            self._run()
        except SourceFailed as error:
            self._error = error
        finally:
            self.stop()

    def __iter__(self) -> Iterator[Captured | Quiet]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._newest is not None or self._is_over, _TICK_S)
                taken, self._newest = self._newest, None
                quiet = Quiet(time.monotonic() - self._last_s, self._away)
                is_over = self._is_over
            if taken is not None:
                yield taken
            elif is_over:
                break
            elif quiet.reason is not None or quiet.for_s > _QUIET_S:
                yield quiet
        if self._error:
            raise self._error

    def _run(self) -> None:
        opened = self._source.open()
        with self._change:
            self.fps, self._is_open = opened.fps, True
            self._change.notify_all()
            self._change.wait_for(lambda: self._is_wanted or self._is_over)
        while True:
            why = self._read(opened)
            if why is None or self._is_over:
                return
            again = self._open_again(why)
            if again is None:
                return
            opened = again

    def _read(self, opened: Input) -> str | None:
        """Read until the end; gives why a source that should go on does not.

        Raises:
            SourceFailed: it cannot be read, and is not to be opened again.
        """
        may_return = not opened.ends and self._reopen_s > 0
        try:
            self._take_all(opened)
        except SourceFailed as error:
            if not may_return:
                raise SourceFailed(f"{self._source.name}: {error}") from None
            return str(error)
        finally:
            opened.close()
        return "its end" if may_return else None

    def _take_all(self, opened: Input) -> None:
        began = time.perf_counter()
        first: float | None = None
        for number, frame in enumerate(opened.frames()):
            if opened.ends:
                at = number / opened.fps if frame.time is None else frame.time
                first = at if first is None else first
                time.sleep(max(0.0, began + at - first - time.perf_counter()))
            with self._change:
                if self._is_over:
                    return
                self.skipped += self._newest is not None
                self._newest = Captured(frame, self._clock.now(), self._number)
                self._number += 1
                self.reopened += self._away is not None
                self._last_s, self._pause_s, self._away = time.monotonic(), _FIRST_PAUSE_S, None
                self._change.notify_all()

    def _open_again(self, why: str) -> Input | None:
        """Try until there is one; None: it was stopped.

        Raises:
            SourceLost: there was none in time.
        """
        until = self._last_s + self._reopen_s
        while (left_s := until - time.monotonic()) > 0:
            with self._change:
                self._away = why
                self._change.wait_for(lambda: self._is_over, min(self._pause_s, left_s))
                if self._is_over:
                    return None
            # Only a frame says that it is back: one that opens and gives none is asked less often.
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
            try:
                return self._source.open(max(1.0, until - time.monotonic()))
            except SourceFailed as error:
                why = str(error).removeprefix(f"{self._source.name}: ")
        raise SourceLost(
            f"{self._source.name}: gone, and not to be had again in {self._reopen_s:g} s ({why})"
        )


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
        self._av, self._path, self.pictures = pyav(), path, 0
        self._first: datetime | None = None
        self._last = -1
        try:
            self._container = self._av.open(str(path), "w")
            self._stream: Any = self._container.add_stream("libx264", rate=round(fps))
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SourceFailed(f"{path}: {reason_of(error)}") from None
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = {"preset": "ultrafast", "crf": "20", "tune": "zerolatency"}
        self._stream.codec_context.time_base = self._stream.time_base = _MILLISECOND

    def write(self, picture: Any, at: datetime) -> None:
        """Add a picture of Pillow's; the first one's size, an even one, is that of all."""
        if self._first is None:
            self._first = at
            self._stream.width, self._stream.height = picture.size
        size = (self._stream.width, self._stream.height)
        if picture.size != size:  # a source that comes back may be another
            picture = _fitted(picture, size)
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


def _fitted(picture: Any, size: tuple[int, int]) -> Any:
    from PIL import ImageOps

    return ImageOps.pad(picture, size)
