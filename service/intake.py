"""How a request comes in: its body counted and timed as it streams, its deadline, who sends it."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import Message

from service.admission import Permit
from service.errors import ClientTooSlow, DeadlineExceeded, InvalidRequest, ShuttingDown

__all__ = [
    "BEGAN",
    "DEADLINE_HEADER",
    "LEAST_BYTES_PER_S",
    "LONGEST_DEADLINE_MS",
    "client_of",
    "counted",
    "deadline",
    "declared_bytes",
    "while_connected",
]

T = TypeVar("T")
DEADLINE_HEADER = "X-Deadline-Ms"
# Where the connection notes the event loop's time of a request's first byte, in the scope's state.
BEGAN = "began"
_DEADLINE_MS = re.compile(r"[1-9][0-9]{0,5}")
LONGEST_DEADLINE_MS = 600_000
LEAST_BYTES_PER_S = 32 * 1024


def client_of(request: HTTPConnection) -> str:
    """Name whose request it is: as authentication has it, else the peer's address."""
    named: str | None = getattr(request.state, "client", None)
    return named or (request.client.host if request.client else "-")


def declared_bytes(request: Request) -> int:
    """Give the length of the body as far as it is declared, else 0."""
    declared = request.headers.get("content-length", "")
    # What is no number, or absurd, is refused where the body is read.
    return int(declared) if re.fullmatch("[0-9]{1,18}", declared) else 0


def counted(request: Request, permit: Permit, patience_s: float) -> Request:
    """Give the same request with its body counted and timed while it comes in.

    Args:
        request: its body not yet read.
        permit: takes the count; reading raises as `Permit.add_bytes` does.
        patience_s: seconds that the body may lag behind 32 KiB a second before reading raises
            `ClientTooSlow`. Only time spent waiting for the client counts.
    """
    clock = asyncio.get_running_loop().time
    left_s = patience_s

    async def receive() -> Message:
        nonlocal left_s
        begun = clock()
        try:
            async with asyncio.timeout(left_s):
                message = await request.receive()
        except TimeoutError:
            raise ClientTooSlow from None
        count = len(message.get("body", b""))
        left_s += count / LEAST_BYTES_PER_S - (clock() - begun)
        permit.add_bytes(count)
        return message

    return Request(request.scope, receive)


@asynccontextmanager
async def deadline(request: Request, permit: Permit) -> AsyncIterator[None]:
    """Drop what is done inside when the request's deadline passes, or the service ends.

    Raises:
        DeadlineExceeded: it did, counted from the first byte of the request.
        ShuttingDown: the service gave the request up.
        InvalidRequest: the header is not a number of the allowed range.
    """
    bound = asyncio.timeout_at(_until(request))
    try:
        async with bound:
            permit.bound = bound
            yield
    except TimeoutError:
        if not bound.expired():
            raise
        if permit.given_up:
            raise ShuttingDown from None
        raise DeadlineExceeded from None
    finally:
        permit.bound = None


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Do the work, and drop it when the client leaves: what nobody reads need not be computed.

    Raises:
        ClientDisconnect: the client left first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _until(request: Request) -> float | None:
    sent = request.headers.getlist(DEADLINE_HEADER)
    if not sent:
        return None
    if len(sent) > 1 or not _DEADLINE_MS.fullmatch(sent[0]) or int(sent[0]) > LONGEST_DEADLINE_MS:
        raise InvalidRequest(
            f"{DEADLINE_HEADER}: expected one whole number of milliseconds, 1 to "
            f"{LONGEST_DEADLINE_MS}"
        )
    now = asyncio.get_running_loop().time()
    began: float = getattr(request.state, BEGAN, now)
    return began + int(sent[0]) / 1000
