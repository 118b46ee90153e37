"""Whether the service may answer, and if not, why: looked at again and again while it runs.

Every `interval_s`, and at once when a graph has failed, a thread of its own lets the canary frames
take the way that live frames take (decoder, quality gate, the encode workers' batches, scoring) and
compares what comes out with the record; asks the runtime what it really runs on; and looks whether
the bundle's folder is still what was opened. A frame is what a canary costs the worker, and only
one is in its queue at a time.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats, Unifier
from model_store.errors import EndoClipError, OutputNotFinite, SelfTestFailed
from model_store.images import Pixels
from model_store.selftest import SelfTestReport, recheck, self_test
from service.errors import TowersUnreachable
from service.logs import Event

__all__ = ["Health", "Reason"]

# Between two checks that failures asked for; a frame that breaks a graph may come a thousand times.
_PAUSE_S = 1.0
# 40 MB take 0.2 s to read; a bit that rotted on the disk meets the text tower's next load, a
# restart, or whoever copies the folder.
_REREAD_S = 3600.0
_logger = logging.getLogger(__name__)


class Reason(StrEnum):
    """Why the service is not ready; a member of the problem document, and a label of a metric."""

    STARTING = "starting"
    """The self-test has not ended."""
    SELF_TEST_FAILED = "self_test_failed"
    """The canaries cannot be scored at all."""
    CANARY_MOVED = "canary_moved"
    """A canary gives another number than was recorded."""
    OUTPUT_NOT_FINITE = "output_not_finite"
    """A graph gives NaN or infinity for a canary."""
    PROVIDER_FELL_BACK = "provider_fell_back"
    """The runtime has left the execution provider it started with."""
    BUNDLE_CHANGED = "bundle_changed"
    """The bundle's folder is not what was opened."""
    WORKER_DEAD = "worker_dead"
    """A thread that runs the graphs has ended."""
    WORKER_STUCK = "worker_stuck"
    """A graph run, a canary's or another, has not ended in a minute."""
    TOWERS_UNREACHABLE = "towers_unreachable"
    """On a cluster: no encoder replica answers."""


class Health:
    """The state of one loaded bundle.

    Attributes:
        canaries: largest difference of the last look at them, and the tolerance; NaN before it.
    """

    def __init__(
        self,
        encoder: Unifier,
        encode: Callable[[Pixels], Floats],
        interval_s: float,
    ) -> None:
        """Prepare to look; `start` begins.

        Args:
            encoder: of the bundle. One whose towers are elsewhere has nothing to test by itself:
                its first look is one like all later ones, and may be made up for.
            encode: encodes frames by way of the encode workers; TimeoutError when one gives none.
            interval_s: seconds between checks.
        """
        self._encoder = encoder
        self._encode = encode
        self._interval_s = interval_s
        self._folder = _Folder(encoder.bundle)
        self._images: Mapping[str, bytes] = {}
        self._faults: Mapping[Reason, str] = {Reason.STARTING: "The service is starting."}
        self.canaries = (math.nan, math.nan)
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="health", daemon=True)

    @property
    def faults(self) -> Mapping[Reason, str]:
        """What is wrong, by reason; empty when nothing is."""
        return self._faults

    def start(self) -> None:
        """Run the self-test, and watch from then on if it holds; one that fails is final."""
        try:
            bundle = self._encoder.bundle
            names = [frame.file for frame in bundle.canaries.frames]
            self._images = {name: (bundle.path / name).read_bytes() for name in names}
            if isinstance(self._encoder, Encoder):
                self._test(self._encoder)
            else:
                self._note(self._look())
        # Whatever it is: a service that is up and says why it is not ready can be looked into.
        except Exception as error:
            self._faults = {_reason(error): f"The self-test failed: {_said(error)}"}
            _logger.error(Event("self_test", result="failed", reason=_said(error)))
            return
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_PAUSE_S)

    def suspect(self) -> None:
        """Look now: something has failed."""
        self._wake.set()

    def _test(self, encoder: Encoder) -> None:
        report = self._shown(lambda: self_test(encoder))
        self._faults = {}
        _logger.info(
            Event(
                "self_test",
                result="passed",
                compared=report.compared,
                max_difference=float(f"{report.max_difference:.2g}"),
                tolerance=report.tolerance,
                provider=report.provider,
            )
        )

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._wake.wait(self._pause_s())
            self._wake.clear()
            if self._stopping.is_set():
                return
            self._note(self._look())
            self._stopping.wait(_PAUSE_S)

    def _pause_s(self) -> float:
        # Towers elsewhere come back as they went, without a word.
        here = isinstance(self._encoder, Encoder)
        return self._interval_s if here or not self._faults else min(_PAUSE_S, self._interval_s)

    def _look(self) -> dict[Reason, str]:
        faults: dict[Reason, str] = {}
        encoder = self._encoder
        if isinstance(encoder, Encoder) and encoder.provider_now != encoder.provider:
            now, begun = encoder.provider_now, encoder.provider
            detail = f"Expected execution provider {begun}; found {now}."
            faults[Reason.PROVIDER_FELL_BACK] = detail
        try:
            self._folder.check()
        except (EndoClipError, OSError) as error:
            detail = f"The bundle's folder has changed: {_said(error)}"
            faults[Reason.BUNDLE_CHANGED] = detail
        try:
            self._shown(lambda: recheck(self._encoder, self._images, self._encode))
        except TimeoutError:
            faults[Reason.WORKER_STUCK] = "An encode worker gives no answer."
        except Exception as error:  # whatever it is, the next check must come
            faults[_reason(error)] = f"The canaries failed: {_said(error)}"
        return faults

    def _shown(self, test: Callable[[], SelfTestReport]) -> SelfTestReport:
        try:
            report = test()
        except SelfTestFailed as error:
            self.canaries = (error.difference, error.tolerance)
            raise
        self.canaries = (report.max_difference, report.tolerance)
        return report

    def _note(self, faults: Mapping[Reason, str]) -> None:
        for reason in faults.keys() - self._faults.keys():
            told = Event("readiness", state="lost", reason=reason.value, detail=faults[reason])
            _logger.error(told)
        for reason in self._faults.keys() - faults.keys():
            _logger.warning(Event("readiness", state="regained", reason=reason.value))
        self._faults = faults


class _Folder:
    """The bundle's folder; its files are read again when their entries changed, or in an hour."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._seen = self._entries()
        self._read_at = time.monotonic()

    def check(self) -> None:
        entries = self._entries()
        if entries != self._seen or time.monotonic() - self._read_at >= _REREAD_S:
            self._bundle.verify()
            self._seen, self._read_at = entries, time.monotonic()

    def _entries(self) -> list[tuple[int, ...]]:
        path = self._bundle.path
        names = ["manifest.json", *self._bundle.manifest.files]
        found: list[Path] = [path, path / "canaries", *(path / name for name in names)]
        stats = [entry.lstat() for entry in found if entry.exists()]
        return [(one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in stats]


def _reason(error: Exception) -> Reason:
    if isinstance(error, TowersUnreachable):
        return Reason.TOWERS_UNREACHABLE
    if isinstance(error, SelfTestFailed):
        return Reason.CANARY_MOVED
    if isinstance(error, OutputNotFinite):
        return Reason.OUTPUT_NOT_FINITE
    return Reason.SELF_TEST_FAILED


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, EndoClipError) else type(error).__name__
