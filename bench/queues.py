"""Discrete-event simulation of requests before a row of equal servers, and of live rooms.

Plain `heapq`, because two rules are all there is (first come first served; a room's newest frame
wins): SimPy would say them no shorter, for one more pinned dependency.
`tests/test_bench_capacity.py` holds it to the formulas of queueing theory. Times are seconds.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from heapq import heappop, heappush
from itertools import count

__all__ = ["Loop", "Room", "Servers", "waits"]


class Loop:
    """Events in the order of their times; those of one time in the order they were planned in.

    Attributes:
        now: the time of the event that is running.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._number = count()

    def at(self, time: float, do: Callable[[], None]) -> None:
        """Plan an event."""
        heappush(self._due, (time, next(self._number), do))

    def run(self) -> None:
        """Run until nothing is planned."""
        while self._due:
            self.now, _, do = heappop(self._due)
            do()


class Servers:
    """Equal servers before which there is one queue, first come first served."""

    def __init__(self, loop: Loop, servers: int) -> None:
        self._loop, self._free = loop, servers
        self._queue: deque[tuple[float, Callable[[float], None]]] = deque()

    def ask(self, service: float, done: Callable[[float], None]) -> None:
        """Queue a job; `done` is called at its end with the time at which it was begun."""
        self._queue.append((service, done))
        self._begin()

    def _begin(self) -> None:
        if self._free and self._queue:
            self._free -= 1
            service, done = self._queue.popleft()
            begun = self._loop.now
            self._loop.at(begun + service, lambda: self._end(done, begun))

    def _end(self, done: Callable[[float], None], begun: float) -> None:
        self._free += 1
        done(begun)
        self._begin()


class Room:
    """A live stream: one frame is with the service, of those that come meanwhile the newest waits.

    Attributes:
        delays: of every answered frame, from the moment it was due at the camera.
        dropped: frames that a newer one replaced.
    """

    def __init__(
        self,
        loop: Loop,
        servers: Servers,
        frames: Iterator[tuple[float, float]],
        work: Callable[[], float],
    ) -> None:
        """Take frames as (due, arrival), by arrival; `work` draws what one takes."""
        self._loop, self._servers, self._frames, self._work = loop, servers, frames, work
        self._busy, self._newest = False, -1.0
        self.delays: list[float] = []
        self.dropped = 0
        self._expect()

    def _expect(self) -> None:
        for due, arrival in self._frames:
            self._loop.at(arrival, partial(self._arrive, due))
            return

    def _arrive(self, due: float) -> None:
        self._expect()
        self.dropped += self._newest >= 0
        self._newest = due
        self._offer()

    def _offer(self) -> None:
        if not self._busy and self._newest >= 0:
            due, self._newest, self._busy = self._newest, -1.0, True
            self._servers.ask(self._work(), lambda _: self._answer(due))

    def _answer(self, due: float) -> None:
        self.delays.append(self._loop.now - due)
        self._busy = False
        self._offer()


def waits(jobs: Iterable[tuple[float, float]], servers: int) -> list[float]:
    """Give how long each job (arrival, service) waited for a server; in and out by arrival."""
    loop, coming, found = Loop(), iter(jobs), list[float]()
    row = Servers(loop, servers)

    def expect() -> None:
        for arrival, service in coming:
            loop.at(arrival, partial(arrive, service))
            return

    def arrive(service: float) -> None:
        expect()
        number, arrived = len(found), loop.now
        found.append(0.0)
        row.ask(service, lambda begun: found.__setitem__(number, begun - arrived))

    expect()
    loop.run()
    return found
