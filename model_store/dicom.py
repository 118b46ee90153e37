"""Frames of DICOM files, to the same tower input as any other file's.

A file is read twice: its header once (`read_header`), for how many frames there are and how large,
and each frame by itself (`decode`). Nothing of the header but the numbers in `DicomHeader` goes on;
whose picture it is is neither looked at nor kept.

Needs pydicom, and python-gdcm for JPEG lossless, JPEG-LS and JPEG 2000 (extra `dicom`); imported
where they are used, so that the package does without. Video (MPEG-2, MPEG-4, HEVC) is refused by
name, like every other transfer syntax that nothing here decodes.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from model_store import images
from model_store.errors import ImageCode, ImageRejected
from model_store.images import Box, ImageLimits, InputContract, Pixels, crop_to, preprocess
from model_store.jpeg_header import jpeg_size

__all__ = [
    "MEDIA_TYPE",
    "VIDEO_SYNTAXES",
    "DicomFrame",
    "DicomHeader",
    "decode",
    "is_dicom",
    "is_readable",
    "picture_of",
    "plain_jpeg",
    "read_header",
]

MEDIA_TYPE = "application/dicom"
# MPEG-2, MPEG-4 and HEVC (PS3.5, A.4.5 to A.4.11), their fragmentable forms included.
VIDEO_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{n}" for n in range(100, 109))
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
# VL Endoscopic, Photographic, their videos; and Secondary Capture, which archives make of them.
_SOP_CLASSES = (
    *(f"1.2.840.10008.5.1.4.1.1.77.1.{n}" for n in ("1", "1.1", "4", "4.1")),
    *(f"1.2.840.10008.5.1.4.1.1.7{n}" for n in ("", ".1", ".2", ".3", ".4")),
)
# Its elements are read one by one, 1 us each: a file of nothing but empty ones would take seconds.
_MOST_HEADER = 1024 * 1024
# An item of a sequence takes 20 us. A film has one a frame in there at most, or a few.
_MOST_ITEMS = 2000
# An element of the file's own group takes 5 us, and is read twice; real ones have 300 bytes in all.
_MOST_META = 16 * 1024
_ITEMS = (b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00")  # little and big endian
_PIXEL_DATA = (b"\xe0\x7f\x10\x00", b"\x7f\xe0\x00\x10")  # little and big endian
_LUT = "PaletteColorLookupTable"
_TAGS = [
    *("SOPClassUID", "NumberOfFrames", "Rows", "Columns", "SamplesPerPixel", "BitsAllocated"),
    *("BitsStored", "PixelRepresentation", "PhotometricInterpretation"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(f"{c}{_LUT}{what}" for c in ("Red", "Green", "Blue") for what in ("Descriptor", "Data")),
]


@dataclass(frozen=True, slots=True)
class DicomHeader:
    """What a file says of its pictures: transfer syntax, colours, pixels, number of frames.

    `start` is where the element of the pixels begins; `attributes` are pydicom's, of `_TAGS` alone.
    """

    syntax: str
    photometric: str
    rows: int
    columns: int
    frames: int
    start: int
    attributes: Any = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class DicomFrame:
    """One frame of a file; `number` counts from 1, as DICOM does."""

    header: DicomHeader
    number: int

    @property
    def pixels(self) -> int:
        """What decoding it costs."""
        return self.header.rows * self.header.columns


def is_dicom(data: bytes | bytearray | None) -> bool:
    """Tell by the mark after the preamble."""
    return data is not None and data[128:132] == b"DICM"


def is_readable() -> bool:
    """Whether what it takes to read DICOM is installed."""
    return find_spec("pydicom") is not None and find_spec("gdcm") is not None


def read_header(data: bytes, limits: ImageLimits) -> DicomHeader:
    """Read what a file says of its pictures.

    Args:
        data: a whole DICOM file.
        limits: refusals.

    Returns:
        The header, of a kind that `decode` can read.

    Raises:
        ImageRejected: DICOM cannot be read here, or not this kind of it; the message names it.
    """
    if not is_readable():
        raise ImageRejected(
            ImageCode.UNSUPPORTED_FORMAT,
            f"expected one of {', '.join(images.FORMATS)}; found DICOM, which is read where the "
            "extra `dicom` is installed",
        )
    with _rejecting():
        head = data[:_MOST_HEADER]
        _check_items(head)
        syntax = _syntax(head)
        _check_syntax(syntax)
        header, start = _header(head)
        rows, columns = int(header.Rows), int(header.Columns)
        frames = int(header.get("NumberOfFrames") or 1)
        photometric = str(header.PhotometricInterpretation)
        _check_class(str(header.SOPClassUID))
    images.check_dimensions((columns, rows), limits)
    if frames < 1:
        raise ImageRejected(
            ImageCode.IMAGE_UNDECODABLE, f"expected 1 frame or more; found {frames}"
        )
    return DicomHeader(syntax, photometric, rows, columns, frames, start, header)


def decode(
    data: bytes,
    frame: DicomFrame,
    contract: InputContract,
    *,
    limits: ImageLimits | None = None,
    crop: Box | None = None,
) -> Pixels:
    """Decode one frame into tower input, as `images.decode` does.

    Args:
        data: the whole file.
        frame: which one, with the header of this file.
        contract: the bundle's input contract.
        limits: refusals; the defaults of `ImageLimits` when None.
        crop: box (x0, y0, x1, y1) to keep, as fractions 0-1.

    Returns:
        uint8 (size, size, 3), RGB.

    Raises:
        ImageRejected: with the code of the first rule that was broken.
    """
    limits = limits or ImageLimits()
    with _rejecting():
        stream = b"" if frame.header.syntax in _NATIVE else _stream(data, frame)
    if frame.header.syntax == _JPEG_BASELINE and plain_jpeg(frame.header.photometric):
        return images.decode(stream, contract, limits=limits, crop=crop)
    with _rejecting():
        _check_stream(stream, frame.header)
        picture = picture_of(_array(data, frame.number - 1), frame.header.attributes)
    return preprocess(crop_to(picture, crop or (0.0, 0.0, 1.0, 1.0)), contract)


def plain_jpeg(photometric: str) -> bool:
    """Whether a baseline JPEG stream by itself says how its colours are meant."""
    return photometric in ("YBR_FULL_422", "YBR_FULL", "MONOCHROME2")


def picture_of(pixels: Any, header: Any) -> Image.Image:
    """Make RGB of one decoded frame.

    Args:
        pixels: (rows, columns) or (rows, columns, 3); YBR was converted by pydicom already.
        header: pydicom's data set with the attributes of the pixels.

    Returns:
        Image of mode RGB, 8 bits a channel.
    """
    photometric = header.get("PhotometricInterpretation")
    bits = int(header.get("BitsStored", 8))
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        pixels = apply_color_lut(pixels, header)
        bits = int(header.RedPaletteColorLookupTableDescriptor[2])
    elif int(header.get("PixelRepresentation", 0)):
        pixels = pixels.astype(np.int64) + (1 << (bits - 1))
    if bits != 8:
        pixels = np.asarray(pixels, np.float64) * (255 / ((1 << bits) - 1))
    pixels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    if photometric == "MONOCHROME1":
        pixels = 255 - pixels
    return Image.fromarray(pixels).convert("RGB")


@contextmanager
def _rejecting() -> Iterator[None]:
    """Translate whatever pydicom and gdcm raise; their texts quote the file and stay here."""
    try:
        yield
    except ImageRejected:
        raise
    except EOFError as error:
        message = "expected a whole DICOM file; found one that ends early"
        raise ImageRejected(ImageCode.IMAGE_TRUNCATED, message) from error
    # Hostile and half-written files raise anything; there is no closed list to name.
    except Exception as error:
        message = "expected a readable DICOM file; found damaged data"
        raise ImageRejected(ImageCode.IMAGE_UNDECODABLE, message) from error


def _check_items(head: bytes) -> None:
    items = sum(map(head.count, _ITEMS))
    if items > _MOST_ITEMS:
        raise ImageRejected(
            ImageCode.IMAGE_UNDECODABLE,
            f"expected at most {_MOST_ITEMS} items within the first {_MOST_HEADER} bytes; "
            f"found {items}",
        )


def _syntax(head: bytes) -> str:
    """Give the transfer syntax; only the file's first group is parsed for it."""
    # Every public reader inflates a deflated data set, which may be of any size, before it says so.
    from pydicom.filereader import _read_file_meta_info, read_preamble

    file = BytesIO(head[:_MOST_META])
    read_preamble(file, force=False)
    meta = _read_file_meta_info(file)
    if file.tell() == _MOST_META:
        raise ImageRejected(
            ImageCode.IMAGE_UNDECODABLE,
            f"expected the file's own group within the first {_MOST_META} bytes; found no end",
        )
    return str(meta.TransferSyntaxUID)


