"""What can be done with exams: open, send frames, ask, close, delete.

An exam stays with the bundle and the site profile that it began with: embeddings of two towers
cannot be compared, so one that meets another bundle takes no more frames, and its result is still
that bundle's (`service.exams.bundles`). Closed ones are read whatever is served.
"""

import asyncio
import hashlib
import logging
import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from service import jsonio
from service.admission import Permit
from service.bundles import NAMED_TASKS
from service.engine import Engine, Frame, all_of
from service.errors import ExamClosed, NotFound, StoreUnavailable
from service.exams.audited import ExamAudit, check_room
from service.exams.bundles import Bundles, check_served, is_served, profile_of
from service.exams.database import Database
from service.exams.frames import answer, audit_entries, fresh, identify, kept
from service.exams.results import outcome_of, result_of, rfc3339
from service.exams.store import ExamStore, check_same
from service.exams.values import Exam, ExamOptions, KeptFrame, State
from service.forms import FrameIn, PatientIn, RequestIn
from service.rates import FrameRate
from service.schemas import ExamBody
from service.scoring import pointed
from service.settings import Settings

__all__ = ["Exams", "Taken"]

_logger = logging.getLogger(__name__)
_DEFAULT_POINT = "balanced"
_CACHED_RESULTS = 16
_PURGE_EVERY_S = 600.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of the frames of one request.

    Attributes:
        answer: its body without the request's id.
        patients: the frames that were looked at now, for the figures.
        rows: the frames that were new, as they are kept.
        entries: what the audit log is told when they are.
    """

    answer: dict[str, Any]
    patients: list[dict[str, Any]]
    rows: list[KeptFrame]
    entries: list[dict[str, Any]]


class Exams:
    """All exams of a service; its database is opened with the first one, or by `check`."""

    def __init__(self, settings: Settings) -> None:
        self._url = settings.exam_store
        self._settings = settings
        self._store: ExamStore | None = None
        self._audit = ExamAudit(settings.audit_log)
        # By key, revision and state, which determine it.
        self._results: OrderedDict[tuple[str, int, str], bytes] = OrderedDict()
        self._purging: asyncio.Task[None] | None = None
        self._bundles = Bundles(settings)

    def check(self) -> None:
        """Open the database where the operator has named one.

        Raises:
            SettingsInvalid: it cannot be used; one line.
        """
        if self._url is not None:
            database = Database(self._url)
            try:
                database.check()
            finally:
                database.close()

    def start(self) -> None:
        """Begin to remove what is over, where there may be exams; on the event loop."""
        # An account without a home has none, nor one whose home it may not look into.
        with suppress(StoreUnavailable, OSError):
            if self._url is not None or _default_path().exists():
                self._open_store()

    async def stop(self) -> None:
        """Close the database."""
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.gather(self._purging, return_exceptions=True)
        if self._store is not None:
            await asyncio.to_thread(self._store.close)
        self._audit.close()

    async def open(self, engine: Engine, owner: str, body: ExamBody) -> tuple[bytes, str, bool]:
        """Open an exam; gives (body of the answer, id, whether it is new).

        Raises:
            UnknownDevice, UnknownOperatingPoint: a name in the request.
            Conflict, Overloaded, StoreUnavailable: as `ExamStore.open`.
        """
        exam, is_new = await self._open_store().open(owner, body.exam_id, _options(engine, body))
        return await self._result(engine, exam), exam.exam_id, is_new

    async def find(self, owner: str, exam_id: str) -> Exam:
        """Look an exam up.

        Raises:
            NotFound, StoreUnavailable: as `ExamStore.find`.
        """
        _check_id(exam_id)
        return await self._open_store().find(owner, exam_id)

    async def take(
        self,
        engine: Engine,
        exam: Exam,
        request: RequestIn,
        permit: Permit,
        rate: FrameRate,
        *,
        keep: bool = True,
    ) -> Taken:
        """Encode the frames that are new, keep them, and score each by itself.

        Args:
            engine: the loaded bundle.
            exam: as it was when the request began.
            request: the frames.
            permit: of the request; only new frames are work.
            rate: of the key; only new frames count.
            keep: whether the frames become part of the exam; else `keep` does that later.

        Raises:
            Conflict: another bundle, or another frame under an id.
            ExamClosed, PayloadTooLarge, NotFound, StoreUnavailable: as `ExamStore.add`.
            AllFramesRejected: no frame could be read.
            Overloaded, RateLimited, EncodeFailed: as for other routes.
        """
        check_served(engine, exam)
        sent = request.patients[0].frames
        named = await asyncio.to_thread(identify, sent)
        readable = {one.frame_id: one for one in named if one.content}
        store = self._open_store()
        known = await store.known(exam, readable.values()) if keep else []
        there = {one.frame_id: one for one in known}
        check_same(named, there)
        outcomes = {one.content: outcome_of(one) for one in known}
        new = fresh(sent, named, outcomes)
        if keep and any(one not in there for one in readable):
            check_room(exam, 1, self._settings.max_exam_frames)
        await self._encode(engine, exam, new, request.explain, permit, rate, outcomes)
        frames = [
            outcomes.get(one.content) or Frame(rejected=engine.too_long(frame))
            for one, frame in zip(named, sent, strict=True)
        ]
        rows = [
            kept(one, outcomes[one.content])
            for one in readable.values()
            if one.frame_id not in there and outcomes[one.content].rejected is None
        ]
        told = await asyncio.to_thread(answer, engine, exam, named, frames, set(there))
        entries = audit_entries(engine, exam, rows, told) if self._audit.is_on else []
        revision = await self.keep(exam, rows, entries) if keep and rows else exam.revision
        looked_at = [{"frames": [entry for entry in told["frames"] if not entry["duplicate"]]}]
        return Taken({**told, "revision": revision}, looked_at, rows, entries)

    async def keep(
        self, exam: Exam, rows: Sequence[KeptFrame], entries: Sequence[dict[str, Any]]
    ) -> int:
        """Make frames that were taken part of the exam; gives the revision with them.

        Raises:
            As `ExamStore.add`; StoreUnavailable also where the audit log cannot be written.
        """
        store, most = self._open_store(), self._settings.max_exam_frames
        await self._audit.write_new(store, exam, rows, entries, max_frames=most)
        return await store.add(exam, rows)

    def check_open(self, engine: Engine, exam: Exam) -> None:
        """Hold an exam against what is served, and see that it takes frames.

        Raises:
            Conflict: it began with another bundle.
            ExamClosed: it takes no more frames.
        """
        check_served(engine, exam)
        if exam.state is not State.OPEN:
            raise ExamClosed

    async def last_captured(self, exam: Exam) -> int | None:
        """Give the latest capture time of the frames kept, microseconds since 1970.

        Raises:
            StoreUnavailable: as `ExamStore.last_captured`.
        """
        return await self._open_store().last_captured(exam)

    async def result(self, engine: Engine, owner: str, exam_id: str) -> bytes:
        """Give what is known of an exam: the final result, or one of the frames there are.

        Raises:
            NotFound, StoreUnavailable: as `ExamStore.snapshot`.
            Conflict: it is not closed, and its bundle is neither served nor to be found.
            EncodeFailed: a graph did not run.
        """
        return await self._result(engine, await self.find(owner, exam_id))

    async def frames(self, exam: Exam) -> list[KeptFrame]:
        """Give the frames kept of an exam, in no order.

        Raises:
            NotFound, StoreUnavailable: as `ExamStore.snapshot`.
        """
        return (await self._open_store().snapshot(exam.owner, exam.exam_id))[1]

    async def close(
        self, engine: Engine, owner: str, exam_id: str
    ) -> tuple[bytes, dict[str, Any] | None]:
        """Close an exam: its result is final from then on, and the same for whoever asks.

        Returns:
            (body of the answer, the result if this call made it).

        Raises:
            As `result`.
        """
        exam = await self.find(owner, exam_id)
        store = self._open_store()
        made: dict[str, Any] | None = None
        if exam.final is None:
            scorer = await self._bundles.scorer(engine, exam)
            await store.begin_close(exam)
            now, frames = await store.snapshot(owner, exam_id)
            told = replace(now, state=State.CLOSED, final=b"")
            result = await asyncio.to_thread(result_of, scorer, told, frames)
            body = await asyncio.to_thread(jsonio.write, result)
            digest = hashlib.sha256(body).hexdigest()
            closed = {"event": "closed", "bundle": exam.options.bundle, "result": digest}
            await self._audit.write([{**closed, "frames": now.revision}])
            exam, is_ours = await store.end_close(exam, body)
            if is_ours:
                made = result
            if is_ours and scorer is engine:
                seen = {one.content: one for one in frames}.values()
                scored = [one.embedding for one in seen if one.embedding is not None]
                optics = [one.optics for one in seen if one.embedding is not None]
                engine.drift.add_exam(exam.options.device, scored, optics)
        return self._with_now(engine, exam, exam.final or b""), made

    async def delete(self, owner: str, exam_id: str) -> None:
        """Remove an exam with all that is kept of it.

        Raises:
            NotFound, StoreUnavailable: as `ExamStore.delete`.
        """
        _check_id(exam_id)
        await self._open_store().delete(owner, exam_id)

    def _open_store(self) -> ExamStore:
        if self._store is None:
            settings = self._settings
            self._store = ExamStore(
                Database(self._url or str(_default_path())),
                max_exams=settings.max_exams,
                max_frames=settings.max_exam_frames,
                retention_s=settings.exam_retention_h * 3600,
            )
            self._purging = asyncio.ensure_future(_purge(self._store))
        return self._store

    async def _encode(
        self,
        engine: Engine,
        exam: Exam,
        fresh: dict[bytes, FrameIn],
        grid: bool,
        permit: Permit,
        rate: FrameRate,
        outcomes: dict[bytes, Frame],
    ) -> None:
        """Encode each new content once, into `outcomes`."""
        if not fresh:
            return
        if exam.state is not State.OPEN:
            raise ExamClosed
        work = RequestIn((PatientIn("0", None, tuple(fresh.values())),))
        await engine.admit(work, permit)
        rate.charge(work.pieces)
        async with permit.begun_in_time():
            box = exam.options.box
            done = await all_of(
                [engine.encode_frame(one, box, permit, grid=grid) for one in fresh.values()]
            )
        outcomes.update(zip(fresh, done, strict=True))

    async def _result(self, engine: Engine, exam: Exam) -> bytes:
        if exam.final is not None:
            return self._with_now(engine, exam, exam.final)
        scorer = await self._bundles.scorer(engine, exam)
        cached = self._results.get(_version(exam))
        if cached is None:
            exam, frames = await self._open_store().snapshot(exam.owner, exam.exam_id)
            if exam.final is not None:
                return self._with_now(engine, exam, exam.final)
            result = await asyncio.to_thread(result_of, scorer, exam, frames)
            cached = await asyncio.to_thread(jsonio.write, result)
            self._results[_version(exam)] = cached
            while len(self._results) > _CACHED_RESULTS:
                self._results.popitem(last=False)
        return self._with_now(engine, exam, cached)

    def _with_now(self, engine: Engine, exam: Exam, body: bytes) -> bytes:
        """Add what is no part of the result: how long it is kept, and whether it takes frames."""
        now = {
            "expires_at": rfc3339(self._open_store().expires_us(exam)),
            "takes_frames": exam.state is State.OPEN and is_served(engine, exam),
        }
        return jsonio.write(now)[:-1] + b"," + body[1:]


def _options(engine: Engine, body: ExamBody) -> ExamOptions:
    tasks = tuple(body.tasks or NAMED_TASKS.values())
    point = body.operating_point or _DEFAULT_POINT
    with pointed("/device"):
        box = engine.crop_box(body.device)
    with pointed("/operating_point"):
        for task in tasks:
            engine.calibrations[task].operating_point(point)
    return ExamOptions(
        patient_id=body.patient_id or "0",
        tasks=tasks,
        device=body.device or next(iter(engine.devices)),
        box=box,
        operating_point=point,
        bundle=engine.bundle.digest,
        site_profile=profile_of(engine),
    )


def _check_id(exam_id: str) -> None:
    # Asked for such a text, PostgreSQL fails as if it were away.
    if "\0" in exam_id:
        raise NotFound("No exam of this id.")


def _version(exam: Exam) -> tuple[str, int, str]:
    return exam.key, exam.revision, exam.state.value


def _default_path() -> Path:
    try:
        state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise StoreUnavailable("the account has no home; set ENDOCLIP_EXAM_STORE") from error
    return Path(state) / "endo-clip" / "exams.sqlite3"


async def _purge(store: ExamStore) -> None:
    """Remove what is over, now and then; a database that is away now may be there next time."""
    while True:
        with suppress(StoreUnavailable):
            await store.purge()
        await asyncio.sleep(_PURGE_EVERY_S)
