"""SQLite or PostgreSQL behind one small face: transactions that run in threads of their own.

A transaction that has returned is on the disk: SQLite runs with a write-ahead log that is synced at
every commit, so neither `kill -9` nor a power cut takes back what was acknowledged. What the store
is asked in SQL is the same for both; placeholders are `?`.
"""

import asyncio
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol, TypeVar

from service.errors import ServiceError, SettingsInvalid, StoreUnavailable
from service.logs import Event, cause_of

__all__ = ["Database", "Transaction"]

T = TypeVar("T")
Rows = list[tuple[Any, ...]]
_logger = logging.getLogger(__name__)
_VERSION = 1
_BUSY_S = 10.0
_POSTGRES = ("postgresql://", "postgres://")
# Kinds of advisory locks, which are numbers that the database has no meaning for.
_MAKE, _ALONE = 7341, 7342
_SCHEMA = (
    """CREATE TABLE exam_schema (version BIGINT NOT NULL PRIMARY KEY)""",
    """CREATE TABLE exams (
        key TEXT NOT NULL PRIMARY KEY, owner TEXT NOT NULL, exam_id TEXT NOT NULL,
        options TEXT NOT NULL, state TEXT NOT NULL, revision BIGINT NOT NULL,
        created_us BIGINT NOT NULL, changed_us BIGINT NOT NULL, final {blob},
        UNIQUE (owner, exam_id))""",
    """CREATE INDEX exams_changed ON exams (changed_us)""",
    """CREATE TABLE exam_frames (
        exam TEXT NOT NULL, frame_id TEXT NOT NULL, content {blob} NOT NULL, captured_us BIGINT,
        abstained TEXT, embedding {blob}, optics {blob}, PRIMARY KEY (exam, frame_id))""",
    """CREATE INDEX exam_frames_content ON exam_frames (exam, content)""",
)


class Transaction(Protocol):
    """What work inside of a transaction may ask."""

    def rows(self, sql: str, *values: Any) -> Rows:
        """Run a query; gives its rows."""

    def change(self, sql: str, *values: Any) -> int:
        """Run a statement; gives how many rows it changed."""

    def insert(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each row."""

    def lock(self, sql: str, *values: Any) -> Rows:
        """Run a query whose rows nobody else changes until the transaction ends."""

    def alone(self, name: str) -> None:
        """Wait until no other transaction is alone with this name; first of all, lest two wait."""


class Database:
    """One database; its tables are made where they are missing."""

    def __init__(self, url: str) -> None:
        """Prepare; nothing is opened yet.

        Args:
            url: path of an SQLite file, or `postgresql://…`.
        """
        postgres = url.startswith(_POSTGRES)
        self._connect: Callable[[], _Connection] = (
            (lambda: _Postgres(url)) if postgres else (lambda: _Sqlite(Path(url)))
        )
        # SQLite has one writer anyway, and waiting in line here is fairer than its retries.
        self._threads = ThreadPoolExecutor(4 if postgres else 1, thread_name_prefix="exams")
        self._local = threading.local()
        self._open: list[_Connection] = []
        self._made = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Open the database now, from the calling thread.

        Raises:
            SettingsInvalid: it cannot be used; one line without the address's password.
        """
        try:
            self._threads.submit(self._connection).result()
        except StoreUnavailable as error:
            raise SettingsInvalid(f"ENDOCLIP_EXAM_STORE: {error.why}") from error

    async def read(self, work: Callable[[Transaction], T]) -> T:
        """Run work that changes nothing and sees one state of the database.

        Raises:
            StoreUnavailable: the database cannot be asked; besides what `work` raises.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._run, work, True
        )

    async def write(self, work: Callable[[Transaction], T]) -> T:
        """Run work that changes something: all of it is on the disk afterwards, or nothing.

        Raises:
            StoreUnavailable: the database cannot be asked; besides what `work` raises.
        """
        return await asyncio.get_running_loop().run_in_executor(
            self._threads, self._run, work, False
        )

    def close(self) -> None:
        """End the threads and close what is open."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for connection in self._open:
            with suppress(connection.error):
                connection.close()

    def _run(self, work: Callable[[Transaction], T], read_only: bool) -> T:
        try:
            return self._transact(work, read_only)
        except StoreUnavailable as error:
            reason = cause_of(error.__cause__ or error)
            _logger.error(Event("exam_store", state="unavailable", reason=reason))
            raise

    def _transact(self, work: Callable[[Transaction], T], read_only: bool) -> T:
        connection = self._connection()
        try:
            connection = self._begun(connection, read_only)
            try:
                result = work(connection)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise
        except ServiceError:
            raise
        except connection.error as error:
            if not connection.alive:
                self._drop(connection)
            raise StoreUnavailable(connection.reason(error)) from error
        return result

    def _begun(self, connection: "_Connection", read_only: bool) -> "_Connection":
        """Begin; a connection that died unnoticed, as all do when the server restarts, is renewed.

        Nothing was asked of it yet, so nothing can happen twice.
        """
        try:
            connection.begin(read_only)
        except connection.error:
            if connection.alive:
                raise
            self._drop(connection)
            connection = self._connection()
            connection.begin(read_only)
        return connection

    def _connection(self) -> "_Connection":
        found: _Connection | None = getattr(self._local, "connection", None)
        if found is not None and found.alive:
            return found
        if found is not None:
            self._drop(found)
        connection = self._connect()
        try:
            with self._lock:
                if not self._made:
                    _make(connection)
                    self._made = True
                self._open.append(connection)
        except (ServiceError, connection.error) as error:
            self._drop(connection)
            if isinstance(error, ServiceError):
                raise
            raise StoreUnavailable(connection.reason(error)) from error
        self._local.connection = connection
        return connection

    def _drop(self, connection: "_Connection") -> None:
        self._local.connection = None
        with self._lock, suppress(ValueError):
            self._open.remove(connection)
        with suppress(connection.error):
            connection.close()


class _Connection:
    """A connection of either kind, and the transaction that runs on it."""

    error: type[Exception]
    blob: str
    has_schema: str
    has_optics: str

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    @property
    def alive(self) -> bool:
        """Whether it can be used again."""
        return True

    def sql(self, text: str) -> str:
        """Write a statement as the library wants it."""
        return text

    def begin(self, read_only: bool) -> None:
        raise NotImplementedError

    def lock(self, sql: str, *values: Any) -> Rows:
        raise NotImplementedError

    def alone(self, name: str) -> None:
        raise NotImplementedError

    def rows(self, sql: str, *values: Any) -> Rows:
        return list(self._raw.execute(self.sql(sql), values).fetchall())

    def change(self, sql: str, *values: Any) -> int:
        return int(self._raw.execute(self.sql(sql), values).rowcount)

    def insert(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        cursor = self._raw.cursor()
        cursor.executemany(self.sql(sql), rows)
        cursor.close()

    def commit(self) -> None:
        self._raw.execute("COMMIT")

    def rollback(self) -> None:
        with suppress(self.error):
            self._raw.execute("ROLLBACK")

    def close(self) -> None:
        self._raw.close()

    def reason(self, error: Exception) -> str:
        """Say what is wrong, for the operator's start line alone."""
        return " ".join(str(error).split())


class _Sqlite(_Connection):
    error = sqlite3.Error
    blob = "BLOB"
    has_schema = "SELECT COUNT(*) FROM sqlite_master WHERE name = 'exam_schema'"
    has_optics = "SELECT COUNT(*) FROM pragma_table_info('exam_frames') WHERE name = 'optics'"

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made here and not by SQLite: what it holds is for its owner alone.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            raw = sqlite3.connect(
                path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
            )
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "secure_delete=ON"):
                raw.execute(f"PRAGMA {pragma}")
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"{path}: {error}") from error
        super().__init__(raw)

    def begin(self, read_only: bool) -> None:
        self._raw.execute("BEGIN" if read_only else "BEGIN IMMEDIATE")

    def lock(self, sql: str, *values: Any) -> Rows:
        return self.rows(sql, *values)  # the one writer has the whole file

    def alone(self, name: str) -> None:
        """Nothing: neither has another this name, nor any."""


