"""The loaded bundle and the threads that work for it.

Frames are decoded in a small pool, off the event loop; every graph run for frames and texts happens
on its worker (`service.towers`), together with what other requests have waiting. Each frame and
text waits for its turn first (`service.turns`): only as many are out as keep the threads busy, so a
whole exam does not stand in front of the single frame that comes after it, nor one client in front
of another, and decoded pixels do not pile up.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats, Unifier
from model_store.errors import EncodeFailed, ImageCode, ImageRejected, UnknownDevice
from model_store.images import ImageLimits, Pixels
from model_store.jpeg_header import jpeg_size
from model_store.label_sets import LabelSet
from model_store.patient import PatientScore, score_patient
from model_store.profile import SiteProfile
from model_store.quality import AbstainReason, QualityLimits, examine
from service.admission import Permit
from service.bundles import calibrations_of, open_bundle
from service.drift import Drift
from service.errors import NotReady, ShuttingDown, TowersUnreachable
from service.forms import FormLimits, FrameIn, RequestIn
from service.frames import decode_frame, pixels_of
from service.health import Health, Reason
from service.metrics import Metrics, Phase
from service.record import phase, waited_for_turn
from service.settings import Box, Settings
from service.towers import Kind, RemoteTowers, Towers, Worker

__all__ = ["Engine", "Frame", "all_of"]

T = TypeVar("T")
_CACHED_SETS = 64
_INLINE_FRAMES = 32
_STUCK_S = 60.0
_STOP_S = 5.0
_LOST = (Reason.WORKER_DEAD, Reason.WORKER_STUCK)


@dataclass(frozen=True, slots=True)
class Frame:
    """What became of one frame: exactly one of the three is set.

    Attributes:
        embedding: float32 (d,), unit length.
        abstained: why the quality gate set it aside.
        rejected: why it could not be read.
        grid: float32 (rows, columns, d) beside the embedding, where it was asked for.
        optics: float32 (6,) beside the embedding, as `quality.OPTICS`; None of a frame kept
            before they were.
    """

    embedding: Floats | None = None
    abstained: AbstainReason | None = None
    rejected: ImageRejected | None = None
    grid: Floats | None = None
    optics: Floats | None = None


class Engine:
    """One bundle, ready to score; shared by all requests."""

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        bundle: Path,
        devices: Mapping[str, Box],
        site_profile: SiteProfile | None,
        remote: RemoteTowers | None = None,
    ) -> None:
        """Open the bundle, verified, and its graphs; no thread is started yet.

        Args:
            settings: from `read_settings`.
            metrics: told the time of each phase and the batches.
            bundle: folder of the bundle.
            devices: as from `read_devices`.
            site_profile: of the site, if it has one.
            remote: gives the worker, where the towers are not to run in this process.

        Raises:
            BundleError: the bundle cannot be served, or the site profile does not belong to it.
        """
        self._metrics = metrics
        self.devices = devices
        self.site_profile = site_profile
        self.bundle = open_bundle(bundle)
        self.calibrations = calibrations_of(self.bundle, site_profile)
        self.encoder, self._batcher = _open(self.bundle, settings, metrics, remote)
        self.form_limits = FormLimits(
            settings.max_frames, settings.max_patients, settings.max_frame_bytes
        )
        self.image_limits = ImageLimits(
            settings.max_frame_bytes, settings.max_frame_pixels, settings.min_side_px
        )
        self._quality = QualityLimits.of(self.bundle.manifest.quality_gate)
        self._pool = ThreadPoolExecutor(settings.decode_threads, thread_name_prefix="decode")
        self.drift = Drift(self.bundle, self.devices)
        self._free_classes: OrderedDict[LabelSet, Floats] = OrderedDict()
        self.health = Health(self.encoder, self._encode_canaries, settings.health_interval_s)
        self._started = False
        self._stopping = False
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    def start(self) -> None:
        """Start the workers and run the self-test; a failed one leaves the engine not ready."""
        self._batcher.start()
        self._started = True
        self.health.start()

    def refuse(self) -> None:
        """Take no new requests; those that have begun go on."""
        self._stopping = True

    def stop(self) -> None:
        """Finish what was accepted, then end the threads; one that is stuck is left behind."""
        self._stopping = True
        self.health.stop()
        self._batcher.stop(_STOP_S)
        self._pool.shutdown(wait=True, cancel_futures=True)

    def release(self) -> None:
        """Stop, and give the memory of the graphs back; nobody may use it any more."""
        self.stop()
        self.encoder.close()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Keep the bundle loaded for what is done inside, though another may be served meanwhile.

        Whoever holds embeddings over several requests must hold this as well: those of two bundles
        have nothing to do with each other.
        """
        self._users += 1
        self._unused.clear()
        try:
            yield
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def unused(self) -> None:
        """Wait until nobody uses it."""
        await self._unused.wait()

    @property
    def faults(self) -> Mapping[Reason, str]:
        """Why requests cannot be answered, by reason; empty when they can."""
        # Asked anew each time: a dead worker must not take requests until the next check.
        dead = self._started and not self._batcher.alive
        found = {Reason.WORKER_DEAD: "An encode worker is not alive."} if dead else {}
        return found | dict(self.health.faults) if found else self.health.faults

    @property
    def lost(self) -> Reason | None:
        """Say that a worker is dead or stuck; only another process is of help then."""
        found = [reason for reason in _LOST if reason in self.faults and not self._stopping]
        return found[0] if found else None

    @property
    def provider(self) -> str:
        """Execution provider that the image tower was started on."""
        return self._batcher.provider

    @property
    def provider_now(self) -> str:
        """What it runs on now: the runtime falls back by itself when a GPU fails."""
        return self._batcher.provider_now

    @property
    def oldest_batch(self) -> float | None:
        """Since when the oldest graph run under way runs; it changes when a stuck worker moves."""
        return self._batcher.oldest_batch

    @property
    def ready(self) -> bool:
        """Whether requests may be answered."""
        return not self._stopping and not self.faults

    def check_ready(self) -> None:
        """Raise what stands against answering requests.

        Raises:
            ShuttingDown: `refuse` or `stop` was called.
            NotReady: with the first reason.
        """
        if self._stopping:
            raise ShuttingDown
        for reason, detail in self.faults.items():
            raise NotReady(detail, reason.value)

    def crop_box(self, device: str | None) -> Box:
        """Look up a device profile's crop box; None is the built-in `full_frame`.

        Raises:
            UnknownDevice: carrying the known names.
        """
        name = device or next(iter(self.devices))
        try:
            return self.devices[name]
        except KeyError:
            raise UnknownDevice(name, self.devices) from None

    async def admit(self, request: RequestIn, permit: Permit) -> None:
        """Ask for the work that a request is.

        Raises:
            Overloaded, PayloadTooLarge: as `Permit.admit`.
        """
        frames = [frame for one in request.patients for frame in one.frames if frame.data]
        # What is no plain JPEG may have a header that takes long to read.
        if len(frames) <= _INLINE_FRAMES and all(jpeg_size(one.data or b"") for one in frames):
            pixels = self._count_pixels(frames)
        else:
            pixels = await asyncio.to_thread(self._count_pixels, frames)
        permit.admit(request.pieces, pixels)

    async def encode_frame(self, frame: FrameIn, box: Box, permit: Permit, *, grid: bool) -> Frame:
        """Decode, judge and encode one frame, when it is its turn.

        Args:
            frame: as sent.
            box: crop box of its device.
            permit: of its request.
            grid: whether the grid is wanted beside the embedding.

        Returns:
            The frame's outcome; a bad frame is one, not an error.

        Raises:
            EncodeFailed: the graph did not run.
            ShuttingDown: the workers take no more.
        """
        since = time.perf_counter()
        async with permit.turn() as turn:
            waited_for_turn(since)
            try:
                with phase(Phase.DECODE):
                    pixels, reason, optics = await turn.prepare(
                        self._pool, self._read, frame, box, since
                    )
            except ImageRejected as error:
                return Frame(rejected=error)
            if reason is not None:
                return Frame(abstained=reason)
            with phase(Phase.ENCODE):
                if grid:
                    embedding, places = await self._submit(Kind.GRIDS, pixels)
                    return Frame(embedding=embedding, grid=places, optics=optics)
                embedding = await self._submit(Kind.FRAMES, pixels)
                return Frame(embedding=embedding, optics=optics)

    def too_long(self, frame: FrameIn) -> ImageRejected:
        """Say why a frame whose file was longer than the limit is rejected."""
        limit = self.image_limits.max_bytes
        return ImageRejected(
            ImageCode.TOO_MANY_BYTES, f"expected at most {limit} bytes; found {frame.length}"
        )

    async def encode_texts(self, texts: Sequence[str], permit: Permit) -> list[Floats]:
        """Encode sentences: one float32 (d,) unit embedding each."""
        return await all_of([self._in_turn(Kind.TEXTS, text, permit, 1) for text in texts])

    async def class_embeddings(self, label_set: LabelSet, permit: Permit) -> Floats:
        """Give the class embeddings of a set, float32 (k, d); those of free sets are cached."""
        if label_set.name:
            return self.encoder.class_embeddings(label_set)
        cached = self._free_classes.get(label_set)
        if cached is None:
            pairs = [
                self._in_turn(Kind.LABELS, one, permit, sum(len(two.prompts) for two in one.labels))
                for one in _pairs(label_set)
            ]
            cached = np.concatenate(await all_of(pairs))
            while len(self._free_classes) >= _CACHED_SETS:
                self._free_classes.popitem(last=False)
            self._free_classes[label_set] = cached
        elif label_set in self._free_classes:
            self._free_classes.move_to_end(label_set)
        return cached

    def score(
        self,
        label_set: LabelSet,
        classes: Floats,
        embeddings: Sequence[Floats],
        *,
        calibrated: bool,
    ) -> PatientScore:
        """Score one patient from the embeddings of its scored frames, at least one.

        Many frames take milliseconds: then it is for a thread.
        """
        calibration = self.calibrations.get(label_set.name) if calibrated else None
        with self._metrics.timed(Phase.UNIFY):
            return score_patient(
                self.encoder, label_set, classes, calibration, np.stack(embeddings)
            )

    async def _in_turn(self, kind: Kind, value: Any, permit: Permit, frames: int) -> Any:
        since = time.perf_counter()
        async with permit.turn(frames) as turn:
            waited_for_turn(since)
            turn.prepared()
            with phase(Phase.TEXT):
                return await self._submit(kind, value)

    async def _submit(self, kind: Kind, value: Any) -> Any:
        try:
            return await asyncio.wrap_future(self._batcher.submit(kind, value))
        except (EncodeFailed, TowersUnreachable):
            self.health.suspect()
            raise

    def _count_pixels(self, frames: Sequence[FrameIn]) -> int:
        return sum(pixels_of(frame, self.image_limits) for frame in frames)

    def _read(
        self, frame: FrameIn, box: Box, since: float
    ) -> tuple[Pixels, AbstainReason | None, Floats]:
        self._metrics.observe(Phase.TURN, time.perf_counter() - since)
        if frame.data is None:
            raise self.too_long(frame)
        contract = self.bundle.manifest.input
        with self._metrics.timed(Phase.DECODE):
            pixels = decode_frame(frame, contract, limits=self.image_limits, crop=box)
            return pixels, *examine(pixels, self._quality)

    def _encode_canaries(self, pixels: Pixels) -> Floats:
        """Encode frames among the live ones, one at a time."""
        futures = (self._batcher.submit(Kind.FRAMES, one) for one in pixels)
        rows = [future.result(_STUCK_S) for future in futures]
        # Another worker may have answered for one that is stuck.
        oldest = self._batcher.oldest_batch
        if oldest is not None and time.monotonic() - oldest > _STUCK_S:
            raise TimeoutError
        return np.stack(rows)


async def all_of(steps: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Run coroutines together, results in order; the first failure cancels the others."""
    tasks = [asyncio.ensure_future(step) for step in steps]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _open(
    bundle: Bundle, settings: Settings, metrics: Metrics, remote: RemoteTowers | None
) -> tuple[Unifier, Worker]:
    if remote is not None:
        return Unifier(bundle, threads=settings.encode_threads), remote(bundle)
    encoder = Encoder(
        bundle,
        provider=settings.provider,
        allow_fallback=settings.allow_cpu_fallback,
        threads=settings.encode_threads,
    )
    workers = settings.encode_workers(encoder.provider)
    return encoder, Towers(encoder, metrics, settings.max_batch, workers)


def _pairs(label_set: LabelSet) -> list[LabelSet]:
    """Cut a free set into sets of two labels (the last of three, if odd), each encoded alone."""
    labels = label_set.labels
    starts = range(0, len(labels) - 1, 2)
    ends = [*starts[1:], len(labels)]
    return [LabelSet("", labels[start:end]) for start, end in zip(starts, ends, strict=True)]
