"""Live sources that die and come back: MPEG-TS over TCP, one broadcast for each connection."""

import io
import socket
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import av
from PIL import Image

__all__ = ["Broadcast", "transport_stream"]

FPS = 25
_PACKET = 188


class Broadcast:
    """A port that sends one recording after another, a connection each, at their own pace.

    After the last one nobody listens. `None` is a source that is open and silent.
    """

    def __init__(self, *recordings: bytes | None, seconds: float = 3.0) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._recordings, self._seconds = recordings, seconds
        self._silent: list[socket.socket] = []
        self.asked = 0
        self.port: int = self._listener.getsockname()[1]
        self.url = f"tcp://user:secret@127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Take it away."""
        self._listener.close()
        for one in self._silent:
            one.close()

    def _serve(self) -> None:
        for recording in self._recordings:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.asked += 1
            if recording is None:
                self._silent.append(connection)
                continue
            with connection, suppress(OSError):
                self._send(connection, recording)
                # A camera that loses power says no goodbye: the other end sees a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if None not in self._recordings:
            self._listener.close()

    def _send(self, connection: socket.socket, recording: bytes) -> None:
        packets = len(recording) // _PACKET
        began = time.monotonic()
        for number in range(packets):
            connection.sendall(recording[number * _PACKET : (number + 1) * _PACKET])
            ahead = began + self._seconds * number / packets - time.monotonic()
            if ahead > 0.01:
                time.sleep(ahead)


def transport_stream(
    colours: Sequence[tuple[int, int, int]], *, size: tuple[int, int] = (192, 160)
) -> bytes:
    """Draw an MPEG-TS recording: one frame of each colour, 25 a second."""
    out = io.BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        stream: Any = container.add_stream("mpeg2video", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, colour in enumerate(colours):
            frame = av.VideoFrame.from_image(Image.new("RGB", size, colour))
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
