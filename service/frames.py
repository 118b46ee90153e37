"""What the frames of a request show: files of one picture, and DICOM files of many.

`unfold` makes a DICOM file of n frames n frames, called `<frame id>.<number>` and counted from 1 as
DICOM does. What cannot be read is rejected alone, like any other frame.
"""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from starlette.requests import Request

from model_store import dicom
from model_store.dicom import DicomFrame, is_dicom, read_header
from model_store.errors import ImageRejected
from model_store.images import Box, ImageLimits, InputContract, Pixels, count_pixels, decode
from service.errors import InvalidRequest, PayloadTooLarge
from service.forms import FormLimits, FrameIn, PatientIn, RequestIn
from service.intake import while_connected

__all__ = ["content_of", "decode_frame", "pictures_of", "pixels_of", "unfold"]


async def unfold(
    request: Request, sent: RequestIn, *, limits: FormLimits, image_limits: ImageLimits
) -> RequestIn:
    """Unfold the DICOM files of a request; one without any comes back as it is.

    Args:
        request: whose client may leave meanwhile; its body has been read.
        sent: what was in the body.
        limits: how many frames there may be.
        image_limits: what a frame may be.

    Returns:
        What was sent, with a frame for each picture.

    Raises:
        PayloadTooLarge: more frames than a request may have.
        InvalidRequest: two frames would have one id.
        ClientDisconnect: the client left first.
    """
    if not any(is_dicom(frame.data) for patient in sent.patients for frame in patient.frames):
        return sent
    return await while_connected(request, _unfolded(sent, limits, image_limits))


async def _unfolded(sent: RequestIn, limits: FormLimits, image_limits: ImageLimits) -> RequestIn:
    left = limits.max_frames
    patients: list[PatientIn] = []
    for number, patient in enumerate(sent.patients):
        frames: list[FrameIn] = []
        for frame in patient.frames:
            found = [frame]
            if is_dicom(frame.data):
                # One by one: what is dropped meanwhile holds no thread for the files to come.
                found = await asyncio.to_thread(_first_pictures, frame, image_limits, left + 1)
            left -= len(found)
            if left < 0:
                most = limits.max_frames
                raise PayloadTooLarge(
                    f"A request may have {most} frames at most; a DICOM file's are counted one "
                    "by one."
                )
            frames += found
        if len({frame.frame_id for frame in frames}) < len(frames):
            raise InvalidRequest.at(
                f"/patients/{number}/frames" if len(sent.patients) > 1 else "/frames",
                "expected distinct ids, those of a multi-frame file's frames (id.1, id.2, …) too",
            )
        patients.append(replace(patient, frames=tuple(frames)))
    return replace(sent, patients=tuple(patients))


def _first_pictures(frame: FrameIn, limits: ImageLimits, most: int) -> list[FrameIn]:
    return list(islice(pictures_of(frame, limits), most))


def pictures_of(frame: FrameIn, limits: ImageLimits) -> Iterator[FrameIn]:
    """Give the frames of a file: itself, or each of a DICOM file's.

    Args:
        frame: as sent; with its data.
        limits: what a frame may be.
    """
    if not is_dicom(frame.data):
        yield frame
        return
    # Once for all pictures: 4 ms each, for a film of 30 MB.
    data = bytes(frame.data or b"")
    frame = replace(frame, data=data)
    try:
        header = read_header(data, limits)
    except ImageRejected as error:
        yield replace(frame, dicom=error)
        return
    for number in range(1, header.frames + 1):
        name = frame.frame_id if header.frames == 1 else f"{frame.frame_id}.{number}"
        yield replace(frame, frame_id=name, dicom=DicomFrame(header, number))


def decode_frame(
    frame: FrameIn, contract: InputContract, *, limits: ImageLimits, crop: Box
) -> Pixels:
    """Decode a frame that has its data, as `model_store.images.decode` does.

    Raises:
        ImageRejected: with the code of the first rule that was broken.
    """
    if isinstance(frame.dicom, ImageRejected):
        raise frame.dicom
    data = bytes(frame.data or b"")
    if frame.dicom is None:
        return decode(data, contract, limits=limits, crop=crop)
    return dicom.decode(data, frame.dicom, contract, limits=limits, crop=crop)


def pixels_of(frame: FrameIn, limits: ImageLimits) -> int:
    """Give the pixels that decoding a frame would cost, by its header; 0 for a refused one."""
    if frame.dicom is None:
        return count_pixels(frame.data or b"", limits)
    return frame.dicom.pixels if isinstance(frame.dicom, DicomFrame) else 0


def content_of(frame: FrameIn, digests: dict[int, bytes]) -> bytes:
    """Give the SHA-256 of what a frame shows: of its file, and its number where there are more.

    Args:
        frame: with its data.
        digests: of the files hashed so far, by identity; a file of many frames is hashed once.
    """
    data = frame.data or b""
    digest = digests.get(id(data)) or hashlib.sha256(data).digest()
    digests[id(data)] = digest
    if isinstance(frame.dicom, DicomFrame) and frame.dicom.header.frames > 1:
        return hashlib.sha256(digest + b"%d" % frame.dicom.number).digest()
    return digest
