"""Reads `multipart/form-data` as it streams in, into memory that is bounded, never onto disk.

Starlette's own form parser spools large parts into temporary files; patient images do not belong
there. Frames are kept up to the frame limit and counted beyond it; a part too many, or a field too
long, ends the request before the rest of it is read.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, MultipartState, parse_options_header

from service.errors import InvalidRequest, MalformedRequest, PayloadTooLarge

__all__ = ["FrameBytes", "MultipartForm", "read_multipart"]

# 256 texts or 32 x 16 prompts of 512 characters, each written as a six-character \u escape, and
# the ids of the largest number of frames: well under this.
_MAX_REQUEST_BYTES = 4 * 1024 * 1024


@dataclass(slots=True)
class FrameBytes:
    """The file of one frame as it came in.

    Attributes:
        data: its bytes; nothing when it was longer than the limit.
        length: how many bytes came in.
    """

    data: bytearray = field(default_factory=bytearray)
    length: int = 0

    def add(self, chunk: bytes | memoryview, limit: int) -> None:
        """Take in a further chunk; beyond `limit` bytes nothing is kept."""
        self.length += len(chunk)
        if self.length <= limit:
            self.data += chunk
        elif self.data:
            self.data = bytearray()


@dataclass(slots=True)
class MultipartForm:
    """The parts of a request of form 1.

    Attributes:
        frames: the parts named `frames`, in order.
        request: the JSON text of the part `request`, or None.
    """

    frames: list[FrameBytes] = field(default_factory=list)
    request: bytearray | None = None


async def read_multipart(
    chunks: AsyncIterator[bytes], content_type: str, *, max_frames: int, max_frame_bytes: int
) -> MultipartForm:
    """Read a form from a stream of body chunks.

    Args:
        chunks: the body.
        content_type: the header's value, with the boundary.
        max_frames: parts named `frames`, at most.
        max_frame_bytes: bytes of a frame that are kept.

    Returns:
        The form.

    Raises:
        MalformedRequest: no boundary, not a multipart body, or one that ends early.
        InvalidRequest: a part of an unknown name, or a second `request`.
        PayloadTooLarge: too many frames, or a `request` part that is too long.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise MalformedRequest("multipart/form-data needs a boundary in Content-Type.")
    reader = _Reader(max_frames, max_frame_bytes)
    try:
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": reader.begin_part,
                "on_header_field": reader.add_header_name,
                "on_header_value": reader.add_header_value,
                "on_header_end": reader.end_header,
                "on_headers_finished": reader.end_headers,
                "on_part_data": reader.add_data,
            },
        )
        async for chunk in _without_preamble(chunks, b"--" + boundary):
            # What follows the closing boundary is ignored (RFC 2046), but still counted and read.
            if chunk and parser.state != MultipartState.END:
                parser.write(chunk)
    except FormParserError as error:
        raise MalformedRequest("The body is not well-formed multipart/form-data.") from error
    if parser.state != MultipartState.END:
        raise MalformedRequest("The multipart body ends before its closing boundary.")
    return reader.form


async def _without_preamble(chunks: AsyncIterator[bytes], delimiter: bytes) -> AsyncIterator[bytes]:
    """Give the body from its first delimiter on; what stands before it is ignored (RFC 2046)."""
    # A delimiter begins a line; so does the body.
    wanted, head, begun = b"\r\n" + delimiter, b"\r\n", False
    async for chunk in chunks:
        if begun:
            yield chunk
            continue
        head += chunk
        at = head.find(wanted)
        begun = at >= 0
        if begun:
            yield head[at + 2 :]
        head = head[-len(wanted) :]


class _Reader:
    """Callbacks of the parser; holds the form and the part that is being read."""

    def __init__(self, max_frames: int, max_frame_bytes: int) -> None:
        self.form = MultipartForm()
        self._max_frames = max_frames
        self._max_frame_bytes = max_frame_bytes
        self._frame: FrameBytes | None = None
        self._name = b""
        self._value = b""
        self._disposition = b""

    def begin_part(self) -> None:
        self._frame = None
        self._name = self._value = self._disposition = b""

    def add_header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def add_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def end_header(self) -> None:
        if self._name.lower() == b"content-disposition":
            self._disposition = self._value
        self._name = self._value = b""

    def end_headers(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise MalformedRequest("Each part needs Content-Disposition: form-data with a name.")
        if name == b"frames":
            self._begin_frame()
        elif name == b"request":
            if self.form.request is not None:
                raise InvalidRequest.at("/request", "expected one part named request; found two")
            self.form.request = bytearray()
        else:
            shown = name[:64].decode("utf-8", "replace")
            pointer = "/" + shown.replace("~", "~0").replace("/", "~1")
            raise InvalidRequest.at(pointer, "expected parts named frames and request only")

    def add_data(self, data: bytes, start: int, end: int) -> None:
        piece = memoryview(data)[start:end]
        if self._frame is not None:
            self._frame.add(piece, self._max_frame_bytes)
        elif self.form.request is not None:
            self.form.request += piece
            if len(self.form.request) > _MAX_REQUEST_BYTES:
                raise PayloadTooLarge(
                    f"The part named request may have {_MAX_REQUEST_BYTES} bytes at most."
                )

    def _begin_frame(self) -> None:
        if len(self.form.frames) == self._max_frames:
            raise PayloadTooLarge(f"A request may have {self._max_frames} frames at most.")
        self._frame = FrameBytes()
        self.form.frames.append(self._frame)
