"""Gives a replica's figures to Ray, whose agent on each machine Prometheus scrapes.

Several replicas share a machine, and where they are changes with the load: a scrape of one port
would see one of them, another one each time. Ray's agents know them all. Each figure goes there as
it would be written for `/metrics`, under the same name (Ray puts `ray_` before it) and with the
replica and its deployment as further labels.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

from prometheus_client.parser import text_string_to_metric_families
from ray.serve.metrics import Gauge

__all__ = ["Figures"]

_EVERY_S = 10.0


class Figures:
    """Tells Ray the figures of one replica, again and again."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        """Prepare; to be called inside of a replica.

        Args:
            exposition: writes the figures as Prometheus text; called on the event loop.
        """
        self._exposition = exposition
        self._gauges: dict[str, Gauge] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; once more does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._again_and_again())

    async def stop(self) -> None:
        """Tell Ray nothing more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _again_and_again(self) -> None:
        while True:
            text = self._exposition().decode()
            await asyncio.to_thread(self._tell, text)
            await asyncio.sleep(_EVERY_S)

    def _tell(self, text: str) -> None:
        # Ray adds up what it is given for a counter, and these have been added up already.
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                gauge = self._gauges.get(sample.name)
                if gauge is None:
                    keys = tuple(sample.labels)
                    gauge = Gauge(sample.name, family.documentation, tag_keys=keys)
                    self._gauges[sample.name] = gauge
                gauge.set(sample.value, tags=dict(sample.labels))
