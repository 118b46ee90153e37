"""Whose piece of work goes next: what is late, else clients in turn, each client's as they came.

A turn is the right to be decoded and encoded. There are only as many as keep the decode threads and
two batches busy, so nothing waits behind them in a queue that knows no clients. What waits here is
dropped for nothing when its caller leaves.

Clients are served in rotation: one that sends much waits for itself. Within a client the order is
by when a piece is *due*: the n-th frame of an exam when it would be reached were the exam alone. A
single frame that comes in the middle of an exam therefore goes next, and under load an exam is not
overtaken for ever, as it would be if requests took turns: what comes later is due later.

Turns alone promise no time: whoever comes while a request is worked on takes turns from it. So each
piece may say from when on it is *late*; late ones go before the rotation, and first the one whose
request is to be done first.

Everything here runs on the event loop.
"""

import asyncio
import heapq
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Turn", "Turns"]

T = TypeVar("T")
_FEW = 64


class Turns:
    """Gives out a fixed number of turns."""

    def __init__(
        self, at_once: int, preparing: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare to give turns.

        Args:
            at_once: turns out at a time.
            preparing: how many of these may be before `Turn.prepared`: one per decode thread.
            clock: seconds.
        """
        self._free = at_once
        self._hands = preparing
        self._clock = clock
        self._queues: OrderedDict[str, _Pile] = OrderedDict()
        self._promised = _Pile()
        self._late = _Pile()

    async def take(
        self, client: str, due: float, *, late: float = math.inf, until: float = math.inf
    ) -> "Turn":
        """Wait for a turn.

        Args:
            client: whose work it is.
            due: place among the client's own; the lowest goes first, equal ones as they came.
            late: when it goes before all that are not late, by the clock.
            until: place among the late: when its request is to be done.

        Returns:
            The turn; use it as a context manager, or it is never given back.
        """
        waiter = asyncio.get_running_loop().create_future()
        piece = _Piece(client, until, waiter)
        self._queues.setdefault(client, _Pile()).add(due, piece)
        if late < math.inf:
            self._promised.add(late, piece)
        self._give()
        try:
            await waiter
        except asyncio.CancelledError:
            self._tidy(client)
            # It may have been given in the very moment in which the caller left.
            if not waiter.cancelled():
                self._take_back(prepared=False)
            raise
        return Turn(self)

    def _give(self) -> None:
        while self._free and self._hands and (piece := self._next()):
            self._free -= 1
            self._hands -= 1
            piece.waiter.set_result(None)
            self._queues.move_to_end(piece.client)
            self._tidy(piece.client)

    def _next(self) -> "_Piece | None":
        now = self._clock()
        while piece := self._promised.take(now):
            self._late.add(piece.until, piece)
        if piece := self._late.take():
            return piece
        while self._queues:
            client, queue = next(iter(self._queues.items()))
            if piece := queue.take():
                return piece
            del self._queues[client]
        return None

    def _tidy(self, client: str) -> None:
        """Forget a client of whom nothing waits."""
        if not self._queues.get(client, True):
            del self._queues[client]

    def _prepared(self) -> None:
        self._hands += 1
        self._give()

    def _take_back(self, *, prepared: bool) -> None:
        self._free += 1
        self._hands += not prepared
        self._give()


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    client: str
    until: float
    waiter: "asyncio.Future[None]"


class _Pile:
    """Pieces with a number each, the lowest first; those that wait no more are not in it.

    A piece may be in several. It leaves the others when they come upon it, and before they have
    become twice as many as wait.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, _Piece]] = []
        self._number = count()
        self._most = _FEW

    def __bool__(self) -> bool:
        while self._heap and self._heap[0][2].waiter.done():
            heapq.heappop(self._heap)
        return bool(self._heap)

    def add(self, number: float, piece: _Piece) -> None:
        if len(self._heap) >= self._most:
            self._heap = [entry for entry in self._heap if not entry[2].waiter.done()]
            heapq.heapify(self._heap)
            self._most = max(2 * len(self._heap), _FEW)
        heapq.heappush(self._heap, (number, next(self._number), piece))

    def take(self, most: float = math.inf) -> _Piece | None:
        """Take the first, if its number is not above `most`."""
        return heapq.heappop(self._heap)[2] if self and self._heap[0][0] <= most else None


class Turn:
    """One turn; leaving the context gives it back."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._is_prepared = False
        self._work: Future[Any] | None = None

    async def prepare(
        self, pool: ThreadPoolExecutor, function: Callable[..., T], *arguments: Any
    ) -> T:
        """Run the first part of the work in a thread.

        A caller who leaves while it runs leaves the turn with the thread: given to the next one at
        once, it would only queue up behind, and what the thread holds would be counted nowhere.
        """
        self._work = pool.submit(function, *arguments)
        result: T = await asyncio.wrap_future(self._work)
        self.prepared()
        return result

    def prepared(self) -> None:
        """Say that no decode thread is needed any more."""
        if not self._is_prepared:
            self._is_prepared = True
            self._turns._prepared()

    def __enter__(self) -> "Turn":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        give_back = partial(self._turns._take_back, prepared=self._is_prepared)
        if self._work is None or self._work.done():
            give_back()
            return
        loop = asyncio.get_running_loop()

        def when_done(_: Future[Any]) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(give_back)

        self._work.add_done_callback(when_done)
