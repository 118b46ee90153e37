"""Which frames a sentence attends to, in exams of several lesions, against the truth.

Frames and sentences come through the packed bundle: its gate, its towers, its unify graph. A frame
is right for a sentence when it shows the lesion that the sentence tells of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.encoder import Encoder
from training.claims import without_number
from training.items import Item
from training.metrics import auroc, group_weights
from training.report.blocks import Block, Finding, HeatMap, HeatRow, Missing, Table
from training.report.charts import Row, interval_chart
from training.report.inputs import Inputs
from training.report.thumbnails import thumbnail
from training.report.words import counted, number, percent, span

__all__ = ["attention", "pooling"]

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_MAPS = 4
_MOST_FRAMES = 24
_TITLES = {
    "attention-maps": "Cross-attention of exams with several lesions",
    "attention-scores": "Does attention find the right frames?",
}


@dataclass(frozen=True)
class _Exam:
    """An exam of several lesions, with its m sentences and the n frames that pass the gate.

    Attributes:
        record: Its id.
        frames: (n,) paths.
        sentences: (m,) what is told of each lesion.
        groups: (m,) source group of each lesion.
        shows: (n,) index of the lesion a frame shows, -1 for none; None without truth.
        attention: (m, n), rows summing to 1.
        cosines: (m, n) of sentence and frame, without attention.
    """

    record: str
    frames: Sequence[Item]
    sentences: Sequence[str]
    groups: Sequence[str]
    shows: npt.NDArray[np.int64] | None
    attention: Floats
    cosines: Floats


def attention(inputs: Inputs) -> list[Finding | Missing]:
    """Heat maps of a few exams, and figures over all of them."""
    known = inputs.encoder is not None and inputs.archive is not None
    exams = _exams(inputs, inputs.encoder) if known and inputs.encoder else []
    if not exams:
        return [_missing(inputs, key, title) for key, title in _TITLES.items()]
    return [_maps(inputs, exams), _scores(inputs, exams)]


def _maps(inputs: Inputs, exams: list[_Exam]) -> Finding:
    key = "attention-maps"
    fit = [e for e in exams if len(e.frames) <= _MOST_FRAMES] or exams
    order = np.random.default_rng(0).permutation(len(fit))[:_MAPS]
    chosen = [fit[i] for i in sorted(order)]
    maps = [_map(exam) for exam in chosen]
    told = counted(len(exams), "exam")
    reading = f"{len(maps)} of {told} of the {inputs.part} part with several lesions"
    if chosen[0].shows is not None:
        first = [_first_is_right(exam, i) for exam in chosen for i in range(len(exam.sentences))]
        reading += (
            f": in {sum(first)} of their {len(first)} sentences the frame with most attention "
            "shows the lesion that is told of (outlined cells)"
        )
    source = inputs.source(
        "records.jsonl",
        *(["truth.jsonl"] if inputs.truth else []),
        items=f"{counted(len(maps), 'exam')} drawn with seed 0, at most {_MOST_FRAMES} frames each",
    )
    return Finding(key, _TITLES[key], reading + ".", source, maps)


def _scores(inputs: Inputs, exams: list[_Exam]) -> Finding | Missing:
    """Attention on the right frames over all exams, against chance and against plain cosines."""
    key = "attention-scores"
    told = [s for exam in exams for s in _sentences(exam)]
    if not told:
        reason = "No truth.jsonl says which frame shows which lesion of an exam."
        return Missing(key, _TITLES[key], reason)
    units = [s.group for s in told]
    columns = {
        "attention, all frames": [s.auroc(s.attention, s.everything) for s in told],
        "cosine, all frames": [s.auroc(s.cosines, s.everything) for s in told],
        "attention, lesion frames only": [s.auroc(s.attention, s.lesions) for s in told],
        "cosine, lesion frames only": [s.auroc(s.cosines, s.lesions) for s in told],
    }
    rows = [Row(name, *_mean(np.array(v), units)) for name, v in columns.items()]
    rows = [row for row in rows if np.isfinite(row.value)]
    mass = _mean(np.array([s.attention[s.right].sum() for s in told]), units)
    chance = _mean(np.array([s.right.mean() for s in told]), units)
    ratio = mass[0] / chance[0]
    reading = (
        f"The right lesion's frames take {percent(mass[0])} of a sentence's attention, "
        f"{ratio:.1f} times what chance would give ({percent(chance[0])}); "
        f"ranking frames by attention finds them with a mean AUROC of {span(*_tuple(rows[0]))}"
    )
    if len(rows) > 2:
        reading += (
            f", and tells them from the same exam's other lesions with {span(*_tuple(rows[2]))}"
        )
    alt = "Mean AUROC over sentences: " + ", ".join(f"{r.label} {r.value:.3f}" for r in rows)
    table = Table(
        ["of a sentence's attention", "mean over sentences (95 %)"],
        [
            ["mass on the right lesion's frames", span(*mass)],
            ["share of those frames (chance)", span(*chance)],
        ],
    )
    source = inputs.source(
        "truth.jsonl",
        items=f"{len(told)} sentences of {counted(len(exams), 'exam')} of the {inputs.part} part",
        interval="95 % intervals resample the lesions' source groups",
    )
    chart = interval_chart(
        rows, "AUROC of frames, mean over sentences", alt, x_label="AUROC", reference=0.5
    )
    return Finding(key, _TITLES[key], reading + ".", source, [chart, table])


def pooling(inputs: Inputs) -> list[Finding | Missing]:
    """Patients with cross-attention, and without: frames matched independently."""
    key, title = "attention-pooling", "Cross-attention against frames matched independently"
    if inputs.encoder is None or inputs.archive_path is None:
        return [_missing(inputs, key, title)]
    patients = inputs.figures["patients"]
    words = {
        "unify": "cross-attention",
        "max": "largest frame alone",
        "mean": "mean of the frames",
    }
    blocks: list[Block] = []
    rows, told = [], []
    for task, f in patients.items():
        name = task.replace("_", " ")
        bars = [
            Row(
                text,
                *(
                    f[p][k] if f[p][k] is not None else np.nan
                    for k in ("auroc", "auroc_low", "auroc_high")
                ),
            )
            for p, text in words.items()
        ]
        if not np.isfinite([bar.value for bar in bars]).all():
            continue
        alt = f"AUROC of {name} per patient: " + ", ".join(
            f"{bar.label} {bar.value:.3f}" for bar in bars
        )
        blocks.append(
            interval_chart(
                bars, f"{name.capitalize()}, {f['patients']} patients", alt, x_label="AUROC"
            )
        )
        differences = [f["unify_minus_max"], f["unify_minus_mean"]]
        rows.append(
            [name, *(span(bar.value, bar.low, bar.high) for bar in bars)]
            + [f"{number(low)} to {number(high)}" for low, high in differences]
        )
        low, high = differences[0]
        verdict = "not told apart from" if low <= 0 <= high else "better than"
        verdict = "worse than" if high < 0 else verdict
        told.append(
            f"{name} {number(bars[0].value)}, {verdict} the largest frame's "
            f"{number(bars[1].value)} (difference {number(low)} to {number(high)})"
        )
    if not told:
        return [Missing(key, title, f"The {inputs.part} part has patients of one class only.")]
    head = ["task", *words.values(), "minus largest (95 %)", "minus mean (95 %)"]
    source = inputs.source(
        items=f"patients of the {inputs.part} part",
        interval="95 % intervals resample the lesions' source groups",
    )
    reading = f"AUROC per patient: {'; '.join(told)}."
    return [Finding(key, title, reading, source, [*blocks, Table(head, rows)])]


@dataclass(frozen=True)
class _Sentence:
    """One sentence of one exam; arrays are (n,) over the exam's frames."""

    group: str
    attention: Floats
    cosines: Floats
    right: Bools
    everything: Bools
    lesions: Bools

    def auroc(self, score: Floats, among: Bools) -> float:
        return auroc(self.right[among], score[among])


