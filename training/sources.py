"""The real frames: read index.csv, split source groups once, list dev items as they are.

Only BKAI, Kvasir-SEG and CVC-ClinicDB are ever composed; the other sources are tests.
"""

import csv
import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from training.errors import ArchiveRefused
from training.records import PARTS, Archive, parts_digest, write_split

__all__ = [
    "FRACTIONS",
    "SOURCES",
    "SPLIT_SEED",
    "Box",
    "DevItem",
    "SourceImage",
    "crop_boxes",
    "crop_window",
    "dev_items",
    "read_sources",
    "read_split",
    "split_digest",
    "split_sources",
    "write_source_split",
]

Box = tuple[float, float, float, float]
SOURCES = {"BKAI-IGH NeoPolyp-Small": "bkai", "Kvasir-SEG": "kvasir", "CVC-ClinicDB": "cvc"}
FRACTIONS = {"train": 0.62, "select": 0.08, "calibrate": 0.12, "report": 0.18}
SPLIT_SEED = 1
"""One split for every archive: were it drawn with the archive's seed, choices made over several
seeds would have seen two thirds of any one seed's report part."""
# One cluster of 129 look-alike frames: in any small part it would be the part.
_ALWAYS_TRAIN = frozenset({"kvasir_089ea372"})
_PAIR = re.compile(r"pair from (\S+); window (\d+),(\d+),(\d+) px")
# Original pixels per pixel of the stored frame, measured by correlating crops with their frames;
# Kvasir-SEG comes in several sizes and is searched per frame.
_CROP_SCALE = {"bkai": 1280 / 384, "cvc": 1.0}


@dataclass(frozen=True)
class SourceImage:
    """One file of the index that exams may be composed of.

    Attributes:
        name: file name without suffix, unique.
        path: absolute path.
        kind: frame or crop.
        source: bkai, kvasir or cvc.
        group: split unit.
        label: polyp or normal.
        histology: neoplastic, non-neoplastic, mixed or "".
        size: width and height in pixels.
        boxes: lesion boxes in pixels of the file; for crops those of the parent frame that fall
            inside, once ``crop_boxes`` has put them there.
        dims: width x height of the (parent) frame, the stratum of the histology confounding.
        note: the index's note.
    """

    name: str
    path: Path
    kind: str
    source: str
    group: str
    label: str
    histology: str
    size: tuple[int, int]
    boxes: tuple[Box, ...]
    dims: str
    note: str = ""


@dataclass(frozen=True)
class DevItem:
    """A dev image exactly as it is, for evaluation only.

    Attributes:
        kind: frame or crop.
        label: polyp, normal or non-informative.
        histology: neoplastic, non-neoplastic, mixed or "" when unknown.
        group: source group, the unit to resample.
        source: data set name as in index.csv.
        dims: width x height of the frame; of the parent frame for crops.
        path: absolute path.
        area_share: lesion area as a share of the frame, NaN when unknown.
        boxes: lesion boxes in the pixels of the frame; empty for crops.
        pair: name of the parent frame for crops, "" for frames.
    """

    kind: str
    label: str
    histology: str
    group: str
    source: str
    dims: str
    path: Path
    area_share: float
    boxes: tuple[Box, ...]
    pair: str


def read_sources(data: Path) -> list[SourceImage]:
    """Read the frames and crops that may be composed.

    Raises:
        ArchiveRefused: there is no index.csv, or a listed file is missing.
    """
    rows = _rows(data)
    dims = {Path(r["file"]).stem: f"{r['width']}x{r['height']}" for r in rows}
    images = []
    for row in rows:
        source = SOURCES.get(row["source_dataset"])
        if source is None:
            continue
        path = (data / row["file"]).resolve()
        if not path.is_file():
            raise ArchiveRefused(f"index.csv names {row['file']}, which does not exist")
        parent = _PAIR.search(row["note"])
        images.append(
            SourceImage(
                name=path.stem,
                path=path,
                kind=row["kind"],
                source=source,
                group=row["group_id"],
                label=row["label"],
                histology=row["histology"],
                size=(int(row["width"]), int(row["height"])),
                boxes=_boxes(row["boxes"]),
                dims=dims[parent.group(1) if parent else path.stem],
                note=row["note"],
            )
        )
    return images


def crop_boxes(crop: SourceImage, parent: SourceImage) -> SourceImage:
    """Return the crop with the lesion boxes of its parent in its own pixels.

    The note gives the window in original pixels; the scale to the stored frame is known for
    BKAI and CVC and found by correlation for Kvasir-SEG.
    """
    if not _PAIR.search(crop.note):
        return crop
    left, top, side = crop_window(crop, parent)
    zoom = crop.size[0] / side
    boxes = []
    for x0, y0, x1, y1 in parent.boxes:
        box = [(v - o) * zoom for v, o in ((x0, left), (y0, top), (x1, left), (y1, top))]
        clipped = tuple(float(np.clip(v, 0, crop.size[0])) for v in box)
        if clipped[2] - clipped[0] > 4 and clipped[3] - clipped[1] > 4:
            boxes.append(clipped)
    return replace(crop, boxes=tuple(boxes))  # type: ignore[arg-type]


def crop_window(crop: SourceImage, parent: SourceImage) -> tuple[float, float, float]:
    """Return left, top and side of a crop in pixels of its parent frame."""
    match = _PAIR.search(crop.note)
    if match is None:
        raise ArchiveRefused(f"{crop.name}: expected a note that gives the crop's window")
    x, y, side = (float(match[i]) for i in (2, 3, 4))
    scale = _CROP_SCALE.get(crop.source) or _found_scale(crop, parent, (x, y, side))
    return x / scale, y / scale, side / scale


