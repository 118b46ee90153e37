"""Where video comes from, through PyAV: a file, a capture device or a network address.

Needs PyAV: `pip install 'endo-clip-client[watch]'`.
"""

import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from endo_clip_client.errors import ClientError

__all__ = ["Input", "Source", "SourceFailed", "SourceLost", "pyav", "reason_of"]

_OPEN_S = 20.0
# Of a source that gives no picture; then it counts as gone.
_SILENCE_S = 15.0
_DEVICES = {"/dev/video": "v4l2", "/dev/v4l/": "v4l2"}
_FILE_FPS = 25
# Not of the system: PyAV's name for a time that has run out.
_TIMED_OUT = "Immediate exit requested"


class SourceFailed(ClientError):
    """A video source cannot be opened or read."""


class SourceLost(SourceFailed):
    """A video source was there, is gone, and was not to be had again in the time for it."""


class Source:
    """A file, a device or an address, opened as often as it takes.

    Attributes:
        name: as it may be shown: without a password.
        kind: FFmpeg's name of the input; None: FFmpeg looks at what is in it.
    """

    def __init__(self, source: str, kind: str | None, more: Mapping[str, str]) -> None:
        """Say where it is; nothing is opened yet.

        Args:
            source: path, device or URL.
            kind: FFmpeg's name of the input (`v4l2`, `dshow`, `avfoundation`); None: by the source.
            more: FFmpeg's options of that input.

        Raises:
            ClientError: PyAV is not installed.
        """
        self._av, self._source, self.name = pyav(), source, _without_password(source)
        self.kind = kind or next(
            (of for start, of in _DEVICES.items() if source.startswith(start)), None
        )
        local = "://" not in source or source.startswith("file:")
        self._is_file = self.kind is None and local
        self._options = {"rtsp_transport": "tcp"} if source.startswith("rtsp") else {}
        self._options |= more

    def open(self, within_s: float = _OPEN_S) -> "Input":
        """Open it; each attempt takes `within_s` and never more than 20 s.

        Raises:
            SourceFailed: it cannot be opened, or has no video.
        """
        if self._is_file:
            return Input(self._av, self._container(within_s), ends=True)
        container = self._container(within_s, fflags="nobuffer", flags="low_delay")
        if not container.duration:
            return Input(self._av, container, ends=False)
        # A recording elsewhere. What was looked at to open it is its beginning, and is gone.
        container.close()
        return Input(self._av, self._container(within_s), ends=True)

    def _container(self, within_s: float, **live: str) -> Any:
        timeouts = (min(_OPEN_S, within_s), _SILENCE_S)
        try:
            container = self._av.open(
                self._source, format=self.kind, options=live | self._options, timeout=timeouts
            )
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SourceFailed(f"{self.name}: {reason_of(error)}") from None
        if not container.streams.video:
            container.close()
            raise SourceFailed(f"{self.name}: expected video; found none in it")
        return container


class Input:
    """An open source.

    Attributes:
        fps: as the source says itself, or 25.
        ends: whether it is a recording, a file here or elsewhere: its end is no failure.
    """

    def __init__(self, av: Any, container: Any, *, ends: bool) -> None:
        self._av, self._container, self.ends = av, container, ends
        self._stream = container.streams.video[0]
        # Threads over whole frames hold as many frames back; slices do not.
        self._stream.thread_type = "AUTO" if ends else "SLICE"
        rate = float(self._stream.average_rate or 0)
        self.fps = rate if 1 <= rate <= 240 else float(_FILE_FPS)

    def frames(self) -> Iterator[Any]:
        """Give its frames, PyAV's, as they come, until it ends.

        What cannot be decoded is passed over: a capture card gives half a JPEG now and then.

        Raises:
            SourceFailed: it cannot be read further, or gives nothing for 15 s; why, in words.
        """
        since = time.monotonic()
        try:
            for packet in self._container.demux(self._stream):
                try:
                    decoded = packet.decode()
                except self._av.InvalidDataError:
                    if not self.ends and time.monotonic() - since > _SILENCE_S:
                        raise
                    continue
                for frame in decoded:
                    since = time.monotonic()
                    yield frame
        except self._av.EOFError:
            return
        except (OSError, ValueError, self._av.FFmpegError) as error:
            raise SourceFailed(reason_of(error)) from None

    def close(self) -> None:
        """Close it."""
        self._container.close()


def pyav() -> Any:
    """Give PyAV, silent.

    Raises:
        ClientError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise ClientError(
            "endo-clip-watch needs PyAV\nWhat to do: pip install 'endo-clip-client[watch]'"
        ) from error
    # None says nothing at all: lines hold the source's address, password and all. Any level, be it
    # PANIC, takes the interpreter's lock for each error that FFmpeg logs, and a decoder's thread
    # that waits for it while another closes the source never ends (PyAV's issue 751).
    av.logging.set_level(None)
    return av


def reason_of(error: Exception) -> str:
    """Say why in words, without the source: its address may hold a password."""
    why = getattr(error, "strerror", None) or type(error).__name__
    return "nothing came in time" if why == _TIMED_OUT else why


def _without_password(source: str) -> str:
    if "://" not in source:
        return source
    parts = urlsplit(source)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
