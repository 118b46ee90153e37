"""What is judged: single frames of each kind, and patients, of each task that has both classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from model_store.scoring import Decision
from training.evaluate import TASKS, probabilities, score_patients, truth
from training.items import Item
from training.protocol import part_patients
from training.report.inputs import Inputs

__all__ = ["KINDS", "Level", "levels", "task_name"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

KINDS = {
    "patients": "patients",
    "frame": "whole frames",
    "exam": "exam frames",
    "view": "views",
    "scope": "whole-frame views",
    "crop": "crops",
}


@dataclass(frozen=True)
class Level:
    """n items or patients of one task.

    Attributes:
        task: Name of the task.
        kind: Kind of item, or ``patients``.
        y: (n,) truth, both classes present.
        p: (n,) calibrated probabilities; 0.5 where the quality gate set all aside.
        units: (n,) source groups.
        frames: (n,) scored frames: 0 where set aside, 1 for an item.
        items: The n items; empty for patients.
        encoder: Of the bundle.
        figures: AUROC with its interval, ECE and Brier score, as ``part_figures`` gives them.
    """

    task: str
    kind: str
    y: Bools
    p: Floats
    units: Sequence[str] | Sequence[tuple[str, ...]]
    frames: npt.NDArray[np.int64]
    items: Sequence[Item]
    encoder: Encoder
    figures: dict[str, Any]

    @property
    def name(self) -> str:
        """The kind, in words."""
        return KINDS.get(self.kind, self.kind)

    @property
    def auroc(self) -> dict[str, Any]:
        """AUROC with its interval."""
        found = self.figures["unify"] if self.kind == "patients" else self.figures
        return dict(found)

    def decisions(self, point_name: str) -> npt.NDArray[np.object_]:
        """(n,) decisions of an operating point; what the gate sets aside is abstained from."""
        point = self.encoder.bundle.calibrations[self.task].operating_point(point_name)
        patients = self.kind == "patients"
        return np.array(
            [
                Decision.ABSTAINED
                if not n
                else point.decide_patient(float(p), int(n))
                if patients
                else point.decide_frame(float(p))
                for p, n in zip(self.p, self.frames, strict=True)
            ],
            dtype=object,
        )


@lru_cache(maxsize=1)
def levels(inputs: Inputs) -> list[Level]:
    """Every level of the part, patients first.

    Raises:
        StaleInput: There is no bundle, or no archive.
        ArchiveRefused: The part cannot give patients.
    """
    encoder, _ = inputs.needed()
    found = [_patients(inputs, encoder, task) for task in TASKS]
    kinds = {item.kind for item in inputs.found.items}
    for task in TASKS:
        for kind in KINDS:
            if kind in kinds and task in inputs.figures["frames"].get(kind, {}):
                found.append(_frames(inputs, encoder, task, kind))
    return [level for level in found if level is not None]


def task_name(task: str) -> str:
    """A task in words."""
    return task.replace("_", " ")


def _frames(inputs: Inputs, encoder: Encoder, task: str, kind: str) -> Level:
    mine = inputs.found.where([item.kind == kind for item in inputs.found.items])
    y, known = truth(task, mine.items)
    told = mine.where(known)
    return Level(
        task=task,
        kind=kind,
        y=y[known],
        p=probabilities(encoder, task, told),
        units=[item.group for item in told.items],
        frames=told.scored.astype(np.int64),
        items=told.items,
        encoder=encoder,
        figures=inputs.figures["frames"][kind][task],
    )


def _patients(inputs: Inputs, encoder: Encoder, task: str) -> Level | None:
    _, archive = inputs.needed()
    among = part_patients(archive, inputs.part)
    told = among.malignancy if task == "malignancy" else [*among.holding, *among.without]
    y = np.array([patient.positive for patient in told])
    if len(np.unique(y)) < 2:
        return None
    scores = score_patients(encoder, task, inputs.found.pick(among.items), told)
    return Level(
        task=task,
        kind="patients",
        y=y,
        p=scores.probability["unify"],
        units=[patient.groups for patient in told],
        frames=scores.frames,
        items=(),
        encoder=encoder,
        figures=inputs.figures["patients"][task],
    )
