"""Who was refused and told when to come back, so that there is room for them when they do.

Told one time after another, each by what the ones before it will take: told the same, they would
all come back at once, for the room of one. And kept: whoever comes when it was told to is known
again, and finds the room that those who come for the first time were not given meanwhile.
"""

import heapq
import math
import time
from collections.abc import Callable

__all__ = ["LONGEST_WAIT_S", "Appointments", "Caller"]

Caller = tuple[str, int]
"""What a caller is known again by: whose request it is, and the declared length of its body."""
LONGEST_WAIT_S = 60
"""Seconds that anybody is told to wait, at most. Behind that many nobody is expected: those who
never come back, or come when they like, must not put the others off for ever."""
# One that the clock or the way made early, or late, is still on time.
_EARLY_S = 0.5
_LATE_S = 5.0
# Not all of the rate is promised: it was measured, and no two frames take the same. What is left
# over is for those who come for the first time.
_PROMISED = 0.8


class Appointments:
    """One line of callers who wait elsewhere."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nobody.

        Args:
            clock: seconds.
        """
        self._clock = clock
        self._end = -math.inf
        self._due: dict[Caller, list[float]] = {}  # each a heap
        self._all: list[tuple[float, Caller]] = []  # a heap, with those who have come

    def __bool__(self) -> bool:
        """Whether somebody who was told to come may still come in time."""
        self._forget()
        return bool(self._due)

    def tell(self, caller: Caller, *, room_s: float, takes_s: float, again: bool = False) -> int:
        """Give a caller a time to come back.

        Args:
            caller: who will come.
            room_s: seconds until there is room for it, were it alone.
            takes_s: seconds that the service will take for its work.
            again: before all others: it has come when it was told, and there was no room.

        Returns:
            Whole seconds to wait.
        """
        now = self._clock()
        at = now + room_s
        if not again:
            at = max(at, self._end)
            self._end = min(at + takes_s / _PROMISED, now + max(room_s, LONGEST_WAIT_S))
        wait_s = min(max(math.ceil(at - now), 1), LONGEST_WAIT_S)
        if wait_s < LONGEST_WAIT_S:
            heapq.heappush(self._due.setdefault(caller, []), now + wait_s)
            heapq.heappush(self._all, (now + wait_s, caller))
        return wait_s

    def keep(self, caller: Caller) -> bool:
        """Say whether a caller has come when it was told to, and strike it off."""
        self._forget()
        times = self._due.get(caller)
        if not times or times[0] - _EARLY_S > self._clock():
            return False
        self._strike(caller)
        return True

    def _forget(self) -> None:
        """Strike off those who did not come."""
        over = self._clock() - _LATE_S
        while self._all and self._all[0][0] < over:
            at, caller = heapq.heappop(self._all)
            if self._due.get(caller, [math.inf])[0] == at:
                self._strike(caller)

    def _strike(self, caller: Caller) -> None:
        heapq.heappop(self._due[caller])
        if not self._due[caller]:
            del self._due[caller]