def _sentences(exam: _Exam) -> list[_Sentence]:
    if exam.shows is None:
        return []
    found = []
    for i, group in enumerate(exam.groups):
        right = exam.shows == i
        if right.any() and not right.all():
            everything = np.ones(len(right), dtype=bool)
            found.append(
                _Sentence(
                    group, exam.attention[i], exam.cosines[i], right, everything, exam.shows >= 0
                )
            )
    return found


def _exams(inputs: Inputs, encoder: Encoder) -> list[_Exam]:
    """The part's exams of several lesions through the bundle."""
    told = []
    for exam in inputs.exams:
        entry = inputs.truth.get(exam.record_id)
        lesions = entry["lesions"] if entry else exam.lesions
        if exam.part == inputs.part and len(lesions) > 1:
            told.append((exam, entry))
    items = [
        Item(path, "frame", None, None, exam.record_id, exam.source, "")
        for exam, _ in told
        for path in exam.frames
    ]
    found = inputs.encoded(items)
    edges = np.cumsum([0, *(len(exam.frames) for exam, _ in told)])
    exams = []
    for (exam, entry), (start, stop) in zip(told, pairwise(edges), strict=True):
        passed = found.scored[start:stop]
        rows = np.arange(start, stop)[passed]
        if len(rows) < 2:
            continue
        if entry:
            sentences = [without_number(lesion["sentence"]) for lesion in entry["lesions"]]
            groups = [_group(entry, lesion["index"]) for lesion in entry["lesions"]]
            shows = np.array([-1 if f["lesion"] is None else f["lesion"] for f in entry["frames"]])
            shows = shows[passed]
        else:
            sentences = [lesion.text for lesion in exam.lesions]
            groups, shows = [exam.record_id] * len(sentences), None
        queries = encoder.encode_texts(sentences)
        frames = found.embeddings[rows]
        _, attention = encoder.unify(frames, np.ones(len(rows), np.bool_), queries)
        exams.append(
            _Exam(
                exam.record_id,
                [found.items[i] for i in rows],
                sentences,
                groups,
                shows,
                np.asarray(attention, np.float64),
                np.asarray(queries @ frames.T, np.float64),
            )
        )
    return exams


