"""Figures for Prometheus: what was asked, how it ended, what became of the frames, which model.

One registry per app, so that two apps in one process do not add up.
"""

from collections.abc import Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service import __version__
from service.errors import TABLE, ErrorCode

__all__ = ["CLIENT_GONE", "CONTENT_TYPE_LATEST", "Metrics"]

CLIENT_GONE = "client_gone"
# Those of the table that a task cannot end with: they are about paths.
_OF_PATHS = {ErrorCode.NOT_FOUND, ErrorCode.UNKNOWN_MODEL}
_OUTCOMES = ("ok", CLIENT_GONE, *sorted(code.value for code in set(TABLE.values()) - _OF_PATHS))


class Metrics:
    """The app's counters; every label value is from a closed list, never from a request."""

    def __init__(self, tasks: Iterable[str]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "endoclip_requests_total",
            "Requests for a task, by outcome: ok, client_gone or the error code.",
            ["task", "outcome"],
            registry=self._registry,
        )
        self._frames = Counter(
            "endoclip_frames_total",
            "Frames answered, by status: scored, abstained, rejected.",
            ["status"],
            registry=self._registry,
        )
        self._dropped = Counter(
            "endoclip_frames_dropped_total",
            "Admitted frames and texts not worked on to the end, by the outcome of their request.",
            ["outcome"],
            registry=self._registry,
        )
        self._pending = Gauge(
            "endoclip_pending",
            "What is admitted and not yet answered: frames (texts count as frames), bytes, pixels.",
            ["of"],
            registry=self._registry,
        )
        self._wait = Gauge(
            "endoclip_queue_seconds",
            "Time that what is pending will take, at the measured rate.",
            registry=self._registry,
        )
        self._ready = Gauge(
            "endoclip_ready", "1 when /readyz answers 200.", registry=self._registry
        )
        self._build = Gauge(
            "endoclip_build_info",
            "Always 1; the labels say what runs.",
            ["version", "model", "model_version", "digest", "execution_provider"],
            registry=self._registry,
        )
        # A counter that is absent until its first event hides that event from rate().
        for task in tasks:
            for outcome in _OUTCOMES:
                self._requests.labels(task, outcome)
        for status in ("scored", "abstained", "rejected"):
            self._frames.labels(status)
        for outcome in _OUTCOMES[1:]:
            self._dropped.labels(outcome)

    def name_model(self, name: str, version: str, digest: str, execution_provider: str) -> None:
        """Say which model runs."""
        self._build.labels(__version__, name, version, digest, execution_provider).set(1)

    def count_request(self, task: str, outcome: str) -> None:
        """Count one request."""
        self._requests.labels(task, outcome).inc()

    def count_frames(self, statuses: Iterable[str]) -> None:
        """Count the frames of one answer."""
        for status in statuses:
            self._frames.labels(status).inc()

    def count_dropped(self, outcome: str, frames: int) -> None:
        """Count frames whose request ended before they were done."""
        self._dropped.labels(outcome).inc(frames)

    def render(self, *, ready: bool, pending: Mapping[str, int], wait_s: float) -> bytes:
        """Write the exposition text, with what only the moment of asking tells."""
        self._ready.set(1 if ready else 0)
        for kind, amount in pending.items():
            self._pending.labels(kind).set(amount)
        self._wait.set(wait_s)
        return generate_latest(self._registry)
