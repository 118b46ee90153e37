"""How much may be asked of the service at once, and by whom.

What is counted is what work costs: frames (a text or a prompt counts as one), bytes of bodies held
in memory and pixels to be decoded, never requests. And the *pace* is counted: every request that is
let in is promised to be done within the stated time and that of its own frames, which takes so and
so much of the measured rate for as long as it is here (`service.pace`). Beyond a bound, or
where that promise could not be kept, the answer is `overloaded` at once, with the seconds after
which, at the measured rate, there is room again (`service.appointments`). While somebody who was
told so is expected, half of each bound is kept for those who come when they were told: all others
are let in while the other half is not yet full, so nothing stands idle for somebody who never
comes.

A client that already has work here may hold as much as it leaves free, and one that has none may
take all that is free: so n clients that flood hold 1/(n + 1) of a bound each, and whoever comes
next still finds room. Everything here runs on the event loop.
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from service.appointments import LONGEST_WAIT_S, Appointments, Caller
from service.errors import Overloaded, PayloadTooLarge
from service.pace import ServiceRate, share_of
from service.turns import Turn, Turns

__all__ = ["Admission", "Bounds", "Permit"]

# The shipped image tower takes about as long as decoding 2 megapixels (14 ms on one core).
_PIXELS_PER_WORK = 2_000_000
_PACE_UNMEASURED_S = 0.02
# Of a bound or of the pace: what those who were not told to come may fill while others were.
_OPEN_SHARE = 0.5
# Of a body that is still to come: a frame of 1280 x 1024 pixels has 80 kB and 1.7 units of work.
_BYTES_PER_WORK = 50_000
_BOUNDED = ("frames", "bytes", "pixels")
_WORK = "work"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the service holds at most.

    Attributes:
        frames: admitted and not yet answered.
        bytes: of bodies in memory.
        pixels: of admitted frames, by their headers.
        queue_s: seconds that a request may take beyond the time of its own work, at the measured
            rate. One that would take longer is refused at once; one that waits so long for its
            first turn all the same, because the rate fell, then.
    """

    frames: int
    bytes: int
    pixels: int
    queue_s: float


