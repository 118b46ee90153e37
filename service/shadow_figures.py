"""Figures of a shadow bundle: how often it decides as the served one does, and how far it is off.

They begin anew with each shadow, so that the counters themselves say how the present one agrees.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

__all__ = ["OUTCOMES", "ShadowFigures"]

OUTCOMES = ("compared", "dropped", "failed")
_OF = ("patient", "frame")
_AGREEMENT = ("same", "other")
# The bundle's own tolerance for canaries is 0.001; decisions flip by differences of some 0.1.
_DIFFERENCE = (0.0, 0.001, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)


class ShadowFigures:
    """Counted by the shadow's thread, read by a scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Prepare the figures; `begin` gives them their series."""
        self._tasks: tuple[str, ...] = ()
        self._info = Gauge(
            "endoclip_shadow_info",
            "1 while a shadow bundle runs, 0 without a name while none does.",
            ("name", "version", "digest"),
            registry=registry,
        )
        self._pending = Gauge(
            "endoclip_shadow_pending_frames", "Waiting for the shadow bundle.", registry=registry
        )
        self._answers = Counter(
            "endoclip_shadow_answers_total",
            "Answers compared, dropped for lack of time, failed.",
            ("task", "outcome"),
            registry=registry,
        )
        self._decisions = Counter(
            "endoclip_shadow_decisions_total",
            "Decisions that are the same in both bundles, or other.",
            ("task", "of", "agreement"),
            registry=registry,
        )
        self._difference = Histogram(
            "endoclip_shadow_score_difference",
            "Of the probabilities that both bundles gave.",
            ("task", "of"),
            buckets=_DIFFERENCE,
            registry=registry,
        )

    def begin(self, tasks: Iterable[str]) -> None:
        """Give every series of these tasks, at 0, and take the others away."""
        self._tasks = tuple(tasks)
        self.end()
        for figure in (self._answers, self._decisions, self._difference):
            figure.clear()
        for task in self._tasks:
            for outcome in OUTCOMES:
                self._answers.labels(task, outcome)
            for of in _OF:
                self._difference.labels(task, of)
                for agreement in _AGREEMENT:
                    self._decisions.labels(task, of, agreement)

    def name(self, name: str, version: str, digest: str) -> None:
        """Say which bundle is the shadow from now on; its figures begin at 0."""
        self.begin(self._tasks)
        self._info.clear()
        self._info.labels(name, version, digest).set(1)

    def end(self) -> None:
        """Say that there is no shadow any more; what was counted stays."""
        self._info.clear()
        self._info.labels("", "", "")
        self._pending.set(0)

    def show_pending(self, frames: int) -> None:
        """Say how many frames wait."""
        self._pending.set(frames)

    def count(self, task: str, outcome: str) -> None:
        """Count an answer of the service by what the shadow made of it."""
        self._answers.labels(task, outcome).inc()

    def compare(self, task: str, of: str, *, same: bool, difference: float | None) -> None:
        """Count one decision.

        Args:
            task: its name.
            of: `patient` or `frame`.
            same: whether both bundles decided alike.
            difference: between the probabilities, without sign; None where one of them gave none.
        """
        self._decisions.labels(task, of, _AGREEMENT[not same]).inc()
        if difference is not None:
            self._difference.labels(task, of).observe(difference)
