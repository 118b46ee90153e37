"""Puts the service together: `create_app(settings)` gives an ASGI app with its own everything."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Match

from model_store.cores import usable_cores
from service import __version__, admin, open_inference, operations, routes
from service.admission import Admission, Bounds
from service.bundles import NAMED_TASKS, OPERATING_POINTS
from service.docs_page import CONTENT_SECURITY_POLICY, PAGE
from service.engine import Engine
from service.errors import (
    InvalidRequest,
    MalformedRequest,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
)
from service.exams import live
from service.exams import routes as exam_routes
from service.exams.exams import Exams
from service.guard import KeyGuard
from service.keys import Keyring
from service.metrics import Metrics
from service.middleware import METHODS, RequestEnvelope
from service.models import Models
from service.openapi import describe
from service.page import add_page
from service.settings import Settings, newest_bundle, read_devices, read_site_profile
from service.sockets import SocketEnvelope
from service.towers import RemoteTowers
from service.traces import Traces
from service.turns import Turns

__all__ = ["create_app"]


def create_app(settings: Settings, remote: RemoteTowers | None = None) -> FastAPI:
    """Open the bundle and build the app.

    The worker starts and the self-test runs when the app starts; a failed self-test leaves the app
    up and `/readyz` at 503 with the reason.

    Args:
        settings: from `read_settings`.
        remote: gives the worker of each bundle, where the towers are not to run in this process.

    Returns:
        The app. Its models, keyring, admission, metrics and settings are in `app.state`, and the
        engine that requests take at the moment.

    Raises:
        BundleError: the bundle cannot be served.
        SettingsInvalid: the keys, the device profiles, the site profile or the exams' store cannot
            be read.
    """
    keyring = Keyring(settings.keys) if settings.keys else None
    metrics = Metrics([*(task.name for task in routes.TASKS), *exam_routes.TASKS])
    open_engine = partial(
        Engine, settings, metrics, devices=read_devices(settings.devices), remote=remote
    )
    engine = open_engine(
        bundle=settings.bundle or newest_bundle(),
        site_profile=read_site_profile(settings.site_profile),
    )
    exams = Exams(settings)
    exams.check()
    app = FastAPI(
        title="Endo-CLIP",
        version=__version__,
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        # A path with a slash too many is an error of the caller's, not a second round trip.
        redirect_slashes=False,
        # No telemetry, whatever the environment says.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        exception_handlers={
            HTTPException: _translate_http,
            RequestValidationError: _translate_validation,
        },
    )
    app.state.engine = engine
    app.state.exams = exams
    app.state.rooms = live.Rooms(settings.max_streams)
    app.state.keyring = keyring
    app.state.traces = Traces(settings.traces_endpoint) if settings.traces_endpoint else None
    app.state.settings = settings
    # Elsewhere they are not this process's to count: two batches are kept out.
    workers = settings.encode_workers(engine.provider) if remote is None else 1
    metrics.count_workers(workers)
    app.state.admission = admission = _admission(settings, workers)
    app.state.metrics = metrics
    app.state.models = Models(
        app.state, open_engine, busy=lambda: admission.pending()["frames"] > 0
    )
    metrics.expect_decisions(NAMED_TASKS.values(), OPERATING_POINTS, list(engine.devices))
    app.include_router(routes.router)
    app.include_router(open_inference.router)
    app.include_router(exam_routes.router)
    app.include_router(live.router)
    app.include_router(operations.router)
    if remote is None:  # else it would change one of several; there the configuration does it
        app.include_router(admin.router)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    add_page(app)
    app.add_middleware(KeyGuard, keyring=keyring, metrics=metrics)
    app.add_middleware(
        RequestEnvelope, max_body_bytes=settings.max_body_bytes, traces=app.state.traces
    )
    app.add_middleware(SocketEnvelope)
    _describe_once(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    models: Models = app.state.models
    # asyncio's own would grow to four threads more than the machine has cores.
    threads = ThreadPoolExecutor(max(2, usable_cores()), thread_name_prefix="work")
    asyncio.get_running_loop().set_default_executor(threads)
    await asyncio.to_thread(models.active.start)
    app.state.exams.start()
    try:
        yield
    finally:
        await asyncio.to_thread(models.stop)
        await app.state.exams.stop()
        traces: Traces | None = app.state.traces
        if traces is not None:
            await asyncio.to_thread(traces.close)


async def _docs() -> HTMLResponse:
    return HTMLResponse(PAGE, headers={"Content-Security-Policy": CONTENT_SECURITY_POLICY})


async def _translate_http(request: Request, error: Exception) -> Any:
    """Turn an error of Starlette's own into one of the table; the envelope writes it."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    if status == 405:
        # The table has no row of its own for this: nothing is here for this method.
        allowed = ", ".join(sorted(_methods_of(request)))
        raise NotFound(
            f"Nothing here for this method; allowed: {allowed}.",
            headers={"Allow": allowed},
        ) from None
    if status == 404:
        raise NotFound("No such path; /docs lists those there are.") from None
    if status == 413:
        raise PayloadTooLarge("The request is too large.") from None
    if status == 415:
        raise UnsupportedMediaType("The media type is not supported.") from None
    if 400 <= status < 500:
        raise MalformedRequest("The request is malformed.") from None
    raise error


def _methods_of(request: Request) -> set[str]:
    """Give the methods of a path: each may be a route of its own."""
    routes = request.app.routes
    methods = {
        method
        for method in METHODS
        if any(one.matches({**request.scope, "method": method})[0] is Match.FULL for one in routes)
    }
    return methods | ({"HEAD"} if "GET" in methods else set())  # the envelope turns HEAD into GET


async def _translate_validation(_request: Request, _error: Exception) -> Any:
    """Turn FastAPI's own validation error into the contract's; its text stays here."""
    raise InvalidRequest("A parameter is not valid.") from None


def _describe_once(app: FastAPI) -> None:
    """Let FastAPI serve our OpenAPI document, made at the first request for it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = describe(app)
        return app.openapi_schema

    # FastAPI's documented way to exchange the document.
    app.openapi = openapi  # type: ignore[method-assign]


def _admission(settings: Settings, workers: int) -> Admission:
    bounds = Bounds(
        settings.max_pending_frames,
        settings.max_pending_bytes,
        settings.max_pending_pixels,
        settings.max_queue_s,
    )
    # Every encode worker runs a batch, the next gathers, and every decode thread has a frame.
    at_once = (workers + 1) * settings.max_batch + settings.decode_threads
    return Admission(bounds, Turns(at_once, settings.decode_threads))
