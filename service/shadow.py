"""A second bundle that scores what was answered, to say how it would have decided.

Nothing waits for it. An answer is offered when it is out; one thread scores it again, frame by
frame, rests four times as long as each took, and stops while requests have work here. What does not
fit into its bounded queue is dropped, so under load the shadow is the first to go without, and its
comparison is then of what was answered in quieter moments. The thread has the priority of all
others: with a lower one it is put aside while it holds the interpreter's lock, and holds up all.
"""

import logging
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from model_store.encoder import Encoder, Floats
from model_store.errors import ImageRejected
from model_store.images import ImageLimits
from model_store.patient import score_patient
from model_store.profile import SiteProfile
from model_store.quality import QualityLimits, assess
from model_store.scoring import OperatingPoint
from model_store.selftest import self_test
from service.bundles import calibrations_of, open_bundle
from service.forms import FrameIn, PatientIn
from service.frames import decode_frame
from service.logs import Event, failure_fields
from service.settings import Box, Settings
from service.shadow_figures import ShadowFigures

__all__ = ["Shadow"]

_MAX_FRAMES = 1024
_MAX_BYTES = 64 * 1024 * 1024
_PAUSE_S = 0.005
# Rest for each second of work: a request that comes meets the shadow at work one time in five.
_REST = 4.0
_STOP_S = 5.0
_UNSCORED = "unscored"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A request of a named task, and what was answered to it."""

    task: str
    patients: Sequence[PatientIn]
    document: Mapping[str, Any]

    @property
    def frames(self) -> int:
        return sum(len(patient.frames) for patient in self.patients)

    @property
    def bytes(self) -> int:
        # Frames of one DICOM file have its bytes in common.
        files = {id(frame.data): frame for patient in self.patients for frame in patient.frames}
        return sum(frame.length for frame in files.values() if frame.data is not None)


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What one bundle makes of a frame or a patient."""

    decision: str
    probability: float | None = None

    @classmethod
    def told(cls, answer: Mapping[str, Any]) -> "_Verdict":
        return cls(answer.get("decision", _UNSCORED), answer.get("probability"))


