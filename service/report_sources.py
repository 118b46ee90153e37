"""What a structured report takes over of the DICOM files that it is about.

Headers hold anything, and pydicom raises a dozen kinds of errors over them. All of that happens
here: what comes out are data sets that can be read and written, so that an error of whoever builds
a report of them is that one's own fault. Whose images they are must be taken over as it stands, or
there is no report (`InvalidRequest`); of everything else what cannot be is left out.
"""

import re
import struct
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any

import highdicom as hd
import pydicom
from pydicom.datadict import dictionary_has_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException
from pydicom.valuerep import DA, TM, PersonName

from model_store.dicom import DicomFrame
from service.errors import InvalidRequest
from service.forms import FrameIn

__all__ = ["read_sources"]

_IDS = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
_UID = re.compile(r"[0-9.]{1,64}", re.ASCII)
# Type 2 of the patient and study modules: empty where the source lacks it.
_MAY_BE_EMPTY: dict[str, Callable[[Any], object]] = {
    "PatientBirthDate": DA,
    "PatientSex": hd.PatientSexValues,
    "StudyDate": DA,
    "StudyTime": TM,
    "StudyID": str,
    "AccessionNumber": str,
    "ReferringPhysicianName": str,
}
# Archives hold "1950" and "W" as well. Whose report it is does not hang on these, but on two.
_IDENTITY = ("PatientID", "PatientName")
_NOT_AS_IT_STANDS = {
    tag_for_keyword(name)
    for name in (
        *(*_IDS, *_MAY_BE_EMPTY, *_IDENTITY),
        *("SpecificCharacterSet", "Modality", "FrameOfReferenceUID"),
    )
}
# What pydicom was seen to raise where an attribute is read or written that is not as its VR says.
_ERRORS = (
    *(AttributeError, EOFError, LookupError, NotImplementedError, OSError, OverflowError),
    *(RecursionError, TypeError, ValueError, struct.error, BytesLengthException),
)
_WHOSE = (
    "expected patient and study as DICOM writes them (one name, a known character set): a "
    "structured report takes them over"
)


def read_sources(frames: Sequence[FrameIn]) -> list[Dataset]:
    """Read the header of each frame's file, once for all frames of a file.

    Args:
        frames: pictures of DICOM files.

    Returns:
        For each frame what a report says of its image; the first also holds the patient and study.

    Raises:
        InvalidRequest: the files are of several studies or patients, lack the ids of one, or name
            them in a way that DICOM does not allow.
    """
    read: dict[int, Dataset] = {}
    for frame in frames:
        if id(frame.data) not in read:
            read[id(frame.data)] = _source(frame, in_full=not read)
    if len({(one.StudyInstanceUID, one.PatientID) for one in read.values()}) != 1:
        raise InvalidRequest.at("/frames", "expected images of one study and patient; found more")
    return [read[id(frame.data)] for frame in frames]


def _source(frame: FrameIn, *, in_full: bool) -> Dataset:
    try:
        file = BytesIO(bytes(frame.data or b""))
        header = pydicom.dcmread(file, stop_before_pixels=True)
        ids = {name: header.get(name) for name in _IDS}
        whose = {name: header.get(name) or "" for name in _IDENTITY}
        characters = header.get("SpecificCharacterSet") or None
    except _ERRORS as error:
        raise InvalidRequest.at("/frames", _WHOSE) from error
    if not all(isinstance(one, str) and _UID.fullmatch(one) for one in ids.values()):
        raise InvalidRequest.at(
            "/frames", f"expected DICOM files with {', '.join(_IDS)}; found one without"
        )
    source = Dataset()
    if in_full:
        _check_characters(characters)
        source = _taken_over(header, characters)
    for name, value in whose.items():
        if not _is_of_kind(value, str) or not _is_writable(name, value, characters):
            raise InvalidRequest.at("/frames", _WHOSE)
        setattr(source, name, value)
    for name, value in ids.items():
        setattr(source, name, value)
    if isinstance(frame.dicom, DicomFrame):
        source.Rows, source.Columns = frame.dicom.header.rows, frame.dicom.header.columns
    # Of its geometry highdicom would want more where it is a CT.
    source.Modality = "ES"
    return source


def _check_characters(characters: Any) -> None:
    """Refuse a character set that nobody knows: to guess it is to file it under another name."""
    try:
        hd.SOPClass(
            *("1.2.3", "1.2.3.4", 1, "1.2.3.4.5", "1.2.840.10008.5.1.4.1.1.88.33", 1, "SR"),
            patient_birth_date="",
            specific_character_set=characters,
        )
    except _ERRORS as error:
        raise InvalidRequest.at("/frames", _WHOSE) from error


def _taken_over(header: Dataset, characters: Any) -> Dataset:
    """Copy what can be read, and be written again in the character set that the file names."""
    source = Dataset()
    if characters:
        source.SpecificCharacterSet = characters
    for tag in header.keys():  # noqa: SIM118 (over its elements it would read each)
        # A report has none that the standard does not know, and each costs 0.1 ms.
        if not dictionary_has_tag(tag) or tag in _NOT_AS_IT_STANDS:
            continue
        try:
            element = header[tag]
        except _ERRORS:
            continue
        if _is_writable(tag, element, characters):
            source.add(element)
    for name, kind in _MAY_BE_EMPTY.items():
        try:
            value = header.get(name) or ""
        except _ERRORS:
            value = ""
        whole = _is_of_kind(value, kind) and _is_writable(name, value, characters)
        setattr(source, name, value if whole else "")
    return source


def _is_writable(key: Any, value: Any, characters: Any) -> bool:
    """Try an attribute alone: a tag with its element, or a keyword with a value."""
    alone = Dataset()
    try:
        if characters:
            alone.SpecificCharacterSet = characters
        if isinstance(key, str):
            setattr(alone, key, value)
        else:
            alone[key] = value
        pydicom.dcmwrite(BytesIO(), alone, implicit_vr=True, little_endian=True)
    except _ERRORS:
        return False
    return True


def _is_of_kind(value: Any, kind: Callable[[Any], object]) -> bool:
    """Whether it is one text alone (no list of them) that is of a kind, or empty."""
    if not isinstance(value, str | PersonName):
        return False
    try:
        if value:
            kind(value)
    except (TypeError, ValueError):
        return False
    return True