def _check_syntax(syntax: str) -> None:
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    try:
        # Deflated data sets are small and inflate to anything.
        known = syntax != _DEFLATED and not syntax.startswith(VIDEO_SYNTAXES)
        known = known and get_decoder(UID(syntax)).is_available
    except NotImplementedError:
        known = False
    if not known:
        name = UID(syntax).name
        raise ImageRejected(
            ImageCode.UNSUPPORTED_FORMAT,
            "expected a transfer syntax of native pixels, JPEG, JPEG-LS, JPEG 2000 or RLE; found "
            + (name if name != syntax else "an unknown one"),
        )


def _header(head: bytes) -> tuple[Any, int]:
    """Give the attributes of the pixels, and where their own element begins."""
    import gdcm
    import pydicom

    # What they say of a file would quote it.
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    for silence in (gdcm.Trace.WarningOff, gdcm.Trace.ErrorOff, gdcm.Trace.DebugOff):
        silence()
    file = BytesIO(head)
    header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    start = file.tell()
    if "SOPClassUID" in header:  # before pixels are missed: a report has none
        _check_class(str(header.SOPClassUID))
    if head[start : start + 4] not in _PIXEL_DATA:
        message = f"expected pixels within the first {_MOST_HEADER} bytes; found none"
        raise ImageRejected(ImageCode.IMAGE_UNDECODABLE, message)
    return header, start


