"""Honest negatives: how often a bundle raises a false alarm on frames without a polyp.

The data has whole normal frames of other endoscopes only (the sources kept for tests): too few,
and any difference from polyp frames may be the camera's. So the polyp frames of a part are made to
give their own negatives, and what is done to negatives is done to positives:

- ``window``: the largest polyp-free window of a frame beside a window of the same size that holds
  the lesion; a frame that does not give both gives neither.
- ``covered``: whole frames whose lesions are covered by their own mucosa, beside frames with as
  many patches elsewhere (``training.scope``), as the archive holds them.

Whole normal frames of the other sources stand apart, beside what a classifier that was shown no
polyp makes of the sources: as far as it can tell them apart, so far may an AUROC across sources be
the camera's.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from training.evaluate import TASKS, probabilities
from training.evidence.decided import Scorer, apart, rates
from training.items import Embedded, Item
from training.protocol import archive_items, data_items
from training.sources import SOURCES, SourceImage, read_sources, read_split
from training.viewpool import covariates
from training.views import Window, background_windows, encode, field_of_view, lesion_windows, render

__all__ = ["WATERMARK", "normal_figures", "normal_frames", "window_pairs"]

LEAST_SHARE = 0.25
"""Of the field of view, that a window must show to count as of frame scale."""
SAME_SIDE = 0.1
"""Largest difference of the logarithms of the sides of a pair's windows."""
LEAST_COVER = 0.8
"""Of the lesion's box, that the window with the lesion must show."""
DRAWS = 60
"""Polyp-free windows drawn a frame, of which the largest is taken."""
WATERMARK = ("Gastrolab sample video", 0.08)
"""Share of the clip's height, from the top, that carries its watermark."""


def normal_figures(scorer: Scorer, archive: Path, data: Path, part: str) -> dict[str, Any]:
    """Measure specificity on every kind of normal frame of frame scale.

    Args:
        scorer: Of the bundle.
        archive: Gives the split and the covered frames.
        data: Folder of real frames with an index.
        part: Whose polyp frames give negatives.

    Returns:
        ``same_source``: by treatment and source (and ``all``), AUROC and the rates of both classes.
        ``cross_source``: by source (and ``all``), the rates of whole normal frames; the AUROC of
        the part's polyp frames against them; and ``source_classifier``.
    """
    pairs = scorer(window_pairs(data, archive, part, scorer.work))
    covered = scorer([item for item in archive_items(archive, part) if item.kind == "scope"])
    normal = scorer(normal_frames(data, archive, scorer.work))
    frames = [i for i in data_items(data, archive, part) if i.kind == "frame" and i.polyp]
    return {
        "same_source": {
            "window": _both(scorer, pairs),
            "covered": _both(scorer, covered),
        },
        "cross_source": _cross(scorer, normal, scorer(frames))
        | {"source_classifier": _source_classifier(scorer, pairs, normal)},
    }


def window_pairs(
    data: Path,
    archive: Path,
    part: str,
    work: Path,
    least: float = LEAST_SHARE,
    sources: Collection[str] = tuple(SOURCES.values()),
) -> list[Item]:
    """Cut a polyp-free window and one of the same size with the lesion from each frame of a part.

    Args:
        data: Folder of index.csv.
        archive: Gives the split.
        part: Of the frames.
        work: Folder the windows are written to.
        least: Share of the field of view that a window must show.
        sources: Of the frames, by their short names.

    Returns:
        Negatives and positives in turn.
    """
    parts = read_split(archive / "source_split.json")
    found = []
    for image in read_sources(data):
        wanted = image.kind == "frame" and image.label == "polyp" and image.source in sources
        if not wanted or parts[image.group] != part:
            continue
        pixels = Image.open(image.path).convert("RGB")
        field = field_of_view(image, np.asarray(pixels))
        without = _largest(image, field, least)
        with_lesion = _same_size(image, field, without) if without else None
        if without and with_lesion:
            item = _item(image, "window")
            found += [
                replace(item, path=_write(work, image.name, window, pixels), polyp=lesion)
                for window, lesion in ((without, False), (with_lesion, True))
            ]
    return found


def normal_frames(data: Path, archive: Path, work: Path) -> list[Item]:
    """The whole normal frames of the sources kept for tests, the clip without its watermark."""
    name, top = WATERMARK
    found = []
    for item in data_items(data, archive, "test"):
        if item.polyp is not False:
            continue
        if item.source == name:
            path = work / f"{item.path.stem}_cut.png"
            _without_top(item.path, top, path)
            item = replace(item, path=path)
        found.append(item)
    return found


def _without_top(path: Path, top: float, to: Path) -> None:
    with Image.open(path) as image:
        box = (0, round(top * image.height), image.width, image.height)
        image.convert("RGB").crop(box).save(to, "PNG")


def _largest(
    image: SourceImage, field: npt.NDArray[np.bool_], least: float = LEAST_SHARE
) -> Window | None:
    windows = background_windows(image, field, _generator(image), DRAWS)
    if not windows:
        return None
    window = max(windows, key=lambda one: one.side)
    return window if window.side**2 >= least * field.sum() else None


