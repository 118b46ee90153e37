"""What is sent: frames of one patient and options, as the multipart form of the contract.

No name of a file or folder leaves the machine: frames are numbered, and their parts are unnamed.
"""

import json
import mimetypes
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from endo_clip_client.errors import FrameUnreadable

__all__ = ["Call", "FrameIn", "FrameLike", "PatientIn", "frames_call", "read_frames"]

_DICOM_MARK = slice(128, 132)


@dataclass(frozen=True, slots=True)
class FrameIn:
    """A frame to send.

    Attributes:
        data: the image file's bytes.
        frame_id: `[A-Za-z0-9._-]{1,64}`, unique in its patient; None: its index.
        captured_at: when it was taken, with a time zone.
    """

    data: bytes
    frame_id: str | None = None
    captured_at: datetime | None = None


FrameLike = FrameIn | bytes | Path | str


@dataclass(frozen=True, slots=True)
class PatientIn:
    """A patient to score: frames in capture order.

    Attributes:
        frames: bytes, paths or `FrameIn`.
        patient_id: a pseudonym, `[A-Za-z0-9._-]{1,64}`; never a name.
        device: a device profile of the service; None: the whole frame.
        tag: anything of the caller's, given back with the result and never sent.
    """

    frames: Sequence[FrameLike]
    patient_id: str | None = None
    device: str | None = None
    tag: Any = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, as often as it is sent: the id stays the same, so the log shows them as one."""

    method: str
    path: str
    request_id: str
    headers: Mapping[str, str]
    parts: tuple[tuple[str, tuple[str | None, bytes, str]], ...] = ()
    document: Mapping[str, Any] | None = None

    @classmethod
    def get(cls, path: str, accept: str = "application/json") -> "Call":
        """Ask for a document."""
        return cls("GET", path, secrets.token_hex(16), {"Accept": accept})

    @classmethod
    def post(cls, path: str, document: Mapping[str, Any] | None = None) -> "Call":
        """Send a document, or ask for something to be done."""
        return cls("POST", path, secrets.token_hex(16), {}, document=document)

    @classmethod
    def delete(cls, path: str) -> "Call":
        """Ask for something to be removed."""
        return cls("DELETE", path, secrets.token_hex(16), {})


def read_frames(frames: Iterable[FrameLike]) -> list[FrameIn]:
    """Read frames from wherever they are.

    Raises:
        FrameUnreadable: a file cannot be read.
    """
    read = []
    for number, frame in enumerate(frames):
        if isinstance(frame, FrameIn):
            read.append(frame)
        elif isinstance(frame, bytes | bytearray | memoryview):
            read.append(FrameIn(bytes(frame)))
        elif isinstance(frame, str | Path):
            read.append(FrameIn(_read(Path(frame), number)))
        else:
            raise FrameUnreadable(
                f"frame {number}: expected bytes, a path or FrameIn; found {type(frame).__name__}"
            )
    return read


def frames_call(
    path: str,
    frames: Sequence[FrameIn],
    options: Mapping[str, Any],
    *,
    deadline_s: float | None = None,
    accept: str = "application/json",
) -> Call:
    """Make the request with the frames of one patient.

    Args:
        path: of the endpoint.
        frames: in capture order; may be empty for embeddings of texts.
        options: of the contract; those that are None are left out.
        deadline_s: after which the service drops the work and answers 504.
        accept: dialect of the answer.

    Returns:
        The call.

    Raises:
        ValueError: the deadline is out of range.
    """
    document: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    told = [_told(frame) for frame in frames]
    if any(told):
        document["frames"] = told
    parts = [
        ("frames", (f"{number}", frame.data, _type_of(frame.data)))
        for number, frame in enumerate(frames)
    ]
    body = json.dumps(document).encode()
    headers = {"Accept": accept}
    if deadline_s is not None:
        if not 0.001 <= deadline_s <= 600:
            raise ValueError(f"deadline_s: expected 0.001 to 600 seconds; found {deadline_s}")
        headers["X-Deadline-Ms"] = str(round(deadline_s * 1000))
    return Call(
        "POST",
        path,
        secrets.token_hex(16),
        headers,
        (("request", (None, body, "application/json")), *parts),
    )


def _told(frame: FrameIn) -> dict[str, str]:
    told = {}
    if frame.frame_id is not None:
        told["frame_id"] = frame.frame_id
    if frame.captured_at is not None:
        if frame.captured_at.tzinfo is None:
            raise ValueError("captured_at: expected a time with a time zone")
        told["captured_at"] = frame.captured_at.isoformat()
    return told


def _read(path: Path, number: int) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise FrameUnreadable(f"frame {number}: {path}: {reason}. Nothing was sent.") from error


def _type_of(data: bytes) -> str:
    """Name the content type of a part; the service looks at the bytes themselves."""
    if data[_DICOM_MARK] == b"DICM":
        return "application/dicom"
    if data.startswith(b"\xff\xd8\xff"):
        return mimetypes.types_map[".jpg"]
    if data.startswith(b"\x89PNG"):
        return mimetypes.types_map[".png"]
    return "application/octet-stream"
