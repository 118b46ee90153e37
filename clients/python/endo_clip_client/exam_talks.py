"""What is said to one exam, as conversations.

Every one of them may be held again after a failure, and the client does: opening finds the exam
that is open already, a frame that is sent again is the same frame, closing gives the same result.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from endo_clip_client.conversations import Conversations, Talk, Work, accepted, file_of, read_answer
from endo_clip_client.errors import NotFound
from endo_clip_client.exam_results import ExamResult, Taken
from endo_clip_client.sending import Call, FrameIn, FrameLike, frames_call, read_frames

__all__ = ["ExamOptions", "ExamTalks"]

# Of the contract; "." and ".." would name another path.
_EXAM_ID = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,64}")


class ExamOptions(TypedDict, total=False):
    """What is fixed when an exam is opened: pseudonym, tasks, device profile, operating point."""

    patient_id: str | None
    tasks: Sequence[str] | None
    device: str | None
    operating_point: str | None


class ExamTalks:
    """Each method is a conversation about one exam."""

    def __init__(self, talks: Conversations, exam_id: str, options: ExamOptions) -> None:
        if not _EXAM_ID.fullmatch(exam_id):
            raise ValueError(f"exam_id: expected [A-Za-z0-9._-]{{1,64}}; found {exam_id!r}")
        self._talks = talks
        self._options = options
        self._device = options.get("device")
        self.exam_id = exam_id
        self.path = f"/v1/exams/{exam_id}"

    def open(self) -> Talk[ExamResult]:
        """Open the exam, or find it open with the same options.

        Raises:
            InvalidRequest: 409, there is an exam of this id with other options, or it is closed.
        """
        told: Mapping[str, Any] = {"exam_id": self.exam_id, **self._options}
        given = {name: value for name, value in told.items() if value is not None}
        if "tasks" in given:
            given["tasks"] = list(given["tasks"])
        return self._result(Call.post("/v1/exams", given))

    def send(self, frames: Sequence[FrameLike], *, explain: bool = False) -> Talk[Taken]:
        """Send frames, in any order; each is encoded once, and kept when this returns.

        Args:
            frames: bytes, paths or `FrameIn`; with `captured_at`, the exam has segments of time.
            explain: give a heatmap with each new frame.

        Raises:
            AllFramesRejected: no frame could be read.
            InvalidRequest: 409, the exam is closed, a `frame_id` stands for another file, or the
                service serves another bundle than the exam began with.
        """
        if not frames:
            raise ValueError("expected at least one frame; found none")
        if self._talks.shrink and self._device is None:
            self._device = (yield from self.result()).device
        read = yield from self._talks.read(frames, self._device)
        call = frames_call(f"{self.path}/frames", read, {"explain": explain or None})
        return read_answer((yield from self._talks.ask(call)), Taken.read)

    def result(self) -> Talk[ExamResult]:
        """Give the result so far or, once the exam is closed, the final one.

        Raises:
            InvalidRequest: 409, its bundle is neither served nor to be found by the service.
        """
        return self._result(Call.get(self.path))

    def close(self) -> Talk[ExamResult]:
        """Take no more frames and give the final result; closing again gives the same.

        Raises:
            InvalidRequest: 409, as `result`.
        """
        return self._result(Call.post(f"{self.path}/close"))

    def delete(self) -> Talk[None]:
        """Remove the exam with all that is kept of it, if it is still there."""
        try:
            yield from self._talks.ask(Call.delete(self.path))
        except NotFound:
            return  # or an attempt removed it whose answer was lost

    def report(
        self, dialect: str = "fhir", *, task: str | None = None, files: Sequence[FrameLike] = ()
    ) -> Talk[bytes]:
        """Give the result as a file: `fhir` (bundle), `json` or `dicom` (structured report).

        Args:
            dialect: which.
            task: of a structured report, which is of one task.
            files: of a structured report: the exam's DICOM files once more, in any order. The
                service keeps nothing of them, and the report points to them.

        Raises:
            InvalidRequest: 409, a structured report is of a closed exam; 422, a file is missing.
        """
        accept = accepted(dialect)
        if dialect != "dicom":
            call = Call.get(f"{self.path}/report", accept)
        elif task and files:
            read: list[FrameIn] = yield Work(lambda: read_frames(files))
            numbered = [FrameIn(frame.data) for frame in read]
            call = frames_call(f"{self.path}/report/{task}", numbered, {}, accept=accept)
        else:
            raise ValueError("dicom: expected the task and the exam's DICOM files")
        return file_of((yield from self._talks.ask(call)), accept)

    def _result(self, call: Call) -> Talk[ExamResult]:
        return read_answer((yield from self._talks.ask(call)), ExamResult.read)
