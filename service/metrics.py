"""Figures for Prometheus: requests, frames, phases, decisions, the model, the process, the GPU.

One registry per app, so that two apps in one process do not add up. Every label value is from a
closed list and every series is there from the start, with 0: a counter that is absent until its
first event hides that event from `rate()`. What each figure means is in docs/metrics.md.
"""

import math
import time
from collections import Counter as Tally
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from model_store.cores import usable_cores
from model_store.drift import Shift
from model_store.errors import ImageCode
from model_store.quality import AbstainReason
from service import __version__
from service.drift import Against, Drift
from service.errors import TABLE, ErrorCode
from service.exposition import Exposition
from service.gpu import GpuCollector
from service.health import Reason
from service.record import phase as phase_of_record
from service.shadow_figures import ShadowFigures

__all__ = ["CLIENT_GONE", "CONTENT_TYPE_LATEST", "Change", "Metrics", "Phase"]

CLIENT_GONE = "client_gone"
# Those of the table that a task cannot end with: they are about another path, and keys.
_OF_KEYS = {ErrorCode.UNAUTHENTICATED, ErrorCode.FORBIDDEN}
_OF_TASKS = set(TABLE.values()) - {ErrorCode.UNKNOWN_MODEL} - _OF_KEYS
_OUTCOMES = ("ok", CLIENT_GONE, *sorted(code.value for code in _OF_TASKS))
_REASONS = {
    "scored": ("",),
    "abstained": tuple(reason.value for reason in AbstainReason),
    "rejected": tuple(code.value for code in ImageCode),
}
_STREAM_FATES = ("answered", "newer", "overloaded", "rate_limited")
_DECISIONS = ("positive", "negative", "abstained")
# Prometheus interpolates inside a bucket: edges stand on the limits of real time, 77 ms and 120 ms,
# so that the share above them is exact.
_SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.077, 0.1, 0.12, 0.25),
    *(0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_PROBABILITY = tuple(edge / 10 for edge in range(1, 11))


class Change(StrEnum):
    """What an operator asks of the bundles of a running service."""

    LOAD = "load"
    """Serve another bundle."""
    ROLLBACK = "rollback"
    """Serve the one before again."""
    SHADOW = "shadow"
    """Let a bundle score live traffic beside the one that is served."""


class Phase(StrEnum):
    """What a request's time goes into."""

    RECEIVE = "receive"
    """Reading a body and taking it apart, once a request."""
    TURN = "turn"
    """A frame's wait for its turn and for a decode thread."""
    DECODE = "decode"
    """Decoding, resizing and judging a frame."""
    QUEUE = "queue"
    """A decoded frame's wait for the encode worker."""
    ENCODE = "encode"
    """One run of the image tower, for a batch of frames."""
    TEXT = "text"
    """One run of the text tower, for a batch of texts or the prompts of two labels."""
    UNIFY = "unify"
    """Scoring a patient from its frames' embeddings."""
    RESPOND = "respond"
    """Writing an answer, in whatever dialect."""


class Metrics:
    """The app's figures."""

    def __init__(self, tasks: Iterable[str]) -> None:
        """Begin at 0.

        Args:
            tasks: names of all tasks.
        """
        # A second series beside each, with the time of its making.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = self._registry = CollectorRegistry()
        self._exposition = Exposition(registry)
        self._default_device = ""
        self._gpu: GpuCollector | None = None

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"endoclip_{name}_total", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"endoclip_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, edges: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"endoclip_{name}", text, labels, buckets=edges, registry=registry)

        self._requests = counter(
            "requests", "Requests: ok, client_gone or the error code.", "task", "outcome"
        )
        self._request_seconds = histogram(
            "request_seconds", "Time from a request's head to its answer's.", _SECONDS, "task"
        )
        self._frames = counter("frames", "Frames answered.", "status", "reason")
        self._dropped = counter(
            "frames_dropped", "Admitted frames and texts left undone.", "outcome"
        )
        self._stream = counter("stream_frames", "Frames of live streams.", "fate")
        self._stream_seconds = histogram(
            "stream_seconds", "From a live frame's arrival to its result.", _SECONDS
        )
        self._phases = histogram("phase_seconds", "Time by phase of the work.", _SECONDS, "phase")
        self._batch = histogram("batch_frames", "Frames of one graph run.", _BATCH)
        self._pending = {
            of: gauge(f"pending_{of}", f"Admitted and not yet answered: {of}.")
            for of in ("frames", "bytes", "pixels")
        }
        self._wait = gauge("queue_seconds", "Time that what is pending will take.")
        by_decision = ("task", "operating_point", "device", "decision")
        self._patients = counter("patient_decisions", "Patients decided.", *by_decision)
        self._decisions = counter("frame_decisions", "Scored frames decided.", *by_decision)
        self._patient_probability = histogram(
            "patient_probability", "Of a patient.", _PROBABILITY, "task", "device"
        )
        self._frame_probability = histogram(
            "frame_probability", "Of a scored frame.", _PROBABILITY, "task", "device"
        )
        self._refusals = counter("refusals", "Requests refused for their key.", "code")
        self._ready = gauge("ready", "1 when /readyz answers 200.")
        self._deviation = gauge("canary_deviation", "Largest difference of a canary.")
        self._tolerance = gauge("canary_tolerance", "Largest difference that passes.")
        self._model = gauge(
            "model_info", "Always 1.", "name", "version", "digest", "execution_provider"
        )
        self._changes = counter(
            "model_changes", "Bundles loaded, rolled back to, shadowed.", "action", "outcome"
        )
        self.shadow = ShadowFigures(registry)
        self._faults = gauge("not_ready", "1 for each reason why /readyz is 503.", "reason")
        compared = ("device", "shift", "against")
        self._drift_p = gauge("drift_p_value", "Of recent exams being as others.", *compared)
        self._drift_distance = gauge("drift_distance", "From others' mean.", *compared)
        self._drift_exams = gauge("drift_exams", "Exams that are compared.", "device", "side")
        self._reference = gauge("drift_reference_exams", "Exams in the bundle.", "as_met")
        gauge("build_info", "Always 1.", "version").labels(__version__).set(1)
        gauge("usable_cores", "Cores that the process may use.").set(usable_cores())
        self._workers = gauge("encode_workers", "Graph runs at a time.")
        ProcessCollector(registry=registry)
        self._begin(tuple(tasks))

    def _begin(self, tasks: Sequence[str]) -> None:
        for code in _OF_KEYS:
            self._refusals.labels(code.value)
        for task in tasks:
            self._request_seconds.labels(task)
            for outcome in _OUTCOMES:
                self._requests.labels(task, outcome)
        for status, reasons in _REASONS.items():
            for reason in reasons:
                self._frames.labels(status, reason)
        for outcome in _OUTCOMES[1:]:
            self._dropped.labels(outcome)
        for fate in _STREAM_FATES:
            self._stream.labels(fate)
        # Looked up once: a frame passes four of them.
        self._phase = {phase: self._phases.labels(phase) for phase in Phase}
        for action in Change:
            for outcome in ("ok", "refused"):
                self._changes.labels(action.value, outcome)

    def count_workers(self, workers: int) -> None:
        """Say how many graph runs there may be at a time."""
        self._workers.set(workers)

    def name_model(self, name: str, version: str, digest: str, execution_provider: str) -> None:
        """Say which model runs from now on, and look at the GPU if it runs on one."""
        self._model.clear()
        self._reference.clear()
        self._model.labels(name, version, digest, execution_provider).set(1)
        if execution_provider.startswith("CUDA") and self._gpu is None:
            self._gpu = GpuCollector()
            self._registry.register(self._gpu)

    def expect_decisions(
        self, tasks: Iterable[str], points: Iterable[str], devices: Sequence[str]
    ) -> None:
        """Begin the figures of decisions at 0.

        Args:
            tasks: those that decide.
            points: operating points.
            devices: device profiles, the default one first.
        """
        self._default_device = devices[0]
        points, tasks = tuple(points), tuple(tasks)
        self.shadow.begin(tasks)
        for task in tasks:
            for device in devices:
                self._patient_probability.labels(task, device)
                self._frame_probability.labels(task, device)
                for point in points:
                    for decision in _DECISIONS:
                        self._decisions.labels(task, point, device, decision)
                        self._patients.labels(task, point, device, decision)
                    self._patients.labels(task, point, device, "unscored")

    def count_change(self, action: Change, outcome: str) -> None:
        """Count an attempt to exchange bundles: `ok` or `refused`."""
        self._changes.labels(action.value, outcome).inc()

    def observe(self, phase: Phase, seconds: float) -> None:
        """Count one passage of a phase; from any thread."""
        self._phase[phase].observe(seconds)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Count the time inside; what ends in an error is in the request's record alone."""
        started = time.perf_counter()
        with phase_of_record(phase):
            yield
        self.observe(phase, time.perf_counter() - started)

    def count_batch(self, frames: int) -> None:
        """Count one run of the image tower."""
        self._batch.observe(frames)

    def count_request(self, task: str, outcome: str, seconds: float) -> None:
        """Count one request; its time only if it was answered."""
        self._requests.labels(task, outcome).inc()
        if outcome == "ok":
            self._request_seconds.labels(task).observe(seconds)

    def count_stream(self, fate: str) -> None:
        """Count one frame of a live stream: `answered`, or why it was dropped."""
        self._stream.labels(fate).inc()

    def observe_stream(self, seconds: float) -> None:
        """Count the time of one live frame, from its arrival to its result."""
        self._stream_seconds.observe(seconds)

    def count_refusal(self, code: str) -> None:
        """Count one request, of any path, without the key that it needs."""
        self._refusals.labels(code).inc()

    def count_dropped(self, outcome: str, frames: int) -> None:
        """Count frames whose request ended before they were done."""
        self._dropped.labels(outcome).inc(frames)

    def count_frames(self, patients: Iterable[Mapping[str, Any]]) -> None:
        """Count the frames of an answer's patients by what became of them."""
        fates = Tally(_fate(frame) for patient in patients for frame in patient["frames"])
        for fate, count in fates.items():
            self._frames.labels(*fate).inc(count)

    def count_decisions(
        self, task: str, answer: Mapping[str, Any], devices: Sequence[str | None]
    ) -> None:
        """Count what a named task decided.

        Args:
            task: its name.
            answer: as sent.
            devices: device profile of each of its patients; None is the default.
        """
        point = answer["operating_point"]["name"]
        for patient, named in zip(answer["patients"], devices, strict=True):
            device = named or self._default_device
            decision = patient.get("decision", "unscored")
            self._patients.labels(task, point, device, decision).inc()
            if "probability" in patient:
                probability = self._patient_probability.labels(task, device)
                probability.observe(patient["probability"])
            scored = [frame for frame in patient["frames"] if frame["status"] == "scored"]
            for decision, count in Tally(frame["decision"] for frame in scored).items():
                self._decisions.labels(task, point, device, decision).inc(count)
            probability = self._frame_probability.labels(task, device)
            for frame in scored:
                probability.observe(frame["probability"])

    def show_drift(self, drift: Drift, devices: Iterable[str]) -> None:
        """Say how the exams of each device compare; NaN where there are too few."""
        reference = drift.reference
        as_met = str(reference is not None and reference.as_met).lower()
        self._reference.labels(as_met).set(len(reference.exams) if reference else 0)
        for device in devices:
            recent, earlier = drift.exams(device)
            self._drift_exams.labels(device, "recent").set(recent)
            self._drift_exams.labels(device, "earlier").set(earlier)
            found = drift.verdicts(device)
            for against in Against:
                for shift in Shift:
                    verdict = found.get((against, shift))
                    labels = (device, shift.value, against.value)
                    self._drift_p.labels(*labels).set(verdict.p_value if verdict else math.nan)
                    distance = verdict.distance if verdict else math.nan
                    self._drift_distance.labels(*labels).set(distance)

    def render(
        self,
        *,
        ready: bool,
        faults: Collection[str],
        canaries: tuple[float, float],
        pending: Mapping[str, int],
        wait_s: float,
    ) -> bytes:
        """Write the exposition text, with what only the moment of asking tells."""
        self._deviation.set(canaries[0])
        self._tolerance.set(canaries[1])
        self._ready.set(1 if ready else 0)
        for of, amount in pending.items():
            self._pending[of].set(amount)
        self._wait.set(wait_s)
        for reason in Reason:
            self._faults.labels(reason.value).set(reason.value in faults)
        return self._exposition.text()


def _fate(frame: Mapping[str, Any]) -> tuple[str, str]:
    """Give status and reason; a frame that is scored but not decided (low confidence) has none."""
    status = frame["status"]
    if status == "rejected":
        return status, frame["error"]["code"]
    return status, frame["reason"] if status == "abstained" else ""
