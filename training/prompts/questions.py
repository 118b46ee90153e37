"""Free questions as ``POST /v1/zero-shot`` takes them, held against what the data knows.

Known are a lesion's share of the picture, its place and its number from masks and boxes, and for an
archive's views the attributes that ``training.measure`` reads off the pixels. Not known, and
therefore not asked: stalked, flat and ulcerated (``UNKNOWN``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from model_store.encoder import Encoder
from model_store.scoring import unit_rows
from training.items import Embedded
from training.metrics import auroc, auroc_interval
from training.patients import read_views
from training.prompts.wordings import Pair
from training.real_exams import is_ingested
from training.sources import dev_items

__all__ = ["QUESTIONS", "UNKNOWN", "Facts", "Question", "question_figures", "read_facts"]

UNKNOWN = ("pedunculated", "flat", "ulcerated")
"""Forms that users will ask for and that no data at hand has the truth of."""
NEAR, FAR = 0.4, 0.6
"""A lesion whose centre lies before 0.4 of the side is left or upper, beyond 0.6 right or lower."""


@dataclass(frozen=True)
class Facts:
    """What is known of the lesions in a picture.

    Attributes:
        area: Their share of the picture's area, NaN where not known.
        centre: Centre of a single lesion's box in shares of width and height, or None.
        lesions: Their number, or None.
        attributes: As measured.
    """

    area: float = math.nan
    centre: tuple[float, float] | None = None
    lesions: int | None = None
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """A question with its truth.

    Attributes:
        name: As the table calls it, the answer that ``value`` is high for first.
        pairs: Wordings (high, low); the ensemble takes all of them.
        value: 1 or 0 by the facts, or an amount; NaN where a picture does not tell.
        graded: Of the amounts of a kind of frame the upper third stands against the lower third.
    """

    name: str
    pairs: tuple[Pair, ...]
    value: Callable[[Facts], float]
    graded: bool = False


def _said(attribute: str, high: Sequence[str], low: Sequence[str]) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        said = facts.attributes.get(attribute)
        return 1.0 if said in high else 0.0 if said in low else math.nan

    return value


def _placed(axis: int) -> Callable[[Facts], float]:
    def value(facts: Facts) -> float:
        if facts.centre is None or NEAR <= facts.centre[axis] <= FAR:
            return math.nan
        return float(facts.centre[axis] < NEAR)

    return value


QUESTIONS = (
    Question(
        "large / small",
        (
            ("a large polyp", "a small polyp"),
            ("bulky lesion filling the view", "minute lesion in a wide view"),
            ("a polyp that takes up most of the picture", "a polyp in a small part of the picture"),
            ("big polyp, close up", "little polyp, far away"),
        ),
        lambda facts: facts.area,
        graded=True,
    ),
    Question(
        "left / right",
        (
            ("polyp on the left side of the image", "polyp on the right side of the image"),
            ("lesion at the left edge of the view", "lesion at the right edge of the view"),
            ("the polyp is on the left", "the polyp is on the right"),
        ),
        _placed(0),
    ),
    Question(
        "upper / lower",
        (
            ("polyp in the upper part of the image", "polyp in the lower part of the image"),
            ("lesion at the top of the view", "lesion at the bottom of the view"),
            ("the polyp is above the centre", "the polyp is below the centre"),
        ),
        _placed(1),
    ),
    Question(
        "several / one",
        (
            ("several polyps in one image", "a single polyp in the image"),
            ("two or more lesions in view", "exactly one lesion in view"),
            ("multiple colonic polyps side by side", "one solitary colonic polyp"),
        ),
        lambda facts: float(facts.lesions > 1) if facts.lesions else math.nan,
    ),
    Question(
        "red / pale",
        (
            ("a red polyp", "a pale polyp"),
            (
                "lesion darker and redder than its surroundings",
                "lesion whiter than its surroundings",
            ),
            ("erythematous lesion", "whitish lesion"),
        ),
        _said("colour", ("red", "dark-red"), ("pale",)),
    ),
    Question(
        "irregular / smooth",
        (
            ("a polyp with an irregular surface", "a polyp with a smooth surface"),
            ("coarse, nodular lesion", "lesion as smooth as glass"),
            ("rough surface pattern", "even surface without pattern"),
        ),
        _said("surface_texture", ("irregular", "nodular", "lobulated"), ("smooth",)),
    ),
    Question(
        "sharp / vague edge",
        (
            ("a polyp with a sharp edge", "a polyp with a blurred edge"),
            ("clearly demarcated lesion", "lesion that merges into the mucosa"),
            ("the border of the polyp is distinct", "the border of the polyp is hard to see"),
        ),
        _said("margin", ("well-defined",), ("indistinct",)),
    ),
    Question(
        "elongated / round",
        (
            ("an elongated polyp", "a round polyp"),
            ("lesion much longer than wide", "lesion as long as wide"),
            ("oblong growth", "circular growth"),
        ),
        _said("shape", ("elongated",), ("round",)),
    ),
)


def read_facts(archive: Path, data: Path | None, part: str) -> dict[Path, Facts]:
    """What is known of the lesions in a part's pictures, by path; only pictures with a lesion."""
    facts = {
        row["path"]: Facts(area=float(row["area_share"]), attributes=dict(row["attributes"]))
        for row in ([] if is_ingested(archive) else read_views(archive))
        if row["part"] == part and row["kind"] == "lesion" and "area_share" in row
    }
    for item in dev_items(data, archive / "source_split.json", part) if data else []:
        if item.kind == "frame" and item.boxes:
            wide, high = (int(side) for side in item.dims.split("x"))
            x0, y0, x1, y1 = item.boxes[0]
            alone = len(item.boxes) == 1
            centre = ((x0 + x1) / 2 / wide, (y0 + y1) / 2 / high) if alone else None
            facts[item.path] = Facts(item.area_share, centre, len(item.boxes))
    return facts


