"""Worker threads that run the graphs, each taking along what is waiting.

There is no waiting for company: while batches run, the next one gathers. On an idle service a
single frame starts at once; under load batches fill by themselves. That needs no timer, and adds no
latency where a batch would gain nothing.

Guarantees: a batch that fails fails its own callers and nobody else, and its worker goes on; a
future cancelled before its batch began is dropped and costs nothing; `stop` lets what was accepted
finish and refuses what comes later; if a worker dies all the same, the others end their batches and
nobody is left waiting.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from model_store.errors import EncodeFailed
from service.errors import ShuttingDown

__all__ = ["Lane", "MicroBatcher"]


@dataclass(frozen=True, slots=True)
class Lane:
    """One kind of work.

    Attributes:
        run: turns 1 to `max_batch` items into as many results; called by the workers alone, by
            several at a time.
        max_batch: items of a batch, at most.
    """

    run: Callable[[Sequence[Any]], Sequence[Any]]
    max_batch: int


@dataclass(frozen=True, slots=True, eq=False)
class _Item:
    kind: str
    value: Any
    future: "Future[Any]"


class MicroBatcher:
    """Gathers single items of many callers into batches for a few worker threads."""

    def __init__(self, lanes: Mapping[str, Lane], workers: int = 1) -> None:
        """Prepare the workers; they begin with `start`.

        Args:
            lanes: by kind of item. A batch is of one kind; the oldest item decides which.
            workers: batches that run at a time.
        """
        self._lanes = lanes
        self._waiting: deque[_Item] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._ended = False
        self._threads = [
            threading.Thread(target=self._work, name=f"encode_{number}", daemon=True)
            for number in range(workers)
        ]
        # Each worker writes its own alone: since when it runs a batch, or that it runs none.
        self._since: dict[threading.Thread, float | None] = dict.fromkeys(self._threads)

    @property
    def alive(self) -> bool:
        """Whether all worker threads run and take items."""
        return not self._stopping and all(thread.is_alive() for thread in self._threads)

    @property
    def oldest_batch(self) -> float | None:
        """Since when, by `time.monotonic`, the oldest of the batches that run now runs."""
        return min((since for since in list(self._since.values()) if since), default=None)

    def start(self) -> None:
        """Start the worker threads; once."""
        for thread in self._threads:
            thread.start()

    def submit(self, kind: str, value: Any) -> "Future[Any]":
        """Hand an item to the workers.

        Args:
            kind: name of a lane.
            value: the item.

        Returns:
            A future of the item's own result. It fails with `EncodeFailed` when the batch did.

        Raises:
            ShuttingDown: `stop` was called.
            EncodeFailed: a worker has died.
        """
        item = _Item(kind, value, Future())
        with self._wake:
            if self._stopping:
                raise ShuttingDown
            if self._ended:
                raise EncodeFailed("an encode worker has ended")
            self._waiting.append(item)
            self._wake.notify()
        return item.future

    def stop(self, timeout_s: float | None = None) -> None:
        """Refuse new items, let the accepted ones finish, end the workers.

        Args:
            timeout_s: how long to wait for that; None waits until it is done.
        """
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        until = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if until is None else max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        try:
            while batch := self._next_batch():
                self._since[threading.current_thread()] = time.monotonic()
                self._run(batch)
                self._since[threading.current_thread()] = None
        finally:
            self._abandon()

    def _abandon(self) -> None:
        """Leave nobody waiting for workers that have ended, whatever ended the first of them."""
        with self._wake:
            self._ended = True
            self._wake.notify_all()
            waiting = list(self._waiting)
            self._waiting.clear()
        for item in waiting:
            if item.future.set_running_or_notify_cancel():
                item.future.set_exception(EncodeFailed("an encode worker has ended"))

    def _next_batch(self) -> list[_Item]:
        """Wait for items; the oldest decides the kind. Empty when all is done and stopped."""
        with self._wake:
            while True:
                batch = self._gather()
                if batch or self._stopping or self._ended:
                    return batch
                self._wake.wait()

    def _gather(self) -> list[_Item]:
        """Take the oldest item and those of its kind; what is passed over keeps its place."""
        batch: list[_Item] = []
        others: list[_Item] = []
        while self._waiting and len(batch) < self._room(batch):
            item = self._waiting.popleft()
            if batch and item.kind != batch[0].kind:
                others.append(item)
            # False for a future its caller has cancelled; True also makes it too late to cancel.
            elif item.future.set_running_or_notify_cancel():
                batch.append(item)
        self._waiting.extendleft(reversed(others))
        return batch

    def _room(self, batch: Sequence[_Item]) -> int:
        return self._lanes[batch[0].kind].max_batch if batch else 1

    def _run(self, batch: list[_Item]) -> None:
        try:
            results = self._lanes[batch[0].kind].run([item.value for item in batch])
            if len(results) != len(batch):
                raise EncodeFailed(f"expected {len(batch)} results; found {len(results)}")
        except BaseException as error:
            for item in batch:
                item.future.set_exception(_failure(error))
            if isinstance(error, Exception):  # the worker outlives whatever a batch does
                return
            raise
        for item, result in zip(batch, results, strict=True):
            item.future.set_result(result)


def _failure(error: BaseException) -> EncodeFailed:
    # One exception object per caller: raising a shared one from several tasks tangles tracebacks.
    kind, said = EncodeFailed, type(error).__name__
    if isinstance(error, EncodeFailed):
        kind, said = type(error), str(error)
    failure = kind(said)
    failure.__cause__ = error
    return failure
