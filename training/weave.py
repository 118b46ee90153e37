"""Weave one exam: choose lesions and backgrounds of one part, write report and truth."""

import zlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.exams import ExamPlan, plan_exam
from training.measure import Measures, mean_measures, values_of
from training.overlays import OVERLAYS
from training.report_text import LesionFacts, write_report
from training.spoil import SPOILS
from training.viewpool import PoolView

__all__ = ["Exam", "Spoil", "Weaver", "view_row"]

SOURCE_SHARES = {"bkai": 0.6, "kvasir": 0.3, "cvc": 0.1}
"""Sources of exams: most from BKAI, the only one whose histology is known. CVC has few groups."""
SMALL_SHARE = 0.02
"""Below this share of the frame (box area) a lesion counts as small."""
FLAT_CONTRAST = 5.5
"""Below this contrast against its surroundings a lesion counts as flat or subtle."""


DISTURBED = 0.25
"""Share of the frames of train exams that show glare, stool, foam or an instrument in a part of
them, lesions and backgrounds alike. Trained without, 0.2.0 took foam for a polyp (false alarms 0.20
to 0.62), and an instrument hid polyps (0.75 of them found, then 0.56)."""


@dataclass(frozen=True)
class Spoil:
    """A frame still to be made: non-informative as a whole, or disturbed in part."""

    file: str
    jpeg: bytes
    kind: str
    seed: int
    whole: bool


@dataclass(frozen=True)
class Exam:
    """One composed exam.

    Attributes:
        record: the line of records.jsonl.
        truth: the line of truth.jsonl.
        part: part of the split.
        used: views whose pixels it needs as they are.
        spoils: frames it needs made: non-informative and disturbed ones.
    """

    record: dict[str, Any]
    truth: dict[str, Any]
    part: str
    used: list[PoolView]
    spoils: list[Spoil]


class Weaver:
    """Makes the exams of one part; keeps count so that lesions are used evenly."""

    def __init__(
        self,
        part: str,
        lesions: list[PoolView],
        backgrounds: list[PoolView],
        rng: np.random.Generator,
    ) -> None:
        """Sort the pool of the part by source, lesion and set.

        Args:
            part: train, select, calibrate or report.
            lesions: its lesion views.
            backgrounds: its background views, weighted.
            rng: source of every choice.
        """
        self._part, self._rng, self._made = part, rng, 0
        self._sets: dict[str, dict[str, dict[int, list[PoolView]]]] = {}
        for view in lesions:
            by_lesion = self._sets.setdefault(view.source, {})
            by_lesion.setdefault(view.lesion_key, {}).setdefault(view.set_key, []).append(view)
        self._backgrounds: dict[str, dict[str, list[PoolView]]] = {}
        for view in backgrounds:
            mine = self._backgrounds.setdefault(view.source, {})
            mine.setdefault(view.group, []).append(view)
        self._uses: dict[str, int] = defaultdict(int)
        self._scarcity = {source: _scarcity(found) for source, found in self._sets.items()}

    def exam(self, kind: str) -> Exam:
        """Make one exam.

        Args:
            kind: single, multi or none: the number of its lesions.
        """
        rng = self._rng
        source = self._source(kind)
        wanted = {"none": 0, "single": 1, "multi": int(rng.choice((2, 3, 4), p=(0.5, 0.3, 0.2)))}
        keys = self._lesions(source, wanted[kind])
        chosen = [self._views(source, key) for key in keys]
        plan = plan_exam(rng, len(keys), longest=17)
        shown = [views[:n] for views, n in zip(chosen, plan.views, strict=True)]
        # Of the views shown: what the report says must be true of each of them.
        measures = [mean_measures([v.measures for v in views if v.measures]) for views in shown]
        histologies = [views[0].histology or None for views in chosen]
        backgrounds = self._around(source, plan, [views[0].group for views in chosen])
        report = write_report(
            [LesionFacts(values_of(m), h) for m, h in zip(measures, histologies, strict=True)], rng
        )
        self._made += 1
        name = f"{self._part}{self._made:05d}"
        frames, used, spoils = self._frames(name, plan, shown, backgrounds)
        record = {
            "record_id": name,
            "patient_id": f"patient-{name}",
            "report": report.text,
            "frames": [frame["file"] for frame in frames],
            "groups": sorted({frame["group"] for frame in frames}),
        }
        lesions = [
            {
                "index": i,
                "lesion_id": key,
                "histology": histologies[i],
                "attributes": values_of(measures[i]),
                "told": dict(report.told[i]),
                "sentence": report.sentences[i],
                "impression": report.opinions[i],
                "group": chosen[i][0].group,
                "dims": chosen[i][0].dims,
            }
            for i, key in enumerate(keys)
        ]
        truth = {
            "record_id": name,
            "part": self._part,
            "source": source,
            "malignant": _malignant(histologies),
            "lesions": lesions,
            "frames": frames,
        }
        return Exam(record, truth, self._part, used, spoils)

    def _source(self, kind: str) -> str:
        need = {"none": 0, "single": 1, "multi": 4}[kind]
        names = [
            s
            for s in SOURCE_SHARES
            if len({key.split("|")[0] for key in self._sets.get(s, {})}) >= need
            and self._backgrounds.get(s)
        ]
        shares = np.array([SOURCE_SHARES[s] for s in names])
        return str(self._rng.choice(names, p=shares / shares.sum()))

    def _lesions(self, source: str, count: int) -> list[str]:
        """Take the lesions that are furthest below their due, from distinct groups."""
        keys = list(self._sets.get(source, {}))
        due = self._scarcity.get(source, {})
        noise = dict(zip(keys, self._rng.uniform(0, 0.9, len(keys)), strict=True))
        order = sorted(keys, key=lambda k: (self._uses[k] + noise[k]) / due[k])
        taken: list[str] = []
        for key in order:
            if len(taken) == count:
                break
            if key.split("|")[0] not in {other.split("|")[0] for other in taken}:
                taken.append(key)
        return taken

    def _views(self, source: str, key: str) -> list[PoolView]:
        sets = self._sets[source][key]
        # Most lesions are used once or twice: each starts at another set, so that all sets serve.
        number = sorted(sets)[(self._uses[key] + zlib.crc32(key.encode())) % len(sets)]
        self._uses[key] += 1
        views = sets[number]
        return [views[i] for i in self._rng.permutation(len(views))]

    def _around(self, source: str, plan: ExamPlan, own: list[str]) -> list[PoolView]:
        """Draw backgrounds from a few groups of the source, by the matching weights."""
        rng, groups = self._rng, self._backgrounds[source]
        need = plan.background + plan.spoiled_background
        chosen = [group for group in own if group in groups and rng.random() < 0.5]
        weights = np.array([sum(v.weight for v in views) for views in groups.values()])
        order = rng.choice(
            len(weights), size=len(weights), replace=False, p=weights / weights.sum()
        )
        names = list(groups)
        pool = [view for group in chosen for view in groups[group]]
        for index in order:
            if len(pool) >= 3 * need:
                break
            if names[index] not in chosen:
                pool += groups[names[index]]
        share = np.array([view.weight for view in pool])
        size = min(need, len(pool))
        picked = rng.choice(len(pool), size=size, replace=False, p=share / share.sum())
        return [pool[i] for i in picked]

    def _frames(
        self, name: str, plan: ExamPlan, shown: list[list[PoolView]], backgrounds: list[PoolView]
    ) -> tuple[list[dict[str, Any]], list[PoolView], list[Spoil]]:
        rng = self._rng
        lesion_views = [(view, i) for i, views in enumerate(shown) for view in views]
        items: list[tuple[PoolView, int | None, bool]] = [(v, i, False) for v, i in lesion_views]
        items += [(view, None, False) for view in backgrounds[plan.spoiled_background :]]
        items += [(view, None, True) for view in backgrounds[: plan.spoiled_background]]
        for _ in range(plan.spoiled_lesion):
            view, index = lesion_views[int(rng.integers(len(lesion_views)))]
            items.append((view, index, True))
        frames: list[dict[str, Any]] = []
        used: list[PoolView] = []
        spoils: list[Spoil] = []
        for place in rng.permutation(len(items)):
            view, index, spoiled = items[place]
            kind = str(rng.choice(list(SPOILS))) if spoiled else None
            over = None if spoiled else self._overlay()
            frame = view_row(view, self._part)
            frame |= {"lesion": index, "base": frame["kind"], "spoiled": kind, "overlay": over}
            if kind or over:
                file = f"frames/{name}/{len(spoils):02d}_{kind or over}.jpg"
                seed = int(rng.integers(2**31))
                spoils.append(Spoil(file, view.jpeg, str(kind or over), seed, bool(kind)))
                frame |= {"file": file} | ({"kind": "non_informative"} if kind else {})
            else:
                used.append(view)
            frames.append(frame)
        return frames, used, spoils

    def _overlay(self) -> str | None:
        """What disturbs a frame in part; nothing outside of train, where it is measured apart."""
        if self._part != "train" or self._rng.random() >= DISTURBED:
            return None
        return str(self._rng.choice(list(OVERLAYS)))


