"""The rows of exams and frames: in which order columns are asked for, and how each is written."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from model_store.encoder import Floats
from service.exams.values import Exam, ExamOptions, KeptFrame, State

__all__ = [
    "ADD_EXAM",
    "ADD_FRAME",
    "BY_ID",
    "BY_KEY",
    "FRAMES",
    "exam_of",
    "frame_of",
    "row_of",
]

ADD_EXAM = """INSERT INTO exams
    (key, owner, exam_id, options, state, revision, created_us, changed_us, final)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"""
BY_ID = """SELECT key, owner, exam_id, options, state, revision, created_us, changed_us, final
    FROM exams WHERE owner = ? AND exam_id = ?"""
BY_KEY = """SELECT key, owner, exam_id, options, state, revision, created_us, changed_us, final
    FROM exams WHERE key = ?"""
ADD_FRAME = """INSERT INTO exam_frames
    (exam, frame_id, content, captured_us, abstained, embedding, optics)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
FRAMES = """SELECT frame_id, content, captured_us, abstained, embedding, optics
    FROM exam_frames WHERE exam = ?"""


def exam_of(row: Sequence[Any]) -> Exam:
    """Read a row of `BY_ID` or `BY_KEY`."""
    key, owner, exam_id, options, state, revision, created_us, changed_us, final = row
    kept = json.loads(options)
    kept |= {"tasks": tuple(kept["tasks"]), "box": tuple(kept["box"])}
    return Exam(
        key,
        owner,
        exam_id,
        ExamOptions(**kept),
        State(state),
        revision,
        created_us,
        changed_us,
        None if final is None else bytes(final),
    )


def frame_of(row: Sequence[Any]) -> KeptFrame:
    """Read a row of `FRAMES`."""
    frame_id, content, captured_us, abstained, embedding, optics = row
    vectors = (_vector(embedding), _vector(optics))
    return KeptFrame(frame_id, bytes(content), captured_us, abstained, *vectors)


def row_of(key: str, frame: KeptFrame) -> Sequence[Any]:
    """Write a frame of the exam of this key, for `ADD_FRAME`."""
    vectors = (_bytes(frame.embedding), _bytes(frame.optics))
    return key, frame.frame_id, frame.content, frame.captured_us, frame.abstained, *vectors


def _vector(data: Any) -> Floats | None:
    return None if data is None else np.frombuffer(bytes(data), "<f4")


def _bytes(vector: Floats | None) -> bytes | None:
    return None if vector is None else vector.astype("<f4").tobytes()
