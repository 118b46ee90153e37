"""What an administrator asks of the bundles of a running service; the guard says who may."""

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from service import answers, jsonio
from service.errors import ClientTooSlow, PayloadTooLarge, UnsupportedMediaType
from service.models import Models
from service.schemas import Strict

__all__ = ["BundleName", "router"]

router = APIRouter(prefix="/v1/admin/models", tags=["administration"])
_MAX_BODY = 4096


class BundleName(Strict):
    """Which bundle is meant."""

    bundle: Annotated[
        str,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$",
            description="Name of a folder directly below ENDOCLIP_BUNDLES.",
            examples=["endo-clip-lite0-0.5.0"],
        ),
    ]
    digest: Annotated[
        str | None,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            description="Digest that the bundle must have; without it, whatever lies there.",
        ),
    ] = None


@router.get("", response_model=answers.AdminModels, summary="Bundles: served, before, beside")
async def describe(request: Request) -> Response:
    """Say which bundle is served, which was before, which is the shadow, and which could be."""
    return await _state(request)


@router.post("/load", response_model=answers.AdminModels, summary="Serve another bundle")
async def load(request: Request) -> Response:
    """Open a bundle, score its canaries, and serve it; the answer comes when it is served.

    Whatever stands against it, the one before is served on: 409 `conflict` with a `reason`.
    """
    named = await _named(request)
    await _models(request).load(named.bundle, named.digest)
    return await _state(request)


@router.post("/rollback", response_model=answers.AdminModels, summary="Serve the one before")
async def roll_back(request: Request) -> Response:
    """Serve the bundle that was served before; done twice, it leads back."""
    await _models(request).roll_back()
    return await _state(request)


@router.post("/shadow", response_model=answers.AdminModels, summary="Compare another bundle")
async def start_shadow(request: Request) -> Response:
    """Let a bundle score what is answered from now on, off the critical path."""
    named = await _named(request)
    await _models(request).start_shadow(named.bundle, named.digest)
    return await _state(request)


@router.delete("/shadow", response_model=answers.AdminModels, summary="End the comparison")
async def end_shadow(request: Request) -> Response:
    """Let the shadow go; nothing happens where there is none."""
    await _models(request).end_shadow()
    return await _state(request)


async def _named(request: Request) -> BundleName:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise UnsupportedMediaType("expected Content-Type application/json")
    body = bytearray()
    try:
        async with asyncio.timeout(request.app.state.settings.client_patience_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > _MAX_BODY:
                    raise PayloadTooLarge(f"This body may have {_MAX_BODY} bytes at most.")
    except TimeoutError:
        raise ClientTooSlow from None
    return jsonio.validate(BundleName, jsonio.parse(body), "request")


async def _state(request: Request) -> Response:
    document: dict[str, Any] = await _models(request).describe()
    return Response(jsonio.write(document), media_type="application/json")


def _models(request: Request) -> Models:
    models: Models = request.app.state.models
    return models
