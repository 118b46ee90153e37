"""The encode workers: threads meet at events here, nothing sleeps."""

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future
from typing import Any

import pytest

from model_store.errors import EncodeFailed
from service.batching import Lane, MicroBatcher
from service.errors import ShuttingDown, problem

WAIT = 10


class Gate:
    """A lane whose batches wait to be let through, so that a test decides what gathers."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.open = threading.Semaphore(0)
        self.batches: list[list[Any]] = []

    def run(self, values: Sequence[Any]) -> Sequence[Any]:
        self.batches.append(list(values))
        self.entered.release()
        assert self.open.acquire(timeout=WAIT)
        if "poison" in values:
            raise RuntimeError("secret text")
        return [f"done {value}" for value in values]


def started(gate: Gate, max_batch: int = 4, workers: int = 1, **lanes: Lane) -> MicroBatcher:
    batcher = MicroBatcher({"a": Lane(gate.run, max_batch), **lanes}, workers)
    batcher.start()
    return batcher


def hold(gate: Gate, batcher: MicroBatcher) -> "Future[Any]":
    """Occupy the worker with one item, so that what comes next gathers."""
    first = batcher.submit("a", "first")
    assert gate.entered.acquire(timeout=WAIT)
    return first


def results(futures: Sequence["Future[Any]"]) -> list[Any]:
    return [future.result(WAIT) for future in futures]


def test_single_item_starts_at_once_and_what_waits_goes_together() -> None:
    gate = Gate()
    batcher = started(gate)
    first = hold(gate, batcher)
    rest = [batcher.submit("a", number) for number in range(6)]
    gate.open.release(3)
    assert results([first, *rest]) == ["done first", *(f"done {n}" for n in range(6))]
    assert gate.batches == [["first"], [0, 1, 2, 3], [4, 5]]
    batcher.stop()


def test_failing_batch_fails_its_own_callers_and_the_worker_goes_on() -> None:
    gate = Gate()
    batcher = started(gate, max_batch=2)
    first = hold(gate, batcher)
    futures = [batcher.submit("a", value) for value in ("x", "poison", "y", "z")]
    gate.open.release(3)
    assert results([first, *futures[2:]]) == ["done first", "done y", "done z"]
    errors = [future.exception(WAIT) for future in futures[:2]]
    assert all(isinstance(error, EncodeFailed) for error in errors)
    assert errors[0] is not errors[1]
    assert "secret" not in str(errors[0])
    assert batcher.alive
    batcher.stop()


def test_wrong_number_of_results_is_a_failure() -> None:
    batcher = MicroBatcher({"a": Lane(lambda values: values[:-1], 4)})
    batcher.start()
    with pytest.raises(EncodeFailed, match="expected 1 results; found 0"):
        batcher.submit("a", 1).result(WAIT)
    batcher.stop()


def test_cancelled_items_are_dropped_unrun() -> None:
    gate = Gate()
    batcher = started(gate)
    first = hold(gate, batcher)
    futures = [batcher.submit("a", number) for number in range(3)]
    assert futures[1].cancel()
    assert not first.cancel()  # its batch has begun
    gate.open.release(2)
    assert results([first, futures[0], futures[2]]) == ["done first", "done 0", "done 2"]
    assert gate.batches == [["first"], [0, 2]]
    with pytest.raises(CancelledError):
        futures[1].result(WAIT)
    batcher.stop()


def test_batch_of_cancelled_items_only_is_no_batch() -> None:
    gate = Gate()
    batcher = started(gate)
    first = hold(gate, batcher)
    for future in [batcher.submit("a", number) for number in range(9)]:
        future.cancel()
    gate.open.release(2)
    assert results([first, batcher.submit("a", "last")]) == ["done first", "done last"]
    assert gate.batches == [["first"], ["last"]]
    batcher.stop()


def test_kinds_do_not_mix_and_the_oldest_comes_first() -> None:
    gate = Gate()
    order: list[list[Any]] = []

    def run(values: Sequence[Any]) -> Sequence[Any]:
        order.append(list(values))
        return values

    batcher = started(gate, b=Lane(run, 4), c=Lane(run, 1))
    first = hold(gate, batcher)
    futures = [batcher.submit(kind, f"{kind}{n}") for n in range(2) for kind in ("b", "c")]
    gate.open.release(1)
    results([first, *futures])
    assert order == [["b0", "b1"], ["c0"], ["c1"]]
    batcher.stop()


def test_stop_finishes_what_was_accepted_and_refuses_the_rest() -> None:
    gate = Gate()
    batcher = started(gate)
    first = hold(gate, batcher)
    futures = [batcher.submit("a", number) for number in range(6)]
    stopping = threading.Thread(target=batcher.stop)
    stopping.start()
    gate.open.release(3)
    stopping.join(WAIT)
    assert not stopping.is_alive()
    assert results([first, *futures])[-1] == "done 5"
    assert not batcher.alive
    with pytest.raises(ShuttingDown) as refused:
        batcher.submit("a", "late")
    status, document, headers = problem(refused.value, "id")
    assert (status, document["code"]) == (503, "shutting_down")
    assert headers["Retry-After"]


def test_workers_run_batches_at_a_time_and_what_waits_is_shared() -> None:
    gate = Gate()
    batcher = started(gate, workers=2)
    assert batcher.oldest_batch is None
    first = hold(gate, batcher)
    since = batcher.oldest_batch
    second = batcher.submit("a", "second")
    assert gate.entered.acquire(timeout=WAIT)  # though the first has not ended
    assert batcher.oldest_batch == since
    rest = [batcher.submit("a", number) for number in range(4)]
    gate.open.release(3)
    assert results([first, second, *rest])[2:] == [f"done {n}" for n in range(4)]
    assert gate.batches == [["first"], ["second"], [0, 1, 2, 3]]
    batcher.stop()
    assert batcher.oldest_batch is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_that_dies_ends_the_others_after_their_batch_and_nobody_waits() -> None:
    def die(_values: Sequence[Any]) -> Sequence[Any]:
        raise SystemExit

    gate = Gate()
    batcher = started(gate, workers=2, deadly=Lane(die, 1))
    running = hold(gate, batcher)
    dying = batcher.submit("deadly", 1)
    assert isinstance(dying.exception(WAIT), EncodeFailed)
    gate.open.release(1)
    assert running.result(WAIT) == "done first"
    for thread in batcher._threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    assert not batcher.alive
    with pytest.raises(EncodeFailed):
        batcher.submit("a", "late")


def test_worker_that_was_never_started_is_not_alive_and_stops() -> None:
    batcher = MicroBatcher({})
    assert not batcher.alive
    batcher.stop()
