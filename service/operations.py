"""What operators and integrators look at: health, metrics, models, devices, limits."""

import asyncio
from typing import Any

from fastapi import APIRouter
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from model_store import dicom
from model_store.images import FORMATS
from model_store.label_sets import MAX_LABELS, MAX_PROMPT_CHARS, MAX_PROMPTS
from model_store.schema import to_plain
from service import answers, jsonio
from service.admission import Admission
from service.engine import Engine
from service.errors import UnknownModel
from service.metrics import CONTENT_TYPE_LATEST, Metrics
from service.schemas import MAX_TEXT_CHARS, MAX_TEXTS
from service.scoring import model_info
from service.settings import Settings

__all__ = ["exposition", "router"]

router = APIRouter(tags=["operations"])


@router.get("/healthz", summary="The process is alive")
async def healthz() -> answers.Health:
    """Answer as long as the process runs, whatever the state of the model."""
    return answers.Health(status="alive")


@router.get("/readyz", summary="The service answers requests")
async def readyz(request: Request) -> answers.Health:
    """Answer 200 when bundle, canaries, provider and worker are as they were found at the start."""
    _engine(request).check_ready()
    return answers.Health(status="ready")


@router.get("/metrics", response_class=Response, summary="Figures for Prometheus")
async def metrics(request: Request) -> Response:
    """Write the Prometheus text format."""
    return Response(exposition(request.app.state), media_type=CONTENT_TYPE_LATEST)


def exposition(state: State) -> bytes:
    """Write the figures of an app as they are now; on its event loop."""
    figures: Metrics = state.metrics
    engine: Engine = state.engine
    figures.show_drift(engine.drift, engine.devices)
    admission: Admission = state.admission
    text = figures.render(
        ready=engine.ready,
        faults=engine.faults,
        canaries=engine.health.canaries,
        pending=admission.pending(),
        wait_s=admission.wait_s(),
    )
    # Nobody sees a comparison but by a scrape: what is new is compared for the next one.
    asyncio.get_running_loop().run_in_executor(None, engine.drift.compare)
    return text


@router.get("/v1/models", response_model=answers.Models, summary="The served models")
async def models(request: Request) -> Response:
    """List the served models."""
    return _json({"models": [_listed(_engine(request))]})


@router.get("/v1/models/{name}", response_model=answers.ModelDetail, summary="One model")
async def model(request: Request, name: str) -> Response:
    """Give a model's manifest, card, label sets, operating points and intended use."""
    engine = _engine(request)
    bundle = engine.bundle
    if name != bundle.manifest.name:
        raise UnknownModel(f"expected {bundle.manifest.name}; found another name")
    return _json(
        {
            **_listed(engine),
            "card": bundle.card,
            "manifest": to_plain(bundle.manifest),
            "label_sets": {
                key: {"positive": one.positive, "labels": to_plain(one.labels)}
                for key, one in bundle.label_sets.items()
            },
            "operating_points": {
                key: to_plain(one.operating_points) for key, one in engine.calibrations.items()
            },
            **_site_profile(engine),
        }
    )


@router.get("/v1/devices", response_model=answers.Devices, summary="The device profiles")
async def devices(request: Request) -> Response:
    """List the device profiles; the first is used where a request names none."""
    boxes = _engine(request).devices
    return _json({"devices": [{"name": name, "crop": box} for name, box in boxes.items()]})


@router.get("/v1/limits", response_model=answers.Limits, summary="Sizes and counts")
async def limits(request: Request) -> Response:
    """Give the limits of a request, and the formats that frames may have."""
    engine = _engine(request)
    settings: Settings = request.app.state.settings
    return _json(
        {
            "max_body_bytes": settings.max_body_bytes,
            "max_frames": engine.form_limits.max_frames,
            "max_patients": engine.form_limits.max_patients,
            "max_frame_bytes": engine.image_limits.max_bytes,
            "max_frame_pixels": engine.image_limits.max_pixels,
            "min_side_px": engine.image_limits.min_side_px,
            "max_texts": MAX_TEXTS,
            "max_labels": MAX_LABELS,
            "max_prompts": MAX_PROMPTS,
            "max_prompt_chars": MAX_PROMPT_CHARS,
            "max_text_chars": MAX_TEXT_CHARS,
            "max_pending_frames": settings.max_pending_frames,
            "max_pending_bytes": settings.max_pending_bytes,
            "max_pending_pixels": settings.max_pending_pixels,
            "max_queue_s": settings.max_queue_s,
            "max_exams": settings.max_exams,
            "max_exam_frames": settings.max_exam_frames,
            "exam_retention_h": settings.exam_retention_h,
            "max_streams": settings.max_streams,
            "formats": [*FORMATS, *(["DICOM"] if dicom.is_readable() else [])],
        }
    )


def _engine(request: Request) -> Engine:
    engine: Engine = request.app.state.engine
    return engine


def _listed(engine: Engine) -> dict[str, Any]:
    manifest = engine.bundle.manifest
    return {
        **model_info(engine),
        "created": manifest.created,
        "intended_use": manifest.intended_use,
    }


def _site_profile(engine: Engine) -> dict[str, Any]:
    profile = engine.site_profile
    if profile is None:
        return {}
    tasks = {
        name: {
            "labels": to_plain(task.labels),
            "adapter": task.adapter_kind,
            "measured": task.measured,
        }
        for name, task in profile.tasks.items()
    }
    told = {"site": profile.site, "digest": profile.digest, "created": profile.created}
    return {"site_profile": {**told, "tasks": tasks}}


def _json(document: dict[str, Any]) -> Response:
    return Response(jsonio.write(document), media_type="application/json")