class Admission:
    """Holds the bounds, and who holds how much of them."""

    def __init__(
        self, bounds: Bounds, turns: Turns, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._bounds = bounds
        self._turns = turns
        self._clock = clock
        self._rate = ServiceRate(clock)
        # Of those for whom all had too much here, and for whom their own client had, by client.
        self._line = Appointments(clock)
        self._lines: dict[str, Appointments] = {}
        self._total: dict[str, float] = defaultdict(float)
        self._clients: dict[str, dict[str, float]] = {}
        self._permits: set[Permit] = set()

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._permits

    def give_up(self) -> None:
        """End all requests that are under way; see `Permit.given_up`."""
        now = asyncio.get_running_loop().time()
        for permit in self._permits:
            permit.given_up = True
            if permit.bound is not None and not permit.bound.expired():
                permit.bound.reschedule(now)

    @contextmanager
    def enter(
        self, client: str, declared_bytes: int = 0, *, comes_back: bool = True
    ) -> Iterator["Permit"]:
        """Let a request in, with nothing yet counted for it.

        Args:
            client: who asks: the API key's name if there is one, else the peer's address.
            declared_bytes: of its body, as far as it says; so much must be free, but only what
                comes in is counted.
            comes_back: whether it will be sent again when it is refused; else no room is kept.

        Yields:
            The request's permit; leaving the context gives everything back.

        Raises:
            Overloaded: there would be no room even for one frame.
            PayloadTooLarge: the body alone is over the bound.
        """
        caller = (client, declared_bytes) if comes_back else None
        permit = Permit(self, client, declared_bytes // _BYTES_PER_WORK + 1, caller)
        permit.is_expected = caller is not None and self._keep(caller)
        self._check(permit, "bytes", declared_bytes)
        self._check(permit, "frames", 1)
        self._check_pace(permit)
        self._check_kept(permit)
        self._permits.add(permit)
        try:
            yield permit
        finally:
            self._permits.discard(permit)
            self._give_back(permit, {kind: permit.held[kind] for kind in list(permit.held)})

    def pending(self) -> Mapping[str, int]:
        """Give what is held now: `frames`, `bytes`, `pixels`."""
        return {kind: int(self._total[kind]) for kind in _BOUNDED}

    def wait_s(self) -> float:
        """Estimate how long the admitted work will take; 0 before the rate is known."""
        rate = self._rate.per_second
        return self._total[_WORK] / rate if rate else 0.0

    def _check_kept(self, permit: "Permit") -> None:
        """Refuse one that was not told to come what is kept for those who were."""
        if permit.is_expected:
            return
        mine = self._clients.get(permit.client, {})
        levels = [
            (getattr(self._bounds, kind), self._total[kind], mine.get(kind, 0.0))
            for kind in _BOUNDED
        ]
        if self._line:
            # By turns: for a single frame, others' exams do not fill the pace.
            levels_of_all = [*levels, (1.0, *self._shares(permit, by_turns=True))]
            if any(total > _OPEN_SHARE * bound for bound, total, _ in levels_of_all):
                raise self._refusal(permit, 0.0, of_client=bool(mine))
        if self._lines.get(permit.client):
            for bound, total, held in [*levels, (1.0, *self._shares(permit))]:
                if held > _OPEN_SHARE * (bound - total + held) / 2:
                    raise self._refusal(permit, 0.0, of_client=True)

    def _check_pace(self, permit: "Permit") -> None:
        """Refuse one that cannot be done in time beside what was promised to others."""
        asked = share_of(permit.work, self._work_in_time())
        total, of_client = self._shares(permit)
        excess = _excess(1.0, total, of_client, asked)
        if excess > 0:
            raise self._refusal(permit, self._freed_s(permit, excess), of_client=of_client > 0)

    def _freed_s(self, permit: "Permit", share: float) -> float:
        """Estimate when so much of the rate is free again.

        A share is free when its request is done, and all are worked for in turn: after a burst of
        equal ones nothing is for long, and then much at once.
        """
        in_time = self._work_in_time()
        others = [one for one in self._permits if one is not permit and not one.is_done]
        left = sorted((one.work_left, share_of(one.work, in_time)) for one in others)
        done = freed = 0.0
        for place, (work, each) in enumerate(left):
            freed += each
            if freed >= share:
                done += work * (len(left) - place)
                break
            done += work
        return self._pace_s(done)

    def _work_in_time(self) -> float:
        """Give the work that is done in the stated time; 0 before the rate is known."""
        return self._bounds.queue_s * (self._rate.per_second or 0.0)

    def _shares(self, permit: "Permit", *, by_turns: bool = False) -> tuple[float, float]:
        """Give what other requests take of the rate: all of them, and those of the same client.

        Each takes its whole share until it is done: with what it has left, those who come later and
        take turns from it would be forgotten. A burst must not pass because none of it has been
        read yet, nor a body that was only declared stand in anybody's way: of what is to come, each
        other client counts with no more work than is asked for.

        Args:
            permit: of who asks.
            by_turns: count all that other clients have here like this: what they get done meanwhile
                if nothing is late.
        """
        in_time = self._work_in_time()
        total = of_client = 0.0
        capped: dict[str, float] = defaultdict(float)
        for one in self._permits:
            if one is permit or one.is_done:
                continue
            if one.client == permit.client:
                of_client += share_of(one.work, in_time)
            elif one.is_admitted and not by_turns:
                total += share_of(one.work, in_time)
            else:
                capped[one.client] += one.work
        total += sum(share_of(min(work, permit.work), in_time) for work in capped.values())
        return total + of_client, of_client

    def _check(self, permit: "Permit", kind: str, amount: float) -> None:
        bound = getattr(self._bounds, kind)
        if permit.held[kind] + amount > bound:
            raise PayloadTooLarge(f"A request may have {bound} {kind} at most.")
        held = self._clients.get(permit.client, {}).get(kind, 0)
        of_others = held if held > permit.held[kind] else 0  # other requests of the client
        total = self._total[kind]
        excess = _excess(bound, total, of_others, amount)
        if excess > 0:
            room_s = self.wait_s() * excess / max(total, excess)
            raise self._refusal(permit, room_s, of_client=of_others > 0)

    def _keep(self, caller: Caller) -> bool:
        """Say whether a caller comes when it was told to, whatever for it was refused."""
        of_client = self._lines.get(caller[0])
        return (of_client is not None and of_client.keep(caller)) or self._line.keep(caller)

    def _refusal(self, permit: "Permit", room_s: float, *, of_client: bool) -> Overloaded:
        """Tell a request when to come back.

        Clients take turns, so those of which one has too much here wait for its share of the rate.
        """
        rate = self._rate.per_second
        if permit.caller is None or not rate:
            return Overloaded(min(max(math.ceil(room_s), 1), LONGEST_WAIT_S))
        line, sharing = self._line, 1
        if of_client:
            self._lines = {one: line for one, line in self._lines.items() if line}
            line = self._lines.setdefault(permit.client, Appointments(self._clock))
            sharing = len({one.client for one in self._permits} | self._lines.keys())
        takes_s = permit.work * sharing / rate
        again = permit.is_expected
        return Overloaded(line.tell(permit.caller, room_s=room_s, takes_s=takes_s, again=again))

    def _take(self, permit: "Permit", amounts: Mapping[str, float]) -> None:
        of_client = self._clients.setdefault(permit.client, defaultdict(float))
        for kind, amount in amounts.items():
            for held in (self._total, of_client, permit.held):
                held[kind] += amount
        self._rate.busy(self._total["frames"] > 0)

    def _give_back(self, permit: "Permit", amounts: Mapping[str, float]) -> None:
        self._take(permit, {kind: -amount for kind, amount in amounts.items()})
        of_client = self._clients[permit.client]
        if not any(of_client[kind] for kind in ("frames", "bytes")):
            del self._clients[permit.client]
        if not self._total["frames"]:
            self._total[_WORK] = 0.0  # not the rounding errors of a long life

    def _done(self, permit: "Permit", amounts: Mapping[str, float]) -> None:
        self._rate.done(amounts[_WORK])
        self._give_back(permit, amounts)

    def _pace_s(self, work: float) -> float:
        rate = self._rate.per_second
        return work / rate if rate else _PACE_UNMEASURED_S


def _excess(bound: float, total: float, of_client: float, amount: float) -> float:
    """Say by how much an amount is over what is free, or over what its client's others leave."""
    room = bound - total - amount
    return max(-room, (of_client + amount - room) / 2 if of_client else 0.0)


class Permit:
    """What one request holds; made by `Admission.enter`.

    Attributes:
        client: whose request it is.
        work: that it is; by the declared length of its body until that has been read.
        caller: what it is known again by, when it is refused and comes back; None if it does not.
        is_expected: whether it was told to come now.
        held: what it holds now, by kind.
        bound: the time by which it must be done, while it is under way.
        given_up: whether `bound` was brought forward because the service ends.
        is_admitted: whether its work was; until then `work` is still to come.
    """

    def __init__(
        self, admission: Admission, client: str, work: float, caller: Caller | None
    ) -> None:
        self.client = client
        self.work = work
        self.caller = caller
        self.is_expected = False
        self.held: dict[str, float] = defaultdict(float)
        self.bound: asyncio.Timeout | None = None
        self.given_up = False
        self.is_admitted = False
        self._admission = admission
        self._waiting: asyncio.Timeout | None = None
        self._each: Mapping[str, float] = {}
        self._due = 0.0
        self._began = self._time_s = self._begun = 0.0

    @property
    def is_done(self) -> bool:
        """Whether all its work is."""
        return self.is_admitted and not self.held["frames"]

    @property
    def work_left(self) -> float:
        """Of its work, what is not done; all of it until that is admitted."""
        return self.held[_WORK] if self.is_admitted else self.work

    @property
    def frames_left(self) -> int:
        """Frames (and texts) that were admitted and are not done."""
        return int(self.held["frames"])

    def add_bytes(self, count: int) -> None:
        """Count bytes of the body as they come in.

        Raises:
            Overloaded, PayloadTooLarge: these are too many.
        """
        self._admission._check(self, "bytes", count)
        self._admission._take(self, {"bytes": count})

    def admit(self, frames: int, pixels: int) -> None:
        """Ask for the work itself, once, when the body is read.

        Args:
            frames: frames, texts and prompts; at least 1.
            pixels: of all frames, by their headers.

        Raises:
            Overloaded: there is no room now.
            PayloadTooLarge: the request alone is over a bound.
        """
        admission, work = self._admission, frames + pixels / _PIXELS_PER_WORK
        self.work = work
        admission._check(self, "frames", frames)
        admission._check(self, "pixels", pixels)
        admission._check_pace(self)
        admission._take(self, {"frames": frames, "pixels": pixels, _WORK: work})
        self._each = {"frames": 1, "pixels": pixels // frames, _WORK: work / frames}
        self.is_admitted = True
        self._began = self._due = admission._clock()
        self._time_s = admission._bounds.queue_s + admission._pace_s(work)

    @asynccontextmanager
    async def begun_in_time(self) -> AsyncIterator[None]:
        """Give the work inside up if its first turn does not come within the stated queue time.

        Nothing of it was done by then, so nothing is wasted.

        Raises:
            Overloaded: it did not.
        """
        waiting = self._waiting = asyncio.timeout(self._admission._bounds.queue_s)
        try:
            async with waiting:
                yield
        except TimeoutError:
            if not waiting.expired():
                raise
            room_s = self._admission.wait_s()
            raise self._admission._refusal(self, room_s, of_client=False) from None

    @asynccontextmanager
    async def turn(self, frames: int = 1) -> AsyncIterator[Turn]:
        """Wait for the turn of the next piece of work.

        Args:
            frames: how many of the admitted frames, texts or prompts the piece holds.
        """
        amounts = {kind: amount * frames for kind, amount in self._each.items()}
        due = self._due
        # Spread over the time that was promised: so all that are late at a time can be done.
        late = self._began + self._time_s * self._begun / self.work
        self._due += self._admission._pace_s(amounts[_WORK])
        self._begun += amounts[_WORK]
        until = self._began + self._time_s
        with await self._admission._turns.take(self.client, due, late=late, until=until) as turn:
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(None)
            yield turn
        self._admission._done(self, amounts)
