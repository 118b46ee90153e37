"""Which bundle an exam is of, and what its result is computed with when that is served no more.

Embeddings of two towers have nothing in common, so an exam takes frames only while the bundle that
it began with is served. What its frames come to needs no tower: `unify`, class embeddings and
calibration, which are read from the bundle's folder as long as that is where bundles are looked
for. So a result so far can be read, and made final, by the bundle that the frames were scored with.
"""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model_store.bundle import Bundle
from model_store.encoder import Floats, Unifier
from model_store.errors import BundleError
from model_store.label_sets import LabelSet
from model_store.patient import PatientScore, score_patient
from model_store.scoring import Calibration
from service.bundles import find_digest, open_bundle
from service.engine import Engine
from service.errors import Conflict
from service.exams.values import Exam
from service.scorer import Scorer
from service.settings import Settings, newest_bundle

__all__ = ["Bundles", "check_served", "is_served", "profile_of"]

# Its only graph runs there, wherever the towers ran.
_PROVIDER = "CPUExecutionProvider"


class Bundles:
    """Finds what exams are scored with."""

    def __init__(self, settings: Settings) -> None:
        self._configured, self._root = settings.bundle, settings.bundles
        self._threads = settings.encode_threads
        self._opening = asyncio.Lock()
        self._last: _Past | None = None

    async def scorer(self, engine: Engine, exam: Exam) -> Scorer:
        """Give what scores an exam's frames: the engine, or its bundle from the disk.

        Raises:
            Conflict: neither has it; the detail says what to do.
        """
        if is_served(engine, exam):
            return engine
        if exam.options.site_profile is not None:
            raise Conflict(
                "The exam was scored under a site profile that is not in force. Serve its bundle "
                f"{exam.options.bundle} with that profile to read or close it, or delete it."
            )
        async with self._opening:
            if self._last is None or self._last.bundle.digest != exam.options.bundle:
                # One at a time: most exams of before are of the bundle before.
                self._last = None
                self._last = await asyncio.to_thread(self._open, exam.options.bundle)
            return self._last

    def _open(self, digest: str) -> "_Past":
        try:
            path: Path = find_digest(self._configured or newest_bundle(), self._root, digest)
            return _Past(open_bundle(path), self._threads)
        except BundleError as error:
            raise Conflict(
                f"The exam began with the bundle {digest}, which is neither served nor a sound "
                "bundle below ENDOCLIP_BUNDLES. Put it back there to read or close the exam, or "
                "delete it and open a new one."
            ) from error


class _Past:
    """A bundle that is not served, without its towers."""

    site_profile = None
    provider = _PROVIDER

    def __init__(self, bundle: Bundle, threads: int) -> None:
        self.bundle = bundle
        self.encoder = Unifier(bundle, threads=threads)

    @property
    def calibrations(self) -> Mapping[str, Calibration]:
        return self.bundle.calibrations

    def score(
        self,
        label_set: LabelSet,
        classes: Floats,
        embeddings: Sequence[Floats],
        *,
        calibrated: bool,
    ) -> PatientScore:
        calibration = self.calibrations.get(label_set.name) if calibrated else None
        return score_patient(self.encoder, label_set, classes, calibration, np.stack(embeddings))


def is_served(engine: Engine, exam: Exam) -> bool:
    """Whether what an exam began with is what is served."""
    options = exam.options
    return (options.bundle, options.site_profile) == (engine.bundle.digest, profile_of(engine))


def check_served(engine: Engine, exam: Exam) -> None:
    """Hold an exam against what is served.

    Raises:
        Conflict: it began with another bundle or site profile, so it takes no frames.
    """
    if is_served(engine, exam):
        return
    if exam.options.site_profile is not None:
        raise Conflict(
            "The exam began under a site profile that is not in force, and takes no more frames: "
            f"serve its bundle {exam.options.bundle} with that profile to go on with it, or open a "
            "new one."
        )
    rest = (
        "It takes no more frames: read its result so far, close it (both by its own bundle), and "
        "open a new exam for what is still to come."
    )
    if exam.options.bundle == engine.bundle.digest:
        raise Conflict(f"The exam began without the site profile that is in force. {rest}")
    raise Conflict(
        f"The exam began with the bundle {exam.options.bundle}; this service serves "
        f"{engine.bundle.digest}. {rest}"
    )


def profile_of(engine: Engine) -> str | None:
    """Give the digest of the site profile in force, if any is."""
    return engine.site_profile.digest if engine.site_profile else None
