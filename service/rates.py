"""How many frames a second a key may send.

A token bucket of one second's frames, charged with what a request holds once it has been read and
admitted. An exam may be larger than the bucket: it is let in whole as soon as one frame would be,
and the debt is waited for afterwards. Over any longer time the rate holds exactly, a camera that
sends single frames sees a plain token bucket, and no exam is too large ever to be sent.
"""

import math
import time
from collections.abc import Callable

from service.errors import RateLimited

__all__ = ["UNLIMITED", "FrameRate"]


class FrameRate:
    """One key's bucket; used on the event loop only."""

    def __init__(
        self, per_second: float | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start with a full bucket.

        Args:
            per_second: frames; None is no limit.
            clock: seconds.
        """
        self._per_second = per_second
        self._room = max(1.0, per_second or 0.0)
        self._tokens = self._room
        self._clock = clock
        self._at = clock()

    def check(self) -> None:
        """Refuse while not even one frame may come; called before a body is read.

        Raises:
            RateLimited: with the seconds after which one may.
        """
        if self._per_second is None:
            return
        now = self._clock()
        self._tokens = min(self._room, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1.0:
            raise RateLimited(math.ceil((1.0 - self._tokens) / self._per_second))

    def charge(self, frames: int) -> None:
        """Count the frames of a request that is about to be worked on.

        Args:
            frames: frames, texts and prompts.

        Raises:
            RateLimited: others of the key came first; nothing is counted.
        """
        self.check()
        if self._per_second is not None:
            self._tokens -= frames


UNLIMITED = FrameRate(None)
