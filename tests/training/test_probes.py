"""The probes find shortcuts where there are some, and none where there are none."""

import json
from pathlib import Path

import numpy as np
import pytest

from training.errors import ArchiveRefused
from training.metrics import stratified_auroc
from training.patients import Patient, patients
from training.phantom import compose_phantom
from training.probes import (
    NoPixel,
    counts_probe,
    no_pixel_baseline,
    report_probes,
    source_probe,
)
from training.records import Record
from training.sources import DevItem

SOURCES = ("bkai", "cvc")


def _rows(histology_by_stratum: dict[str, tuple[str, ...]], lesions: int = 12) -> list[dict]:
    rows = [
        {
            "view": f"b{i}",
            "file": f"b{i}.jpg",
            "kind": "background",
            "part": "report",
            "source": "bkai",
            "group": f"gb{i}",
            "dims": "1x1",
            "lesion_id": None,
            "histology": None,
            "weight": 1.0,
        }
        for i in range(60)
    ]
    for dims, kinds in histology_by_stratum.items():
        for kind in kinds:
            for lesion in range(lesions):
                name = f"{dims}{kind}{lesion}"
                rows += [
                    {
                        "view": f"{name}v{v}",
                        "file": f"{name}{v}.jpg",
                        "kind": "lesion",
                        "part": "report",
                        "source": "bkai",
                        "group": f"g{name}",
                        "dims": dims,
                        "lesion_id": name,
                        "histology": kind,
                        "weight": 1.0,
                    }
                    for v in range(3)
                ]
    return rows


BOTH = ("neoplastic", "non-neoplastic")


def test_counts_tell_nothing_about_composed_patients() -> None:
    found = patients(_rows({"a": BOTH, "b": BOTH}), "report", 3, pairs=60)
    assert 0.45 <= counts_probe(found) <= 0.55


def test_counts_probe_finds_patients_whose_counts_give_them_away() -> None:
    rng = np.random.default_rng(0)
    found = []
    for i in range(200):
        positive, more = bool(i % 2), int(rng.integers(10, 20)) + 15 * (i % 2)
        views = tuple(f"v{n}" for n in range(more + 1))
        found.append(
            Patient(
                f"p{i}",
                0,
                positive,
                views,
                (),
                (0, *(-1,) * more),
                ("x",),
                ("g",),
                ("g",),
                ("d",),
                i // 2,
            )
        )
    assert counts_probe(found) > 0.9


def test_strata_with_one_kind_of_histology_are_never_used() -> None:
    rows = _rows({"a": BOTH, "only": ("neoplastic",)})
    assert {d for p in patients(rows, "report", 1, pairs=40) for d in p.dims} == {"a"}


def test_unknown_histology_never_enters_a_patient() -> None:
    rows = _rows({"a": BOTH})
    for row in rows:
        if row["lesion_id"] and row["lesion_id"].endswith("0"):
            row["histology"] = None
    used = {h for p in patients(rows, "report", 1, pairs=40) for h in p.histologies}
    assert used == set(BOTH)


def test_a_small_part_still_gives_patients_of_distinct_groups() -> None:
    rows = _rows({"a": BOTH}, lesions=2)[:-4]
    found = patients(rows, "report", 1, pairs=20)
    assert len(found) == 40
    assert all(len(set(p.lesion_groups)) == len(p.lesion_groups) for p in found)


def test_a_part_without_both_kinds_is_refused() -> None:
    with pytest.raises(ArchiveRefused, match="both kinds"):
        patients(_rows({"a": ("neoplastic",)}), "report")
    with pytest.raises(ArchiveRefused, match="both kinds"):
        patients(_rows({"a": BOTH}), "select")


def _reports(texts: dict[str, str]) -> tuple[list[Record], dict]:
    records, truth = [], {}
    for i in range(120):
        source = SOURCES[i % 2]
        records.append(Record(f"r{i}", f"p{i}", texts[source], ()))
        truth[f"r{i}"] = {"source": source, "lesions": [{"group": f"g{i}"}]}
    return records, truth


def test_source_probe_finds_a_template_that_belongs_to_one_source() -> None:
    told = source_probe(
        *_reports(
            {"bkai": "Findings: a red polyp in Hanoi style.", "cvc": "Findings: a red polyp."}
        )
    )
    assert told.findings > 0.95


def test_source_probe_is_at_chance_for_equal_texts_and_ignores_pathology() -> None:
    same = source_probe(
        *_reports(
            {
                "bkai": "Findings: a red polyp was seen.\nPathology: tubular adenoma.",
                "cvc": "Findings: a red polyp was seen.\nPathology: hyperplastic polyp.",
            }
        )
    )
    assert same.findings == pytest.approx(0.5, abs=0.1)


def test_stratified_auroc_is_the_pair_weighted_mean() -> None:
    truth = np.array([1, 0, 1, 0, 0, 1], dtype=bool)
    scores = np.array([0.9, 0.1, 0.2, 0.8, 0.3, 0.7])
    strata = ["a", "a", "b", "b", "b", "c"]
    # a: 1 pair, right; b: 2 pairs, both wrong; c has no pair.
    assert stratified_auroc(truth, scores, strata) == pytest.approx(1 / 3)
    assert np.isnan(stratified_auroc(truth[:1], scores[:1], strata[:1]))


def _item(i: int, dims: str, area: float, kind: str) -> DevItem:
    return DevItem("frame", "polyp", kind, f"g{i}", "BKAI", dims, Path(f"f{i}.jpg"), area, (), "")


def test_no_pixel_baseline_sees_confounded_dimensions_and_areas() -> None:
    rng = np.random.default_rng(1)
    items = []
    for i in range(300):
        kind = BOTH[i % 2]
        dims = "a" if (i % 2 == 0) == (rng.random() < 0.8) else "b"
        items.append(
            _item(i, dims, float(rng.uniform(0.1, 0.2) if i % 2 else rng.uniform(0.15, 0.3)), kind)
        )
    base = no_pixel_baseline(items[:200], items[200:], "frame")
    assert base.dimensions > 0.7
    assert base.both > base.dimensions
    assert 0.5 < base.within < 1.0
    assert base.items == 100


def test_the_baseline_uses_nothing_but_dimensions_and_area() -> None:
    rng = np.random.default_rng(2)
    train = [
        _item(i, "ab"[i % 2], float(rng.uniform(0.1, 0.2) * (1 + i % 2)), BOTH[i % 2])
        for i in range(100)
    ]
    fitted = NoPixel(train)
    low, high, unknown = fitted.scores(["b", "a", "a"], np.array([0.3, 0.1, np.nan]))
    assert high > low
    assert np.isfinite(unknown)
    with pytest.raises(ArchiveRefused, match="both histologies"):
        NoPixel(train[::2])


def test_probes_of_a_phantom_archive_are_written_beside_it(tmp_path: Path) -> None:
    compose_phantom(tmp_path / "a", 16, 2)
    text = report_probes(tmp_path / "a")
    figures = json.loads((tmp_path / "a" / "probes.json").read_text())
    assert "shortcut" in text
    assert set(figures) == {"shortcut", "source", "counts", "no_pixel"}
