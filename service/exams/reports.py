"""A closed exam's structured report, of the DICOM files that its frames came from.

An exam keeps no image and nothing of a header, so whoever wants a report, which points to its
images and carries their patient, sends the files once more. They are recognised by their content:
nothing is decoded, and nothing is kept of them.
"""

import asyncio
from typing import Any

from model_store.dicom import DicomFrame
from service import jsonio
from service.dialects import Dialect, check, documents_of, write
from service.engine import Engine
from service.errors import Conflict, InvalidRequest, NotFound
from service.exams.exams import Exams
from service.exams.frames import identify
from service.exams.values import Exam, KeptFrame
from service.forms import FrameIn, PatientIn, RequestIn

__all__ = ["check_report", "write_report"]


def check_report(exam: Exam, task: str) -> None:
    """Refuse a report that cannot be written; before the files are read.

    Raises:
        Conflict: the exam is not closed, so a report would not say its result.
        NotFound: no task of the exam.
    """
    if task not in exam.options.tasks:
        raise NotFound(f"expected one of {', '.join(exam.options.tasks)}; found another task")
    if exam.final is None:
        raise Conflict("A structured report is of the final result: close the exam first.")


async def write_report(
    exams: Exams, engine: Engine, exam: Exam, task: str, sent: RequestIn
) -> bytes:
    """Write the report of one task.

    Args:
        exams: where the exam is.
        engine: what is served; the report is of the exam's own bundle all the same.
        exam: closed.
        task: of the exam's.
        sent: the files, unfolded, in any order; more than the exam has do no harm.

    Returns:
        A DICOM file, the same for the same files and exam but for its times.

    Raises:
        InvalidRequest: a frame's file is missing or no DICOM, or files are of several studies.
        NotFound, StoreUnavailable: as `Exams.result`.
    """
    frames = await exams.frames(exam)
    body = await exams.result(engine, exam.owner, exam.exam_id)
    return await asyncio.to_thread(_written, body, frames, task, sent)


def _written(body: bytes, frames: list[KeptFrame], task: str, sent: RequestIn) -> bytes:
    files = sent.patients[0].frames
    by_content = {
        one.content: file for one, file in zip(identify(files), files, strict=True) if one.content
    }
    content = {one.frame_id: one.content for one in frames}
    document = next(
        one for one in documents_of(jsonio.parse(bytearray(body))) if one["task"] == task
    )
    told = document["patients"][0]["frames"]
    ordered = [_file(by_content, content, entry) for entry in told]
    missing = sum(one is None for one in ordered)
    if missing or not told:
        raise InvalidRequest.at(
            "/frames",
            f"expected the DICOM files of all {len(told)} frames of the exam; "
            f"{missing} of them are not there",
        )
    patient = PatientIn("0", document["device"], tuple(one for one in ordered if one))
    request = RequestIn((patient,))
    check(Dialect.DICOM, task, request)
    return write(Dialect.DICOM, document, request)


def _file(
    by_content: dict[bytes, FrameIn], content: dict[str, bytes], entry: dict[str, Any]
) -> FrameIn | None:
    found = by_content.get(content.get(entry["frame_id"], b""))
    return found if found is not None and isinstance(found.dicom, DicomFrame) else None
