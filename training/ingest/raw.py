"""An exam's raw frames, one at a time: files of a folder, pictures of a DICOM file or a video."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from model_store.images import ImageLimits, sniff
from training.ingest.ledger import Reason

__all__ = ["PathOutside", "RawFrame", "Trouble", "exam_path", "find_exam", "raw_frames"]

_MAX_BYTES = ImageLimits().max_bytes
# Files that systems leave in folders; nobody means them as frames.
_LITTER = frozenset(("thumbs.db", "desktop.ini", "dicomdir"))


@dataclass(frozen=True)
class RawFrame:
    """One frame as it was found.

    Attributes:
        name: Path below the exam's folder, with ``#n`` for the n-th picture of a file; an original
            name, never written anywhere.
        picture: An image file's bytes, or a decoded picture (RGB).
        device: What the file says of the device that made it.
        burned_in: The file says that text is burned into the pixels.
    """

    name: str
    picture: bytes | Image.Image
    device: str = ""
    burned_in: bool = False


@dataclass(frozen=True)
class Trouble:
    """A file or picture that gives no frame.

    Attributes:
        name: As ``RawFrame.name``.
        reason: Why.
        detail: What the reason needs to be understood; nothing of the file's own text.
    """

    name: str
    reason: Reason
    detail: str = ""


class PathOutside(Exception):
    """An exam's path leads out of the data folder; caught where the exam is read."""


def exam_path(data: Path, name: str) -> Path | None:
    """Where an exam lies.

    Args:
        data: Folder of the raw data.
        name: Folder or file below it, with or without the file's suffix.

    Returns:
        An absolute path, with the suffix left off where the name leaves it off; None of a name
        that no file can have. Whether anything is there is not said.

    Raises:
        PathOutside: The name leads out of the folder.
    """
    if not name or "\0" in name:
        return None
    # As written: links below the data folder are the hospital's own, and may lead to its store.
    root = os.path.abspath(data)  # noqa: PTH100
    path = Path(os.path.normpath(os.path.join(root, name)))  # noqa: PTH118 - resolve() follows links
    if not path.is_relative_to(root) or path == Path(root):
        raise PathOutside(name)
    # File systems differ in how they compose an umlaut.
    spellings = (unicodedata.normalize(form, str(path)) for form in ("NFC", "NFD"))
    try:
        return next((p for p in (path, *map(Path, spellings)) if p.exists()), path)
    except OSError:
        return None


def find_exam(data: Path, name: str) -> tuple[Path, list[Path]]:
    """Find the files of an exam.

    Args:
        data: Folder of the raw data.
        name: Folder or file below it, with or without the file's suffix.

    Returns:
        The folder that frame names are relative to, and the files in natural order (2 before 10),
        none where the exam is not there.

    Raises:
        PathOutside: The name leads out of the folder.
    """
    path = exam_path(data, name)
    if path is None:
        return data, []
    try:
        if path.is_file():
            return path.parent, [path]
        if path.is_dir():
            files = [p for p in path.rglob("*") if _is_meant(p, path)]
        else:
            files = [p for p in path.parent.iterdir() if p.stem == path.name and p.is_file()]
    except OSError:
        return data, []
    base = path if path.is_dir() else path.parent
    return base, sorted(files, key=lambda p: _natural(p.relative_to(path.parent).as_posix()))


def raw_frames(
    files: list[Path], base: Path, kind: str, fps: float = 1.0
) -> Iterator[RawFrame | Trouble]:
    """Read the frames of an exam, one in memory at a time.

    Args:
        files: The exam's files.
        base: Folder that names are relative to.
        kind: ``folders``, ``dicom`` or ``video``.
        fps: Sampling rate of videos.
    """
    from training.ingest.dicom import dicom_frames
    from training.ingest.video import video_frames

    for path in files:
        name = path.relative_to(base).as_posix()
        try:
            if kind == "folders":
                yield _image_file(path, name)
            elif kind == "dicom":
                yield from dicom_frames(path, name, fps)
            else:
                yield from video_frames(path, name, fps)
        except OSError:
            yield Trouble(name, Reason.FILE_UNREADABLE)


def _image_file(path: Path, name: str) -> RawFrame | Trouble:
    if path.stat().st_size > _MAX_BYTES:
        return Trouble(name, Reason.IMAGE_SIZE)
    data = path.read_bytes()
    if data and sniff(data) is None:
        return Trouble(name, Reason.NOT_AN_IMAGE)
    return RawFrame(name, data)


def _is_meant(path: Path, base: Path) -> bool:
    parts = path.relative_to(base).parts
    hidden = any(part.startswith(".") for part in parts) or "__MACOSX" in parts
    return path.is_file() and not hidden and path.name.lower() not in _LITTER


def _natural(name: str) -> list[tuple[int, int, str]]:
    pieces = re.split(r"(\d+)", name)
    return [(0, int(p), p) if p.isdecimal() else (1, 0, p) for p in pieces if p]
