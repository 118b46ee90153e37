"""Whoever is let in has its answer in the stated time and that of its own work, however many come.

The service's own admission and turns, on an event loop whose time is the simulation's: a second
passes when nothing is left to do in it. Only the work itself is pretended.
"""

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager

import pytest

from service.admission import Admission, Bounds
from service.errors import Overloaded
from service.turns import Turn, Turns

RATE = 40.0  # units of work a second, of which an exam of 10 frames is 16.6
QUEUE_S = 10.0
PIXELS = 1280 * 1024
FRAME = 1 + PIXELS / 2_000_000


class Loop(asyncio.SelectorEventLoop):
    """Knows no time but its own, which jumps to when the next thing is due."""

    now = 0.0

    def time(self) -> float:
        return self.now

    # What asyncio's loops are made of, which no stub knows.
    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self.now = max(self.now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class Service:
    """Two threads for the work of whoever is let in."""

    def __init__(self, loop: Loop, slower: Callable[[float], float]) -> None:
        self._loop, self._slower, self._rng = loop, slower, random.Random(1)
        self._gate = Admission(
            Bounds(1024, 2**29, 5 * 10**9, QUEUE_S), Turns(2, 2, loop.time), loop.time
        )
        self.clear()

    def clear(self) -> None:
        """Begin to measure."""
        self.told: list[int] = []
        self.done = 0.0
        self.beyond_s: defaultdict[int, list[float]] = defaultdict(list)
        self.seen: Counter[tuple[int, str]] = Counter()

    async def caller(self, client: str, frames: int, pause_s: float, *, obeys: bool) -> None:
        """Send one request of so many frames after another."""
        length = 80_000 * frames + self._rng.randrange(4096)
        await asyncio.sleep(self._rng.random())
        while True:
            told = await self._send(client, frames, length)
            if told:
                await asyncio.sleep(told + self._rng.random() / 10 if obeys else 0.5)
            else:
                length = 80_000 * frames + self._rng.randrange(4096)
                await asyncio.sleep(pause_s)

    async def _send(self, client: str, frames: int, length: int) -> int:
        began = self._loop.time()
        try:
            with self._gate.enter(client, length) as permit:
                await asyncio.sleep(0.01)  # its body comes in
                permit.admit(frames, frames * PIXELS)
                async with permit.begun_in_time():
                    await asyncio.gather(*(self._frame(permit.turn()) for _ in range(frames)))
        except Overloaded as error:
            at_once = self._loop.time() - began < 0.1
            self.seen[frames, "refused" if at_once else "given up"] += 1
            self.told.append(int(error.headers["Retry-After"]))
            return self.told[-1]
        self.seen[frames, "let in"] += 1
        self.beyond_s[frames].append(self._loop.time() - began - permit.work / RATE)
        return 0

    async def _frame(self, turn: AbstractAsyncContextManager[Turn]) -> None:
        async with turn:
            varied = FRAME * self._rng.uniform(0.7, 1.3)
            await asyncio.sleep(2 * varied / RATE * self._slower(self._loop.time()))
            self.done += varied


Caller = tuple[str, int, float]  # client, frames, pause


def served(
    *callers: Caller,
    obeys: bool = True,
    seconds: float = 90.0,
    slower: Callable[[float], float] = lambda _: 1.0,
    before: Sequence[Caller] = (),
) -> Service:
    """Let them come, or others before them, until the rate is known, and measure then."""
    loop = Loop()

    async def scene() -> Service:
        service = Service(loop, slower)
        async with asyncio.TaskGroup() as group:

            def come(those: Sequence[Caller]) -> list[asyncio.Task[None]]:
                return [group.create_task(service.caller(*one, obeys=obeys)) for one in those]

            tasks = come(before or callers)
            await asyncio.sleep(30)
            if before:
                for task in tasks:
                    task.cancel()
                tasks = come(callers)
            service.clear()
            await asyncio.sleep(seconds)
            for task in tasks:
                task.cancel()
        return service

    try:
        return loop.run_until_complete(scene())
    finally:
        loop.close()


EXAMS = [(f"exam {number}", 10, 0.01) for number in range(80)]
ROOMS = [(f"room {number}", 1, 1.0) for number in range(5)]


@pytest.mark.parametrize("obeys", [True, False])
def test_exams_from_many_addresses_at_three_times_the_rate_are_done_in_time(obeys: bool) -> None:
    service = served(*EXAMS, obeys=obeys)
    assert max(service.beyond_s[10]) < 1.05 * QUEUE_S
    assert service.done > 0.97 * RATE * 90
    assert service.seen[10, "given up"] < 0.02 * service.seen[10, "let in"]


def test_a_burst_from_many_addresses_is_not_told_to_come_back_before_there_is_room() -> None:
    burst = [(f"burst {number}", 10, 0.01) for number in range(160)]
    service = served(*burst, seconds=25, before=EXAMS[:4])
    # All that are let in at first are worked for in turn, so for long none of them is done.
    assert sum(seconds < 5 for seconds in service.told) < 0.05 * len(service.told)
    assert service.seen[10, "refused"] < 1.5 * len(burst)
    assert service.done > 0.97 * RATE * 25


def test_large_exam_among_many_small_ones_is_done_in_time_and_single_frames_pass() -> None:
    large = [("large", 200, 0.01), ("other", 64, 0.01), ("third", 64, 0.01)]
    service = served(*EXAMS, *ROOMS, *large, seconds=150)
    assert all(max(beyond) < 1.05 * QUEUE_S for beyond in service.beyond_s.values())
    assert service.beyond_s.keys() == {1, 10, 64, 200}
    assert service.seen[1, "refused"] < 0.1 * service.seen[1, "let in"]


@pytest.mark.parametrize("flooders", [1, 3])
def test_clients_that_flood_wait_for_themselves(flooders: int) -> None:
    flood = [(f"flood {number % flooders}", 10, 0.01) for number in range(80)]
    service = served(*flood, *ROOMS)
    assert all(max(beyond) < 1.05 * QUEUE_S for beyond in service.beyond_s.values())
    rooms = sorted(service.beyond_s[1])
    assert rooms[int(0.99 * len(rooms))] < 1.0
    assert service.seen[1, "refused"] < 0.02 * service.seen[1, "let in"]


def test_machine_that_becomes_half_as_fast_keeps_what_was_promised_to_most() -> None:
    service = served(*EXAMS, seconds=160, slower=lambda now: 2.0 if now % 80 > 60 else 1.0)
    beyond = sorted(service.beyond_s[10])
    assert beyond[int(0.98 * len(beyond))] < 1.1 * QUEUE_S


def test_below_the_rate_nobody_is_refused() -> None:
    exams = [(f"exam {number}", 10, 4.0) for number in range(6)]
    service = served(*exams, *ROOMS)
    assert service.seen.keys() == {(10, "let in"), (1, "let in")}
