"""What the report computes itself, against naive twins and scikit-learn; its charts and readers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")
pytest.importorskip("matplotlib", reason="needs matplotlib (extra `train`)")
from sklearn.metrics import (
    average_precision_score,
    precision_recall_curve,
    roc_curve,
    silhouette_score,
)

from training.metrics import wilson
from training.report.blocks import Table
from training.report.cache import Cache
from training.report.charts import Row, Series, histogram, interval_chart, line_chart
from training.report.clusters import cosine_distances, distance_ratio, silhouette, tightness
from training.report.experiments import read_experiments
from training.report.operating import average_precision, precision_recall, roc, share_interval
from training.report.words import number, span

RNG = np.random.default_rng(0)


def _space(n: int = 40) -> tuple[np.ndarray, np.ndarray]:
    labels = RNG.integers(3, size=n)
    rows = RNG.normal(size=(n, 8)) + 1.5 * np.eye(8)[labels]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), labels


def test_silhouette_is_scikit_learns_where_all_weigh_alike() -> None:
    rows, labels = _space()
    own = silhouette(cosine_distances(rows), labels, np.ones(len(labels)))
    assert own == pytest.approx(silhouette_score(rows, labels, metric="cosine"))


def test_weighted_silhouette_equals_copies_that_never_meet_themselves() -> None:
    rows, labels = _space(18)
    weights = RNG.integers(0, 4, 18).astype(float)
    copies = np.repeat(np.arange(18), weights.astype(int))
    distances = cosine_distances(rows)
    values = []
    for i in copies:
        means = {}
        for label in set(labels[copies].tolist()):
            others = [distances[i, j] for j in copies if labels[j] == label and j != i]
            means[label] = float(np.mean(others)) if others else None
        inside = means.pop(int(labels[i]))
        nearest = min(value for value in means.values() if value is not None)
        values.append(0.0 if inside is None else (nearest - inside) / max(nearest, inside))
    assert silhouette(distances, labels, weights) == pytest.approx(float(np.mean(values)))


def test_distance_ratio_is_that_of_the_pairs() -> None:
    rows, labels = _space(20)
    pairs = [(i, j) for i in range(20) for j in range(20) if i != j]
    inside = [1 - rows[i] @ rows[j] for i, j in pairs if labels[i] == labels[j]]
    between = [1 - rows[i] @ rows[j] for i, j in pairs if labels[i] != labels[j]]
    found = distance_ratio(cosine_distances(rows), labels, np.ones(20))
    assert found == pytest.approx(np.mean(inside) / np.mean(between))


def test_a_tighter_space_has_the_better_figures_and_one_class_has_none() -> None:
    rows, labels = _space()
    mixed = RNG.permutation(labels)
    units = [str(i) for i in range(len(labels))]
    tight, loose = (tightness(rows, told, units, count=50) for told in (labels, mixed))
    assert tight.silhouette > loose.silhouette
    assert tight.ratio < loose.ratio
    assert np.nanquantile(tight.silhouettes, 0.025) > np.nanquantile(loose.silhouettes, 0.5)
    assert np.isnan(silhouette(cosine_distances(rows), labels * 0, np.ones(len(labels))))


def _scores(n: int = 80) -> tuple[np.ndarray, np.ndarray, list[str]]:
    y = RNG.random(n) < 0.4
    return y, np.round(RNG.normal(size=n) + y, 1), [str(i // 3) for i in range(n)]


def test_roc_is_scikit_learns_staircase_inside_its_band() -> None:
    y, score, units = _scores()
    curve = roc(y, score, units)
    fpr, tpr, _ = roc_curve(y, score, drop_intermediate=False)
    assert curve.y == pytest.approx(np.interp(curve.x, fpr, tpr))
    assert curve.y[0] == max(tpr[fpr == 0])
    assert curve.y[-1] == 1.0
    assert (curve.low <= curve.y + 1e-9).all()
    assert (curve.y <= curve.high + 1e-9).all()


def test_precision_is_that_of_the_first_threshold_with_the_recall() -> None:
    y, score, units = _scores()
    curve = precision_recall(y, score, units)
    precision, recall, _ = precision_recall_curve(y, score)
    for at in (0.1, 0.5, 0.9, 1.0):
        reached = [p for p, r in zip(precision, recall, strict=True) if r >= at - 1e-12]
        assert curve.y[round(at * 100)] == pytest.approx(reached[-1])


def test_average_precision_is_scikit_learns_inside_its_interval() -> None:
    y, score, units = _scores()
    value, low, high = average_precision(y, score, units)
    assert value == pytest.approx(average_precision_score(y, score))
    assert low <= value <= high


def test_a_share_of_nothing_has_no_value_and_one_of_all_has_an_interval() -> None:
    assert np.isnan(share_interval(np.array([], bool), [])).all()
    value, low, high = share_interval(np.array([True, False] * 20), [str(i) for i in range(40)])
    assert low < value == 0.5 < high
    assert share_interval(np.full(12, True), list("aabbccddeeff")) == (1.0, *wilson(6, 6))
    assert share_interval(np.full(4, False), list("abab")) == (0.0, *wilson(0, 2))


def test_intervals_below_zero_are_written_without_a_dash_between() -> None:
    assert span(-0.1, -0.2, 0.05) == "−0.100 (−0.200 to 0.050)"
    assert span(0.9, 0.85, 0.95) == "0.900 (0.850–0.950)"
    assert span(None, None, None) == number(float("nan")) == "–"


def test_columns_of_numbers_are_told_from_words() -> None:
    rows = [["a", "0.9 (0.8–1.0)", "6-9", "–"], ["b", "–", "<=5", "–"], ["c", "12 %", "x", "–"]]
    assert Table(["", "", "", ""], rows).numeric == [False, True, False, False]
    assert Table(["one", "two"], []).numeric == [False, False]


def test_hostile_labels_are_text_in_a_chart_and_no_formula() -> None:
    label = '<script>alert("x")</script> $\\frac$'
    chart = interval_chart([Row(label[:30], 0.5, 0.4, 0.6)], "c", f'"{label}"', x_label=label)
    assert "<script" not in chart.svg
    assert "&lt;script&gt;alert" in chart.svg
    assert "http" not in chart.svg


def test_charts_are_the_same_twice_and_share_no_ids() -> None:
    x = np.arange(5.0)
    charts = [
        line_chart([Series("a", x, x * k, style="dots")], "c", f"alt {k}", x_label="x")
        for k in (1, 1, 2)
    ]
    assert charts[0].svg == charts[1].svg
    ids = [set(re.findall(r' id="([^"]+)"', chart.svg)) for chart in charts]
    assert ids[0]
    assert not ids[0] & ids[2]
    for chart, own in zip(charts, ids, strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', chart.svg)) <= own
    assert all('role="img" aria-label="alt' in chart.svg for chart in charts)


def test_a_histogram_names_its_threshold_and_its_groups() -> None:
    groups = {"lesion": RNG.random(50), "background": RNG.random(30)}
    chart = histogram(groups, "c", "a", x_label="p", threshold=0.25)
    assert "kept from 0.250" in chart.svg
    assert "lesion (50)" in chart.svg
    assert "kept from" not in histogram(groups, "c", "a", x_label="p", threshold=-1.0).svg


def test_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    calls = []

    def make() -> dict[str, np.ndarray]:
        calls.append(1)
        return {"x": np.arange(3)}

    cache = Cache(tmp_path / "cache")
    assert cache.arrays(["a"], make)["x"].tolist() == [0, 1, 2]
    cache.arrays(["a"], make)
    assert len(calls) == 1
    next((tmp_path / "cache").glob("*.npz")).write_bytes(b"PK half")
    cache.arrays(["a"], make)
    cache.arrays(["b"], make)
    assert len(calls) == 3


def test_an_experiment_that_cannot_be_read_costs_only_itself(tmp_path: Path) -> None:
    good = {
        **{"name": "share", "recipe": "r", "commit": "c", "command": "x", "part": "select"},
        "arms": [{"arm": "share 0.30", "x": 0.3, "seed": 1, "folder": "a", "figures": {}}],
    }
    (tmp_path / "share.json").write_text(json.dumps(good), "utf-8")
    (tmp_path / "half.json").write_text('{"name": ', "utf-8")
    (tmp_path / "stages.json").write_text(json.dumps(good | {"name": "stages", "arms": [3]}))
    (tmp_path / "other.json").write_text(json.dumps(good | {"name": "<b>"}), "utf-8")
    found = read_experiments(tmp_path)
    assert list(found.by_name) == ["share"]
    assert found.by_name["share"].arms[0].folder == tmp_path / "a"
    assert [fault.partition(":")[0] for fault in found.faults] == [
        "half.json",
        "other.json",
        "stages.json",
    ]
    assert "arms[0]" in found.faults[2]
    assert read_experiments(tmp_path / "nothing").by_name == {}
