"""How a request ends, counted in one place for all that are of a task."""

import time
from collections.abc import Awaitable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from service.errors import code_of
from service.metrics import CLIENT_GONE, Metrics
from service.record import note

__all__ = ["counted_as", "outcome_of"]

# Never sent to anyone: the connection is gone.
_CLIENT_GONE_STATUS = 499


async def counted_as(request: Request, task: str, work: Awaitable[Response]) -> Response:
    """Give the answer that the work makes; how it ended, and the time of one that did well, count.

    Args:
        request: that is answered.
        task: as figures and log lines name it.
        work: makes the answer, to the last byte of its body.

    Raises:
        What the work raises, which the envelope around the app writes, but for a client's leaving.
    """
    metrics: Metrics = request.app.state.metrics
    started = time.perf_counter()
    note(task=task)
    try:
        response = await work
    except ClientDisconnect as error:
        metrics.count_request(task, outcome_of(error), time.perf_counter() - started)
        note(outcome=CLIENT_GONE)
        return Response(status_code=_CLIENT_GONE_STATUS)
    except Exception as error:
        metrics.count_request(task, outcome_of(error), time.perf_counter() - started)
        metrics.count_frames(getattr(error, "patients", ()))
        raise
    metrics.count_request(task, "ok", time.perf_counter() - started)
    return response


def outcome_of(error: Exception) -> str:
    """Name how a request ended that raised: its error's code, or `client_gone`."""
    return CLIENT_GONE if isinstance(error, ClientDisconnect) else code_of(error).value
