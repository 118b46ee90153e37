"""Work in several processes, where a crash of one costs only the task that causes it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any, TypeVar

__all__ = ["run_tasks"]

_Task = TypeVar("_Task")
# Tasks handed out per process: enough that none waits, few enough that a crash repeats little.
_AHEAD = 3


def run_tasks(
    tasks: Iterable[_Task],
    work: Callable[[_Task], Any],
    workers: int,
    start: Callable[..., None],
    arguments: tuple[Any, ...] = (),
) -> Iterator[tuple[_Task, bool]]:
    """Do tasks in any order.

    Decoders are native code, and a damaged file can take their process down. The tasks that were
    under way are then done again one by one in processes of their own; one that crashes again is
    given up.

    Args:
        tasks: Picklable; not more than a few per process are held at a time.
        work: Does one; a module-level function.
        workers: Processes; with 1 everything is done in this one, without protection.
        start: Called once in each process.
        arguments: Of ``start``.

    Yields:
        Each task as it is done, with False when it was given up.
    """
    waiting = iter(tasks)
    if workers == 1:
        start(*arguments)
        for task in waiting:
            work(task)
            yield task, True
        return
    suspects: list[_Task] = []
    while True:
        with _pool(workers, start, arguments) as pool:
            suspects = yield from _run_until_broken(pool, waiting, work, workers * _AHEAD)
        if not suspects:
            return
        for task in suspects:
            with _pool(1, start, arguments) as alone:
                try:
                    alone.submit(work, task).result()
                    done = True
                except BrokenProcessPool:
                    done = False
            yield task, done


def _run_until_broken(
    pool: ProcessPoolExecutor, waiting: Iterator[Any], work: Callable[[Any], Any], ahead: int
) -> Any:
    running: dict[Future[Any], Any] = {}
    suspects: list[Any] = []
    while True:
        if not suspects:
            for task in islice(waiting, ahead - len(running)):
                try:
                    running[pool.submit(work, task)] = task
                except BrokenProcessPool:
                    suspects.append(task)
                    break
        if not running:
            return suspects
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            task = running.pop(future)
            try:
                future.result()
            except BrokenProcessPool:
                suspects.append(task)
                continue
            yield task, True


class _pool:
    """A pool that is dropped at once when its user fails, instead of finishing what is queued."""

    def __init__(
        self, workers: int, start: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        # Not forked: the parent may hold threads (torch, progress bar).
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(start, arguments)
        )

    def __enter__(self) -> ProcessPoolExecutor:
        return self._pool

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._pool.shutdown(wait=kind is None, cancel_futures=True)


def _begin(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it, and stops the pool
    threading.Thread(target=_end_with_parent, daemon=True).start()
    start(*arguments)


def _end_with_parent() -> None:
    """A killed parent cannot stop its workers, and theirs would be a second run beside the next."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
