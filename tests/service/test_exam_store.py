"""What is kept of exams, the same in SQLite and in PostgreSQL."""

import asyncio
import uuid
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

from service.errors import (
    Conflict,
    ExamClosed,
    NotFound,
    Overloaded,
    PayloadTooLarge,
    SettingsInvalid,
    StoreUnavailable,
)
from service.exams.database import Database
from service.exams.store import ExamStore
from service.exams.values import ExamOptions, KeptFrame, State
from tests.service.postgres import missing, postgres

T = TypeVar("T")
OPTIONS = ExamOptions(
    "p", ("malignancy",), "full_frame", (0.0, 0.0, 1.0, 1.0), "balanced", "d", None
)
needs_postgres = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=needs_postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "exams.sqlite3")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def owner() -> str:
    # The PostgreSQL server is the same for all tests.
    return uuid.uuid4().hex


class Clock:
    now = 1e9

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(url: str, clock: Clock) -> Iterator[ExamStore]:
    found = open_store(url, clock)
    yield found
    found.close()


def open_store(url: str, clock: Clock) -> ExamStore:
    return ExamStore(Database(url), max_exams=3, max_frames=5, retention_s=60.0, clock=clock)


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


def frame(name: str, seed: int = 0, **more: Any) -> KeptFrame:
    vector = np.random.default_rng(seed).normal(size=8).astype(np.float32)
    return KeptFrame(name, bytes([seed]) * 32, more.get("captured_us"), None, vector)


def test_what_is_kept_comes_back(store: ExamStore, owner: str, url: str, clock: Clock) -> None:
    exam, is_new = run(store.open(owner, "e", OPTIONS))
    assert is_new
    kept = frame("a", 1, captured_us=-5)
    dark = KeptFrame("b\u200d😀", b"\x00" * 32, None, "dark", None)
    assert run(store.add(exam, [kept, dark])) == 2
    again = open_store(url, clock)
    found, frames = run(again.snapshot(owner, "e"))
    again.close()
    assert (found.options, found.revision, found.state) == (OPTIONS, 2, State.OPEN)
    by_id = {one.frame_id: one for one in frames}
    assert by_id[dark.frame_id] == dark
    assert by_id["a"].captured_us == -5
    assert kept.embedding is not None
    assert by_id["a"].embedding is not None
    assert by_id["a"].embedding.tobytes() == kept.embedding.tobytes()


def test_known_frames_are_found_by_id_or_content(store: ExamStore, owner: str) -> None:
    exam, _ = run(store.open(owner, None, OPTIONS))
    run(store.add(exam, [frame("a", 1), frame("b", 2), frame("c", 3)]))
    found = run(store.known(exam, [frame("a", 9), frame("z", 2)]))
    assert {one.frame_id for one in found} == {"a", "b"}
    assert run(store.known(exam, [])) == []


def test_adding_again_changes_nothing_and_a_conflict_keeps_nothing(
    store: ExamStore, owner: str
) -> None:
    exam, _ = run(store.open(owner, None, OPTIONS))
    assert run(store.add(exam, [frame("a", 1)])) == 1
    assert run(store.add(exam, [frame("a", 1)])) == 1
    with pytest.raises(Conflict):
        run(store.add(exam, [frame("b", 2), frame("a", 2)]))
    with pytest.raises(Conflict):
        run(store.add(exam, [frame("a", 1, captured_us=7)]))
    assert run(store.find(owner, exam.exam_id)).revision == 1


def test_limits_and_owners(store: ExamStore, owner: str) -> None:
    exam, _ = run(store.open(owner, "e", OPTIONS))
    with pytest.raises(PayloadTooLarge):
        run(store.add(exam, [frame(str(seed), seed) for seed in range(6)]))
    with pytest.raises(NotFound):
        run(store.find(owner + "x", "e"))
    assert run(store.open(owner, "e", OPTIONS)) == (exam, False)
    with pytest.raises(NotFound):
        run(store.delete(owner + "x", "e"))
    run(store.open(owner, None, OPTIONS))
    run(store.open(owner, None, OPTIONS))
    with pytest.raises(Overloaded):
        run(store.open(owner, None, OPTIONS))
    run(store.open(owner + "x", "e", OPTIONS))


