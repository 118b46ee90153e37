"""Compose evaluation patients by one fixed protocol, from the windows of an archive.

Positives and negatives come in pairs with the same plan: number of lesions, views per lesion,
number of background views, source and frame size of every lesion. What is left to tell them
apart is what the lesions look like. A negative's lesions are all non-neoplastic; a positive has
at least one neoplastic lesion.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.errors import ArchiveRefused

__all__ = ["Patient", "patients", "plan_rows", "read_views"]

MIXED_SHARE = 0.5
"""Share of positives with two or more lesions that also hold a non-neoplastic one (>= 0.4)."""
LESIONS_P = (0.4, 0.3, 0.2, 0.1)
BACKGROUNDS = (10, 40)
MOST_SHOWN = 12
"""Lesion views of a patient at most: four lesions of three views."""
TRIES = 40
KNOWN = ("neoplastic", "non-neoplastic")


@dataclass(frozen=True)
class Patient:
    """One composed patient.

    Attributes:
        patient_id: unique within the seed.
        seed: number of the draw.
        positive: holds a neoplastic lesion.
        views: view ids in a drawn order.
        files: their paths, in the same order.
        lesion_of: index of the lesion each view shows, -1 for background.
        histologies: of the lesions.
        groups: source groups of all views, sorted.
        lesion_groups: source groups of the lesions, in their order.
        dims: frame size of each lesion.
        pair: number shared by the positive and the negative with the same plan.
    """

    patient_id: str
    seed: int
    positive: bool
    views: tuple[str, ...]
    files: tuple[Path, ...]
    lesion_of: tuple[int, ...]
    histologies: tuple[str, ...]
    groups: tuple[str, ...]
    lesion_groups: tuple[str, ...]
    dims: tuple[str, ...]
    pair: int


def read_views(archive: Path) -> list[dict[str, Any]]:
    """Read views/views.jsonl with absolute files under the key "path".

    Raises:
        ArchiveRefused: the archive holds no such list.
    """
    path = archive / "views" / "views.jsonl"
    if not path.is_file():
        raise ArchiveRefused(f"{archive.name}: expected views/views.jsonl, found no such file")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]
    return [row | {"path": (archive / row["file"]).resolve()} for row in rows]


def patients(
    archive_or_views: Path | Iterable[Mapping[str, Any]],
    part: str,
    seeds: int = 5,
    *,
    pairs: int = 100,
    backgrounds: tuple[int, int] | None = None,
) -> list[Patient]:
    """Compose the patients of one part.

    Args:
        archive_or_views: archive folder, or rows as from ``read_views``.
        part: select, calibrate or report (train views are listed for phantom archives only).
        seeds: number of independent draws.
        pairs: positives per seed; as many negatives.
        backgrounds: fewest and most background views, drawn log-uniformly, as far as the part has
            them; for calibration, which must hold for every number of frames. None is the fixed
            protocol of evaluation: 10 to 40, drawn uniformly.

    Returns:
        ``2 * pairs * seeds`` patients, each pair side by side.

    Raises:
        ArchiveRefused: the part lacks lesions of both kinds, or background views.
    """
    rows = read_views(archive_or_views) if isinstance(archive_or_views, Path) else archive_or_views
    # Whole-frame views stay out: not every lesion has them, and their share would have to be equal.
    windows = [row for row in rows if row["part"] == part and not row.get("scope")]
    pool = _Pool(windows, part, backgrounds)
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng((0xE0C1, seed))
        for pair in range(pairs):
            found += pool.pair(rng, seed, pair)
    return found


class _Pool:
    """Views of one part, by stratum (source, frame size), histology and group."""

    def __init__(
        self,
        rows: list[Mapping[str, Any]],
        part: str,
        backgrounds: tuple[int, int] | None = None,
    ) -> None:
        self._range = backgrounds
        self.background = [row for row in rows if row["kind"] == "background"]
        weight = np.array([max(row.get("weight", 1.0), 1e-3) for row in self.background])
        self.chance = weight / max(weight.sum(), 1e-9)
        self.lesions: dict[tuple[str, str], dict[str, dict[str, dict[str, list[Any]]]]] = {}
        for row in rows:
            if row["kind"] == "lesion" and row["histology"] in KNOWN:
                stratum = self.lesions.setdefault((row["source"], row["dims"]), {})
                group = stratum.setdefault(row["histology"], {}).setdefault(row["group"], {})
                group.setdefault(row["lesion_id"], []).append(row)
        # A stratum without one of the two kinds would give the answer away by itself.
        self.strata = [key for key, found in self.lesions.items() if set(found) == set(KNOWN)]
        if not self.strata or len(self.background) < BACKGROUNDS[0]:
            raise ArchiveRefused(
                f"part {part}: expected lesions of both kinds in one frame size and at least "
                f"{BACKGROUNDS[0]} background views, found {len(self.strata)} such sizes and "
                f"{len(self.background)} views"
            )
        size = [min(len(self.lesions[key][kind]) for kind in KNOWN) for key in self.strata]
        self.share = np.array(size) / sum(size)

    def pair(self, rng: np.random.Generator, seed: int, number: int) -> list[Patient]:
        """Draw one plan and fill it twice.

        A small part cannot give distinct groups to every plan. Another plan is drawn then, and
        in the end one with a single lesion and a single view, which can always be filled.
        """
        for attempt in range(TRIES + 1):
            last = attempt == TRIES
            count = 1 if last else int(rng.choice((1, 2, 3, 4), p=LESIONS_P))
            chosen = rng.choice(len(self.strata), count, p=self.share)
            strata = [self.strata[int(i)] for i in chosen]
            views = [1 if last else int(v) for v in rng.integers(1, 4, count)]
            backgrounds = self._backgrounds(rng)
            kinds = {True: _kinds(rng, count), False: [KNOWN[1]] * count}
            filled = {kind: self._fill(rng, strata, kinds[kind], views) for kind in kinds}
            if all(filled.values()):
                break
        return [
            self._patient(
                rng,
                f"s{seed}p{number:03d}{'+' if positive else '-'}",
                seed,
                number,
                positive,
                found,
                backgrounds,
            )
            for positive, found in filled.items()
            if found is not None
        ]

    def _backgrounds(self, rng: np.random.Generator) -> int:
        """Draw a number of background views."""
        if self._range is None:
            most = min(BACKGROUNDS[1], len(self.background))
            return int(rng.integers(BACKGROUNDS[0], most + 1))
        # Lesion views may be exchanged for background later: that many stay over.
        low, high = self._range
        most = max(low, min(high, len(self.background) - MOST_SHOWN))
        return round(np.exp(rng.uniform(np.log(low), np.log(most))))

    def _fill(
        self,
        rng: np.random.Generator,
        strata: list[tuple[str, str]],
        kinds: list[str],
        views: list[int],
    ) -> list[list[Mapping[str, Any]]] | None:
        taken: set[str] = set()
        chosen = []
        for stratum, kind, count in zip(strata, kinds, views, strict=True):
            groups = self.lesions[stratum][kind]
            usable = [
                (group, lesion)
                for group, lesions in groups.items()
                if group not in taken
                for lesion, rows in lesions.items()
                if len(rows) >= count
            ]
            if not usable:
                return None
            group, lesion = usable[int(rng.integers(len(usable)))]
            taken.add(group)
            rows = groups[group][lesion]
            chosen.append([rows[int(i)] for i in rng.permutation(len(rows))[:count]])
        return chosen

    def _patient(
        self,
        rng: np.random.Generator,
        name: str,
        seed: int,
        pair: int,
        positive: bool,
        filled: list[list[Mapping[str, Any]]],
        backgrounds: int,
    ) -> Patient:
        rows = [(row, index) for index, views in enumerate(filled) for row in views]
        picked = rng.choice(len(self.background), backgrounds, replace=False, p=self.chance)
        rows += [(self.background[int(i)], -1) for i in picked]
        rows = [rows[int(i)] for i in rng.permutation(len(rows))]
        return Patient(
            name,
            seed,
            positive,
            tuple(row["view"] for row, _ in rows),
            tuple(Path(row.get("path", row["file"])) for row, _ in rows),
            tuple(index for _, index in rows),
            tuple(views[0]["histology"] for views in filled),
            tuple(sorted({row["group"] for row, _ in rows})),
            tuple(views[0]["group"] for views in filled),
            tuple(views[0]["dims"] for views in filled),
            pair,
        )


def _kinds(rng: np.random.Generator, count: int) -> list[str]:
    """Draw the histologies of a positive: at least one neoplastic, half of them mixed."""
    if count == 1 or rng.random() >= MIXED_SHARE:
        return [KNOWN[0]] * count
    neoplastic = int(rng.integers(1, count))
    kinds = [KNOWN[0]] * neoplastic + [KNOWN[1]] * (count - neoplastic)
    return [kinds[int(i)] for i in rng.permutation(count)]


def plan_rows(found: Iterable[Patient]) -> dict[str, list[list[float]]]:
    """Return what a counts-only classifier may see, by "x" and "y"."""
    table: dict[str, list[list[float]]] = defaultdict(list)
    for patient in found:
        shown = sum(index >= 0 for index in patient.lesion_of)
        total = len(patient.views)
        table["x"].append(
            [len(patient.histologies), total, shown / len(patient.histologies), 1 - shown / total]
        )
        table["y"].append([float(patient.positive)])
    return table
