"""Whose piece of work goes next: clients in turn, and a client's own requests as they came.

A turn is the right to be decoded and encoded. There are only as many as keep the decode threads and
two batches busy, so nothing waits behind them in a queue that knows no clients. What waits here is
dropped for nothing when its caller leaves.

Clients are served in rotation: one that sends much waits for itself. Within a client the order is
by when a piece is *due*: the n-th frame of an exam when it would be reached were the exam alone. A
single frame that comes in the middle of an exam therefore goes next, and under load an exam is not
overtaken for ever, as it would be if requests took turns: what comes later is due later.

Everything here runs on the event loop.
"""

import asyncio
import heapq
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import count
from types import TracebackType
from typing import Any, TypeVar

__all__ = ["Turn", "Turns"]

T = TypeVar("T")
_Waiting = tuple[float, int, "asyncio.Future[None]"]


class Turns:
    """Gives out a fixed number of turns."""

    def __init__(self, at_once: int, preparing: int) -> None:
        """Prepare to give turns.

        Args:
            at_once: turns out at a time.
            preparing: how many of these may be before `Turn.prepared`: one per decode thread.
        """
        self._free = at_once
        self._hands = preparing
        self._queues: OrderedDict[str, list[_Waiting]] = OrderedDict()
        self._number = count()

    async def take(self, client: str, due: float) -> "Turn":
        """Wait for a turn.

        Args:
            client: whose work it is.
            due: place among the client's own; the lowest goes first, equal ones as they came.

        Returns:
            The turn; use it as a context manager, or it is never given back.
        """
        waiter = asyncio.get_running_loop().create_future()
        heapq.heappush(self._queues.setdefault(client, []), (due, next(self._number), waiter))
        self._give()
        try:
            await waiter
        except asyncio.CancelledError:
            # It may have been given in the very moment in which the caller left.
            if not waiter.cancelled():
                self._take_back(prepared=False)
            raise
        return Turn(self)

    def _give(self) -> None:
        while self._queues and self._free and self._hands:
            client, queue = next(iter(self._queues.items()))
            _, _, waiter = heapq.heappop(queue)
            if not queue:
                del self._queues[client]
            # Whoever left has had no turn.
            if not waiter.done():
                if queue:
                    self._queues.move_to_end(client)
                self._free -= 1
                self._hands -= 1
                waiter.set_result(None)

    def _prepared(self) -> None:
        self._hands += 1
        self._give()

    def _take_back(self, *, prepared: bool) -> None:
        self._free += 1
        self._hands += not prepared
        self._give()


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