def _same_size(image: SourceImage, field: npt.NDArray[np.bool_], like: Window) -> Window | None:
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in image.boxes]
    lesion = int(np.argmax(areas))
    for window in lesion_windows(image, field, lesion, _generator(image), [like.side]):
        if abs(np.log(window.side / like.side)) <= SAME_SIDE and window.cover >= LEAST_COVER:
            return window
    return None


def _generator(image: SourceImage) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(f"{image.name}/evidence".encode()))


def _write(work: Path, name: str, window: Window, pixels: Image.Image) -> Path:
    path = work / f"{name}_{'_'.join(str(v) for v in window.box)}.jpg"
    path.write_bytes(encode(render(pixels, window)))
    return path


def _item(image: SourceImage, kind: str) -> Item:
    names = {short: name for name, short in SOURCES.items()}
    return Item(
        path=image.path,
        kind=kind,
        polyp=None,
        neoplastic=None,
        group=image.group,
        source=names.get(image.source, image.source),
        dims=image.dims,
        image=image.name,
    )


def _both(scorer: Scorer, found: Embedded) -> dict[str, Any]:
    """AUROC and rates of positives and negatives, by source and of all."""
    sources = np.array([SOURCES.get(item.source, item.source) for item in found.items])
    figures = {}
    for name in [*sorted(set(sources.tolist())), "all"]:
        mine = found.where((sources == name) | (name == "all"))
        y = np.array([bool(item.polyp) for item in mine.items])
        p = probabilities(scorer.encoder, "polyp_detection", mine)
        figures[name] = {
            "apart": apart(y, p, [item.group for item in mine.items]),
            "with_polyp": rates(scorer.encoder, "polyp_detection", mine.where(y)),
            "without": rates(scorer.encoder, "polyp_detection", mine.where(~y)),
        }
    return figures


def _cross(scorer: Scorer, normal: Embedded, polyps: Embedded) -> dict[str, Any]:
    sources = np.array([item.source for item in normal.items])
    told = {}
    for name in [*sorted(set(sources.tolist())), "all"]:
        mine = normal.where((sources == name) | (name == "all"))
        told[name] = {task: rates(scorer.encoder, task, mine) for task in TASKS}
    p = [probabilities(scorer.encoder, "polyp_detection", part) for part in (polyps, normal)]
    groups = [item.group for part in (polyps, normal) for item in part.items]
    y = np.repeat([True, False], [len(part) for part in p])
    return {"normal": told, "apart": apart(y, np.concatenate(p), groups)}


def _source_classifier(scorer: Scorer, pairs: Embedded, normal: Embedded) -> dict[str, Any]:
    """AUROC of telling the part's sources from those kept for tests, on windows without a polyp.

    By a classifier of the bundle's embeddings, split by frames (it may know a camera again, as
    what is confounded does) and by groups (it meets every clip and bowel for the first time); by
    one of four measures that do not look at what a window shows; and by the polyp probability
    itself, which should not tell them apart at all.
    """
    own = pairs.where([item.polyp is False for item in pairs.items])
    theirs = scorer(_windows_of(normal.items, scorer.work))
    items = [*own.items, *theirs.items]
    y = np.repeat([True, False], [len(own.items), len(theirs.items)])
    groups = [item.group for item in items]
    embeddings = np.concatenate([own.embeddings, theirs.embeddings])
    measures = np.array([covariates(item.path.read_bytes(), 1.0, 1.0)[2:] for item in items])
    p = [probabilities(scorer.encoder, "polyp_detection", part) for part in (own, theirs)]
    scores = {
        "embeddings_by_frame": _out_of_fold(embeddings, y, range(len(y))),
        "embeddings_by_group": _out_of_fold(embeddings, y, groups),
        "no_content_by_frame": _out_of_fold(measures, y, range(len(y))),
        "polyp_probability": np.concatenate(p),
    }
    return {name: apart(y, score, groups) for name, score in scores.items()}


def _windows_of(items: Sequence[Item], work: Path) -> list[Item]:
    found = []
    for item in items:
        pixels = Image.open(item.path).convert("RGB")
        image = SourceImage(
            name=item.path.stem,
            path=item.path,
            kind="frame",
            source="",
            group=item.group,
            label="normal",
            histology="",
            size=pixels.size,
            boxes=(),
            dims=item.dims,
        )
        window = _largest(image, field_of_view(image, np.asarray(pixels)))
        if window:
            path = _write(work, image.name, window, pixels)
            found.append(replace(item, path=path, kind="window"))
    return found


def _out_of_fold(
    rows: npt.NDArray[Any], y: npt.NDArray[np.bool_], units: Sequence[str] | range
) -> npt.NDArray[np.float64]:
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=2000, class_weight="balanced")
    )
    # Units come in the order of their sources, which a fold must not follow.
    folds = GroupKFold(5, shuffle=True, random_state=0)
    return np.asarray(
        cross_val_predict(
            model, rows, y, groups=np.array(units), cv=folds, method="decision_function"
        )
    )
