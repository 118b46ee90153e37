"""What is kept of exams, the same in SQLite and in PostgreSQL."""

import asyncio
import json
import sqlite3
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict
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
)
from service.exams.database import Database
from service.exams.store import ExamStore
from service.exams.values import Exam, ExamOptions, KeptFrame, State
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
    rng = np.random.default_rng(seed)
    vector, optics = (rng.normal(size=size).astype(np.float32) for size in (8, 6))
    return KeptFrame(name, bytes([seed]) * 32, more.get("captured_us"), None, vector, optics)


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
    assert kept.optics is not None
    assert by_id["a"].optics is not None
    assert by_id["a"].optics.tobytes() == kept.optics.tobytes()


# The tables of the first release, and its statement for a frame; {0} is the type of bytes.
RELEASED = (
    "CREATE TABLE exam_schema (version BIGINT NOT NULL PRIMARY KEY)",
    """CREATE TABLE exams (
        key TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, exam_id TEXT NOT NULL,
        options TEXT NOT NULL, state TEXT NOT NULL, revision BIGINT NOT NULL,
        created_us BIGINT NOT NULL, changed_us BIGINT NOT NULL, final {0},
        UNIQUE (owner, exam_id))""",
    "CREATE INDEX exams_changed ON exams (changed_us)",
    """CREATE TABLE exam_frames (
        exam TEXT NOT NULL, frame_id TEXT NOT NULL, content {0} NOT NULL, captured_us BIGINT,
        abstained TEXT, embedding {0}, PRIMARY KEY (exam, frame_id))""",
    "CREATE INDEX exam_frames_content ON exam_frames (exam, content)",
    "INSERT INTO exam_schema (version) VALUES (1)",
)
RELEASED_FRAME = """INSERT INTO exam_frames
    (exam, frame_id, content, captured_us, abstained, embedding) VALUES (?, ?, ?, ?, ?, ?)"""
Ask = Callable[..., list[tuple[Any, ...]]]


@contextmanager
def connected(url: str) -> Iterator[Ask]:
    """Ask a database as the release would, without its code."""
    if not url.startswith("postgresql"):
        with closing(sqlite3.connect(url, isolation_level=None)) as raw:
            yield lambda sql, *values: raw.execute(sql.format("BLOB"), values).fetchall()
        return
    import psycopg

    def ask(sql: str, *values: Any) -> list[tuple[Any, ...]]:
        done = connection.execute(sql.format("BYTEA").replace("?", "%s"), values)
        return done.fetchall() if done.description else []

    with psycopg.connect(url, autocommit=True) as connection:
        yield ask


@pytest.fixture
def released(url: str, owner: str) -> str:
    """A database as the first release made it, empty."""
    if url.startswith("postgresql"):
        with connected(url) as ask:
            ask(f'CREATE DATABASE "{owner}"')
        url = url.replace("/postgres?", f"/{owner}?")
    with connected(url) as ask:
        for statement in RELEASED:
            ask(statement)
    return url


def test_a_database_of_the_first_release_is_read_and_written_and_that_release_goes_on_with_it(
    released: str, clock: Clock
) -> None:
    options = json.dumps(asdict(OPTIONS))
    old = frame("old", 1)
    assert old.embedding is not None
    row = ("k", "old", old.content, None, None, old.embedding.tobytes())
    with connected(released) as ask:
        now = int(clock.now * 1e6)
        ask(
            "INSERT INTO exams VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL)",
            *("k", "o", "e", options, "open", 1, now, now),
        )
        ask(RELEASED_FRAME, *row)
    stores = [open_store(released, clock) for _ in range(2)]

    async def both() -> list[tuple[Exam, list[KeptFrame]]]:
        return await asyncio.gather(*(one.snapshot("o", "e") for one in stores))

    for exam, (kept,) in run(both()):
        assert (exam.options, exam.revision, kept.optics) == (OPTIONS, 1, None)
        assert kept.embedding is not None
        assert kept.embedding.tobytes() == old.embedding.tobytes()
    assert run(stores[0].add(exam, [frame("old", 1), frame("new", 2)])) == 2
    with connected(released) as ask:  # a replica that is not exchanged yet
        ask(RELEASED_FRAME, "k", "late", *row[2:])
        assert ask("SELECT version FROM exam_schema") == [(1,)]
    again = open_store(released, clock)
    by_id = {one.frame_id: one.optics for one in run(again.snapshot("o", "e"))[1]}
    for store in (*stores, again):
        store.close()
    new = by_id.pop("new")
    assert new is not None
    assert new.tolist() == pytest.approx(frame("new", 2).optics)
    assert by_id == {"old": None, "late": None}


