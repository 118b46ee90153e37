"""Whose frame goes next, decided without a clock: turns are given back by hand."""

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from service.turns import Turn, Turns


def run(scene: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await scene()

    asyncio.run(bounded())


class Line:
    """Takes turns under names, and notes the order in which they were given."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self.given: list[str] = []
        self._out: list[Turn] = []

    async def wait(
        self, name: str, client: str, due: float, late: float = math.inf, until: float = math.inf
    ) -> None:
        turn = await self._turns.take(client, due, late=late, until=until)
        self.given.append(name)
        self._out.append(turn)

    async def give_back(self, number: int = 1) -> None:
        for _ in range(number):
            with self._out.pop(0) as turn:
                turn.prepared()
            await settle()


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


async def queued(
    line: Line, *wanted: tuple[str, str, *tuple[float, ...]]
) -> list["asyncio.Task[None]"]:
    tasks = [asyncio.ensure_future(line.wait(*one)) for one in wanted]
    await settle()
    return tasks


def test_free_turn_is_given_at_once_and_no_more_than_there_are() -> None:
    async def scene() -> None:
        line = Line(Turns(2, 2))
        tasks = await queued(line, *((f"a{n}", "a", n) for n in range(4)))
        assert line.given == ["a0", "a1"]
        await line.give_back(4)
        assert line.given == ["a0", "a1", "a2", "a3"]
        await asyncio.gather(*tasks)

    run(scene)


def test_clients_are_served_in_rotation_however_much_one_sends() -> None:
    async def scene() -> None:
        line = Line(Turns(1, 1))
        flood = [(f"a{n}", "a", float(n)) for n in range(50)]
        await queued(line, *flood)
        await queued(line, ("b0", "b", 99.0), ("b1", "b", 99.0), ("c0", "c", 99.0))
        await line.give_back(7)
        assert line.given == ["a0", "a1", "b0", "c0", "a2", "b1", "a3", "a4"]
        await line.give_back(46)

    run(scene)


def test_of_one_client_the_piece_that_is_due_first_goes_first() -> None:
    async def scene() -> None:
        line = Line(Turns(1, 1))
        exam = [(f"exam{n}", "a", 0.1 * n) for n in range(6)]
        await queued(line, *exam)
        await queued(line, ("single", "a", 0.25))
        await line.give_back(6)
        assert line.given == ["exam0", "exam1", "exam2", "single", "exam3", "exam4", "exam5"]
        await line.give_back()

    run(scene)


def test_what_is_late_goes_first_and_of_it_what_is_to_be_done_first() -> None:
    async def scene() -> None:
        now = 0.0
        line = Line(Turns(1, 1, lambda: now))
        await queued(line, ("a0", "a", 0.0, 9.0, 20.0), ("a1", "a", 1.0, 9.0, 20.0))
        await queued(line, ("b0", "b", 0.0, 1.0, 11.0), ("b1", "b", 1.0, 2.0, 11.0))
        await queued(line, ("c0", "c", 0.0, 1.0, 10.0), ("c1", "c", 1.0, 3.0, 10.0))
        await line.give_back()
        assert line.given == ["a0", "a1"]  # nothing is late: in rotation
        now = 2.0
        await line.give_back(3)
        assert line.given[2:] == ["c0", "b0", "b1"]
        await line.give_back()
        assert line.given[5:] == ["c1"]
        await line.give_back()

    run(scene)


def test_turn_for_being_late_is_one_of_the_clients_turns() -> None:
    async def scene() -> None:
        line = Line(Turns(1, 1, lambda: 1.0))
        await queued(line, ("x", "x", 0.0), ("a0", "a", 0.0, 1.0, 2.0), ("a1", "a", 0.0))
        await queued(line, ("b0", "b", 0.0))
        await line.give_back(4)
        assert line.given == ["x", "a0", "b0", "a1"]

    run(scene)


def test_those_who_left_are_forgotten_long_before_they_would_be_late() -> None:
    async def scene() -> None:
        turns = Turns(1, 1, lambda: 0.0)
        with await turns.take("a", 0.0):
            for number in range(1000):
                waiting = asyncio.ensure_future(turns.take(f"{number}", 0.0, late=10.0, until=20.0))
                await asyncio.sleep(0)
                waiting.cancel()
                await settle()
            assert not turns._queues
            assert len(turns._promised._heap) < 100

    run(scene)


def test_no_more_are_preparing_than_there_are_hands() -> None:
    async def scene() -> None:
        turns = Turns(4, 1)
        first = await turns.take("a", 0)
        second = asyncio.ensure_future(turns.take("a", 1))
        await settle()
        assert not second.done()
        first.prepared()
        first.prepared()  # saying it twice gives no second pair of hands
        third = asyncio.ensure_future(turns.take("a", 2))
        await settle()
        assert second.done()
        assert not third.done()
        with first, await second:
            pass
        with await third:
            pass

    run(scene)


def test_who_left_costs_no_turn_whether_waiting_or_just_served() -> None:
    async def scene() -> None:
        turns = Turns(1, 1)
        first = await turns.take("a", 0)
        left, served, last = (asyncio.ensure_future(turns.take("a", n)) for n in (1, 2, 3))
        await settle()
        left.cancel()
        await settle()
        with first:
            pass
        served.cancel()  # its turn is given, but it has not run since
        with await last:
            assert left.cancelled()
        assert served.cancelled()
        with await turns.take("b", 0):
            pass

    run(scene)


def test_piece_that_fails_gives_its_turn_back() -> None:
    async def scene() -> None:
        turns = Turns(1, 1)
        try:
            with await turns.take("a", 0):
                raise KeyError
        except KeyError:
            pass
        with await turns.take("a", 0):
            pass

    run(scene)


def test_turn_of_a_caller_who_left_is_free_when_its_thread_is() -> None:
    busy, begun = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert busy.wait(10)

    async def scene() -> None:
        turns = Turns(1, 1)

        async def first() -> None:
            with await turns.take("a", 0.0) as turn:
                await turn.prepare(pool, work)

        leaving = asyncio.create_task(first())
        await asyncio.to_thread(begun.wait, 10)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        waiting = asyncio.create_task(turns.take("b", 0.0))
        await settle()
        assert not waiting.done()
        busy.set()
        with await asyncio.wait_for(waiting, 10) as turn:
            assert await turn.prepare(pool, int, "7") == 7
        with await asyncio.wait_for(turns.take("c", 0.0), 10):
            pass

    with ThreadPoolExecutor(1) as pool:
        asyncio.run(scene())
