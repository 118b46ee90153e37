"""Pictures of DICOM files. No attribute goes on: only pixels leave this module.

Of PS3.15's Basic Application Level Confidentiality Profile nothing has to be chosen, since every
attribute is dropped and the result is no DICOM file. Two attributes are looked at and forgotten:
Manufacturer(ModelName), held against the recipe's device profiles, and BurnedInAnnotation.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from model_store.dicom import VIDEO_SYNTAXES, picture_of, plain_jpeg
from model_store.images import ImageLimits
from training.ingest.ledger import Reason
from training.ingest.raw import RawFrame, Trouble
from training.ingest.video import video_frames

__all__ = ["dicom_frames"]

_LIMITS = ImageLimits()
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_PIXEL_DATA = b"\xe0\x7f\x10\x00"
_LUT = "PaletteColorLookupTable"
_TAGS = [
    *("Manufacturer", "ManufacturerModelName", "BurnedInAnnotation", "NumberOfFrames", "Rows"),
    *("Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored"),
    *("PixelRepresentation", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(f"{c}{_LUT}{what}" for c in ("Red", "Green", "Blue") for what in ("Descriptor", "Data")),
]


def dicom_frames(path: Path, name: str, fps: float) -> Iterator[RawFrame | Trouble]:
    """Read the pictures of a DICOM file, one in memory at a time.

    Args:
        path: File.
        name: Its path below the exam's folder; pictures of a multi-frame file are ``<name>#<n>``.
        fps: Sampling rate of an encapsulated video.
    """
    import pydicom

    with path.open("rb") as file:
        if file.read(132)[128:] != b"DICM":
            yield Trouble(name, Reason.NOT_AN_IMAGE)
            return
        file.seek(0)
        # pydicom's warnings quote the values it warns about.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                syntax = str(header.file_meta.TransferSyntaxUID)
                rows, columns = int(header.Rows), int(header.Columns)
                count = int(header.get("NumberOfFrames") or 1)
                told = _told(header)
            # Hostile and half-written files raise anything; there is no closed list to name.
            except Exception:
                yield Trouble(name, Reason.DICOM_UNREADABLE)
                return
        if rows * columns > _LIMITS.max_pixels or count < 1:
            yield Trouble(name, Reason.IMAGE_SIZE)
            return
        names = [name] if count == 1 else (f"{name}#{i}" for i in range(count))
        if syntax.startswith(VIDEO_SYNTAXES):
            yield from _video(file, name, fps, told)
        elif syntax == _JPEG_BASELINE and plain_jpeg(str(header.get("PhotometricInterpretation"))):
            yield from _jpegs(file, header, names, count, told)
        else:
            yield from _decoded(file, header, names, count, told, syntax)


def _told(header: Any) -> dict[str, Any]:
    device = f"{header.get('Manufacturer', '')} {header.get('ManufacturerModelName', '')}"
    return {"device": device, "burned_in": header.get("BurnedInAnnotation") == "YES"}


def _jpegs(
    file: BinaryIO, header: Any, names: Any, count: int, told: dict[str, Any]
) -> Iterator[RawFrame | Trouble]:
    """The JPEG streams as they are: nothing is encoded twice."""
    from pydicom.encaps import generate_frames

    if not _at_pixels(file):
        yield Trouble(next(iter(names)), Reason.DICOM_UNREADABLE)
        return
    offsets = None
    if "ExtendedOffsetTable" in header and "ExtendedOffsetTableLengths" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    frames = generate_frames(file, number_of_frames=count, extended_offsets=offsets)
    for one in names:
        try:
            data = next(frames)
        except Exception:  # as in dicom_frames; StopIteration: fewer frames than announced
            yield Trouble(one, Reason.DICOM_UNREADABLE)
            return
        yield RawFrame(one, data, **told)


def _decoded(
    file: BinaryIO, header: Any, names: Any, count: int, told: dict[str, Any], syntax: str
) -> Iterator[RawFrame | Trouble]:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        available = get_decoder(UID(syntax)).is_available
    except NotImplementedError:
        available = False
    if not available:
        known = UID(syntax).name
        detail = known if known != syntax else "unknown"
        yield Trouble(next(iter(names)), Reason.DICOM_TRANSFER_SYNTAX, detail)
        return
    frames = _arrays(file, 0, count)
    for index, one in enumerate(names):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                picture = picture_of(next(frames), header)
        except Exception:  # as in dicom_frames; the frames after it may still be good
            yield Trouble(one, Reason.DICOM_UNREADABLE)
            if index + 1 < count and not _more(file, index + 1, count):
                return
            frames = _arrays(file, index + 1, count)
            continue
        yield RawFrame(one, picture, **told)


def _arrays(file: BinaryIO, start: int, count: int) -> Iterator[Any]:
    import gdcm
    from pydicom.pixels import iter_pixels

    gdcm.Trace.WarningOff()
    gdcm.Trace.ErrorOff()
    return iter_pixels(file, indices=range(start, count))


def _more(file: BinaryIO, start: int, count: int) -> bool:
    """Whether any frame follows; a file cut off in its first frames is named once, not n times."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            next(_arrays(file, start, count))
    except Exception:
        return False
    return True


def _video(
    file: BinaryIO, name: str, fps: float, told: dict[str, Any]
) -> Iterator[RawFrame | Trouble]:
    if not _at_pixels(file):
        yield Trouble(name, Reason.DICOM_UNREADABLE)
        return
    try:
        stream = io.BufferedReader(_Fragments(file), 1 << 20)
    except ValueError:
        yield Trouble(name, Reason.DICOM_UNREADABLE)
        return
    yield from video_frames(stream, name, fps, **told)  # type: ignore[arg-type]


def _at_pixels(file: BinaryIO) -> bool:
    """Step over the pixel data's tag, VR and length (encapsulated data is always explicit VR)."""
    return file.read(12)[:4] == _PIXEL_DATA


class _Fragments(io.RawIOBase):
    """The fragments of encapsulated pixel data, read from the file as one stream."""

    def __init__(self, file: BinaryIO) -> None:
        from pydicom.encaps import parse_basic_offsets, parse_fragments

        self._file = file
        self._at = 0
        parse_basic_offsets(file)
        self._pieces: list[tuple[int, int]] = []
        count, offsets = parse_fragments(file)
        for offset in offsets[:count]:
            file.seek(offset + 4)
            self._pieces.append((offset + 8, int.from_bytes(file.read(4), "little")))
        self._size = sum(size for _, size in self._pieces)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        start = self._at
        for offset, size in self._pieces:
            if start < size:
                self._file.seek(offset + start)
                data = self._file.read(min(len(buffer), size - start))
                buffer[: len(data)] = data
                self._at += len(data)
                return len(data)
            start -= size
        return 0
