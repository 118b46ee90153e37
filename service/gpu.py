"""Memory and utilisation of the GPUs that this process sees, read from NVML at each scrape."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["GpuCollector"]


class GpuCollector(Collector):
    """Figures of each GPU; none where NVML or its binding (of the extra `gpu`) is missing."""

    def __init__(self) -> None:
        self._nvml: Any = None
        with suppress(Exception):  # no binding, no driver, no rights: three exceptions, one meaning
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml

    def collect(self) -> Iterator[Metric]:
        """Read them."""
        used = _family("memory_used_bytes", "Memory in use, by all processes.")
        total = _family("memory_bytes", "Memory of the card.")
        busy = _family("utilisation_ratio", "Share of the last second in which a kernel ran.")
        for index in range(self._nvml.nvmlDeviceGetCount() if self._nvml else 0):
            handle, name = self._nvml.nvmlDeviceGetHandleByIndex(index), [str(index)]
            with suppress(self._nvml.NVMLError):
                memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
                used.add_metric(name, memory.used)
                total.add_metric(name, memory.total)
            with suppress(self._nvml.NVMLError):  # a slice of a shared card has no rate of its own
                busy.add_metric(name, self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100)
        yield from (used, total, busy)


def _family(name: str, text: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"endoclip_gpu_{name}", text, labels=["gpu"])