def split_sources(images: list[SourceImage], seed: int = SPLIT_SEED) -> dict[str, str]:
    """Assign every source group to a part, stratified by source and BKAI histology.

    Args:
        images: what ``read_sources`` returned.
        seed: decides the order within each stratum.

    Returns:
        Part by group id.
    """
    kinds: dict[str, set[str]] = {}
    weight: dict[str, int] = {}
    for image in images:
        kinds.setdefault(image.group, set()).add(
            f"{image.source}/{image.histology}" if image.kind == "frame" else ""
        )
        weight[image.group] = weight.get(image.group, 0) + (image.kind == "frame")
    strata: dict[str, list[str]] = {}
    for group, found in kinds.items():
        strata.setdefault("+".join(sorted(found - {""})), []).append(group)
    parts: dict[str, str] = {}
    rng = np.random.default_rng(seed)
    for name in sorted(strata):
        parts.update(_deal(sorted(strata[name]), weight, rng))
    return parts


def read_split(path: Path) -> dict[str, str]:
    """Read source_split.json.

    Raises:
        ArchiveRefused: there is none (an archive that was not composed), or its digest does not
            fit.
    """
    if not path.is_file():
        raise ArchiveRefused(
            f"expected {path.name} in {path.parent}, found no such file: real frames (--data) can "
            "be told apart by part only with an archive that was composed of them"
        )
    body = json.loads(path.read_text(encoding="utf-8"))
    if parts_digest(body["parts"]) != body["digest"]:
        raise ArchiveRefused(
            f"{path.name}: expected digest {parts_digest(body['parts'])}, found {body['digest']}"
        )
    return dict(body["parts"])


def split_digest(archive: Archive) -> str:
    """Digest of what tells an archive's parts apart: source groups where it is composed."""
    path = archive.path / "source_split.json"
    return parts_digest(read_split(path)) if path.is_file() else archive.digest


def dev_items(data: Path, split: Path | dict[str, str], part: str) -> list[DevItem]:
    """List the dev frames and crops of one part as they are, for evaluation.

    Args:
        data: folder of index.csv.
        split: source_split.json or its parts.
        part: train, select, calibrate or report; "test" gives the sources that are never
            composed (Nerthus, EndoAngel, Gastrolab).
    """
    parts = read_split(split) if isinstance(split, Path) else split
    rows = _rows(data)
    dims = {Path(r["file"]).stem: f"{r['width']}x{r['height']}" for r in rows}
    items = []
    for row in rows:
        where = parts.get(row["group_id"]) if row["source_dataset"] in SOURCES else "test"
        if where != part:
            continue
        parent = _PAIR.search(row["note"])
        pair = parent.group(1) if parent else ""
        items.append(
            DevItem(
                row["kind"],
                row["label"],
                row["histology"],
                row["group_id"],
                row["source_dataset"],
                dims[pair or Path(row["file"]).stem],
                (data / row["file"]).resolve(),
                float(row["polyp_area_frac"] or "nan"),
                _boxes(row["boxes"]),
                pair,
            )
        )
    return items


def write_source_split(path: Path, parts: dict[str, str]) -> str:
    """Write source_split.json and return its digest."""
    return write_split(path, parts)


def _deal(groups: list[str], weight: dict[str, int], rng: np.random.Generator) -> dict[str, str]:
    """Give each group to the part that is furthest below its share of frames."""
    order = [groups[i] for i in rng.permutation(len(groups))]
    order.sort(key=lambda g: g not in _ALWAYS_TRAIN)
    free = sum(weight[g] for g in order if g not in _ALWAYS_TRAIN) or 1
    given = dict.fromkeys(PARTS, 0.0)
    parts = {}
    for group in order:
        if group in _ALWAYS_TRAIN:
            parts[group] = "train"
            continue
        part = max(PARTS, key=lambda p: FRACTIONS[p] - given[p])
        given[part] += weight[group] / free
        parts[group] = part
    return parts


@lru_cache(maxsize=4)
def _found_scale(
    crop: SourceImage, parent: SourceImage, window: tuple[float, float, float]
) -> float:
    frame = Image.open(parent.path).convert("L")
    piece = np.asarray(Image.open(crop.path).convert("L").resize((40, 40)), dtype=np.float64)
    piece = (piece - piece.mean()) / max(float(piece.std()), 1e-6)
    x, y, side = window
    best = (-2.0, 1.0)
    for scale in np.arange(0.86, 5.2, 0.02):
        box = (x / scale, y / scale, (x + side) / scale, (y + side) / scale)
        if box[2] > frame.width + 1 or box[3] > frame.height + 1:
            continue
        inside = (box[0], box[1], min(box[2], frame.width), min(box[3], frame.height))
        patch = np.asarray(frame.resize((40, 40), box=inside), dtype=np.float64)
        patch = (patch - patch.mean()) / max(float(patch.std()), 1e-6)
        best = max(best, (float((patch * piece).mean()), float(scale)))
    return best[1]


def _rows(data: Path) -> list[dict[str, str]]:
    path = data / "index.csv"
    if not path.is_file():
        raise ArchiveRefused(f"expected index.csv in {data.name}, found no such file")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _boxes(text: str) -> tuple[Box, ...]:
    boxes = []
    for part in filter(None, text.split(";")):
        x0, y0, x1, y1 = (float(v) for v in part.split(":")[1].split(","))
        boxes.append((x0, y0, x1, y1))
    return tuple(boxes)
