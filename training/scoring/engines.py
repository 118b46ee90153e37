"""Who scores the parts: processes of this machine, or Ray actors of a cluster.

Engines differ in where a part is scored and in nothing else: a worker is sent the job once and
part numbers after that, writes its files itself and answers with a count. Neither pixels nor
scores pass through the process that started them.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle  # nosec B403  # between our own processes, see where it is read
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from multiprocessing import connection
from multiprocessing.synchronize import Event
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.cores import usable_cores
from model_store.errors import EndoClipError
from training.errors import ScoringStopped
from training.scoring.parts import Job, PartScorer
from training.stopping import stop_at_once

__all__ = ["ENGINES", "Engine", "run_local", "run_ray"]

log = logging.getLogger(__name__)

Engine = Callable[[Job, Sequence[int], int, Callable[[int], object]], None]
_STORE_BYTES = 100_000_000  # little over Ray's least: part numbers and counts are all it holds
_RESUMES = "what is scored stays, the same command resumes"


def run_local(job: Job, parts: Sequence[int], workers: int, done: Callable[[int], object]) -> None:
    """Score parts in processes of this machine; one worker scores in this process.

    Args:
        job: What to do.
        parts: Numbers of the parts.
        workers: Processes at most, 0 = one per usable core; more than cores would only compete.
        done: Told the number of frames of each part, in the order in which they end.

    Raises:
        ScoringStopped: A worker died.
        EndoClipError: What a part raised; parts that others have begun are given up.
    """
    cores = usable_cores()
    workers = min(_at_most(workers, cores, "cores"), len(parts))
    if workers <= 1:
        scorer = PartScorer(job)
        for part in parts:
            done(scorer.score(part))
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    own = replace(job, threads=cores // workers)
    pool = ProcessPoolExecutor(workers, context, _begin, (own, stop))
    try:
        _feed(pool, parts, workers, done)
    except BrokenProcessPool as error:
        raise ScoringStopped(
            "a worker was killed (out of memory? fewer --workers need less); " + _RESUMES
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _feed(
    pool: ProcessPoolExecutor, parts: Sequence[int], workers: int, done: Callable[[int], object]
) -> None:
    """Keep every worker busy; one part waits, so that none has to wait for its next."""
    queue = iter(parts)
    with _without_interrupts():  # workers inherit it: Ctrl-C is this process's to handle
        running = {pool.submit(_score, part) for part in islice(queue, workers + 1)}
    while running:
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        for future in ended:
            done(future.result())
        running |= {pool.submit(_score, part) for part in islice(queue, len(ended))}


_worker: PartScorer | None = None


def _begin(job: Job, stop: Event) -> None:
    global _worker
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    _worker = PartScorer(job, stop.is_set)


def _score(part: int) -> int:
    if _worker is None:
        raise RuntimeError("expected _begin to have run in this process")
    return _worker.score(part)


def _leave_with_parent() -> None:
    """End with the process that started this one, however that ended: no orphan scores on."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for a moment; processes started within never get it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def run_ray(job: Job, parts: Sequence[int], workers: int, done: Callable[[int], object]) -> None:
    """Score parts with Ray Data in an actor pool, one core each.

    Joins the cluster that ``RAY_ADDRESS`` names; without it, one is started on this machine alone,
    bound to loopback, without dashboard. Usage statistics are off whatever the environment says.

    Args:
        job: What to do; archive, output and model lie at the same path on every node.
        parts: Numbers of the parts.
        workers: Actors at most, 0 = one per core of the cluster.
        done: As for ``run_local``.

    Raises:
        ScoringStopped: There is no such cluster, or it failed.
        EndoClipError: What a part raised.
    """
    # Before ray is imported, and not a default: no telemetry, whatever the environment asks for.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    import ray.data
    from ray.exceptions import RayError

    begun_here = not ray.is_initialized()
    try:
        if begun_here:
            _join(ray)
        cores = int(ray.cluster_resources().get("CPU", 1))
        workers = min(_at_most(workers, cores, "cores of the cluster"), len(parts))
        rows = _dataset(ray, replace(job, threads=1), parts, workers).iter_rows()
        with stop_at_once():  # again: ray.init puts a handler of its own over the command's
            for row in rows:
                if row["error"]:
                    # Ray itself unpickles whatever a worker sends; this adds no trust.
                    raise pickle.loads(row["error"])  # nosec B301  # of our own workers
                done(int(row["frames"]))
    except (RayError, ConnectionError) as error:
        first = str(error).strip().splitlines()
        raise ScoringStopped(f"ray: {first[-1] if first else error!r}; {_RESUMES}") from error
    finally:
        if begun_here:
            ray.shutdown()


def _join(ray: Any) -> None:
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address := os.environ.get("RAY_ADDRESS"):
        _knock(address)
        ray.init(address, **quiet)
        return
    ray.init(
        "local",
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=_STORE_BYTES,
        **quiet,
    )


def _knock(address: str) -> None:
    """See that something listens there: ray itself would try for minutes without a word."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto": ray looks for the cluster of this machine, and says so
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ScoringStopped(
            f"RAY_ADDRESS={address}: expected a Ray cluster, none answers ({error}); start it or "
            "unset the variable"
        ) from error


def _dataset(ray: Any, job: Job, parts: Sequence[int], workers: int) -> Any:
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # the command has its own
    numbers = ray.data.from_items(
        [{"part": part} for part in parts], override_num_blocks=len(parts)
    )
    return numbers.map_batches(
        _Actor,
        batch_size=1,
        fn_constructor_args=(job,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
    )


class _Actor:
    """A worker of Ray Data: batches of one part number."""

    def __init__(self, job: Job) -> None:
        self._scorer = PartScorer(job)

    def __call__(self, batch: dict[str, npt.NDArray[np.int64]]) -> dict[str, list[Any]]:
        # An error goes back as a value: Ray would wrap it in its own and drop the cause.
        try:
            return {"frames": [self._scorer.score(int(batch["part"][0]))], "error": [b""]}
        except (EndoClipError, OSError) as error:
            return {"frames": [0], "error": [pickle.dumps(error)]}


def _at_most(asked: int, cores: int, what: str) -> int:
    if asked > cores:
        log.warning("workers=%d asked for, %d %s: using %d", asked, cores, what, cores)
    return min(asked or cores, cores)


ENGINES: dict[str, Engine] = {"local": run_local, "ray": run_ray}
