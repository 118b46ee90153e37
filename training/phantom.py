"""Phantom exams: drawn frames with reports, in the same archive format as real ones.

They serve the tests, a clean clone without data, and a few exams of the default recipe.
"""

from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from training.exams import ExamPlan, plan_exam, start_archive, write_archive
from training.measure import size_band
from training.phantom_render import (
    PhantomLesion,
    PhantomSpec,
    draw_frame,
    random_lesion,
    random_spec,
)
from training.records import PARTS
from training.report_text import LesionFacts, write_report
from training.spoil import SPOILS

__all__ = [
    "PhantomExam",
    "PhantomLesion",
    "PhantomSpec",
    "compose_phantom",
    "draw_exam",
    "draw_frame",
    "random_lesion",
    "random_spec",
]

SOURCE = "phantom"
SIDE_PX = 256
JPEG_QUALITY = 90
# The small parts are larger than a real archive's: 40 drawn exams must fill the protocol in each.
PART_SHARES = {"train": 0.42, "select": 0.08, "calibrate": 0.25, "report": 0.25}


@dataclass(frozen=True)
class PhantomExam:
    """One drawn exam, ready for an archive.

    Attributes:
        record: the line of records.jsonl.
        truth: the line of truth.jsonl.
        views: the lines of views/views.jsonl for its usable frames.
        part: part of the split.
    """

    record: dict[str, Any]
    truth: dict[str, Any]
    views: list[dict[str, Any]]
    part: str


def compose_phantom(out: Path, exams: int, seed: int) -> str:
    """Draw an archive of phantom exams.

    Of the exams 45 % have one lesion, 25 % several and 30 % none. Every exam is its own
    patient and group.

    Args:
        out: new folder.
        exams: number of exams, at least 16 so that every part has its share.
        seed: decides every pixel and word.

    Returns:
        Digest of the split.

    Raises:
        ArchiveRefused: the folder is not empty.
    """
    start_archive(out)
    parts = phantom_parts(exams)
    tasks = [(out, part, index, seed) for index, part in enumerate(parts)]
    # Spawned, not forked: torch's threads may be running where this is called from.
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        drawn = list(pool.map(_draw, tasks))
    return write_archive(
        out,
        "phantom",
        [exam.record for exam in drawn],
        {exam.record["patient_id"]: exam.part for exam in drawn},
        [exam.truth for exam in drawn],
        [view for exam in drawn for view in exam.views],
    )


def _draw(task: tuple[Path, str, int, int]) -> PhantomExam:
    out, part, index, seed = task
    return draw_exam(out, f"ph{index:05d}", part, index, np.random.default_rng((seed, index)))


