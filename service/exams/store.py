"""Keeps exams and their frames' embeddings; never an image.

A frame is known by its id and its content (SHA-256 of the file as sent). Adding one again changes
nothing, adding another under its id is a conflict, so neither order nor repetition can change what
an exam comes to. The revision is the number of frames kept.

An exam belongs to whom the key that opened it is named for; for everybody else it is not there.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any

from service.errors import Conflict, ExamClosed, Fault, NotFound, Overloaded, PayloadTooLarge
from service.exams.database import Database, Transaction
from service.exams.rows import (
    ADD_EXAM,
    ADD_FRAME,
    BY_ID,
    BY_KEY,
    FRAMES,
    exam_of,
    frame_of,
    row_of,
)
from service.exams.values import Exam, ExamOptions, KeptFrame, State

__all__ = ["ExamStore", "check_same"]

_RETRY_S = 60


class ExamStore:
    """All exams of a database."""

    def __init__(
        self,
        database: Database,
        *,
        max_exams: int,
        max_frames: int,
        retention_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Use a database.

        Args:
            database: where they are kept; closed by `close`.
            max_exams: exams that one owner may have, closed ones included.
            max_frames: frames of one exam.
            retention_s: after so long without a change an exam is gone.
            clock: seconds since 1970.
        """
        self._database = database
        self._max_exams, self._max_frames = max_exams, max_frames
        self._retention_us = int(retention_s * 1e6)
        self._clock = clock

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def expires_us(self, exam: Exam) -> int:
        """Say when an exam will be gone if nothing changes it, microseconds since 1970."""
        return exam.changed_us + self._retention_us

    async def open(
        self, owner: str, exam_id: str | None, options: ExamOptions
    ) -> tuple[Exam, bool]:
        """Open an exam, or find the one that this very request has opened before.

        Args:
            owner: whose it will be.
            exam_id: as the client names it; None makes one up.
            options: fixed from now on.

        Returns:
            (the exam, whether it is new).

        Raises:
            Conflict: there is one of that id with other options.
            Overloaded: the owner has as many as there may be.
            StoreUnavailable: the database cannot be asked.
        """
        now = self._now()
        new = Exam(
            secrets.token_hex(16),
            owner,
            exam_id or secrets.token_hex(16),
            options,
            State.OPEN,
            0,
            now,
            now,
            None,
        )

        def work(on: Transaction) -> tuple[Exam, bool]:
            # Two replicas would both count one exam too few.
            on.alone(owner)
            _purge(on, now - self._retention_us)
            found = _find(on.lock, owner, new.exam_id)
            if found is not None:
                if found.options != options:
                    raise Conflict.at("/exam_id", _difference(found.options, options))
                return found, False
            (count,) = on.rows("SELECT COUNT(*) FROM exams WHERE owner = ?", owner)[0]
            if count >= self._max_exams:
                raise Overloaded(_RETRY_S)
            # Two at once: one of them inserts, the other finds it there.
            inserted = on.change(
                ADD_EXAM,
                new.key,
                owner,
                new.exam_id,
                json.dumps(asdict(options)),
                new.state.value,
                0,
                now,
                now,
                None,
            )
            if inserted:
                return new, True
            found = _find(on.lock, owner, new.exam_id)
            if found is None or found.options != options:
                raise Conflict.at("/exam_id", "an exam of this id has other options")
            return found, False

        return await self._database.write(work)

    async def find(self, owner: str, exam_id: str) -> Exam:
        """Look an exam up.

        Raises:
            NotFound: the owner has none of that id, or had it too long ago.
            StoreUnavailable: the database cannot be asked.
        """
        return await self._database.read(lambda on: self._known(on.rows, owner, exam_id))

    async def known(self, exam: Exam, frames: Iterable[KeptFrame]) -> list[KeptFrame]:
        """Give the frames that an exam has under one of these ids or with one of these contents.

        Raises:
            StoreUnavailable: the database cannot be asked.
        """
        wanted = list(frames)

        def work(on: Transaction) -> list[KeptFrame]:
            marks = _marks(wanted)
            rows = on.rows(
                FRAMES + f" AND (frame_id IN ({marks}) OR content IN ({marks}))",
                exam.key,
                *(one.frame_id for one in wanted),
                *(one.content for one in wanted),
            )
            return [frame_of(row) for row in rows]

        return await self._database.read(work)

    async def last_captured(self, exam: Exam) -> int | None:
        """Give the latest capture time of an exam's frames, microseconds since 1970.

        Raises:
            StoreUnavailable: the database cannot be asked.
        """
        sql = "SELECT MAX(captured_us) FROM exam_frames WHERE exam = ?"
        found: int | None = await self._database.read(lambda on: on.rows(sql, exam.key)[0][0])
        return found

    async def add(self, exam: Exam, frames: Sequence[KeptFrame]) -> int:
        """Keep frames; those that are there already change nothing.

        Args:
            exam: whose they are.
            frames: with distinct ids.

        Returns:
            The revision with them.

        Raises:
            Conflict: another frame has one of the ids; nothing is kept.
            ExamClosed: it takes no more frames.
            PayloadTooLarge: it would have too many.
            NotFound: it was deleted meanwhile.
            StoreUnavailable: the database cannot be asked.
        """
        now = self._now()

        def work(on: Transaction) -> int:
            current = _by_key(on.lock, exam.key)
            there = {one.frame_id: one for one in _frames(on, exam.key, frames)}
            check_same(frames, there)
            new = [one for one in frames if one.frame_id not in there]
            if not new:
                return current.revision
            if current.state is not State.OPEN:
                raise ExamClosed
            revision = current.revision + len(new)
            if revision > self._max_frames:
                raise PayloadTooLarge(f"An exam may have {self._max_frames} frames at most.")
            on.insert(ADD_FRAME, [row_of(exam.key, one) for one in new])
            on.change(
                "UPDATE exams SET revision = ?, changed_us = ? WHERE key = ?",
                revision,
                now,
                exam.key,
            )
            return revision

        return await self._database.write(work)

    async def snapshot(self, owner: str, exam_id: str) -> tuple[Exam, list[KeptFrame]]:
        """Give an exam with its frames, as they were at one moment, in no order.

        Raises:
            NotFound: there is none.
            StoreUnavailable: the database cannot be asked.
        """

        def work(on: Transaction) -> tuple[Exam, list[KeptFrame]]:
            exam = self._known(on.rows, owner, exam_id)
            return exam, _frames(on, exam.key)

        return await self._database.read(work)

    async def begin_close(self, exam: Exam) -> Exam:
        """Take no more frames from now on.

        Raises:
            NotFound, StoreUnavailable: as above.
        """
        now = self._now()

        def work(on: Transaction) -> Exam:
            current = _by_key(on.lock, exam.key)
            if current.state is not State.OPEN:
                return current
            on.change(
                "UPDATE exams SET state = ?, changed_us = ? WHERE key = ?",
                State.CLOSING.value,
                now,
                exam.key,
            )
            return replace(current, state=State.CLOSING, changed_us=now)

        return await self._database.write(work)

    async def end_close(self, exam: Exam, final: bytes) -> tuple[Exam, bool]:
        """Keep the final result; where there is one already, that one stays.

        Returns:
            (the closed exam, whether the given result became its own).

        Raises:
            NotFound, StoreUnavailable: as above.
        """
        now = self._now()

        def work(on: Transaction) -> tuple[Exam, bool]:
            current = _by_key(on.lock, exam.key)
            if current.state is State.CLOSED:
                return current, False
            on.change(
                "UPDATE exams SET state = ?, changed_us = ?, final = ? WHERE key = ?",
                State.CLOSED.value,
                now,
                final,
                exam.key,
            )
            return replace(current, state=State.CLOSED, changed_us=now, final=final), True

        return await self._database.write(work)

    async def delete(self, owner: str, exam_id: str) -> None:
        """Remove an exam, whatever its state, with all that is kept of it.

        Raises:
            NotFound, StoreUnavailable: as above.
        """

        def work(on: Transaction) -> None:
            exam = self._known(on.lock, owner, exam_id)
            _remove(on, exam.key, exam.changed_us)

        await self._database.write(work)

    async def purge(self) -> int:
        """Remove the exams whose time is over; gives how many."""
        before = self._now() - self._retention_us
        return await self._database.write(lambda on: _purge(on, before))

    def _known(self, ask: Callable[..., Any], owner: str, exam_id: str) -> Exam:
        exam = _find(ask, owner, exam_id)
        if exam is None or self.expires_us(exam) <= self._now():
            raise NotFound("No exam of this id.")
        return exam

    def _now(self) -> int:
        return int(self._clock() * 1e6)


