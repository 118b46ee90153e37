"""Where the towers run: what an engine asks of them, and the worker that runs them here.

This is the seam between the service's two assemblies. In the single process the worker is `Towers`;
on a cluster an ingress has one that asks the encoder replicas, and `Towers` works inside of those.
Everything before it (HTTP, admission, turns, decoding, the quality gate) and after it (unify,
calibration, answers, exams) is the same code in both.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from enum import StrEnum
from typing import Any, Protocol

import numpy as np

from model_store.bundle import Bundle
from model_store.encoder import Encoder, Floats
from model_store.images import Pixels
from model_store.label_sets import LabelSet
from service.batching import Lane, MicroBatcher
from service.metrics import Metrics, Phase

__all__ = ["Kind", "RemoteTowers", "Towers", "Worker"]


class Kind(StrEnum):
    """What can be asked of the towers, one item at a time."""

    FRAMES = "frames"
    """uint8 (size, size, 3) pixels → float32 (d,)."""
    GRIDS = "grids"
    """Pixels as above → (float32 (d,), float32 (rows, columns, d))."""
    TEXTS = "texts"
    """A sentence → float32 (d,)."""
    LABELS = "labels"
    """A free label set of k labels → float32 (k, d)."""


class Worker(Protocol):
    """Runs the towers of one bundle for an engine, wherever they are."""

    @property
    def provider(self) -> str:
        """Execution provider that the image tower was started on."""

    @property
    def provider_now(self) -> str:
        """What it runs on now: the runtime falls back by itself when a GPU fails."""

    @property
    def alive(self) -> bool:
        """Whether it takes items."""

    @property
    def oldest_batch(self) -> float | None:
        """Since when, by `time.monotonic`, the oldest of the batches that run now runs."""

    def start(self) -> None:
        """Begin; once."""

    def submit(self, kind: Kind, value: Any) -> "Future[Any]":
        """Hand an item over.

        Args:
            kind: what it is.
            value: see `Kind`.

        Returns:
            A future of the item's result. Cancelled before its batch began, it costs nothing.

        Raises:
            ShuttingDown: `stop` was called.
            EncodeFailed: the worker has died.
        """

    def stop(self, timeout_s: float | None = None) -> None:
        """Refuse new items, let the accepted ones finish, end.

        Args:
            timeout_s: how long to wait for that; None waits until it is done.
        """


RemoteTowers = Callable[[Bundle], Worker]
"""Gives the worker for a bundle whose towers run in another process."""


class Towers(MicroBatcher):
    """The towers of one bundle in this process, on a few threads."""

    def __init__(
        self, encoder: Encoder, metrics: Metrics, max_batch: int, workers: int = 1
    ) -> None:
        """Prepare the threads; they begin with `start`.

        Args:
            encoder: runs the graphs.
            metrics: told the frames' wait, the batches and the time of each run.
            max_batch: frames or texts of a run, at most.
            workers: runs at a time.
        """
        self._encoder, self._metrics = encoder, metrics
        super().__init__(
            {
                Kind.FRAMES: Lane(self._timed(self._encode_frames), max_batch),
                Kind.GRIDS: Lane(self._timed(self._encode_grids), max_batch),
                Kind.TEXTS: Lane(self._encode_texts, max_batch),
                # One at a time: a pair of labels may have 32 prompts.
                Kind.LABELS: Lane(self._encode_labels, 1),
            },
            workers,
        )

    @property
    def provider(self) -> str:
        """Execution provider that the image tower was started on."""
        return self._encoder.provider

    @property
    def provider_now(self) -> str:
        """What it runs on now."""
        return self._encoder.provider_now

    def submit(self, kind: str, value: Any) -> "Future[Any]":
        """Hand an item to the worker; as `Worker.submit`."""
        if kind in (Kind.FRAMES, Kind.GRIDS):
            value = time.perf_counter(), value
        return super().submit(kind, value)

    def _timed(
        self, run: Callable[[Sequence[Pixels]], Sequence[Any]]
    ) -> Callable[[Sequence[tuple[float, Pixels]]], Sequence[Any]]:
        """Time the run of a batch, and its frames' wait: each comes with when it was ready."""

        def timed(waited: Sequence[tuple[float, Pixels]]) -> Sequence[Any]:
            now = time.perf_counter()
            for since, _ in waited:
                self._metrics.observe(Phase.QUEUE, now - since)
            self._metrics.count_batch(len(waited))
            with self._metrics.timed(Phase.ENCODE):
                return run([pixels for _, pixels in waited])

        return timed

    def _encode_frames(self, pixels: Sequence[Pixels]) -> Sequence[Floats]:
        return list(self._encoder.encode_images(np.stack(pixels)))

    def _encode_grids(self, pixels: Sequence[Pixels]) -> Sequence[tuple[Floats, Floats]]:
        return list(zip(*self._encoder.encode_images_with_grid(np.stack(pixels)), strict=True))

    def _encode_texts(self, texts: Sequence[str]) -> Sequence[Floats]:
        with self._metrics.timed(Phase.TEXT):
            return list(self._encoder.encode_texts(texts))

    def _encode_labels(self, label_sets: Sequence[LabelSet]) -> Sequence[Floats]:
        with self._metrics.timed(Phase.TEXT):
            return [self._encoder.class_embeddings(label_set) for label_set in label_sets]