def phantom_parts(exams: int) -> list[str]:
    """Deal the exams out to the parts by their shares, at least two to each where possible."""
    counts = {part: max(min(2, exams // 8), round(PART_SHARES[part] * exams)) for part in PARTS[1:]}
    counts["train"] = max(0, exams - sum(counts.values()))
    return [part for part in PARTS for _ in range(counts[part])][:exams]


def draw_exam(out: Path, name: str, part: str, index: int, rng: np.random.Generator) -> PhantomExam:
    """Draw the frames of one exam into ``out/frames`` and write its report.

    Args:
        out: archive folder.
        name: record id; the patient and the group are named after it.
        part: part of the split.
        index: order of the exam; decides single, multi or no lesion in turn.
        rng: source of everything else.
    """
    count = (1, 0, 2, 1, 1, 0, 3, 1, 0, 1, 1, 4, 0, 1, 0, 2, 1, 0, 1, 2)[index % 20]
    lesions = [random_lesion(rng) for _ in range(count)]
    plan = plan_exam(rng, count)
    scene = random_spec(rng)
    frames = [
        _save(out, name, number, kind, lesion, lesions, scene, rng)
        for number, (kind, lesion) in enumerate(_order(plan, rng))
    ]
    facts = [LesionFacts(_values(lesion), _histology(lesion)) for lesion in lesions]
    report = write_report(facts, rng)
    record = {
        "record_id": name,
        "patient_id": f"patient-{name}",
        "report": report.text,
        "frames": [frame["file"] for frame in frames],
        "groups": [f"phantom_{name}"],
    }
    truth = {
        "record_id": name,
        "part": part,
        "source": SOURCE,
        "malignant": any(lesion.neoplastic for lesion in lesions),
        "lesions": [
            {
                "index": i,
                "histology": _histology(lesion),
                "attributes": _values(lesion),
                "told": dict(report.told[i]),
                "sentence": report.sentences[i],
                "impression": report.opinions[i],
                "lesion_id": f"{name}_l{i}",
            }
            for i, lesion in enumerate(lesions)
        ],
        "frames": frames,
    }
    views = [_view_row(frame, part, name) for frame in frames if frame["kind"] != "non_informative"]
    return PhantomExam(record, truth, views, part)


def _order(plan: ExamPlan, rng: np.random.Generator) -> list[tuple[str, int | None]]:
    """List (kind, lesion index) of every frame in a drawn order."""
    shown = [i for i, views in enumerate(plan.views) for _ in range(views)]
    items: list[tuple[str, int | None]] = [("lesion", i) for i in shown]
    items += [("background", None)] * plan.background
    items += [("spoiled", int(rng.choice(shown))) for _ in range(plan.spoiled_lesion)]
    items += [("spoiled", None)] * plan.spoiled_background
    return [items[i] for i in rng.permutation(len(items))]


def _save(
    out: Path,
    name: str,
    number: int,
    kind: str,
    lesion: int | None,
    lesions: list[PhantomLesion],
    scene: PhantomSpec,
    rng: np.random.Generator,
) -> dict[str, Any]:
    spoiled = str(rng.choice(list(SPOILS))) if kind == "spoiled" else None
    shown = () if lesion is None else (_moved(lesions[lesion], rng),)
    spec = replace(random_spec(rng, shown, spoiled), mucosa=scene.mucosa)
    file = Path("frames") / name / f"{number:03d}.jpg"
    (out / file).parent.mkdir(parents=True, exist_ok=True)
    draw_frame(spec, rng, (SIDE_PX, SIDE_PX)).save(out / file, quality=JPEG_QUALITY)
    drawn = lesions[lesion] if lesion is not None else None
    base = "background" if drawn is None else "lesion"
    return {
        "file": file.as_posix(),
        "kind": "non_informative" if spoiled else base,
        "base": base,
        "spoiled": spoiled,
        "source": SOURCE,
        "group": f"phantom_{name}",
        "lesion": lesion,
        "view": f"{name}_{number:03d}",
        "histology": _histology(drawn) if drawn else None,
        "attributes": _values(drawn) if drawn else {},
        "area_share": round(np.pi * drawn.radius() ** 2, 4) if drawn else 0.0,
        "small": bool(drawn and drawn.size_band in ("<=5", "6-9")),
        "flat": bool(drawn and drawn.flat),
    }


def _moved(lesion: PhantomLesion, rng: np.random.Generator) -> PhantomLesion:
    """Show a lesion from a little elsewhere; what the report says of it stays true."""
    return replace(
        lesion,
        x=float(rng.uniform(0.22, 0.78)),
        y=float(rng.uniform(0.22, 0.78)),
        angle=float(rng.uniform(0, np.pi)),
    )


def _values(lesion: PhantomLesion) -> dict[str, str]:
    """What a report may say; sizes in the bands of real views, or "giant" would mean two things."""
    return {
        "size_band": size_band(lesion.size()),
        "colour": lesion.colour,
        "margin": lesion.margin,
        "surface_texture": lesion.texture,
        "shape": lesion.shape,
    }


def _histology(lesion: PhantomLesion) -> str:
    return "neoplastic" if lesion.neoplastic else "non-neoplastic"


def _view_row(frame: dict[str, Any], part: str, name: str) -> dict[str, Any]:
    lesion = frame["lesion"]
    return {
        "view": frame["view"],
        "file": frame["file"],
        "kind": frame["kind"],
        "part": part,
        "source": SOURCE,
        "group": frame["group"],
        "dims": f"{SIDE_PX}x{SIDE_PX}",
        "lesion_id": None if lesion is None else f"{name}_l{lesion}",
        "histology": frame["histology"],
        "attributes": frame["attributes"],
        "area_share": frame["area_share"],
        "small": frame["small"],
        "flat": frame["flat"],
        "weight": 1.0,
    }
