"""The endpoints of exams."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from service import jsonio
from service.admission import Admission, Permit
from service.dialects import Dialect, asked_for, write_exam
from service.engine import Engine
from service.errors import InvalidRequest
from service.exams.exams import Exams, Taken
from service.exams.reports import check_report, write_report
from service.forms import EXAM_FRAMES, read_document, read_request
from service.frames import unfold
from service.guard import owner_of, rate_of
from service.intake import client_of, counted, deadline, declared_bytes, while_connected
from service.metrics import Metrics, Phase
from service.outcomes import counted_as, outcome_of
from service.record import note
from service.schemas import ExamBody

__all__ = ["TASKS", "router"]

# As names of tasks in figures and log lines: frames sent, a result asked for in any dialect.
TASKS = _FRAMES, _REPORT = "exam_frames", "exam_report"
_VARY = {"Vary": "Accept"}
_MAX_OPTIONS_BYTES = 16 * 1024

router = APIRouter(prefix="/v1/exams", tags=["exams"])


@router.post("", summary="Open an exam", response_model=None, operation_id="open_exam")
async def open_exam(request: Request) -> Response:
    """Fix tasks, device and operating point; 201, or 200 for an exam that is open already."""
    async with _admitted(request) as (engine, incoming, _):
        body = await read_document(incoming, ExamBody, _MAX_OPTIONS_BYTES)
        rate_of(request).charge(1)
        answer, exam_id, is_new = await _exams(request).open(engine, owner_of(request), body)
    # Relative, for a proxy may have the service below a path that it does not know of.
    location = {"Location": f"exams/{exam_id}"}
    return _written(request, answer, 201 if is_new else 200, location)


@router.post("/{exam_id}/frames", summary="Send frames", response_model=None)
async def add_frames(request: Request, exam_id: str) -> Response:
    """Encode what is new of the frames and score each; what is answered is kept."""
    return await counted_as(request, _FRAMES, _add_frames(request, exam_id))


@router.get("/{exam_id}", summary="The result so far, or the final one", response_model=None)
@router.get("/{exam_id}/report", summary="The same, to be filed", response_model=None)
async def get_exam(request: Request, exam_id: str) -> Response:
    """Score what there is; once the exam is closed, give its final result."""
    return await counted_as(request, _REPORT, _get_exam(request, exam_id))


@router.post(
    "/{exam_id}/report/{task}", summary="A structured report of one task", response_model=None
)
async def write_exam_report(request: Request, exam_id: str, task: str) -> Response:
    """Write a task's final result as DICOM SR, of the exam's DICOM files, sent once more."""
    return await counted_as(request, _REPORT, _write_exam_report(request, exam_id, task))


@router.post("/{exam_id}/close", summary="Make the result final", response_model=None)
async def close_exam(request: Request, exam_id: str) -> Response:
    """Take no more frames; closing again gives the same result."""
    async with _admitted(request) as (engine, _, _):
        body, made = await _exams(request).close(engine, owner_of(request), exam_id)
    if made is not None:
        metrics: Metrics = request.app.state.metrics
        for result in made["results"]:
            patients = {**result, "patients": [result["patient"]]}
            metrics.count_decisions(result["task"], patients, [made["device"]])
    return _written(request, body)


@router.delete("/{exam_id}", summary="Remove an exam", status_code=204)
async def delete_exam(request: Request, exam_id: str) -> Response:
    """Remove it with all that is kept of it, whatever its state."""
    async with _admitted(request):
        await _exams(request).delete(owner_of(request), exam_id)
    return Response(status_code=204)


async def _add_frames(request: Request, exam_id: str) -> Response:
    metrics: Metrics = request.app.state.metrics
    taken = await _take(request, exam_id)
    with metrics.timed(Phase.RESPOND):
        body = await asyncio.to_thread(jsonio.write, taken.answer)
    metrics.count_frames(taken.patients)
    return _written(request, body)


async def _get_exam(request: Request, exam_id: str) -> Response:
    metrics: Metrics = request.app.state.metrics
    async with _admitted(request) as (engine, _, _):
        dialect = asked_for(request.headers.get("accept", ""))
        if dialect is Dialect.DICOM:
            raise InvalidRequest(
                "expected Accept application/json or application/fhir+json: an exam keeps nothing "
                "of its images; POST their DICOM files to report/{task} for a structured report"
            )
        body = await _exams(request).result(engine, owner_of(request), exam_id)
        with metrics.timed(Phase.RESPOND):
            if dialect is Dialect.JSON:
                return _written(request, body, headers=_VARY)
            body = await asyncio.to_thread(write_exam, body)
    return Response(body, media_type=dialect.value, headers=_VARY)


async def _write_exam_report(request: Request, exam_id: str, task: str) -> Response:
    metrics: Metrics = request.app.state.metrics
    async with _admitted(request) as (engine, incoming, _):
        exam = await _exams(request).find(owner_of(request), exam_id)
        check_report(exam, task)
        with metrics.timed(Phase.RECEIVE):
            sent = await read_request(incoming, EXAM_FRAMES, engine.form_limits)
        sent = await unfold(
            request, sent, limits=engine.form_limits, image_limits=engine.image_limits
        )
        rate_of(request).charge(1)
        work = write_report(_exams(request), engine, exam, task, sent)
        with metrics.timed(Phase.RESPOND):
            body = await while_connected(request, work)
    return Response(body, media_type=Dialect.DICOM.value)


async def _take(request: Request, exam_id: str) -> Taken:
    exams, metrics = _exams(request), request.app.state.metrics
    async with _admitted(request) as (engine, incoming, permit):
        try:
            # Before the body is read: who asks for an exam that is not there need not send it.
            exam = await exams.find(owner_of(request), exam_id)
            with metrics.timed(Phase.RECEIVE):
                sent = await read_request(incoming, EXAM_FRAMES, engine.form_limits)
            sent = await unfold(
                request, sent, limits=engine.form_limits, image_limits=engine.image_limits
            )
            note(frames=sent.frames)
            work = exams.take(engine, exam, sent, permit, rate_of(request))
            return await while_connected(request, work)
        except Exception as error:
            metrics.count_dropped(outcome_of(error), permit.frames_left)
            raise


@asynccontextmanager
async def _admitted(request: Request) -> AsyncIterator[tuple[Engine, Request, Permit]]:
    """Let a request in as every other: readiness, the key's rate, room, its deadline."""
    state = request.app.state
    admission: Admission = state.admission
    engine: Engine = state.engine
    engine.check_ready()
    rate_of(request).check()
    with (
        engine.used(),
        admission.enter(client_of(request), declared_bytes(request)) as permit,
    ):
        async with deadline(request, permit):
            yield engine, counted(request, permit, state.settings.client_patience_s), permit


def _exams(request: Request) -> Exams:
    exams: Exams = request.app.state.exams
    return exams


def _written(
    request: Request, body: bytes, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    head: dict[str, Any] = {"request_id": request.state.request_id}
    whole = jsonio.write(head)[:-1] + b"," + body[1:]
    return Response(whole, status, headers, media_type="application/json")