class _Postgres(_Connection):
    blob = "BYTEA"
    has_schema = "SELECT to_regclass('exam_schema') IS NOT NULL"
    has_optics = (
        "SELECT COUNT(*) FROM pg_attribute "
        "WHERE attrelid = 'exam_frames'::regclass AND attname = 'optics'"
    )

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError as error:
            raise StoreUnavailable("PostgreSQL needs the extra `postgres`") from error
        self.error = psycopg.Error
        try:
            raw = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=5,
                options="-c statement_timeout=10000 -c lock_timeout=10000",
            )
        except psycopg.Error as error:
            # What the library says may hold the address, and the address a password.
            raise StoreUnavailable(f"PostgreSQL: {type(error).__name__}") from error
        super().__init__(raw)

    @property
    def alive(self) -> bool:
        return not self._raw.closed

    def sql(self, text: str) -> str:
        return text.replace("?", "%s")

    def begin(self, read_only: bool) -> None:
        level = " ISOLATION LEVEL REPEATABLE READ READ ONLY" if read_only else ""
        self._raw.execute(f"BEGIN{level}")

    def lock(self, sql: str, *values: Any) -> Rows:
        return self.rows(f"{sql} FOR UPDATE", *values)

    def alone(self, name: str) -> None:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big", signed=True)
        self.rows("SELECT pg_advisory_xact_lock(?, ?)", _ALONE, number)

    def reason(self, error: Exception) -> str:
        return f"PostgreSQL: {type(error).__name__}"


def _make(connection: _Connection) -> None:
    """Make what is missing; several processes may come to it at once."""
    connection.begin(False)
    try:
        if isinstance(connection, _Postgres):
            # Two that make a table at once is an error of one of them.
            connection.rows("SELECT pg_advisory_xact_lock(?)", _MAKE)
        # Not IF NOT EXISTS alone: an index that is there is locked all the same, and a replica that
        # starts would come to a deadlock with one that writes.
        if not connection.rows(connection.has_schema)[0][0]:
            for statement in _SCHEMA:
                connection.change(statement.format(blob=connection.blob))
            connection.change("INSERT INTO exam_schema (version) VALUES (?)", _VERSION)
        versions = [row[0] for row in connection.rows("SELECT version FROM exam_schema")]
        if versions != [_VERSION]:
            raise StoreUnavailable(f"expected exams of version {_VERSION}; found {versions}")
        # The first releases had none. Their statements name their columns, so that they go on with
        # it and the version stays: replicas are exchanged one by one, and back.
        if not connection.rows(connection.has_optics)[0][0]:
            connection.change(f"ALTER TABLE exam_frames ADD COLUMN optics {connection.blob}")
        connection.commit()
    except BaseException:
        connection.rollback()
        raise