class Shadow:
    """One bundle beside the one that is served."""

    def __init__(
        self,
        settings: Settings,
        figures: ShadowFigures,
        *,
        bundle: Path,
        devices: Mapping[str, Box],
        site_profile: SiteProfile | None,
        busy: Callable[[], bool],
    ) -> None:
        """Open the bundle, verified, and score its canaries; no thread is started yet.

        Args:
            settings: from `read_settings`.
            figures: told how the bundles agree.
            bundle: folder of the bundle.
            devices: as from `read_devices`.
            site_profile: used where it belongs to this bundle.
            busy: whether requests have work here now; from any thread.

        Raises:
            BundleError, EncodeFailed: the bundle cannot be used.
        """
        self.bundle = open_bundle(bundle)
        fits = site_profile is not None and site_profile.bundle.digest == self.bundle.digest
        self._calibrations = calibrations_of(self.bundle, site_profile if fits else None)
        self._encoder = Encoder(
            self.bundle,
            provider=settings.provider,
            allow_fallback=settings.allow_cpu_fallback,
            threads=1,  # one core at most, whatever else there is to do
        )
        self_test(self._encoder)
        self._limits = ImageLimits(
            settings.max_frame_bytes, settings.max_frame_pixels, settings.min_side_px
        )
        self._quality = QualityLimits.of(self.bundle.manifest.quality_gate)
        self._figures, self._devices, self._busy = figures, devices, busy
        self._waiting: deque[_Answered] = deque()
        self._frames = self._bytes = 0
        self._wake = threading.Condition()
        self._stopping = threading.Event()
        self._tally: Counter[tuple[str, ...]] = Counter()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)

    def start(self) -> None:
        """Begin; the figures begin at 0."""
        manifest = self.bundle.manifest
        self._figures.name(manifest.name, manifest.version, self.bundle.digest)
        self._thread.start()

    def stop(self) -> None:
        """End with the frame that is being scored; what waits is dropped, the memory given back."""
        with self._wake:
            self._stopping.set()
            self._waiting.clear()
            self._wake.notify()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        self._figures.end()
        if not self._thread.is_alive():  # else it is left behind, with what it works on
            self._encoder.close()

    def offer(self, task: str, patients: Sequence[PatientIn], document: Mapping[str, Any]) -> None:
        """Take an answer to be compared, if there is room; costs microseconds.

        Args:
            task: a named task.
            patients: as sent.
            document: as answered.
        """
        answered = _Answered(task, patients, document)
        with self._wake:
            fits = (
                self._frames + answered.frames <= _MAX_FRAMES
                and self._bytes + answered.bytes <= _MAX_BYTES
            )
            if fits and not self._stopping.is_set():
                self._waiting.append(answered)
                self._hold(answered.frames, answered.bytes)
                self._wake.notify()
        if not fits:
            self._count(task, "dropped")

    def agreement(self) -> dict[str, Any]:
        """Give what was counted so far, by task."""
        tally = dict(self._tally)
        return {
            task: {
                **{outcome: tally.get((task, outcome), 0) for outcome in ("compared", "dropped")},
                "failed": tally.get((task, "failed"), 0),
                **{
                    f"{of}s": {
                        "same": tally.get((task, of, "same"), 0),
                        "other": tally.get((task, of, "other"), 0),
                    }
                    for of in ("patient", "frame")
                },
            }
            for task in sorted({key[0] for key in tally})
        }

    def _hold(self, frames: int, octets: int) -> None:
        self._frames += frames
        self._bytes += octets
        self._figures.show_pending(self._frames)

    def _work(self) -> None:
        while (answered := self._next()) is not None:
            try:
                done = self._compare(answered)
            except Exception as error:  # whatever it is, the next one may do
                _logger.error(Event("shadow", state="failed", **failure_fields(error)))
                self._count(answered.task, "failed")
            else:
                if done:
                    self._count(answered.task, "compared")
            with self._wake:
                self._hold(-answered.frames, -answered.bytes)

    def _next(self) -> _Answered | None:
        with self._wake:
            while not self._waiting and not self._stopping.is_set():
                self._wake.wait()
            return None if self._stopping.is_set() else self._waiting.popleft()

    def _compare(self, answered: _Answered) -> bool:
        """Compare all of an answer or, where the shadow was stopped meanwhile, nothing of it."""
        task = answered.task
        point = self._calibrations[task].operating_point(
            answered.document["operating_point"]["name"]
        )
        found: list[tuple[str, _Verdict, _Verdict]] = []
        for patient, told in zip(answered.patients, answered.document["patients"], strict=True):
            verdicts = self._score(task, patient, told["frames"], point)
            if verdicts is None:
                return False
            if told["status"] != "rejected":
                found.append(("patient", _Verdict.told(told), verdicts[0]))
            found += [
                ("frame", _Verdict.told(frame), mine)
                for frame, mine in zip(told["frames"], verdicts[1:], strict=True)
                if frame["status"] != "rejected"
            ]
        for of, live, mine in found:
            self._note(task, of, live, mine)
        return True

    def _score(
        self,
        task: str,
        patient: PatientIn,
        told: Sequence[Mapping[str, Any]],
        point: OperatingPoint,
    ) -> list[_Verdict] | None:
        """Give the verdicts on a patient and on each frame; None when stopped."""
        box = self._devices[patient.device or next(iter(self._devices))]
        rows: dict[int, Floats] = {}
        for place, (frame, answer) in enumerate(zip(patient.frames, told, strict=True)):
            while self._busy() and not self._stopping.is_set():
                self._stopping.wait(_PAUSE_S)
            if self._stopping.is_set():
                return None
            if answer["status"] != "rejected" and frame.data is not None:
                began = time.monotonic()
                row = self._encode(frame, box)
                self._stopping.wait(_REST * (time.monotonic() - began))
                if row is not None:
                    rows[place] = row
        verdicts = [_Verdict(_UNSCORED)] * (1 + len(told))
        if not rows:
            return verdicts
        label_set = self.bundle.label_set(task)
        score = score_patient(
            self._encoder,
            label_set,
            self._encoder.class_embeddings(label_set),
            self._calibrations[task],
            np.stack(list(rows.values())),
        )
        if score.probability is None or score.frame_probability is None:
            return verdicts
        decision = point.decide_patient(score.probability, len(rows))
        verdicts[0] = _Verdict(decision.value, score.probability)
        for place, probability in zip(rows, score.frame_probability.tolist(), strict=True):
            verdicts[1 + place] = _Verdict(point.decide_frame(probability).value, probability)
        return verdicts

    def _encode(self, frame: FrameIn, box: Box) -> Floats | None:
        """Encode a frame; None where this bundle's contract or gate does not let it through."""
        try:
            contract = self.bundle.manifest.input
            pixels = decode_frame(frame, contract, limits=self._limits, crop=box)
        except ImageRejected:
            return None
        if assess(pixels, self._quality) is not None:
            return None
        row: Floats = self._encoder.encode_images(pixels[np.newaxis])[0]
        return row

    def _note(self, task: str, of: str, live: _Verdict, mine: _Verdict) -> None:
        same = live.decision == mine.decision
        difference = None
        if live.probability is not None and mine.probability is not None:
            difference = abs(live.probability - mine.probability)
        self._tally[task, of, "same" if same else "other"] += 1
        self._figures.compare(task, of, same=same, difference=difference)

    def _count(self, task: str, outcome: str) -> None:
        self._tally[task, outcome] += 1
        self._figures.count(task, outcome)
