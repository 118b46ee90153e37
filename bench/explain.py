"""Measures whether heat maps show what the score rests on.

    python -m bench.explain --data ../shared/data/colonoscopy/dev

Pointing: in polyp frames, is the hottest cell inside of a lesion's box? Beside it what a cell drawn
at random does (the boxes' share of the frame). Deletion and insertion: cells are painted in the
frame's mean colour, or uncovered from it, hottest first, coldest first and in random order; given
is the mean probability over the steps. A faithful map falls fast when its hottest cells go. Frames
are drawn evenly from the groups of each source; a group is one in the interval.
"""

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.images import Pixels, decode
from model_store.patient import heatmap
from model_store.scoring import cosines, margin
from service.settings import newest_bundle

__all__ = ["main"]

_SHARES = (0.1, 0.2, 0.3, 0.5, 0.7)
_TASK = "polyp_detection"
_SEED = 20261129
Boxes = list[tuple[float, float, float, float]]


class _Model:
    def __init__(self, path: Path | None) -> None:
        self.bundle = Bundle.open(path or newest_bundle())
        self._encoder = Encoder(self.bundle)
        self._set = self.bundle.label_set(_TASK)
        self._classes = self._encoder.class_embeddings(self._set)
        self._positive = self._set.positive_index or 0

    def map_of(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """float64 (rows, columns)."""
        _, grids = self._encoder.encode_images_with_grid(pixels[None])
        scale = self.bundle.manifest.logit_scale
        return heatmap(grids[0], self._classes, self._positive, scale)

    def probabilities(self, pixels: Pixels) -> npt.NDArray[np.float64]:
        """float64 (n,), calibrated."""
        found = cosines(self._encoder.encode_images(pixels), self._classes)
        z = margin(found, self._positive, self.bundle.manifest.logit_scale)
        return self.bundle.calibrations[_TASK].frame.probability(z)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.explain", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--frames", type=int, default=200, help="of each source, at most")
    parser.add_argument("--erased", type=int, default=20, help="of these, for deletion")
    given = parser.parse_args(arguments)
    model, rng = _Model(given.bundle), np.random.default_rng(_SEED)
    print(f"bundle {model.bundle.manifest.version} {model.bundle.digest[:19]}")
    for source, rows in sorted(_rows(given.data).items()):
        chosen = _even(rows, given.frames, rng)
        hits, areas, groups, curves = [], [], [], []
        for number, row in enumerate(chosen):
            data = (given.data / row["file"]).read_bytes()
            pixels = decode(data, model.bundle.manifest.input)
            heat = model.map_of(pixels)
            boxes = _boxes(row)
            hits.append(_inside(heat, boxes))
            areas.append(_area(boxes))
            groups.append(row["group_id"])
            if number < given.erased:
                curves.append(_erased(model, pixels, heat, rng))
        low, high = _interval(np.asarray(hits), groups, rng)
        print(
            f"{source}: {len(chosen)} frames of {len(set(groups))} groups; pointing "
            f"{np.mean(hits):.2f} ({low:.2f}-{high:.2f}), a random cell {np.mean(areas):.2f}"
        )
        names = ("deletion", "insertion")
        for name, (hot, cold, random) in zip(names, np.mean(curves, axis=0), strict=True):
            print(
                f"  {name}, {len(curves)} frames: hottest first {hot:.3f}, coldest first "
                f"{cold:.3f}, random {random:.3f}"
            )
    return 0


def _rows(data: Path) -> dict[str, list[dict[str, str]]]:
    rows = defaultdict(list)
    with (data / "index.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "frame" and row["label"] == "polyp" and row["boxes"]:
                rows[row["source_dataset"]].append(row)
    return rows


def _even(rows: list[dict[str, str]], count: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Take one of each group in turn, until there are enough."""
    groups = defaultdict(list)
    for place in rng.permutation(len(rows)):
        groups[rows[place]["group_id"]].append(rows[place])
    rounds = max(map(len, groups.values()))
    flat = [one[turn] for turn in range(rounds) for one in groups.values() if turn < len(one)]
    return flat[:count]


def _boxes(row: dict[str, str]) -> Boxes:
    """Fractions of the frame; the input contract squashes, so they hold for the grid as well."""
    width, height = int(row["width"]), int(row["height"])
    found = []
    for text in row["boxes"].split(";"):
        x0, y0, x1, y1 = map(float, text.partition(":")[2].split(","))
        found.append((x0 / width, y0 / height, x1 / width, y1 / height))
    return found


def _inside(heat: npt.NDArray[np.float64], boxes: Boxes) -> bool:
    row, column = np.unravel_index(int(heat.argmax()), heat.shape)
    y, x = (row + 0.5) / heat.shape[0], (column + 0.5) / heat.shape[1]
    return any(x0 <= x <= x1 and y0 <= y <= y1 for x0, y0, x1, y1 in boxes)


def _area(boxes: Boxes) -> float:
    places = (np.arange(100) + 0.5) / 100
    covered = np.zeros((100, 100), bool)
    for x0, y0, x1, y1 in boxes:
        rows, columns = (places >= y0) & (places <= y1), (places >= x0) & (places <= x1)
        covered |= rows[:, None] & columns
    return float(covered.mean())


def _erased(
    model: _Model, pixels: Pixels, heat: npt.NDArray[np.float64], rng: np.random.Generator
) -> list[list[float]]:
    """Mean probabilities: [deletion, insertion] x [hottest, coldest, random first]."""
    order = heat.ravel().argsort()[::-1]
    size = pixels.shape[0]
    rows = np.arange(size) * heat.shape[0] // size
    columns = np.arange(size) * heat.shape[1] // size
    cells = rows[:, None] * heat.shape[1] + columns
    mean = pixels.reshape(-1, 3).mean(axis=0).astype(np.uint8)
    curves = []
    for insert in (False, True):
        means = []
        for ranked in (order, order[::-1], rng.permutation(order)):
            masks = [np.isin(cells, ranked[: round(share * len(ranked))]) for share in _SHARES]
            painted = [
                np.where((mask ^ insert)[..., None], mean, pixels).astype(np.uint8)
                for mask in masks
            ]
            means.append(float(model.probabilities(np.stack(painted)).mean()))
        curves.append(means)
    return curves


def _interval(
    hits: npt.NDArray[np.bool_], groups: Sequence[str], rng: np.random.Generator
) -> tuple[float, float]:
    """95 %, by drawing groups again."""
    members = defaultdict(list)
    for place, group in enumerate(groups):
        members[group].append(place)
    parts = [hits[places] for places in members.values()]
    means = [
        np.concatenate([parts[one] for one in rng.integers(len(parts), size=len(parts))]).mean()
        for _ in range(2000)
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


if __name__ == "__main__":
    sys.exit(main())
