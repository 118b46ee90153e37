"""How much may be asked of the service at once, and by whom.

What is counted is what work costs: frames (a text or a prompt counts as one), bytes of bodies held
in memory and pixels to be decoded, never requests. Beyond a bound, or behind a queue that would
take longer than the stated time, the answer is `overloaded` at once, with the seconds after which,
at the measured rate, there is room again (`service.appointments`). While somebody who was told so
is expected, half of each bound is kept for those who come when they were told: all others are let
in while the other half is not yet full, so nothing stands idle for somebody who never comes.

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
from service.turns import Turn, Turns

__all__ = ["Admission", "Bounds", "Permit", "ServiceRate"]

# The shipped image tower takes about as long as decoding 2 megapixels (14 ms on one core).
_PIXELS_PER_WORK = 2_000_000
_MEMORY_S = 10.0
_LEAST_MEASURED_S = 1.0
_PACE_UNMEASURED_S = 0.02
# Of a bound or of the stated time: what those who were not told to come may fill while others were.
_OPEN_SHARE = 0.5
# Of a body that is still to come: a frame of 1280 x 1024 pixels has 80 kB and 1.7 units of work.
_BYTES_PER_WORK = 50_000
_BOUNDED = ("frames", "bytes", "pixels")
_WORK = "work"
_COMING = "work to come, by the declared length of bodies"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the service holds at most.

    Attributes:
        frames: admitted and not yet answered.
        bytes: of bodies in memory.
        pixels: of admitted frames, by their headers.
        queue_s: seconds that a request may wait for its first turn, by its client's earlier work,
            the measured rate and the other clients' turns in between, and that these may take from
            it until its last. One that would wait longer is refused at once; one that waits so long
            for its first turn all the same, because the rate fell, then.
    """

    frames: int
    bytes: int
    pixels: int
    queue_s: float


class ServiceRate:
    """Work done per busy second, over about the last ten of them.

    A unit of work is a frame without pixels, or 2 million pixels. Only seconds in which there was
    something to do count, so an idle hour does not make the service look slow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: float | None = None
        self._work = 0.0
        self._seconds = 0.0

    def busy(self, is_busy: bool) -> None:
        """Say whether there is work from now on."""
        if is_busy == (self._since is not None):
            return
        self._pass()
        self._since = self._clock() if is_busy else None

    def done(self, work: float) -> None:
        """Count work that was done."""
        self._pass()
        self._work += work

    @property
    def per_second(self) -> float | None:
        """Units of work per second; None until a second of work has been seen."""
        self._pass()
        if self._seconds < _LEAST_MEASURED_S or not self._work:
            return None
        return self._work / self._seconds

    def _pass(self) -> None:
        if self._since is None:
            return
        now = self._clock()
        passed, self._since = now - self._since, now
        kept = math.exp(-passed / _MEMORY_S)
        self._work *= kept
        self._seconds = self._seconds * kept + passed


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
        self._check_wait(permit)
        self._check_turns(permit)
        self._check_kept(permit)
        self._permits.add(permit)
        # A burst must not pass because none of it has been read yet.
        self._take(permit, {_COMING: permit.work})
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
        of_client = self._lines.get(permit.client)
        for kind in _BOUNDED:
            bound, total = getattr(self._bounds, kind), self._total[kind]
            if total > _OPEN_SHARE * bound and self._line:
                raise self._refusal(permit, 0.0, of_client=False)
            held = self._clients.get(permit.client, {}).get(kind, 0.0)
            if held > _OPEN_SHARE * (bound - total + held) / 2 and of_client:
                raise self._refusal(permit, 0.0, of_client=True)
        self._check_wait(permit, _OPEN_SHARE if of_client else 1.0)
        self._check_turns(permit, _OPEN_SHARE if self._line else 1.0)

    def _check_wait(self, permit: "Permit", share: float = 1.0) -> None:
        """Refuse one that would wait too long for its first turn: behind its client's own work."""
        ahead = self._ahead_of(permit)
        if ahead:
            # Clients take turns: until one's work is done, each other gets as much done at most.
            work = ahead + self._others(permit, ahead)
            self._check_late(permit, work, share, of_client=True)

    def _check_turns(self, permit: "Permit", share: float = 1.0) -> None:
        """Refuse one that would wait too long for its last turn: for those of other clients."""
        mine = self._ahead_of(permit) + permit.work
        self._check_late(permit, self._others(permit, mine), share, of_client=False)

    def _check_late(self, permit: "Permit", work: float, share: float, *, of_client: bool) -> None:
        rate = self._rate.per_second
        late_s = work / rate - share * self._bounds.queue_s if rate else 0.0
        if late_s > 0:
            raise self._refusal(permit, late_s if share == 1 else 0.0, of_client=of_client)

    def _others(self, permit: "Permit", work: float) -> float:
        """Give what other clients get done until a client has had so much done."""
        others = (held for client, held in self._clients.items() if client != permit.client)
        return sum(min(work, held[_WORK] + held[_COMING]) for held in others)

    def _ahead_of(self, permit: "Permit") -> float:
        """Give the work of a client's other requests."""
        held = self._clients.get(permit.client, {})
        return sum(held.get(kind, 0.0) - permit.held[kind] for kind in (_WORK, _COMING))

    def _check(self, permit: "Permit", kind: str, amount: float) -> None:
        bound = getattr(self._bounds, kind)
        if permit.held[kind] + amount > bound:
            raise PayloadTooLarge(f"A request may have {bound} {kind} at most.")
        total = self._total[kind]
        room = bound - total - amount
        excess = -room
        of_client = False
        held = self._clients.get(permit.client, {}).get(kind, 0)
        if held > permit.held[kind]:  # by other requests of the client
            of_client = room >= 0
            excess = max(excess, (held + amount - room) / 2)
        if excess > 0:
            room_s = self.wait_s() * excess / max(total, excess)
            raise self._refusal(permit, room_s, of_client=of_client)

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
            sharing = len(self._clients.keys() | self._lines.keys())
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
        if not any(of_client[kind] for kind in ("frames", "bytes", _COMING)):
            del self._clients[permit.client]
        if not self._total["frames"]:
            self._total[_WORK] = 0.0  # not the rounding errors of a long life

    def _done(self, permit: "Permit", amounts: Mapping[str, float]) -> None:
        self._rate.done(amounts[_WORK])
        self._give_back(permit, amounts)

    def _pace_s(self, work: float) -> float:
        rate = self._rate.per_second
        return work / rate if rate else _PACE_UNMEASURED_S


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
        self._admission = admission
        self._waiting: asyncio.Timeout | None = None
        self._each: Mapping[str, float] = {}
        self._due = 0.0

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
        self.work = work = frames + pixels / _PIXELS_PER_WORK
        self._admission._check(self, "frames", frames)
        self._admission._check(self, "pixels", pixels)
        self._admission._check_wait(self)
        self._admission._check_turns(self)
        amounts = {"frames": frames, "pixels": pixels, _WORK: work, _COMING: -self.held[_COMING]}
        self._admission._take(self, amounts)
        self._each = {"frames": 1, "pixels": pixels // frames, _WORK: work / frames}
        self._due = time.monotonic()

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
        self._due += self._admission._pace_s(amounts[_WORK])
        with await self._admission._turns.take(self.client, due) as turn:
            if self._waiting is not None and not self._waiting.expired():
                self._waiting.reschedule(None)
            yield turn
        self._admission._done(self, amounts)
