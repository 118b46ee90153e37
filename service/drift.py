"""Drift by device profile: are recent exams like the bundle's reference, and like earlier ones?

Frames are summed up by exam as they are encoded (`model_store.reference`): O(d) a frame, in the
request's own time, and nothing of a single frame is kept. Exams are compared when figures are asked
for, off the event loop, one thread at a time. Patients are told apart by a keyed hash whose key
ends with the process; an exam that has ended has none.

What is one exam: all frames of a patient who is named, until `IDLE_S` passed without one; a patient
without a name (ids that count up from 0) who comes with several frames; and of single frames
without a name all that one device sends, until it pauses for `IDLE_S`; and what was sent as an exam
(`service.exams`), when it is closed. An exam that comes twice, as it does when both tasks are
asked, is counted once.
"""

import hashlib
import secrets
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from model_store.bundle import Bundle
from model_store.drift import Shift, Verdict, compare
from model_store.encoder import Floats
from model_store.quality import OPTICS
from model_store.reference import Exam, Exams
from model_store.scoring import cosines, margin

__all__ = ["EARLIER", "IDLE_S", "LEAST_EARLIER", "LEAST_RECENT", "RECENT", "Against", "Drift"]

RECENT, LEAST_RECENT = 24, 12
"""Exams that are compared with others: the last ones, and how few are compared at all."""
EARLIER, LEAST_EARLIER = 128, 40
"""Exams of the same device before these."""
IDLE_S = 1800.0
_UNKNOWN = np.full(len(OPTICS), np.nan, np.float32)
_ROUNDING = 1e-2  # of sums over an exam's frames, each of deviation 1 between frames
_OPEN = 256  # exams under way; beyond that, the one that has waited longest has ended


class Against(StrEnum):
    """What recent exams are compared with."""

    REFERENCE = "reference"
    """The exams in the bundle."""
    EARLIER = "earlier"
    """The device's own before them, since the start of the process."""


Verdicts = dict[tuple[Against, Shift], Verdict]


@dataclass(slots=True)
class _Device:
    """What is known of one device profile."""

    ended: deque[Exam] = field(default_factory=lambda: deque(maxlen=RECENT + EARLIER))
    count: int = 0
    compared: int = 0
    verdicts: Verdicts = field(default_factory=dict)


class Drift:
    """The exams of all devices; may be used from any thread."""

    def __init__(
        self, bundle: Bundle, devices: Iterable[str], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without an exam.

        Args:
            bundle: gives the reference; without one nothing is kept.
            devices: all device profiles, the default one first.
            clock: seconds that only go up.
        """
        self.reference = bundle.reference
        self._bundle = bundle
        self._clock = clock
        self._key = secrets.token_bytes(32)
        self._devices = {name: _Device() for name in devices}
        self._open: OrderedDict[tuple[str, bytes], tuple[float, Exam]] = OrderedDict()
        self._lock = threading.Lock()
        self._comparing = threading.Lock()

    def add(
        self,
        device: str | None,
        patient_id: str,
        place: int,
        embeddings: Sequence[Floats],
        optics: Sequence[Floats | None],
    ) -> None:
        """Add the scored frames of one patient of a request.

        Args:
            device: its device profile; None is the first.
            patient_id: as sent, or the decimal index.
            place: index of the patient in its request.
            embeddings: float32 (d,) each.
            optics: float32 (6,) each, beside them; None where they are not known.
        """
        if self.reference is None or not embeddings:
            return
        device = device or next(iter(self._devices))
        nameless = patient_id == str(place)
        if nameless and len(embeddings) > 1:
            self.add_exam(device, embeddings, optics)
            return
        exam = self._measured(embeddings, optics)
        name = b"" if nameless else hashlib.blake2b(patient_id.encode(), key=self._key).digest()
        now = self._clock()
        with self._lock:
            self._end_idle(now)
            _, before = self._open.pop((device, name), (now, None))
            self._open[device, name] = (now, exam if before is None else before + exam)
            if len(self._open) > _OPEN:
                (oldest, _), (_, ended) = self._open.popitem(last=False)
                self._end(oldest, ended)

    def add_exam(
        self, device: str, embeddings: Sequence[Floats], optics: Sequence[Floats | None]
    ) -> None:
        """Add the scored frames of an exam that has ended; arguments as for `add`."""
        if self.reference is None or not embeddings:
            return
        exam = self._measured(embeddings, optics)
        with self._lock:
            self._end(device, exam)

    def compare(self) -> None:
        """Compare the exams of every device that has new ones; at once where a call is running."""
        if self.reference is None or not self._comparing.acquire(blocking=False):
            return
        try:
            with self._lock:
                self._end_idle(self._clock())
                waiting = [
                    (device, list(device.ended), device.count)
                    for device in self._devices.values()
                    if device.count > device.compared
                ]
            for device, exams, count in waiting:
                device.verdicts = self._verdicts(exams)
                device.compared = count
        finally:
            self._comparing.release()

    def verdicts(self, device: str) -> Verdicts:
        """Give the last comparisons of a device; one that is not there had too few exams."""
        return self._devices[device].verdicts

    def exams(self, device: str) -> tuple[int, int]:
        """Give how many ended exams of a device are compared, and how many stand before them."""
        ended = len(self._devices[device].ended)
        return min(ended, RECENT), max(ended - RECENT, 0)

    def _measured(self, embeddings: Sequence[Floats], optics: Sequence[Floats | None]) -> Exam:
        assert self.reference is not None  # nosec B101  # for the type checker; `add` has looked
        name = self.reference.label_set
        positive = self._bundle.label_set(name).positive_index or 0
        rows = np.stack(embeddings)
        cosine = cosines(rows, self._bundle.class_embeddings[name])
        margins = margin(cosine, positive, self._bundle.manifest.logit_scale)
        known = np.stack([_UNKNOWN if one is None else one for one in optics])
        return self.reference.measure(rows, np.asarray(margins, np.float64), known)

    def _end_idle(self, now: float) -> None:
        while self._open:
            (device, name), (last, exam) = next(iter(self._open.items()))
            if now - last < IDLE_S:
                return
            del self._open[device, name]
            self._end(device, exam)

    def _end(self, device: str, exam: Exam) -> None:
        known = self._devices[device]
        if any(_same(exam, other) for other in known.ended):
            return
        known.ended.append(exam)
        known.count += 1

    def _verdicts(self, exams: list[Exam]) -> Verdicts:
        assert self.reference is not None  # nosec B101  # for the type checker; `compare` has looked
        recent, earlier = exams[-RECENT:], exams[:-RECENT]
        found: Verdicts = {}
        if len(recent) >= LEAST_RECENT:
            for shift, verdict in compare(self.reference.exams, Exams.of(recent)).items():
                # How many polyps were put into composed exams says nothing of those met.
                if self.reference.as_met or shift is Shift.IMAGE:
                    found[Against.REFERENCE, shift] = verdict
        if len(earlier) >= LEAST_EARLIER:
            for shift, verdict in compare(Exams.of(earlier), Exams.of(recent)).items():
                found[Against.EARLIER, shift] = verdict
        return found


def _same(one: Exam, other: Exam) -> bool:
    """Whether two exams are of the same frames; batches round differently."""
    # The cheapest first: a device's exams are all looked at when one ends.
    if abs(float(one.margin[0] - other.margin[0])) > _ROUNDING:
        return False
    alike = bool((one.frames == other.frames).all())
    return alike and float(np.abs(one.image - other.image).max()) < _ROUNDING
