"""From an exam's kept frames to what is said of it.

Frames are taken in the order of their capture times (those without one last, by id), whatever order
they came in, and a file that was sent under several ids counts once: so neither order nor
repetition changes a result.
"""

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from model_store.quality import AbstainReason
from service.engine import Frame
from service.exams.segments import MAX_GAP_S, WINDOW_S, find_segments
from service.exams.values import Exam, KeptFrame
from service.forms import FrameIn, PatientIn
from service.scorer import Scorer
from service.scoring import model_info, score_exam

__all__ = ["describe", "is_within_calendar", "microseconds", "outcome_of", "result_of", "rfc3339"]

_TIME = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)[Tt](?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
    r"(?:\.(?P<fraction>\d+))?(?:[Zz]|(?P<sign>[+-])(?P<h>\d\d):(?P<m>\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY = _EPOCH.date().toordinal()
_FIRST_US = (date(1, 1, 2).toordinal() - _EPOCH_DAY) * 86_400_000_000
_LAST_US = (date(9999, 12, 30).toordinal() - _EPOCH_DAY) * 86_400_000_000


def microseconds(text: str) -> int:
    """Read an RFC 3339 time that was validated; a leap second is the next minute's first.

    Returns:
        Microseconds since 1970; times at the ends of the calendar are brought a day inside.
    """
    parts = _TIME.fullmatch(text)
    if parts is None:
        raise ValueError("expected an RFC 3339 date-time")
    day = date.fromisoformat(parts["day"]).toordinal() - _EPOCH_DAY
    offset = int(f"{parts['sign'] or '+'}{int(parts['h'] or 0) * 60 + int(parts['m'] or 0)}")
    minutes = (day * 24 + int(parts["hour"])) * 60 + int(parts["minute"]) - offset
    fraction = int((parts["fraction"] or "")[:6].ljust(6, "0"))
    value = (minutes * 60 + int(parts["second"])) * 1_000_000 + fraction
    return min(max(value, _FIRST_US), _LAST_US)


def is_within_calendar(microseconds_: int) -> bool:
    """Whether a time can be written at all."""
    return _FIRST_US <= microseconds_ <= _LAST_US


def rfc3339(microseconds_: int) -> str:
    """Write a time, in UTC."""
    moment = _EPOCH + timedelta(microseconds=microseconds_)
    kind = "milliseconds" if microseconds_ % 1000 == 0 else "microseconds"
    return moment.isoformat(timespec=kind).replace("+00:00", "Z")


def describe(engine: Scorer, exam: Exam) -> dict[str, Any]:
    """Say what an exam is, without its frames."""
    options = exam.options
    return {
        "exam_id": exam.exam_id,
        "patient_id": options.patient_id,
        "state": exam.state.value,
        "final": exam.final is not None,
        "revision": exam.revision,
        "created_at": rfc3339(exam.created_us),
        "changed_at": rfc3339(exam.changed_us),
        "tasks": list(options.tasks),
        "device": options.device,
        "operating_point": options.operating_point,
        "model": model_info(engine),
        "intended_use": engine.bundle.manifest.intended_use,
    }


def outcome_of(frame: KeptFrame) -> Frame:
    """Give what became of a kept frame."""
    if frame.abstained is not None:
        return Frame(abstained=AbstainReason(frame.abstained))
    return Frame(embedding=frame.embedding, optics=frame.optics)


def result_of(engine: Scorer, exam: Exam, frames: Sequence[KeptFrame]) -> dict[str, Any]:
    """Score an exam from its frames; a thread's work.

    Args:
        engine: with the exam's bundle.
        exam: as it is kept.
        frames: all of its frames, in any order.

    Returns:
        `describe`, counts, and `results`: one for each task.

    Raises:
        EncodeFailed: a graph did not run.
    """
    frames = sorted(frames, key=_place)
    first: dict[bytes, KeptFrame] = {}
    for one in frames:
        first.setdefault(one.content, one)
    results = [_task(engine, exam, task, frames, first) for task in exam.options.tasks]
    return {
        **describe(engine, exam),
        "frames_total": len(frames),
        "frames_scored": sum(one.embedding is not None for one in frames),
        "smoothing": {"window_s": WINDOW_S, "max_gap_s": MAX_GAP_S},
        "results": results,
    }


def _place(frame: KeptFrame) -> tuple[bool, int, int, str]:
    # Shorter ids first: "9" before "10".
    untimed = frame.captured_us is None
    return untimed, frame.captured_us or 0, len(frame.frame_id), frame.frame_id


def _task(
    engine: Scorer,
    exam: Exam,
    task: str,
    frames: Sequence[KeptFrame],
    first: dict[bytes, KeptFrame],
) -> dict[str, Any]:
    distinct = list(first.values())
    patient = PatientIn(
        exam.options.patient_id, None, tuple(FrameIn(one.frame_id, None, 0) for one in distinct)
    )
    point = exam.options.operating_point
    answer = score_exam(engine, task, point, patient, [outcome_of(one) for one in distinct])
    told = {
        one.content: entry for one, entry in zip(distinct, answer["patient"]["frames"], strict=True)
    }
    entries = [_entry(one, first[one.content], told[one.content]) for one in frames]
    answer["patient"] |= {
        "frames_total": len(frames),
        "frames_scored": sum(entry["status"] == "scored" for entry in entries),
        "frames": entries,
    }
    return answer | {"segments": _segments(engine, answer, task, point, frames, entries)}


def _entry(frame: KeptFrame, counted: KeptFrame, told: dict[str, Any]) -> dict[str, Any]:
    entry = {"frame_id": frame.frame_id}
    if frame.captured_us is not None:
        entry["captured_at"] = rfc3339(frame.captured_us)
    entry |= {name: value for name, value in told.items() if name != "frame_id"}
    if frame is not counted:
        entry.pop("attention", None)
        entry["duplicate_of"] = counted.frame_id
    return entry


def _segments(
    engine: Scorer,
    answer: dict[str, Any],
    task: str,
    point: str,
    frames: Sequence[KeptFrame],
    entries: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    timed = [
        (frame.captured_us, entry["probability"])
        for frame, entry in zip(frames, entries, strict=True)
        if frame.captured_us is not None and entry["status"] == "scored"
    ]
    chosen = engine.calibrations[task].operating_point(point)
    found = find_segments([time for time, _ in timed], [value for _, value in timed], chosen)
    positive, negative = answer["labels"][:2]
    return [
        {
            "label": positive if one.positive else negative,
            "begin": rfc3339(one.begin_us),
            "end": rfc3339(one.end_us),
            "frames": one.frames,
            "mean_probability": one.mean_probability,
            "max_probability": one.max_probability,
        }
        for one in found
    ]
