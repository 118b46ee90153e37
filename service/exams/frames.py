"""The frames of one request to an exam: which they are, and what is said of each by itself."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from model_store.encoder import Unifier
from service.engine import Engine, Frame
from service.errors import AllFramesRejected
from service.exams.results import describe, microseconds, rfc3339
from service.exams.values import Exam, KeptFrame
from service.forms import FrameIn, PatientIn
from service.frames import content_of
from service.scoring import score_exam

__all__ = ["answer", "audit_entries", "fresh", "identify", "kept", "prompts_digest"]

_ID_CHARS = 32
_TOLD = ("exam_id", "model", "intended_use")


def identify(frames: Sequence[FrameIn]) -> list[KeptFrame]:
    """Name each frame by its id, or else by its content and time; without data it has no content.

    So a frame without an id that is sent again is the same one, and a still picture that is sent a
    second later is another.
    """
    named = []
    digests: dict[int, bytes] = {}
    for frame in frames:
        content = b"" if frame.data is None else content_of(frame, digests)
        captured_us = microseconds(frame.captured_at) if frame.captured_at else None
        frame_id = frame.frame_id
        if not frame.named and content:
            at = b"" if captured_us is None else b"%d" % captured_us
            frame_id = hashlib.sha256(content + at).hexdigest()[:_ID_CHARS]
        named.append(KeptFrame(frame_id, content, captured_us))
    return named


def fresh(
    sent: Sequence[FrameIn], named: Sequence[KeptFrame], outcomes: dict[bytes, Frame]
) -> dict[bytes, FrameIn]:
    """Give the frames that must be encoded, one for each content that is not known yet."""
    return {
        one.content: frame
        for one, frame in zip(named, sent, strict=True)
        if one.content and one.content not in outcomes
    }


def kept(frame: KeptFrame, outcome: Frame) -> KeptFrame:
    """Put what became of a frame beside it."""
    abstained = outcome.abstained.value if outcome.abstained is not None else None
    return replace(frame, abstained=abstained, embedding=outcome.embedding, optics=outcome.optics)


def answer(
    engine: Engine,
    exam: Exam,
    named: Sequence[KeptFrame],
    frames: Sequence[Frame],
    there: set[str],
) -> dict[str, Any]:
    """Say what became of each frame by itself: only the exam's result knows of the others."""
    options = exam.options
    ids = tuple(FrameIn(one.frame_id, None, 0) for one in named)
    patient = PatientIn(options.patient_id, None, ids)
    scored = {
        task: score_exam(engine, task, options.operating_point, patient, frames)["patient"]
        for task in options.tasks
    }
    first = scored[options.tasks[0]]
    if first["status"] == "rejected":
        raise AllFramesRejected([first])
    entries = []
    for place, (one, told) in enumerate(zip(named, first["frames"], strict=True)):
        entry = {key: told[key] for key in ("frame_id", "status") if key in told}
        if one.captured_us is not None:
            entry["captured_at"] = rfc3339(one.captured_us)
        entry["duplicate"] = one.frame_id in there
        if told["status"] == "scored":
            entry["results"] = {
                task: _alone(patient_["frames"][place]) for task, patient_ in scored.items()
            }
        else:
            entry |= {key: told[key] for key in ("reason", "error") if key in told}
        entries.append(entry)
    return {
        **{key: value for key, value in describe(engine, exam).items() if key in _TOLD},
        "frames": entries,
    }


def _alone(frame: dict[str, Any]) -> dict[str, Any]:
    hidden = ("frame_id", "status", "attention")
    return {key: value for key, value in frame.items() if key not in hidden}


def audit_entries(
    engine: Engine, exam: Exam, rows: Sequence[KeptFrame], told: dict[str, Any]
) -> list[dict[str, Any]]:
    """Say of frames what an audit log keeps: what they were scored by, and with which result.

    Args:
        engine: that scored them.
        exam: whose they are; nothing that could name it goes into the log.
        rows: the frames that are new.
        told: their answer.
    """
    options, manifest = exam.options, engine.bundle.manifest
    by_what = {
        "event": "frame",
        "bundle": options.bundle,
        "site_profile": options.site_profile,
        "prompts": {task: prompts_digest(engine.encoder, task) for task in options.tasks},
        "input": asdict(manifest.input),
        "limits": asdict(engine.image_limits),
        "crop": list(options.box),
        "provider": engine.provider_now,
        "operating_point": options.operating_point,
    }
    by_id = {entry["frame_id"]: entry for entry in told["frames"]}
    entries = []
    for row in rows:
        entry = by_id[row.frame_id]
        results = entry.get("results", {})
        found = {
            "file": row.content.hex(),
            "status": entry["status"],
            "reason": entry.get("reason"),
            "probabilities": {task: one["probability"] for task, one in results.items()},
            "decisions": {task: one["decision"] for task, one in results.items()},
        }
        entries.append({**by_what, **found})
    return entries


def prompts_digest(encoder: Unifier, task: str) -> str:
    """Give the SHA-256 of what a task's frames are compared with: its class embeddings."""
    classes = encoder.class_embeddings(encoder.bundle.label_set(task))
    return hashlib.sha256(classes.tobytes()).hexdigest()
