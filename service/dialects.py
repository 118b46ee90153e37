"""In which dialect an answer is written, by the request's `Accept`.

    application/json        the contract's own; also where nothing else is asked for
    application/dicom       one structured report (TID 1500); frames must be DICOM of one study
    application/fhir+json   one FHIR R4 bundle

All of them say the same result. The two others are of the named tasks only.
"""

from collections.abc import Mapping
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

from model_store.dicom import MEDIA_TYPE, DicomFrame
from service import jsonio
from service.concepts import TASKS
from service.errors import InvalidRequest, UnsupportedMediaType
from service.fhir import bundle_of, bundle_of_exam, documents_of
from service.forms import RequestIn

__all__ = ["Dialect", "asked_for", "check", "documents_of", "write", "write_exam"]


class Dialect(StrEnum):
    """Media types that an answer may have."""

    JSON = "application/json"
    """The contract's own."""
    DICOM = MEDIA_TYPE
    """A structured report."""
    FHIR = "application/fhir+json"
    """A bundle."""


def asked_for(accept: str) -> Dialect:
    """Choose the dialect: the best that is named, JSON for everything that is not.

    Args:
        accept: the header, "" where there is none.
    """
    best, weight = Dialect.JSON, 0.0
    for item in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in item.split(";"))
        quality = next((_number(one[2:]) for one in parameters if one.startswith("q=")), 1.0)
        if kind in (Dialect.DICOM, Dialect.FHIR, Dialect.JSON) and quality > weight:
            best, weight = Dialect(kind), quality
    return best


def check(dialect: Dialect, task: str, request: RequestIn) -> None:
    """Refuse what cannot be said in a dialect, before anything is computed for it.

    Raises:
        InvalidRequest: the task, or frames that are no DICOM of one patient.
        UnsupportedMediaType: structured reports are not installed here.
    """
    if dialect is Dialect.JSON:
        return
    if task not in TASKS:
        raise InvalidRequest(f"expected Accept application/json: {task} has no other dialect")
    if dialect is Dialect.FHIR:
        return
    if find_spec("highdicom") is None:
        raise UnsupportedMediaType(
            "expected Accept application/json or application/fhir+json: structured reports are "
            "written where the extra `dicom` is installed"
        )
    if len(request.patients) != 1:
        raise InvalidRequest.at("/patients", "expected one patient: a report is of one study")
    if not all(isinstance(one.dicom, DicomFrame) for one in request.patients[0].frames):
        raise InvalidRequest.at(
            "/frames",
            "expected DICOM frames that can be read: a structured report points to its images",
        )


def write(dialect: Dialect, document: Mapping[str, Any], request: RequestIn) -> bytes:
    """Write an answer; for a thread, as it may take tens of milliseconds.

    Args:
        dialect: as `check` let it through.
        document: the answer, request id included.
        request: what was asked, with its frames' files.

    Raises:
        InvalidRequest: the files are of several studies, or lack the ids of one.
    """
    if dialect is Dialect.FHIR:
        return jsonio.write(bundle_of(document))
    if dialect is Dialect.DICOM:
        from service.structured_report import write_report

        (patient,) = request.patients
        return write_report(document, patient.frames, patient.device)
    return jsonio.write(document)


def write_exam(body: bytes) -> bytes:
    """Write an exam's JSON as a FHIR bundle."""
    return jsonio.write(bundle_of_exam(jsonio.parse(bytearray(body))))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0
