"""The scoring endpoints: one way through for all four tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import Response

from service import jsonio
from service.admission import Admission, Permit
from service.answers import Embeddings, NamedTaskAnswer, ZeroShotAnswer
from service.bundles import NAMED_TASKS
from service.dialects import Dialect, asked_for, check, write
from service.engine import Engine
from service.forms import (
    EMBEDDINGS,
    NAMED_TASK,
    ZERO_SHOT,
    FormLimits,
    RequestIn,
    RequestModels,
    read_request,
)
from service.frames import unfold
from service.guard import rate_of
from service.intake import client_of, counted, deadline, declared_bytes, while_connected
from service.metrics import Metrics, Phase
from service.models import Models
from service.outcomes import counted_as, outcome_of
from service.record import note
from service.scoring import embed, score_named, score_zero_shot

__all__ = ["TASKS", "Spelling", "Task", "answer_request", "router"]

_INLINE_FRAMES = 32


@dataclass(frozen=True, slots=True)
class Task:
    """An endpoint.

    Attributes:
        path: last part of its URL.
        title: for the documentation.
        models: of its request forms.
        answer: model of its answer.
        run: answers a request.
    """

    path: str
    title: str
    models: RequestModels
    answer: type[Any]
    run: Callable[[Engine, RequestIn, Permit], Awaitable[dict[str, Any]]]

    @property
    def name(self) -> str:
        """As answers, metrics and the documentation spell it."""
        return self.path.replace("-", "_")


def _named(path: str, title: str) -> Task:
    async def run(engine: Engine, request: RequestIn, permit: Permit) -> dict[str, Any]:
        return await score_named(engine, NAMED_TASKS[path], request, permit)

    return Task(path, title, NAMED_TASK, NamedTaskAnswer, run)


TASKS = (
    _named("polyp-detection", "Is there a polyp, per frame and per patient"),
    _named("malignancy", "Is a lesion neoplastic, per frame and per patient"),
    Task("zero-shot", "Score any labels", ZERO_SHOT, ZeroShotAnswer, score_zero_shot),
    Task("embeddings", "Embed frames and texts", EMBEDDINGS, Embeddings, embed),
)
router = APIRouter(prefix="/v1", tags=["scoring"])


class Spelling(Protocol):
    """How a request and its answer are written; what they mean is the same in each."""

    async def read(self, request: Request, limits: FormLimits) -> RequestIn:
        """Read a request's body."""

    def check(self, sent: RequestIn) -> None:
        """Refuse what the answer cannot be written for, before anything is computed."""

    async def write(self, document: dict[str, Any], sent: RequestIn) -> Response:
        """Write the answer."""


@dataclass(frozen=True, slots=True)
class _Contract:
    """The contract's three request forms, and the dialect that `Accept` asks for."""

    task: Task
    dialect: Dialect

    async def read(self, request: Request, limits: FormLimits) -> RequestIn:
        return await read_request(request, self.task.models, limits)

    def check(self, sent: RequestIn) -> None:
        check(self.dialect, self.task.name, sent)

    async def write(self, document: dict[str, Any], sent: RequestIn) -> Response:
        frames = sum(patient["frames_total"] for patient in document["patients"])
        few = frames + len(document.get("texts", ())) <= _INLINE_FRAMES
        if few and self.dialect is Dialect.JSON:
            body = jsonio.write(document)
        else:
            body = await asyncio.to_thread(write, self.dialect, document, sent)
        return Response(body, media_type=self.dialect.value, headers={"Vary": "Accept"})


async def answer_request(request: Request, task: Task, spelling: Spelling) -> Response:
    """Answer one request; errors are counted here and written by the envelope around the app."""
    return await counted_as(request, task.name, _answer(request, task, spelling))


async def _answer(request: Request, task: Task, spelling: Spelling) -> Response:
    metrics: Metrics = request.app.state.metrics
    sent, document = await _document(request, task, spelling)
    document = {"request_id": request.state.request_id, **document}
    with metrics.timed(Phase.RESPOND):
        response = await spelling.write(document, sent)
    metrics.count_frames(document["patients"])
    if task.models is NAMED_TASK:  # when the answer is out
        models: Models = request.app.state.models
        response.background = BackgroundTask(models.offer, task.name, sent.patients, document)
    return response


async def _document(
    request: Request, task: Task, spelling: Spelling
) -> tuple[RequestIn, dict[str, Any]]:
    state = request.app.state
    admission: Admission = state.admission
    metrics: Metrics = state.metrics
    state.engine.check_ready()
    rate = rate_of(request)
    rate.check()
    with admission.enter(client_of(request), declared_bytes(request)) as permit:
        try:
            async with deadline(request, permit):
                incoming = counted(request, permit, state.settings.client_patience_s)
                with metrics.timed(Phase.RECEIVE):
                    sent = await spelling.read(incoming, state.engine.form_limits)
                sent = await unfold(
                    request,
                    sent,
                    limits=state.engine.form_limits,
                    image_limits=state.engine.image_limits,
                )
                spelling.check(sent)
                note(frames=sent.frames)
                # What is served now, to the end: another bundle may be, meanwhile.
                engine: Engine = state.engine
                with engine.used():
                    await engine.admit(sent, permit)
                    rate.charge(sent.pieces)
                    async with permit.begun_in_time():
                        document = await while_connected(request, task.run(engine, sent, permit))
        except Exception as error:
            metrics.count_dropped(outcome_of(error), permit.frames_left)
            raise
    if task.models is NAMED_TASK:
        devices = [patient.device for patient in sent.patients]
        metrics.count_decisions(task.name, document, devices)
    return sent, document


def _endpoint(task: Task) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        dialect = asked_for(request.headers.get("accept", ""))
        return await answer_request(request, task, _Contract(task, dialect))

    return endpoint


for _task in TASKS:
    router.add_api_route(
        f"/{_task.path}",
        _endpoint(_task),
        methods=["POST"],
        name=_task.path,
        summary=_task.title,
        response_model=None,
        response_class=Response,
        operation_id=_task.name,
    )