def _check_class(sop_class: str) -> None:
    from pydicom.uid import UID

    if sop_class not in _SOP_CLASSES:
        name = UID(sop_class).name
        raise ImageRejected(
            ImageCode.UNSUPPORTED_FORMAT,
            "expected an endoscopic, photographic or secondary capture image; found "
            + (name if name != sop_class else "an unknown SOP class"),
        )


def _stream(data: bytes, frame: DicomFrame) -> bytes:
    """Take the compressed stream of one frame out of the element of the pixels."""
    from pydicom.encaps import get_frame

    header, offsets = frame.header.attributes, None
    if "ExtendedOffsetTable" in header and "ExtendedOffsetTableLengths" in header:
        offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths)
    file = BytesIO(data)  # shares the bytes
    file.seek(frame.header.start + 12)  # tag, VR and length: always of explicit VR
    stream: bytes = get_frame(
        file,
        frame.number - 1,
        number_of_frames=frame.header.frames,
        extended_offsets=offsets,
    )
    return stream


def _check_stream(stream: bytes, header: DicomHeader) -> None:
    """Refuse a stream of other dimensions than the header, before anything makes room for it."""
    size = _size_of(stream)
    if size is not None and size != (header.columns, header.rows):
        raise ImageRejected(
            ImageCode.IMAGE_UNDECODABLE,
            f"expected a stream of {header.columns} x {header.rows} pixels, as the header has it; "
            f"found {size[0]} x {size[1]}",
        )


def _size_of(stream: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG, JPEG-LS or JPEG 2000 stream; None for another."""
    if (at := stream.find(b"\xff\x4f\xff\x51", 0, 512)) >= 0:
        wide, high, left, top = struct.unpack(">4I", stream[at + 8 : at + 24])
        return wide - left, high - top
    return jpeg_size(stream) or _lossless_size(stream)


def _lossless_size(stream: bytes) -> tuple[int, int] | None:
    """Of JPEG-LS, which has a frame header of its own."""
    at = stream.find(b"\xff\xf7", 0, 1024)
    if at < 0:
        return None
    high, wide = struct.unpack(">2H", stream[at + 5 : at + 9])
    return wide, high


def _array(data: bytes, index: int) -> Any:
    from pydicom.pixels import pixel_array

    return pixel_array(BytesIO(data), index=index)