@pytest.mark.parametrize("version", [0, 2])
def test_a_database_of_another_version_is_refused(released: str, version: int) -> None:
    with connected(released) as ask:
        ask("UPDATE exam_schema SET version = ?", version)
    database = Database(released)
    with pytest.raises(SettingsInvalid, match=rf"version 1; found \[{version}\]"):
        database.check()
    database.close()
    with connected(released) as ask, pytest.raises(Exception, match="optics"):
        ask("SELECT optics FROM exam_frames")


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


def test_two_that_open_one_id_at_once_get_one_exam(url: str, clock: Clock, owner: str) -> None:
    stores = [open_store(url, clock) for _ in range(3)]

    async def work(exam_id: str) -> list[tuple[Exam, bool]]:
        return await asyncio.gather(*(one.open(owner, exam_id, OPTIONS) for one in stores))

    for number in range(3):
        found = run(work(f"e{number}"))
        assert len({exam.key for exam, _ in found}) == 1
        assert [is_new for _, is_new in found].count(True) == 1
    for one in stores:
        one.close()


@needs_postgres
def test_no_owner_has_more_exams_than_it_may_however_many_open_them_at_once(
    url: str, clock: Clock, owner: str
) -> None:
    """Each opens its own, on its own connection, as replicas do."""
    stores = [open_store(url, clock) for _ in range(8)]

    def one(number: int) -> bool:
        try:
            return run(stores[number].open(f"{owner}{number % 2}", f"e-{number}", OPTIONS))[1]
        except Overloaded:
            return False

    try:
        for _ in range(4):
            with ThreadPoolExecutor(len(stores)) as pool:
                opened = list(pool.map(one, range(len(stores))))
            assert [sum(opened[0::2]), sum(opened[1::2])] == [3, 3]
            for number, is_new in enumerate(opened):
                if is_new:
                    run(stores[number].delete(f"{owner}{number % 2}", f"e-{number}"))
    finally:
        for store in stores:
            store.close()


def test_an_exam_that_changes_while_what_is_over_is_removed_stays(
    postgres_url: str, clock: Clock, owner: str
) -> None:
    import psycopg

    store = open_store(postgres_url, clock)
    exam, _ = run(store.open(owner, "e", OPTIONS))
    run(store.add(exam, [frame("a", 1)]))
    clock.now += 61
    later = int(clock.now * 1e6)
    with psycopg.connect(postgres_url) as other, ThreadPoolExecutor() as threads:
        # Another replica's clock is a little behind: to it the exam is not over, and it adds.
        other.execute("UPDATE exams SET changed_us = %s WHERE key = %s", (later, exam.key))
        purging = threads.submit(run, store.purge())
        time.sleep(0.5)
        assert not purging.done()
        other.commit()
        purging.result(60)
    found, frames = run(store.snapshot(owner, "e"))
    store.close()
    assert (found.revision, [one.frame_id for one in frames]) == (1, ["a"])


@needs_postgres
def test_connections_that_the_server_ends_are_made_again(postgres_url: str, clock: Clock) -> None:
    import psycopg

    store = open_store(postgres_url, clock)
    exam, _ = run(store.open(uuid.uuid4().hex, "e", OPTIONS))

    async def on_every_thread() -> None:
        await asyncio.gather(*(store.find(exam.owner, "e") for _ in range(20)))

    run(on_every_thread())
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE usename = 'exams' AND pid <> pg_backend_pid()"
        )
    # Each of the four threads finds its own connection dead, and nobody hears of it.
    for _ in range(9):
        assert run(store.find(exam.owner, "e")) == exam
    store.close()


@needs_postgres
def test_a_server_that_is_not_there_is_said_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid) as caught:
        Database(f"postgresql://exams:hush-hush@/postgres?host={tmp_path}").check()
    assert "hush" not in str(caught.value)
    assert "ENDOCLIP_EXAM_STORE" in str(caught.value)