def check_same(frames: Sequence[KeptFrame], there: dict[str, KeptFrame]) -> None:
    """Refuse frames whose ids stand for others already.

    Raises:
        Conflict: with a pointer for each.
    """
    faults = [
        Fault(f"/frames/{place}/frame_id", "another frame of the exam has this id")
        for place, one in enumerate(frames)
        if one.content and one.frame_id in there and not there[one.frame_id].same(one)
    ]
    if faults:
        raise Conflict("A frame of this id is there, with another image or time.", faults=faults)


def _difference(there: ExamOptions, asked: ExamOptions) -> str:
    if replace(there, bundle=asked.bundle, site_profile=asked.site_profile) == asked:
        return "an exam of this id began with another bundle or site profile; read or close it"
    return "an exam of this id has other options"


def _find(ask: Callable[..., Any], owner: str, exam_id: str) -> Exam | None:
    rows = ask(BY_ID, owner, exam_id)
    return exam_of(rows[0]) if rows else None


def _by_key(ask: Callable[..., Any], key: str) -> Exam:
    rows = ask(BY_KEY, key)
    if not rows:
        raise NotFound("No exam of this id.")
    return exam_of(rows[0])


def _frames(on: Transaction, key: str, among: Sequence[KeptFrame] | None = None) -> list[KeptFrame]:
    sql, values = FRAMES, [key]
    if among is not None:
        sql += f" AND frame_id IN ({_marks(among)})"
        values += [one.frame_id for one in among]
    return [frame_of(row) for row in on.rows(sql, *values)]


def _marks(values: Sequence[Any]) -> str:
    return ", ".join("?" * len(values)) or "NULL"


def _purge(on: Transaction, before_us: int) -> int:
    # In one order, so that two replicas at it wait for one another instead of for ever.
    rows = on.rows("SELECT key FROM exams WHERE changed_us <= ? ORDER BY key", before_us)
    return sum(_remove(on, key, before_us) for (key,) in rows)


def _remove(on: Transaction, key: str, before_us: int) -> int:
    """Remove an exam that did not change after a time; gives 1, or 0 where it did or is gone."""
    # The exam first: whoever adds a frame holds its row, and one that was changed meanwhile stays.
    removed = on.change("DELETE FROM exams WHERE key = ? AND changed_us <= ?", key, before_us)
    if removed:
        on.change("DELETE FROM exam_frames WHERE exam = ?", key)
    return removed
