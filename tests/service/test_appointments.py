"""Those who come back when they were told to are let in, and nothing stands idle for the others."""

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack

import pytest

from service.admission import Admission, Bounds, Permit
from service.appointments import LONGEST_WAIT_S, Appointments
from service.errors import Overloaded
from service.turns import Turns
from tests.service.test_admission import Clock, entered, measure

ME, YOU = ("me", 1), ("you", 1)


def test_each_is_told_a_later_time_by_what_those_before_it_take() -> None:
    line = Appointments(Clock())
    told = [line.tell((str(n), 0), room_s=3.0, takes_s=4.0) for n in range(4)]
    assert told == [3, 8, 13, 18]
    assert line.tell(ME, room_s=0.0, takes_s=0.0) == 23
    # One that has waited already does not wait behind the others again.
    assert line.tell(ME, room_s=0.2, takes_s=4.0, again=True) == 1


def test_caller_is_known_again_once_when_it_comes_in_time() -> None:
    clock = Clock()
    line = Appointments(clock)
    line.tell(ME, room_s=10.0, takes_s=1.0)
    assert not line.keep(ME)
    clock.now += 9.8
    assert not line.keep(YOU)
    assert line.keep(ME)
    assert not line.keep(ME)
    assert not line


def test_caller_that_does_not_come_is_expected_for_five_seconds() -> None:
    clock = Clock()
    line = Appointments(clock)
    line.tell(ME, room_s=10.0, takes_s=1.0)
    line.tell(YOU, room_s=12.0, takes_s=1.0)
    clock.now += 14.9
    assert line.keep(ME)
    clock.now += 2.2
    assert not line
    assert not line.keep(YOU)


def test_nobody_is_expected_behind_the_longest_wait() -> None:
    line = Appointments(Clock())
    told = [line.tell((str(n), 0), room_s=0.0, takes_s=1.0) for n in range(10_000)]
    assert max(told) == told[-1] == LONGEST_WAIT_S
    assert len(line._all) < 60


def test_room_is_kept_for_those_who_were_told_and_half_of_it_is_open_to_others() -> None:
    clock = Clock()
    gate = Admission(Bounds(100, 10**9, 10**9, 1000.0), Turns(4, 2), clock)
    with ExitStack() as stack:
        first = entered(stack, gate, "a", 100)
        measure(gate, first, clock, frames=40, each_s=0.1)
        with ExitStack() as other:
            entered(other, gate, "b", 40)
            told = refused(gate, ME)
        clock.now += told
        with pytest.raises(Overloaded):
            entered(stack, gate, "c", 1)  # 60 of 100 are held, and ME is expected
        with gate.enter(*ME) as permit:
            permit.admit(10, 0)
        assert told == 1
        # "c" was told to come, and so is expected by now; YOU was not.
        measure(gate, first, clock, frames=20, each_s=0.01)
        with gate.enter(*YOU) as permit:
            permit.admit(10, 0)


def test_stream_that_drops_what_is_refused_is_not_expected() -> None:
    clock = Clock()
    gate = Admission(Bounds(10, 10**9, 10**9, 1000.0), Turns(4, 2), clock)
    with ExitStack() as stack:
        measure(gate, entered(stack, gate, "a", 10), clock, frames=1, each_s=2.0)
        entered(stack, gate, "b", 1)
        with pytest.raises(Overloaded), gate.enter("c", comes_back=False):
            pass
        assert not gate._line
        refused(gate, ME)
        assert gate._line


def refused(gate: Admission, caller: tuple[str, int]) -> int:
    with pytest.raises(Overloaded) as error, gate.enter(*caller):
        pass
    return int(error.value.headers["Retry-After"])


class Crowd:
    """Callers who each send exams of 10 frames, one after another, to 200 frames a second.

    Time is the clock's; whoever is refused comes back when it was told to, or soon when it does not
    obey.
    """

    def __init__(self, callers: int, *, one_client: bool, obey: float = 1.0) -> None:
        self._clock = Clock()
        self._gate = Admission(Bounds(1024, 2**29, 5 * 10**9, 5.0), Turns(4, 2), self._clock)
        self._one_client, self._obey, self._rng = one_client, obey, random.Random(1)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._queue: deque[tuple[int, Permit, AbstractContextManager[Permit]]] = deque()
        self._working = False
        self.frames = 0
        self.seen: Counter[str] = Counter()
        for caller in range(callers):
            self._later(self._rng.random(), caller, came_back=False)

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self._clock.now + seconds
        while self._events[0][0] < end:
            self._clock.now, _, event = heapq.heappop(self._events)
            event()

    def _at(self, seconds: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self._clock.now + seconds, self._rng.getrandbits(60), event))

    def _later(self, seconds: float, caller: int, *, came_back: bool) -> None:
        self._at(seconds, lambda: self._come(caller, came_back))

    def _come(self, caller: int, came_back: bool) -> None:
        client = "one" if self._one_client else str(caller)
        entered = self._gate.enter(client, 750_000 + caller)
        kind = "came back" if came_back else "first"
        try:
            with ExitStack() as stack:
                permit = stack.enter_context(entered)
                permit.admit(10, 13_000_000)
                stack.pop_all()
        except Overloaded as error:
            self.seen[f"{kind}, refused"] += 1
            obeys = self._rng.random() < self._obey
            told = int(error.headers["Retry-After"]) + self._rng.random() / 10
            self._later(told if obeys else 0.2, caller, came_back=obeys)
        else:
            self.seen[f"{kind}, let in"] += 1
            self._queue.append((caller, permit, entered))
            self._work()

    def _work(self) -> None:
        if self._queue and not self._working:
            self._working = True
            self._at(1 / 200, self._worked)

    def _worked(self) -> None:
        self._working = False
        self.frames += 1
        caller, permit, entered = self._queue[0]
        permit._admission._done(permit, permit._each)
        if not permit.frames_left:
            self._queue.popleft()
            entered.__exit__(None, None, None)
            self._later(0.01, caller, came_back=False)
        self._work()

    @property
    def share(self) -> float:
        """Of those who came back when told: let in."""
        let_in, not_let_in = self.seen["came back, let in"], self.seen["came back, refused"]
        return let_in / (let_in + not_let_in)


@pytest.mark.parametrize("one_client", [True, False])
def test_most_who_come_back_when_told_are_let_in_at_three_times_the_rate(one_client: bool) -> None:
    crowd = Crowd(300, one_client=one_client)
    crowd.run(60)  # the rate becomes known
    crowd.seen.clear()
    crowd.frames = 0
    crowd.run(120)
    assert crowd.share > 0.9
    assert crowd.frames > 0.99 * 200 * 120


@pytest.mark.parametrize("one_client", [True, False])
def test_nothing_stands_idle_for_callers_who_do_not_obey(one_client: bool) -> None:
    crowd = Crowd(300, one_client=one_client, obey=0.1)
    crowd.run(60)
    assert crowd.frames > 0.98 * 200 * 60
