"""The composer keeps every rule of DESIGN section 6; needs the real frames, else skips."""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training.attributes import extract, polyp_mentioned, strip_impression, strip_pathology
from training.compose import compose
from training.overlays import OVERLAYS
from training.patients import Patient, patients, read_views
from training.records import PARTS, Archive, read, read_truth
from training.sources import (
    SourceImage,
    crop_boxes,
    dev_items,
    read_sources,
    read_split,
    split_sources,
)
from training.spoil import SPOILS
from training.viewpool import PoolView, match_weights
from training.views import background_windows, field_of_view, lesion_windows
from training.weave import DISTURBED

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "colonoscopy" / "dev"
needs_data = pytest.mark.skipif(
    not (DATA / "index.csv").is_file(), reason="the real frames (../shared/data) are not here"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("composed") / "archive"
    compose(DATA, out, 3, scale=0.06, phantom_exams=2, limit=14)
    return out


@pytest.fixture(scope="module")
def archive(folder: Path) -> Archive:
    return read(folder, strict=True)


@pytest.fixture(scope="module")
def truth(folder: Path) -> dict[str, dict[str, Any]]:
    return read_truth(folder)


@pytest.fixture(scope="module")
def images() -> list[SourceImage]:
    return read_sources(DATA)


@needs_data
def test_no_test_source_is_ever_composed(truth: dict[str, Any]) -> None:
    sources = {frame["source"] for exam in truth.values() for frame in exam["frames"]}
    assert sources == {"bkai", "kvasir", "cvc", "phantom"}


@needs_data
def test_every_exam_stays_inside_one_part_of_the_source_split(
    folder: Path, archive: Archive, truth: dict[str, Any]
) -> None:
    parts = read_split(folder / "source_split.json")
    for record in archive.records:
        frames = truth[record.record_id]["frames"]
        assert set(record.groups) == {frame["group"] for frame in frames}
        for group in record.groups:
            assert parts.get(group, "train") == record.part


@needs_data
def test_real_exams_have_one_source_and_lesions_of_distinct_groups(truth: dict[str, Any]) -> None:
    for exam in truth.values():
        assert len({frame["source"] for frame in exam["frames"]}) == 1
        groups = [lesion.get("group") for lesion in exam["lesions"]]
        if exam["source"] != "phantom":
            assert len(set(groups)) == len(groups)


@needs_data
def test_lesion_share_is_hidden_between_two_and_seventy_per_cent(truth: dict[str, Any]) -> None:
    shares = [
        np.mean([f["kind"] == "lesion" for f in exam["frames"]])
        for exam in truth.values()
        if exam["lesions"]
    ]
    assert min(shares) >= 0.02
    assert max(shares) <= 0.75
    assert max(shares) > 2 * min(shares)
    counts = Counter(min(len(exam["lesions"]), 2) for exam in truth.values())
    assert set(counts) == {0, 1, 2}


@needs_data
def test_each_lesion_has_one_to_three_views_and_no_view_comes_twice_in_an_exam(
    truth: dict[str, Any],
) -> None:
    for exam in truth.values():
        shown = Counter(f["lesion"] for f in exam["frames"] if f["kind"] == "lesion")
        assert set(shown) == set(range(len(exam["lesions"])))
        assert max(shown.values(), default=1) <= 3
        views = [f["view"] for f in exam["frames"] if f["kind"] != "non_informative"]
        assert len(views) == len(set(views))


@needs_data
def test_matched_crops_serve_both_kinds(truth: dict[str, Any]) -> None:
    frames = [f for exam in truth.values() for f in exam["frames"] if f["source"] == "bkai"]
    for kind, mark in (("lesion", "_p_"), ("background", "_n_")):
        assert np.mean([mark in f["view"] for f in frames if f["kind"] == kind]) > 0.03


@needs_data
def test_whole_frames_are_shown_with_their_lesions_and_without(
    folder: Path, truth: dict[str, Any]
) -> None:
    frames = [f for exam in truth.values() for f in exam["frames"] if f["source"] == "bkai"]
    for kind in ("lesion", "background"):
        assert 0.05 < np.mean([f["scope"] for f in frames if f["kind"] == kind]) < 0.6
    whole = [row for row in read_views(folder) if row["scope"]]
    assert {row["kind"] for row in whole} == {"lesion", "background"}
    # Patients are made of windows: not every lesion has a whole-frame view.
    drawn = {view for patient in patients(folder, "report", 1) for view in patient.views}
    assert drawn
    assert not drawn & {row["view"] for row in whole}


@needs_data
def test_drawn_frames_are_at_most_a_tenth_of_training(folder: Path) -> None:
    from training.compose import EXAMS, PHANTOM_EXAMS

    assert PHANTOM_EXAMS / (sum(EXAMS.values()) + PHANTOM_EXAMS) <= 0.1


@needs_data
def test_every_stored_frame_is_a_square_of_one_size_and_treatment(archive: Archive) -> None:
    tables = set()
    for record in archive.records[::4]:
        for frame in record.frames:
            with Image.open(frame) as image:
                assert image.size == (256, 256)
                tables.add(str(image.quantization))
    assert len(tables) == 1


@needs_data
def test_non_informative_variants_come_from_both_kinds(truth: dict[str, Any]) -> None:
    spoiled = [f for exam in truth.values() for f in exam["frames"] if f["spoiled"]]
    bases = Counter(frame["base"] for frame in spoiled)
    assert min(bases.values()) > 0.5 * max(bases.values())
    assert {frame["spoiled"] for frame in spoiled} == set(SPOILS)


@needs_data
def test_a_disturbance_in_part_says_nothing_of_the_label(truth: dict[str, Any]) -> None:
    drawn = [e for e in truth.values() if e["source"] != "phantom"]
    clear = [f for e in drawn if e["part"] == "train" for f in e["frames"] if not f["spoiled"]]
    disturbed = [f for f in clear if f["overlay"]]
    assert {frame["overlay"] for frame in disturbed} == set(OVERLAYS)
    assert all(frame["kind"] == frame["base"] for frame in disturbed)
    for kind in ("lesion", "background"):
        shown = [bool(f["overlay"]) for f in clear if f["kind"] == kind]
        assert abs(sum(shown) / len(shown) - DISTURBED) < 5 * (0.25 * 0.75 / len(shown)) ** 0.5
    others = [f for e in drawn if e["part"] != "train" for f in e["frames"]]
    assert not any(frame["overlay"] for frame in others)


@needs_data
def test_truth_lists_the_frames_of_the_record_in_order(
    folder: Path, archive: Archive, truth: dict[str, Any]
) -> None:
    for record in archive.records:
        files = [folder.resolve() / f["file"] for f in truth[record.record_id]["frames"]]
        assert list(record.frames) == files


@needs_data
def test_reports_say_what_was_measured_and_nothing_else(
    archive: Archive, truth: dict[str, Any]
) -> None:
    for record in archive.records:
        exam = truth[record.record_id]
        assert polyp_mentioned(record.report) is bool(exam["lesions"])
        findings = extract(record.report, size_words=True)
        assert len(findings) == len(exam["lesions"])
        for finding, lesion in zip(findings, exam["lesions"], strict=True):
            have = {k: v.value for k, v in (finding.attributes | finding.context).items()}
            assert have == lesion["told"]
            assert lesion["told"].items() <= lesion["attributes"].items()
            assert len(lesion["attributes"]) >= 5
            if finding.impression:
                assert finding.impression == lesion["histology"]


@needs_data
def test_only_known_histology_is_called_malignant_or_benign(truth: dict[str, Any]) -> None:
    for exam in truth.values():
        found = [lesion["histology"] for lesion in exam["lesions"]]
        assert set(found) <= {"neoplastic", "non-neoplastic", None}
        expected = True if "neoplastic" in found else None if None in found else False
        assert exam["malignant"] is expected
        if exam["source"] in ("kvasir", "cvc"):
            assert set(found) <= {None}


@needs_data
def test_fields_are_dropped_at_the_same_rate_for_all_sources(truth: dict[str, Any]) -> None:
    told, known = Counter(), Counter()
    for exam in truth.values():
        for lesion in exam["lesions"]:
            told[exam["source"]] += len(lesion["told"])
            known[exam["source"]] += len(lesion["attributes"])
    for source in ("bkai", "kvasir"):
        spread = 4 * np.sqrt(0.16 / known[source])
        assert told[source] / known[source] == pytest.approx(0.8, abs=spread)


@needs_data
def test_stripped_reports_hold_no_histology(archive: Archive) -> None:
    for record in archive.records:
        bare = strip_impression(strip_pathology(record.report)).lower()
        assert not any(word in bare for word in ("adenom", "neoplas", "hyperplas", "dysplas"))


@needs_data
def test_background_windows_touch_no_box_and_lesion_windows_show_theirs(
    images: list[SourceImage],
) -> None:
    rng = np.random.default_rng(0)
    frames = [image for image in images if image.kind == "frame"]
    for image in frames[::97]:
        pixels = np.asarray(Image.open(image.path).convert("RGB"))
        field = field_of_view(image, pixels)
        for window in background_windows(image, field, rng, 5):
            x0, y0, x1, y1 = window.box
            assert field[y0:y1, x0:x1].all()
            assert 0.98 <= window.aspect <= 1.38
            for bx0, by0, bx1, by1 in image.boxes:
                assert x0 >= bx1 or x1 <= bx0 or y0 >= by1 or y1 <= by0
        for window in lesion_windows(image, field, 0, rng, [90.0, 140.0]):
            x0, y0, x1, y1 = window.box
            assert field[y0:y1, x0:x1].all()
            assert window.cover >= 0.5


@needs_data
def test_views_hold_no_black_border(folder: Path) -> None:
    dark = []
    windows = [row for row in read_views(folder) if not row["scope"]]
    for row in windows[::5]:
        grey = np.asarray(Image.open(row["path"]).convert("L"), dtype=float)
        edges = [grey[:8].mean(), grey[-8:].mean(), grey[:, :8].mean(), grey[:, -8:].mean()]
        dark.append(min(edges) < 12)
    # Lumen may reach an edge; a border would do so in a large share of all views.
    assert np.mean(dark) < 0.05


@needs_data
def test_crop_boxes_lie_on_the_lesion_of_the_parent_frame(images: list[SourceImage]) -> None:
    frames = {image.name: image for image in images if image.kind == "frame"}
    for source in ("bkai", "kvasir", "cvc"):
        crops = [i for i in images if i.kind == "crop" and i.source == source]
        polyps = [i for i in crops if i.label == "polyp"][::25]
        inside = [bool(crop_boxes(c, frames[c.name.removesuffix("_p")]).boxes) for c in polyps]
        assert np.mean(inside) > 0.95
        normal = [i for i in crops if i.label == "normal"][::25]
        free = [not crop_boxes(c, frames[c.name.removesuffix("_n")]).boxes for c in normal]
        assert np.mean(free) > 0.9


@needs_data
def test_the_source_split_is_stratified_and_no_group_is_in_two_parts(
    images: list[SourceImage],
) -> None:
    parts = split_sources(images, 0)
    assert parts == split_sources(list(reversed(images)), 0)
    assert parts["kvasir_089ea372"] == "train"
    share: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images:
        if image.kind == "frame" and image.source == "bkai":
            share[image.histology][parts[image.group]] += 1
    for kind in ("neoplastic", "non-neoplastic"):
        total = sum(share[kind].values())
        assert share[kind]["train"] / total == pytest.approx(0.62, abs=0.03)
        assert share[kind]["report"] / total == pytest.approx(0.18, abs=0.03)


@needs_data
def test_dev_items_cover_each_part_once_and_keep_the_test_sources_apart(
    images: list[SourceImage],
) -> None:
    parts = split_sources(images, 0)
    found = {part: dev_items(DATA, parts, part) for part in (*PARTS, "test")}
    assert sum(len(items) for items in found.values()) == 3937
    assert {item.source.split()[0] for item in found["test"]} == {
        "Nerthus",
        "EndoAngel",
        "Gastrolab",
    }
    assert all(item.path.is_file() for item in found["report"])
    groups = [{item.group for item in found[part]} for part in PARTS]
    assert sum(len(g) for g in groups) == len(set().union(*groups))


@needs_data
def test_patients_keep_the_fixed_protocol(folder: Path) -> None:
    found = patients(folder, "report", 2, pairs=60)
    assert len(found) == 2 * 2 * 60
    by_pair: dict[tuple[int, int], list[Patient]] = defaultdict(list)
    for patient in found:
        by_pair[patient.seed, patient.pair].append(patient)
        assert 1 <= len(patient.histologies) <= 4
        assert len(set(patient.lesion_groups)) == len(patient.lesion_groups)
        shown = Counter(i for i in patient.lesion_of if i >= 0)
        assert all(1 <= n <= 3 for n in shown.values())
        assert 10 <= sum(i < 0 for i in patient.lesion_of) <= 40
        assert len(set(patient.views)) == len(patient.views)
        assert patient.positive is ("neoplastic" in patient.histologies)
        assert all(path.is_file() for path in patient.files)
    for one, other in by_pair.values():
        assert {one.positive, other.positive} == {True, False}
        assert len(one.views) == len(other.views)
        assert one.dims == other.dims
        assert Counter(i for i in one.lesion_of) == Counter(i for i in other.lesion_of)
    multi = [p for p in found if p.positive and len(p.histologies) >= 2]
    assert np.mean(["non-neoplastic" in p.histologies for p in multi]) >= 0.4
    assert patients(folder, "report", 2, pairs=60) == found


def _view(rng: np.random.Generator, shift: float, group: str) -> PoolView:
    scores = tuple(float(v) for v in rng.normal(0, 1, 6) + np.array([shift, 0, 0, shift, 0, 0]))
    return PoolView("v", b"", "i", "bkai", group, "1x1", "", (0, 0, 1, 1), scores)


def test_matching_weights_give_backgrounds_the_covariates_of_lesions() -> None:
    rng = np.random.default_rng(0)
    lesions = [_view(rng, 0.8, f"a{i}") for i in range(600)]
    backgrounds = [_view(rng, 0.0, f"b{i}") for i in range(1500)]
    weighted = match_weights(lesions, backgrounds)
    weight = np.array([view.weight for view in weighted])
    have = np.array([view.scores for view in weighted])
    want = np.mean([view.scores for view in lesions], axis=0)
    assert weight.mean() == pytest.approx(1.0)
    assert np.abs(np.average(have, axis=0, weights=weight) - want).max() < 0.2


@needs_data
def test_the_split_written_beside_the_archive_is_the_one_used(folder: Path) -> None:
    body = json.loads((folder / "source_split.json").read_text())
    assert body["parts"] == split_sources(read_sources(DATA))  # whatever the archive's seed
