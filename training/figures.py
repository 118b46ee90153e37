"""Measure a packed bundle on one part: the figures of its manifest and of ``evaluate``.

    python -m training evaluate --bundle B --archive A --data D

``select`` is for choosing between recipes, ``calibrate`` is what the thresholds were chosen on,
``report`` is for closing figures: whoever chooses anything by them has no closing figure left.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from model_store.encoder import Encoder
from training.evaluate import (
    Baseline,
    Patient,
    decision_figures,
    frame_figures,
    patient_figures,
    score_patients,
    source_figures,
)
from training.fitting import part_items
from training.items import Embedded, embed
from training.probes import item_baseline
from training.protocol import (
    CALIBRATION_BACKGROUNDS,
    PRESENCE_SEEDS,
    data_items,
    part_patients,
)

__all__ = ["CLOSING", "part_figures", "plain"]

CLOSING = "report"
BANDS = ((2, 7), (8, 19), (20, 59), (60, 202))
"""Frames per patient: one threshold must hold in all of them."""


def part_figures(
    encoder: Encoder,
    archive: Path,
    data: Path | None,
    part: str,
    found: Embedded | None = None,
) -> dict[str, Any]:
    """Measure a part.

    Args:
        encoder: Of a calibrated bundle.
        archive: The archive: its views and patients.
        data: Folder of real frames with an index; None uses the archive alone, and gives neither
            the no-pixel baseline nor the figures of the sources kept for tests.
        part: select, calibrate or report.
        found: The part's frames, where they are encoded already (as from ``part_items``).

    Returns:
        Figures as JSON values; what could not be measured is None.
    """
    if found is None:
        found = part_items(encoder, archive, data, part)
    baseline = item_baseline(data, archive) if data else None
    figures: dict[str, Any] = {
        "part": part,
        "measured": datetime.now(UTC).date().isoformat(),
        "frames": frame_figures(encoder, found, baseline),
        "patients": _patients(encoder, archive, part, found, baseline),
        "patients_by_frames": _by_frames(encoder, archive, part, found),
    }
    # Closing figures only: the sources kept for tests are not to be chosen by, and calibration on
    # thousands of items takes minutes.
    if data is not None and part == CLOSING:
        test = embed(encoder, data_items(data, archive, "test"))
        polyps = found.where([i.kind == "frame" and i.polyp is True for i in found.items])
        figures["test_sources"] = source_figures(encoder, test, polyps)
        figures["reliability"] = _reliability(encoder, archive, data, part)
    return dict(plain(figures))


def _reliability(encoder: Encoder, archive: Path, data: Path, part: str) -> dict[str, Any]:
    """Calibration on 2,000 items and more; windows are cut for it and thrown away."""
    from training.evidence.decided import Scorer
    from training.evidence.reliability import reliability_figures
    from training.report.cache import Cache

    with TemporaryDirectory() as folder, Progress(transient=True) as progress:
        work = Path(folder)
        scorer = Scorer(encoder, Cache(work / "embeddings"), work / "frames", progress)
        return reliability_figures(scorer, archive, data, part)


def _patients(
    encoder: Encoder, archive: Path, part: str, found: Embedded, baseline: Baseline | None
) -> dict[str, Any]:
    """Patients of the fixed protocol, or an ingested archive's exams."""
    among = part_patients(archive, part)
    pooled = found.pick(among.items)
    malignancy = patient_figures(encoder, "malignancy", pooled, among.malignancy, baseline)
    malignancy["no_lesion"] = _without(encoder, "malignancy", pooled, among.without)
    told = [*among.holding, *among.without]
    return {
        "malignancy": malignancy,
        "polyp_detection": patient_figures(encoder, "polyp_detection", pooled, told),
    }


def _without(
    encoder: Encoder, task: str, pooled: Embedded, patients: list[Patient]
) -> dict[str, Any]:
    scores = score_patients(encoder, task, pooled, patients)
    y = np.zeros(len(patients), dtype=bool)
    found = decision_figures(encoder.bundle.calibrations[task], scores, y)
    found.pop("balanced_sensitivity")
    return {"patients": len(patients)} | found


def _by_frames(encoder: Encoder, archive: Path, part: str, found: Embedded) -> dict[str, Any]:
    """Decisions by number of frames, on patients of 2 to about 200 frames."""
    among = part_patients(archive, part, PRESENCE_SEEDS, CALIBRATION_BACKGROUNDS)
    pooled = found.pick(among.items)
    holding = [*among.holding, *among.without]
    figures: dict[str, Any] = {}
    for task, told in (("malignancy", among.malignancy), ("polyp_detection", holding)):
        figures[task] = {}
        n = np.array([len(p.rows) for p in told], np.int64)
        for low, high in (*BANDS, *_longer(n)):
            mine = [told[i] for i in np.flatnonzero((n >= low) & (n <= high))]
            scores = score_patients(encoder, task, pooled, mine)
            y = np.array([p.positive for p in mine], dtype=bool)
            found_here = decision_figures(encoder.bundle.calibrations[task], scores, y)
            figures[task][f"{low}-{high}"] = {"patients": len(mine)} | found_here
    return figures


def _longer(frames: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """A further band for exams that are longer than what is composed."""
    longest = int(frames.max(initial=0))
    return [(BANDS[-1][1] + 1, longest)] if longest > BANDS[-1][1] else []


def plain(value: Any) -> Any:
    """Turn what could not be measured (NaN) into None, and tuples into lists: JSON knows both."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and math.isnan(value) else value