def view_row(view: PoolView, part: str) -> dict[str, Any]:
    """Describe a view for truth.jsonl and views.jsonl."""
    measures: Measures | None = view.measures
    return {
        "view": view.view,
        "file": view.file,
        "kind": "background" if view.lesion is None else "lesion",
        "part": part,
        "source": view.source,
        "group": view.group,
        "dims": view.dims,
        "lesion_id": None if view.lesion is None else view.lesion_key,
        "histology": (view.histology or None) if view.lesion is not None else None,
        "attributes": values_of(measures) if measures else {},
        "area_share": view.area_share,
        "small": bool(measures) and view.frame_share < SMALL_SHARE,
        "flat": bool(measures and measures.contrast < FLAT_CONTRAST),
        "cover": view.cover,
        "scope": view.scope,
        "window": list(view.window),
        "side": round(float(np.exp(view.scores[0])), 1),
        "aspect": round(view.scores[1], 3),
        "weight": round(view.weight, 4),
    }


def _scarcity(found: dict[str, dict[int, list[PoolView]]]) -> dict[str, float]:
    """Say how often each lesion is due: rare pairs of frame size and histology more often.

    BKAI's histology goes with the frame size; lesions of a rare pair are used more, which
    weakens that link in what the exams teach.
    """
    cell = {
        key: (next(iter(sets.values()))[0].dims, next(iter(sets.values()))[0].histology)
        for key, sets in found.items()
    }
    known = [value for value in cell.values() if value[1]]
    count = {value: known.count(value) for value in set(known)}
    largest = max(count.values(), default=1)
    return {
        key: float(np.clip((largest / count[value]) ** 0.5, 1.0, 4.0)) if value in count else 1.0
        for key, value in cell.items()
    }


def _malignant(histologies: list[str | None]) -> bool | None:
    """True with any neoplastic lesion, None when nothing rules it out, False otherwise."""
    if "neoplastic" in histologies:
        return True
    return None if None in histologies else False
