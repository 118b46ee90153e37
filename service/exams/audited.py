"""What is kept of exams is told to the audit log before it is kept, so that the log lacks nothing.

What will not be kept is not told: a line for each frame that a full exam turns away, or that is
sent again, would hide those that count. A line too many is left where the service ends, its caller
goes or the database fails after the line, and where one frame comes twice at the same moment.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from service.audit import AuditLog
from service.errors import ExamClosed, NotFound, PayloadTooLarge, StoreUnavailable
from service.exams.store import ExamStore, check_same
from service.exams.values import Exam, KeptFrame, State
from service.logs import Event, cause_of

__all__ = ["ExamAudit", "check_room"]

_logger = logging.getLogger(__name__)


class ExamAudit:
    """The audit log of exams, where there is one."""

    def __init__(self, path: Path | None) -> None:
        """Open the log.

        Args:
            path: of its file; None for no log, into which nothing is written.

        Raises:
            SettingsInvalid: as `AuditLog`.
        """
        self._log = AuditLog(path) if path is not None else None

    @property
    def is_on(self) -> bool:
        """Whether there is a log."""
        return self._log is not None

    async def write(self, entries: Iterable[dict[str, Any]]) -> None:
        """Write entries.

        Raises:
            StoreUnavailable: they cannot be written.
        """
        if self._log is None:
            return
        try:
            await asyncio.to_thread(self._log.write, entries)
        except OSError as error:
            _logger.error(Event("audit_log", state="unwritable", reason=cause_of(error)))
            raise StoreUnavailable("the audit log") from error

    async def write_new(
        self,
        store: ExamStore,
        exam: Exam,
        rows: Sequence[KeptFrame],
        entries: Sequence[dict[str, Any]],
        *,
        max_frames: int,
    ) -> None:
        """Write the entries of those frames that are about to be added.

        Args:
            store: where they will be.
            exam: whose they are.
            rows: the frames, some of which may be there already.
            entries: of each.
            max_frames: how many an exam may have.

        Raises:
            As `ExamStore.add`, which would refuse them; StoreUnavailable also where the log cannot
            be written.
        """
        if self._log is None:
            return
        now = await store.find(exam.owner, exam.exam_id)
        if now.key != exam.key:
            raise NotFound("No exam of this id.")
        there = {one.frame_id: one for one in await store.known(exam, rows)}
        check_same(rows, there)
        new = [told for row, told in zip(rows, entries, strict=True) if row.frame_id not in there]
        if not new:
            return
        if now.state is not State.OPEN:
            raise ExamClosed
        check_room(now, len(new), max_frames)
        await self.write(new)

    def close(self) -> None:
        """Let another process have the log."""
        if self._log is not None:
            self._log.close()


def check_room(exam: Exam, count: int, max_frames: int) -> None:
    """Refuse frames for which an exam has no room, before anything is done for nothing.

    Raises:
        PayloadTooLarge: as `ExamStore.add` does, exactly, when they are kept.
    """
    if exam.revision + count > max_frames:
        raise PayloadTooLarge(f"An exam may have {max_frames} frames at most.")