def _group(entry: dict[str, Any], lesion: int) -> str:
    """Source group of a lesion: that of a frame that shows it."""
    shown = [f["group"] for f in entry["frames"] if f["lesion"] == lesion]
    return str(shown[0]) if shown else str(entry["record_id"])


def _map(exam: _Exam) -> HeatMap:
    shows = exam.shows
    columns = []
    for j, item in enumerate(exam.frames):
        lesion = -1 if shows is None else int(shows[j])
        word = f"lesion {lesion + 1}" if lesion >= 0 else "" if shows is None else "no lesion"
        line = word if lesion >= 0 else str(j + 1) if shows is None else "–"
        columns.append(
            thumbnail(
                item.path,
                f"frame {j + 1}, {word}".rstrip(", "),
                [line],
                "lesion" if lesion >= 0 else "",
            )
        )
    rows = []
    for i, sentence in enumerate(exam.sentences):
        right = np.zeros(len(exam.frames), bool) if shows is None else shows == i
        figure = percent(float(exam.attention[i][right].sum())) if right.any() else "–"
        label = f"{i + 1}. {sentence}"
        rows.append(HeatRow(label, exam.attention[i].tolist(), right.tolist(), figure))
    figure = "" if shows is None else "on its frames"
    caption = f"Record {exam.record}: {len(exam.frames)} frames, {len(exam.sentences)} sentences"
    return HeatMap(caption, columns, rows, figure)


def _first_is_right(exam: _Exam, i: int) -> bool:
    return exam.shows is not None and bool(exam.shows[int(exam.attention[i].argmax())] == i)


def _mean(values: Floats, units: Sequence[str]) -> tuple[float, float, float]:
    """Mean over what is known, with a 95 % interval over resampled groups."""
    known = np.isfinite(values)
    if not known.any():
        return float("nan"), float("nan"), float("nan")
    values = values[known]
    told = [unit for unit, one in zip(units, known, strict=True) if one]
    if len(set(told)) < 2:  # nothing to resample
        return float(values.mean()), float("nan"), float("nan")
    drawn = group_weights(told, 1000, 0)
    means = [float((values * w).sum() / w.sum()) for w in drawn if w.sum() > 0]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(values.mean()), float(low), float(high)


def _tuple(row: Row) -> tuple[float, float, float]:
    return row.value, row.low, row.high


def _missing(inputs: Inputs, key: str, title: str) -> Missing:
    if inputs.encoder is None:
        return Missing(key, title, "The run has no packed bundle yet.", inputs.run_command())
    if inputs.archive is None:
        reason = "The archive, which holds the frames, is not in the run's folder."
        return Missing(key, title, reason, inputs.report_command(archive="ARCHIVE"))
    return Missing(key, title, f"The {inputs.part} part has no exam with several lesions.")