def test_closing_keeps_the_first_result(store: ExamStore, owner: str) -> None:
    exam, _ = run(store.open(owner, None, OPTIONS))
    run(store.add(exam, [frame("a", 1)]))
    assert run(store.begin_close(exam)).state is State.CLOSING
    with pytest.raises(ExamClosed):
        run(store.add(exam, [frame("b", 2)]))
    assert run(store.add(exam, [frame("a", 1)])) == 1
    first, is_ours = run(store.end_close(exam, b"one"))
    assert (first.final, is_ours, first.state) == (b"one", True, State.CLOSED)
    second, is_ours = run(store.end_close(exam, b"two"))
    assert (second.final, is_ours) == (b"one", False)
    assert run(store.begin_close(exam)).state is State.CLOSED


def test_what_is_over_is_gone_and_its_id_free(store: ExamStore, owner: str, clock: Clock) -> None:
    exam, _ = run(store.open(owner, "e", OPTIONS))
    run(store.add(exam, [frame("a", 1)]))
    clock.now += 59
    run(store.add(exam, [frame("b", 2)]))
    clock.now += 59
    assert run(store.find(owner, "e")).revision == 2
    clock.now += 2
    with pytest.raises(NotFound):
        run(store.find(owner, "e"))
    fresh, is_new = run(store.open(owner, "e", OPTIONS))
    assert is_new
    assert run(store.snapshot(owner, "e"))[1] == []
    with pytest.raises(NotFound):
        run(store.add(exam, [frame("c", 3)]))
    clock.now += 61
    assert run(store.purge()) >= 1
    with pytest.raises(NotFound):
        run(store.begin_close(fresh))


def test_many_at_once_lose_nothing(store: ExamStore, owner: str, url: str, clock: Clock) -> None:
    other = open_store(url, clock)  # as another replica

    async def work() -> int:
        exam, _ = await store.open(owner, None, OPTIONS)
        each = [frame(str(seed), seed) for seed in (0, 1, 2, 3, 4, 4, 2, 0)]
        revisions = await asyncio.gather(
            *(where.add(exam, [one]) for one in each for where in (store, other))
        )
        return max(revisions)

    assert run(work()) == 5
    other.close()


def test_two_that_open_one_id_at_once_get_one_exam_or_a_conflict(
    url: str, clock: Clock, owner: str
) -> None:
    stores = [open_store(url, clock) for _ in range(3)]

    async def work() -> list[Any]:
        calls = [one.open(owner, "e", OPTIONS) for one in stores]
        return await asyncio.gather(*calls, return_exceptions=True)

    found = run(work())
    exams = {one[0].key for one in found if not isinstance(one, BaseException)}
    assert len(exams) == 1
    assert all(isinstance(one, Conflict) for one in found if isinstance(one, BaseException))
    for one in stores:
        one.close()


@needs_postgres
def test_connections_that_the_server_ends_are_made_again(postgres_url: str, clock: Clock) -> None:
    import psycopg

    store = open_store(postgres_url, clock)
    exam, _ = run(store.open(uuid.uuid4().hex, "e", OPTIONS))
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'exams' AND pid <> pg_backend_pid()"
        )
    outcomes: list[Any] = []
    for _ in range(9):  # each of the four threads finds its own connection dead, once
        try:
            outcomes.append(run(store.find(exam.owner, "e")))
        except StoreUnavailable:
            outcomes.append(None)
    store.close()
    assert outcomes[-1] == exam


@needs_postgres
def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Database(f"postgresql://exams:hush-hush@/postgres?host={tmp_path}").check()
    assert "hush" not in str(caught.value)
    assert "ENDOCLIP_EXAM_STORE" in str(caught.value)
