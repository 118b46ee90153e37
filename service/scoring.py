"""From a request to the body of its answer, for each of the tasks.

Frames of all patients are encoded together; then each patient is scored from its own frames that
were neither rejected nor set aside. Order is the caller's throughout.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Floats
from model_store.errors import InvalidInput
from model_store.label_sets import LabelSet
from model_store.patient import PatientScore, heatmap
from model_store.scoring import Decision, OperatingPoint
from service.admission import Permit
from service.engine import Engine, Frame, all_of
from service.errors import AllFramesRejected
from service.forms import FrameIn, PatientIn, RequestIn
from service.scorer import Scorer
from service.settings import Box

__all__ = [
    "embed",
    "model_info",
    "pointed",
    "score_exam",
    "score_named",
    "score_zero_shot",
]

Answer = dict[str, Any]
_DEFAULT_POINT = "balanced"


async def score_named(engine: Engine, task: str, request: RequestIn, permit: Permit) -> Answer:
    """Answer a named task: calibrated probabilities and decisions.

    Args:
        engine: the loaded bundle.
        task: name of its label set.
        request: as sent.
        permit: the request's, with its work admitted.

    Returns:
        The answer, without request id.

    Raises:
        UnknownOperatingPoint, UnknownDevice: a name in the request.
        AllFramesRejected: no frame could be read.
        EncodeFailed: a graph did not run.
    """
    label_set = engine.bundle.label_set(task)
    calibration = engine.calibrations[task]
    with pointed(request.operating_point_at):
        point = calibration.operating_point(request.operating_point or _DEFAULT_POINT)
    classes = await engine.class_embeddings(label_set, permit)
    scorer = _Scorer(engine, label_set, classes, point, request.explain)
    patients = await scorer.patients(engine, request.patients, permit)
    return {
        **_head(engine, task, label_set),
        **_profile_info(engine, task),
        "operating_point": _point_info(point),
        "patients": patients,
    }


def score_exam(
    engine: Scorer, task: str, point: str, patient: PatientIn, frames: Sequence[Frame]
) -> Answer:
    """Score one patient for a named task from frames that were encoded before; for a thread.

    Args:
        engine: of the bundle that encoded them.
        task: name of its label set.
        point: name of the operating point.
        patient: the frames' ids, in order.
        frames: what became of each.

    Returns:
        What an answer says of the task, with the one patient as `patient`.

    Raises:
        UnknownOperatingPoint: of another bundle.
        EncodeFailed: a graph did not run.
    """
    label_set = engine.bundle.label_set(task)
    chosen = engine.calibrations[task].operating_point(point)
    classes = engine.encoder.class_embeddings(label_set)
    return {
        **_labelled(task, label_set),
        **_profile_info(engine, task),
        "operating_point": _point_info(chosen),
        "patient": _Scorer(engine, label_set, classes, chosen, False).patient(patient, frames),
    }


async def score_zero_shot(engine: Engine, request: RequestIn, permit: Permit) -> Answer:
    """Answer a zero-shot request: softmax scores over the caller's labels, not calibrated.

    A named set that has a positive label keeps the pooling that goes with it (a label such as
    `no_polyp` is a claim about all frames); its scores are softmax scores all the same.

    Raises:
        UnknownLabelSet, UnknownDevice: a name in the request.
        LabelSetInvalid: the labels break a rule.
        AllFramesRejected: no frame could be read.
        EncodeFailed: a graph did not run.
    """
    label_set = _asked_set(engine, request)
    _boxes(engine, request.patients)  # before any text is encoded for a request that must fail
    classes = await engine.class_embeddings(label_set, permit)
    scorer = _Scorer(engine, label_set, classes, None, request.explain)
    patients = await scorer.patients(engine, request.patients, permit)
    return {
        **_head(engine, "zero_shot", label_set),
        "label_set": label_set.name or None,
        "calibrated": False,
        "patients": patients,
    }


async def embed(engine: Engine, request: RequestIn, permit: Permit) -> Answer:
    """Answer a request for embeddings of frames, texts or both.

    Raises:
        UnknownDevice: a name in the request.
        AllFramesRejected: there were frames, and none could be read.
        EncodeFailed: a graph did not run.
    """
    outcomes = await _encode(engine, request.patients, permit, grid=False)
    patients = []
    for patient, frames in zip(request.patients, outcomes, strict=True):
        members = [
            _unscored(sent, frame) or {**_scored(sent), "embedding": _floats(frame.embedding)}
            for sent, frame in zip(patient.frames, frames, strict=True)
        ]
        patients.append(_patient(patient, members, {}))
    _refuse_all_rejected(patients)
    rows = await engine.encode_texts(request.texts, permit) if request.texts else []
    return {
        "task": "embeddings",
        "model": model_info(engine),
        "intended_use": engine.bundle.manifest.intended_use,
        "dimension": engine.encoder.dimension,
        "patients": patients,
        "texts": [{"index": index, "embedding": _floats(row)} for index, row in enumerate(rows)],
    }


def model_info(engine: Scorer) -> Answer:
    """Name the model behind an answer."""
    manifest = engine.bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": engine.bundle.digest,
        "execution_provider": engine.provider,
    }


@dataclass(frozen=True, slots=True)
class _Scorer:
    """What all patients of one request are scored with; `point` is None for zero-shot."""

    engine: Scorer
    label_set: LabelSet
    classes: Floats
    point: OperatingPoint | None
    explain: bool

    async def patients(
        self, engine: Engine, sent: Sequence[PatientIn], permit: Permit
    ) -> list[Answer]:
        outcomes = await _encode(engine, sent, permit, grid=self.explain)
        answers = []
        for patient, frames in zip(sent, outcomes, strict=True):
            if len(frames) == 1:  # a few small products; a thread hop would cost more
                answers.append(self.patient(patient, frames))
            else:
                answers.append(await asyncio.to_thread(self.patient, patient, frames))
        _refuse_all_rejected(answers)
        return answers

    def patient(self, patient: PatientIn, frames: Sequence[Frame]) -> Answer:
        embeddings = [frame.embedding for frame in frames if frame.embedding is not None]
        members = [
            _unscored(sent, frame) or _scored(sent)
            for sent, frame in zip(patient.frames, frames, strict=True)
        ]
        if not embeddings:
            return _patient(patient, members, {})
        score = self.engine.score(
            self.label_set, self.classes, embeddings, calibrated=self.point is not None
        )
        places = [place for place, frame in enumerate(frames) if frame.embedding is not None]
        for row, place in enumerate(places):
            members[place] |= self._frame(score, row, frames[place].grid)
        return _patient(patient, members, self._pooled(score, len(embeddings)))

    def _pooled(self, score: PatientScore, frames: int) -> Answer:
        if self.point is None or score.probability is None:
            return self._ranked(score.scores, score.cosines)
        decision = self.point.decide_patient(score.probability, frames)
        return {
            "probability": score.probability,
            "scores": self._named(score.scores),
            **_decision(decision),
        }

    def _frame(self, score: PatientScore, row: int, grid: Floats | None) -> Answer:
        cosines = score.frame_cosines[row]
        if self.point is None or score.frame_probability is None:
            members = self._ranked(score.frame_scores[row], cosines)
        else:
            probability = float(score.frame_probability[row])
            members = {
                "probability": probability,
                "scores": self._named(score.frame_scores[row]),
                "cosine": self._named(cosines),
                **_decision(self.point.decide_frame(probability)),
            }
        members["attention"] = self._attention(score, row)
        if grid is not None:
            members["heatmap"] = self._heatmap(grid, score.frame_scores[row])
        return members

    def _ranked(self, scores: npt.NDArray[np.float64], cosines: npt.NDArray[Any]) -> Answer:
        return {
            "scores": self._named(scores),
            "cosine": self._named(cosines),
            "top_label": self.label_set.names[int(np.argmax(scores))],
            "calibrated": False,
        }

    def _attention(self, score: PatientScore, row: int) -> float | dict[str, float]:
        weights = _floats(score.attention[..., row])
        if self.point is not None:
            return weights[0]
        # A set with a positive label attends once, for all of its labels.
        return dict(zip(self.label_set.names, weights * len(self.label_set.names), strict=False))

    def _heatmap(self, grid: Floats, scores: npt.NDArray[np.float64]) -> Answer:
        positive = self.label_set.positive_index
        index = int(np.argmax(scores)) if self.point is None or positive is None else positive
        scale = self.engine.bundle.manifest.logit_scale
        shares = heatmap(grid, self.classes, index, scale)
        rows, columns = shares.shape
        return {
            "rows": rows,
            "cols": columns,
            "values": [round(value, 4) for value in shares.ravel().tolist()],
            "label": self.label_set.names[index],
        }

    def _named(self, values: npt.NDArray[Any]) -> dict[str, float]:
        return dict(zip(self.label_set.names, _floats(values), strict=True))


async def _encode(
    engine: Engine, patients: Sequence[PatientIn], permit: Permit, *, grid: bool
) -> list[list[Frame]]:
    boxes = _boxes(engine, patients)
    flat = await all_of(
        [
            engine.encode_frame(frame, box, permit, grid=grid)
            for patient, box in zip(patients, boxes, strict=True)
            for frame in patient.frames
        ]
    )
    rest = iter(flat)
    outcomes = [[next(rest) for _ in patient.frames] for patient in patients]
    for place, (patient, frames) in enumerate(zip(patients, outcomes, strict=True)):
        embeddings = [frame.embedding for frame in frames if frame.embedding is not None]
        optics = [frame.optics for frame in frames if frame.embedding is not None]
        engine.drift.add(patient.device, patient.patient_id, place, embeddings, optics)
    return outcomes


def _boxes(engine: Engine, patients: Sequence[PatientIn]) -> list[Box]:
    boxes = []
    for patient in patients:
        with pointed(patient.device_at):
            boxes.append(engine.crop_box(patient.device))
    return boxes


def _asked_set(engine: Engine, request: RequestIn) -> LabelSet:
    with pointed("/labels"):
        if isinstance(request.labels, str):
            return engine.bundle.label_set(request.labels)
        return LabelSet.from_free(request.labels or ())


@contextmanager
def pointed(place: str) -> Iterator[None]:
    """Say where in the request stands what an error is about."""
    try:
        yield
    except InvalidInput as error:
        error.pointer = place + error.pointer
        raise


def _head(engine: Engine, task: str, label_set: LabelSet) -> Answer:
    return {
        "task": task,
        "model": model_info(engine),
        "intended_use": engine.bundle.manifest.intended_use,
        **_labelled(task, label_set),
    }


def _labelled(task: str, label_set: LabelSet) -> Answer:
    return {
        "task": task,
        "labels": list(label_set.names),
        "label_definitions": label_set.definitions if label_set.name else {},
    }


def _profile_info(engine: Scorer, task: str) -> Answer:
    """Name the site profile that an answer rests on; nothing where it does not hold the task."""
    profile = engine.site_profile
    if profile is None or task not in profile.tasks:
        return {}
    return {
        "site_profile": {
            "site": profile.site,
            "digest": profile.digest,
            "adapter": profile.tasks[task].adapter_kind,
        }
    }


def _point_info(point: OperatingPoint) -> Answer:
    return {
        "name": point.name,
        "frame_threshold": point.frame_threshold,
        "patient_threshold": point.patient_threshold,
        "frame_abstain": point.frame_abstain,
        "patient_abstain": point.patient_abstain,
    }


def _patient(patient: PatientIn, frames: Sequence[Answer], pooled: Mapping[str, Any]) -> Answer:
    """Describe a patient; its status is the best that any of its frames has."""
    statuses = [frame["status"] for frame in frames]
    # Only an exam may be empty.
    best = next((one for one in ("scored", "abstained", "rejected") if one in statuses), "empty")
    return {
        "patient_id": patient.patient_id,
        "status": best,
        **pooled,
        "frames_total": len(frames),
        "frames_scored": statuses.count("scored"),
        "frames": list(frames),
    }


def _scored(sent: FrameIn) -> Answer:
    return {"frame_id": sent.frame_id, "status": "scored"}


def _unscored(sent: FrameIn, frame: Frame) -> Answer | None:
    """Describe a frame that was rejected or set aside; None for one that was encoded."""
    if frame.rejected is not None:
        error = {"code": frame.rejected.code.value, "message": frame.rejected.message}
        return {"frame_id": sent.frame_id, "status": "rejected", "error": error}
    if frame.abstained is not None:
        reason = frame.abstained.value
        return {"frame_id": sent.frame_id, "status": "abstained", "reason": reason}
    return None


def _decision(decision: Decision) -> Answer:
    if decision is Decision.ABSTAINED:
        return {"decision": decision.value, "reason": "low_confidence"}
    return {"decision": decision.value}


def _refuse_all_rejected(patients: Sequence[Answer]) -> None:
    if patients and all(patient["status"] == "rejected" for patient in patients):
        raise AllFramesRejected(patients)


def _floats(values: npt.NDArray[Any] | None) -> list[float]:
    """Python floats with the fewest digits that give the same float32 (or float64) back."""
    flat = np.atleast_1d(np.asarray(values))
    if flat.dtype == np.float32:
        return [float(str(value)) for value in flat]
    return [float(value) for value in flat]
