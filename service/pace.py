"""How fast the work gets done, and how much of that what was promised takes."""

import math
import time
from collections.abc import Callable

__all__ = ["ServiceRate", "share_of"]

_MEMORY_S = 10.0
_LEAST_MEASURED_S = 1.0


def share_of(work: float, in_time: float) -> float:
    """Say how much of the rate work takes that is done evenly over its own time and a stated one.

    While shares sum to 1 at most, all of it is done in time, in whatever order it came.

    Args:
        work: units of it.
        in_time: that are done in the stated time; 0 where the rate is not known.
    """
    return work / (work + in_time) if in_time else 0.0


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
