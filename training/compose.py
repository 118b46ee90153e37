"""Compose exams of real views with reports of what is known or measured.

    python -m training compose --data ../shared/data/colonoscopy/dev --out runs/archive

Source groups are split first; an exam is made inside one part and from one source, so that
neither cleansing nor the contrast between exams can be solved by telling cameras apart.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.exams import start_archive, write_archive
from training.phantom import PhantomExam, draw_exam
from training.records import PARTS
from training.sources import (
    FRACTIONS,
    SourceImage,
    read_sources,
    split_sources,
    write_source_split,
)
from training.viewpool import (
    SCOPE_SET,
    PoolView,
    background_views,
    lesion_views,
    match_weights,
    scope_views,
    spoiled_view,
)
from training.weave import Exam, Weaver, view_row

__all__ = ["EXAMS", "PHANTOM_EXAMS", "compose"]

EXAMS = {"single": 1080, "multi": 240, "none": 420}
"""Exams of the train part. Stage 2 learns from exams of a single lesion alone: with 270 of them it
saw a third of the lesions, in 460 views; now nearly all, in four times as many."""
OTHER_EXAMS = {"single": 270, "multi": 165, "none": 145}
"""Exams of the other parts, per share of the source groups that train has: cleansing is checked on
them and nothing else is, figures come from views."""
PHANTOM_EXAMS = 108
"""Drawn exams in train: at most a tenth of its frames. With 36 beside four times as many real ones
a drawn polyp among 39 drawn normal frames was lost (training/LOG.md)."""
_Task = TypeVar("_Task")
_Done = TypeVar("_Done")


def compose(
    data: Path,
    out: Path,
    seed: int = 0,
    *,
    workers: int = 2,
    scale: float = 1.0,
    phantom_exams: int = PHANTOM_EXAMS,
    limit: int | None = None,
) -> str:
    """Compose an archive from the real frames.

    Args:
        data: folder of index.csv.
        out: new folder.
        seed: decides windows, exams and words; the split of the source groups is always the same.
        workers: processes.
        scale: factor on the number of exams.
        phantom_exams: drawn exams added to train.
        limit: use at most this many groups of each source and part (tests).

    Returns:
        Digest of the patients' split.

    Raises:
        ArchiveRefused: the data cannot be read or the folder is not empty.
    """
    start_archive(out)
    images = read_sources(data)
    parts = split_sources(images)
    write_source_split(out / "source_split.json", parts)
    images = _limited(images, parts, limit)
    with (
        Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        ) as bar,
        # Spawned: a fork would copy torch's threads where torch is already imported.
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool,
    ):

        def run(name: str, work: Callable[[_Task], _Done], tasks: Sequence[_Task]) -> list[_Done]:
            return list(
                bar.track(pool.map(work, tasks, chunksize=4), total=len(tasks), description=name)
            )

        lesions, backgrounds = _pool(images, seed, run)
        exams = _exams(lesions, backgrounds, parts, seed, scale)
        jobs = [job for exam in exams for job in exam.spoils]
        spoils = [(job.jpeg, job.kind, job.seed, job.whole) for job in jobs]
        jpegs = run("spoiled views", spoiled_view, spoils)
        _write_spoiled(out, jobs, jpegs)
        phantoms = [(out, seed, index) for index in range(phantom_exams)]
        drawn = run("phantom exams", _phantom, phantoms)
    pooled = _evaluation_views([*lesions, *backgrounds], parts)
    used = {view.view: view for exam in exams for view in exam.used} | {v.view: v for v in pooled}
    for view in used.values():
        path = out / view.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(view.jpeg)
    rows = [view_row(view, parts[view.group]) for view in pooled]
    return _finish(out, exams, drawn, rows)


def _finish(
    out: Path, exams: list[Exam], drawn: list[PhantomExam], views: list[dict[str, Any]]
) -> str:
    split = {exam.record["patient_id"]: exam.part for exam in exams}
    split |= {exam.record["patient_id"]: exam.part for exam in drawn}
    return write_archive(
        out,
        "composed",
        [*(exam.record for exam in exams), *(exam.record for exam in drawn)],
        split,
        [*(exam.truth for exam in exams), *(exam.truth for exam in drawn)],
        views,
    )


def _limited(
    images: list[SourceImage], parts: dict[str, str], limit: int | None
) -> list[SourceImage]:
    """Keep the first groups of each source and part and few frames of each, for quick tests."""
    if limit is None:
        return images
    kept: dict[tuple[str, str], list[str]] = defaultdict(list)
    frames: Counter[str] = Counter()
    chosen = []
    for image in images:
        groups = kept[image.source, parts[image.group]]
        if image.group not in groups and len(groups) < limit:
            groups.append(image.group)
        if image.group in groups and (image.kind == "crop" or frames[image.group] < 3):
            frames[image.group] += image.kind == "frame"
            chosen.append(image)
    return chosen


def _pool(
    images: list[SourceImage], seed: int, run: Callable[..., Any]
) -> tuple[list[PoolView], list[PoolView]]:
    """Cut every view; background windows first, since lesion windows follow their sizes."""
    frames = {image.name: image for image in images if image.kind == "frame"}
    # CVC crops have the pixels of their frames once more, so they would add nothing.
    crops = [image for image in images if image.kind == "crop" and image.source != "cvc"]
    parent = {crop.name: frames.get(crop.note.split(";")[0].rsplit(" ", 1)[1]) for crop in crops}
    crops = [crop for crop in crops if parent[crop.name] is not None]
    everything = [*frames.values(), *crops]
    tasks = [
        (image, parent.get(image.name), seed)
        for image in everything
        if image.label == "normal" or image.kind == "frame"
    ]
    backgrounds = _flat(run("background views", background_views, tasks))
    sides: dict[str, list[float]] = defaultdict(list)
    for view in backgrounds:
        sides[view.source].append(float(np.exp(view.scores[0])))
    with_lesion = [
        (image, parent.get(image.name), seed, sides[image.source])
        for image in everything
        if image.label == "polyp"
    ]
    lesions = _flat(run("lesion views", lesion_views, with_lesion))
    whole = _flat(run("whole-frame views", scope_views, [(f, seed) for f in frames.values()]))
    lesions += [view for view in whole if view.lesion is not None]
    backgrounds += [view for view in whole if view.lesion is None]
    matched: list[PoolView] = []
    for source in sorted(sides):
        mine = [view for view in lesions if view.source == source]
        matched += match_weights(mine, [v for v in backgrounds if v.source == source])
    return lesions, matched


def _flat(nested: Iterable[list[PoolView]]) -> list[PoolView]:
    return [view for views in nested for view in views]


def _exams(
    lesions: list[PoolView],
    backgrounds: list[PoolView],
    parts: dict[str, str],
    seed: int,
    scale: float,
) -> list[Exam]:
    exams = []
    for order, part in enumerate(PARTS):
        weaver = Weaver(
            part,
            [view for view in lesions if parts[view.group] == part],
            [view for view in backgrounds if parts[view.group] == part],
            np.random.default_rng((seed, order)),
        )
        share = scale * FRACTIONS[part] / FRACTIONS["train"]
        for kind, count in (EXAMS if part == "train" else OTHER_EXAMS).items():
            exams += [weaver.exam(kind) for _ in range(max(2, round(share * count)))]
    return exams


def _write_spoiled(out: Path, jobs: Sequence[Any], jpegs: list[bytes]) -> None:
    for job, jpeg in zip(jobs, jpegs, strict=True):
        path = out / job.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpeg)


def _phantom(task: tuple[Path, int, int]) -> PhantomExam:
    out, seed, index = task
    rng = np.random.default_rng((seed, 77, index))
    return draw_exam(out, f"ph{index:05d}", "train", index, rng)


def _evaluation_views(views: list[PoolView], parts: dict[str, str]) -> list[PoolView]:
    """Choose the views that evaluation embeds.

    Parts other than train, one set of windows and one of whole-frame views per lesion, and up to
    three backgrounds per file and kind.
    """
    kept: list[PoolView] = []
    taken: dict[tuple[str, str | None, bool], int] = defaultdict(int)
    for view in views:
        if parts[view.group] == "train" or view.view_set not in (0, SCOPE_SET):
            continue
        key = (view.image, view.lesion, view.scope)
        taken[key] += 1
        if taken[key] <= 3:
            kept.append(view)
    return kept
