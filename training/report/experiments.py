"""Experiments that lie beside a run: arms of one recipe, trained on the same archive.

A folder holds one JSON file per experiment:

    {"name": "share" | "attributes" | "stages", "recipe": ..., "commit": ..., "command": ...,
     "part": "select", "arms": [{"arm": ..., "seed": ..., "figures": as part_figures gives them,
     and, where there is one, "x": number, "folder": ..., "extraction_f1": number}]}

``python -m training arms`` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.runs import file_digest

__all__ = ["Arm", "Experiment", "Experiments", "read_experiments"]

NAMES = ("share", "attributes", "stages")
_REQUIRED = {"name": str, "recipe": str, "commit": str, "command": str, "part": str, "arms": list}


@dataclass(frozen=True)
class Arm:
    """One trained arm.

    Attributes:
        name: What is different in it.
        x: Position on the experiment's axis, or None.
        seed: Of its training.
        folder: Its run folder, which may be gone; None for a reference without one.
        figures: As from ``part_figures``.
        extraction_f1: How well its attributes agree with the labels, or None.
    """

    name: str
    x: float | None
    seed: int
    folder: Path | None
    figures: Mapping[str, Any]
    extraction_f1: float | None

    def auroc(self, level: str, task: str) -> dict[str, float] | None:
        """AUROC with ``auroc_low`` and ``auroc_high``, or None.

        Args:
            level: A kind of item, or ``patients`` (as served).
            task: The task.
        """
        if level == "patients":
            found = self.figures.get("patients", {}).get(task, {}).get("unify")
        else:
            found = self.figures.get("frames", {}).get(level, {}).get(task)
        usable = isinstance(found, dict) and found.get("auroc") is not None
        return dict(found) if usable else None


@dataclass(frozen=True)
class Experiment:
    """Arms that differ in one thing.

    Attributes:
        name: share, attributes or stages.
        recipe: Name of the recipe.
        commit: Of the code.
        command: What made it.
        part: That the figures are of.
        arms: In file order.
        file: Name of the JSON file.
        digest: Of its bytes.
    """

    name: str
    recipe: str
    commit: str
    command: str
    part: str
    arms: tuple[Arm, ...]
    file: str
    digest: str


@dataclass(frozen=True)
class Experiments:
    """What a folder holds.

    Attributes:
        by_name: Experiments.
        faults: What could not be read, one sentence a file.
    """

    by_name: Mapping[str, Experiment]
    faults: tuple[str, ...]


def read_experiments(folder: Path) -> Experiments:
    """Read every experiment of a folder; a file that is not one is a fault, not an error."""
    found: dict[str, Experiment] = {}
    faults = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        try:
            raw = json.loads(path.read_text("utf-8"))
            one = _experiment(path, raw)
        except (OSError, ValueError) as error:
            faults.append(f"{path.name}: {error}")
            continue
        found[one.name] = one
    return Experiments(found, tuple(faults))


def _experiment(path: Path, raw: object) -> Experiment:
    if not isinstance(raw, dict):
        raise ValueError(f"expected an object, found {type(raw).__name__}")
    wrong = [key for key, kind in _REQUIRED.items() if not isinstance(raw.get(key), kind)]
    if wrong:
        raise ValueError(f"expected {', '.join(_REQUIRED)}; missing or ill-typed: {wrong}")
    if raw["name"] not in NAMES:
        raise ValueError(f"name: expected one of {', '.join(NAMES)}, found {raw['name']!r}")
    arms = tuple(_arm(path, number, arm) for number, arm in enumerate(raw["arms"]))
    told = {key: raw[key] for key in _REQUIRED if key != "arms"}
    return Experiment(**told, arms=arms, file=path.name, digest=file_digest(path))


def _arm(path: Path, number: int, raw: Any) -> Arm:
    try:
        x, f1, folder = (raw.get(key) for key in ("x", "extraction_f1", "folder"))
        return Arm(
            name=str(raw["arm"]),
            x=None if x is None else float(x),
            seed=int(raw["seed"]),
            folder=None if folder is None else path.parent / str(folder),
            figures=dict(raw["figures"]),
            extraction_f1=None if f1 is None else float(f1),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"arms[{number}]: expected arm, x, seed, folder, figures and extraction_f1; {error!r}"
        ) from error