def question_figures(
    encoder: Encoder, question: Question, found: Embedded, facts: Mapping[Path, Facts]
) -> dict[str, Any]:
    """Answer a question by cosines, on each kind of frame that knows both answers.

    Args:
        encoder: Of the bundle.
        question: What is asked.
        found: Frames of a part.
        facts: As from ``read_facts``.

    Returns:
        By kind: pictures with the ``high`` and the ``low`` answer and their source ``groups``,
        AUROC of the ensemble with its interval, lowest and highest of its wordings, and of an
        amount Spearman's correlation with the score over all pictures that tell it.
    """
    rows = encoder.encode_texts([text for pair in question.pairs for text in pair])
    high, low = unit_rows(rows.reshape(-1, 2, rows.shape[1]).mean(axis=0))
    usable = found.scored & np.array([item.path in facts for item in found.items])
    figures: dict[str, Any] = {}
    for kind in sorted({item.kind for item in found.items}):
        here = usable & np.array([item.kind == kind for item in found.items])
        value = np.full(len(found.items), np.nan)
        value[here] = [question.value(facts[found.items[i].path]) for i in np.flatnonzero(here)]
        told = ~np.isnan(value)
        if len(np.unique(value[told])) < 2:
            continue
        score = found.embeddings @ (high - low)
        figures[kind] = {}
        if question.graded:
            figures[kind]["rank_correlation"] = float(spearmanr(value[told], score[told]).statistic)
            lower, upper = np.quantile(value[told], [1 / 3, 2 / 3])
            value = np.where(value > upper, 1.0, np.where(value < lower, 0.0, np.nan))
            told = ~np.isnan(value)
        y = value[told] == 1.0
        groups = [found.items[i].group for i in np.flatnonzero(told)]
        bottom, top = auroc_interval(y, score[told], groups)
        each = [
            auroc(y, found.embeddings[told] @ (a - b))
            for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
        figures[kind] |= {
            "high": int(y.sum()),
            "low": int((~y).sum()),
            "groups": len(set(groups)),
            "auroc": auroc(y, score[told]),
            "auroc_low": bottom,
            "auroc_high": top,
            "lowest_wording": min(each),
            "highest_wording": max(each),
        }
    return figures
