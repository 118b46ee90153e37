"""Evidence is measured on what it says: pairs alike but for the lesion, order, floors, sources."""

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="needs torch (extra `train`)")

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from tests.tiny_bundle import build_tiny_bundle
from tests.training.drawn_data import BOX, write_data
from training.__main__ import main
from training.calibrate import ece_floor
from training.card_figures import figures_text
from training.evidence.card_again import differences
from training.evidence.normals import normal_frames, window_pairs
from training.evidence.reliability import grouped_floor, reliability
from training.evidence.sequences import RUN_FRAMES, SMOOTHINGS, runs
from training.figures import part_figures
from training.overlays import OVERLAYS, drawn_folds
from training.report.operating import share_interval
from training.sources import dev_items, read_sources, split_sources

DATA = Path(__file__).parents[3] / "shared" / "data" / "colonoscopy" / "dev"
RNG = np.random.default_rng(11)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evidence")
    build_tiny_bundle(out / "tiny")
    write_data(out)
    return out


def kept_out(paths: list[Path], groups: set[str], tests: list[tuple[Path, str]]) -> list[str]:
    """What of the sources kept for tests is composed as well: by group, or by its very bytes."""
    bytes_of = {hashlib.sha256(path.read_bytes()).digest() for path in paths}
    return [
        path.name
        for path, group in tests
        if group in groups or hashlib.sha256(path.read_bytes()).digest() in bytes_of
    ]


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/colonoscopy")
def test_sources_kept_for_tests_reach_neither_composer_nor_split() -> None:
    images = read_sources(DATA)
    parts = split_sources(images)
    tests = [(item.path, item.group) for item in dev_items(DATA, parts, "test")]
    assert len(tests) == 112
    assert not kept_out([image.path for image in images], set(parts), tests)
    composed = {image.path for image in images}
    for part in ("train", "select", "calibrate", "report"):
        assert {item.path for item in dev_items(DATA, parts, part)} <= composed


def test_guard_of_the_sources_kept_for_tests_can_fail(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"one frame")
    (tmp_path / "c").write_bytes(b"another")
    tests = [(tmp_path / "b", "g1"), (tmp_path / "c", "g2")]
    assert kept_out([tmp_path / "a"], {"g2"}, tests) == ["b", "c"]


def test_pairs_differ_in_the_lesion_alone(folder: Path, tmp_path: Path) -> None:
    pairs = window_pairs(folder / "data", folder / "archive", "select", tmp_path)
    negatives, positives = pairs[::2], pairs[1::2]
    assert len(negatives) == len(positives) >= 10
    assert [i.polyp for i in pairs] == [False, True] * len(negatives)
    for without, with_lesion in zip(negatives, positives, strict=True):
        assert (without.image, without.group) == (with_lesion.image, with_lesion.group)
        boxes = [tuple(map(int, i.path.stem.split("_")[-4:])) for i in (without, with_lesion)]
        sides = [np.sqrt((x1 - x0) * (y1 - y0)) for x0, y0, x1, y1 in boxes]
        assert abs(np.log(sides[0] / sides[1])) <= 0.1
        assert not overlap(boxes[0], BOX)
        assert overlap(boxes[1], BOX) >= 0.8 * overlap(BOX, BOX)
        assert size(without.path) == size(with_lesion.path)


def size(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


def overlap(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    across = min(a[2], b[2]) - max(a[0], b[0])
    return max(across, 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def test_the_clip_is_shown_without_its_watermark(folder: Path, tmp_path: Path) -> None:
    found = normal_frames(folder / "data", folder / "archive", tmp_path)
    sizes = {item.source: size(item.path) for item in found}
    assert sizes == {"Nerthus": (240, 200), "Gastrolab sample video": (240, 184)}


@pytest.mark.parametrize("name", sorted(OVERLAYS))
def test_a_drawn_disturbance_changes_a_part_and_is_drawn_again_alike(name: str) -> None:
    frame = drawn_folds(np.random.default_rng(4), 128, many=False)
    first, again = (OVERLAYS[name](frame, np.random.default_rng(9)) for _ in range(2))
    assert first.size == frame.size
    changed = np.abs(np.asarray(first, int) - np.asarray(frame, int)).max(axis=2) > 12
    assert 0.005 < changed.mean() < 0.5
    assert first.tobytes() == again.tobytes()


def test_stool_and_foam_stay_off_the_black_border() -> None:
    pixels = np.zeros((128, 128, 3), np.uint8)
    pixels[:, 40:] = 150
    for name in ("stool", "bubbles"):
        for seed in range(4):
            shown = OVERLAYS[name](Image.fromarray(pixels), np.random.default_rng(seed))
            assert np.asarray(shown)[:, :34].max() == 0


def test_smoothing_looks_back_only_and_agrees_with_a_loop() -> None:
    z = RNG.normal(size=30)
    for width in (3, 5, 13):
        found = SMOOTHINGS[f"mean of {width}"](z)
        assert found == pytest.approx([z[max(0, i - width + 1) : i + 1].mean() for i in range(30)])
    for smooth in SMOOTHINGS.values():
        assert smooth(z)[:12] == pytest.approx(smooth(z[:12]))
    assert SMOOTHINGS["fading, 0.5"](np.array([1.0, 0.0, 0.0])) == pytest.approx([1, 0.5, 0.25])


def test_runs_of_alarms_are_counted() -> None:
    alarm = np.array([1, 1, 0, 1, 0, 0] + [1] * RUN_FRAMES, bool)
    assert runs(alarm) == [2, 1, RUN_FRAMES]
    assert runs(np.zeros(4, bool)) == runs(np.zeros(0, bool)) == []


def test_the_floor_of_grouped_items_is_higher_and_that_of_single_ones_the_usual() -> None:
    p = RNG.uniform(size=600)
    alone = [str(i) for i in range(600)]
    assert grouped_floor(p, alone) == pytest.approx(ece_floor(p), abs=0.005)
    assert grouped_floor(p, [str(i // 60) for i in range(600)]) > 2 * ece_floor(p)


def test_reliability_tells_a_calibrated_model_from_a_shifted_one() -> None:
    p, groups = RNG.uniform(size=3000), [str(i // 3) for i in range(3000)]
    y = RNG.random(3000) < p
    good, bad = reliability(p, y, groups), reliability(np.sqrt(p), y, groups)
    assert good["ece15"] < 0.04 < 0.12 < bad["ece15_low"] < bad["ece15"] < bad["ece15_high"]
    assert good["brier_low"] < good["brier"] < bad["brier"]
    assert good["brier"] == pytest.approx(float(np.mean((p - y) ** 2)))


def test_a_single_group_tells_of_one_group() -> None:
    value, low, high = share_interval(np.array([True] * 54 + [False]), ["clip"] * 55)
    assert value == pytest.approx(54 / 55)
    assert low < 0.25
    assert high > 0.97


@pytest.mark.slow
def test_command_measures_everything_and_writes_the_page(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out" / "evidence.json"
    command = ["evidence", "--bundle", str(folder / "tiny"), "--archive", str(folder / "archive")]
    command += ["--work", str(folder / "work"), "--out", str(out)]
    assert main([*command, "--data", str(folder / "data")]) == 0
    found = json.loads(out.read_text("utf-8"))
    assert found["normals"]["same_source"]["window"]["all"]["apart"]["auroc"] > 0.9
    normal = found["normals"]["cross_source"]["normal"]
    assert normal["Gastrolab sample video"]["polyp_detection"]["negative"]["balanced"]["items"] == 4
    assert set(found["signatures"]["disturbed"]) == {*OVERLAYS, "folds"}
    assert (
        found["signatures"]["labelled"]["stool or turbid fluid"]["positive"]["balanced"]["items"]
        == 4
    )
    assert found["sequences"]["sequences"] == 2
    drift = found["signatures"]["drift"]["polyp_detection"]
    assert list(drift["without"]) == ["1", "2", "5", "10", "30"]  # 50 windows without a lesion
    for task in ("malignancy", "polyp_detection"):
        assert found["reliability"]["patients"][task]["items"] == 2000
    text = (folder / "out" / "evidence.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    for title in ("Normal frames", "Failure signatures", "Frame order", "Calibration"):
        assert f"## {title}" in text
    assert not re.search(r"\bnan\b", text)


def test_card_is_written_anew_and_says_that_the_archive_is_another(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "card"
    command = ["card", "--bundle", str(folder / "tiny"), "--archive", str(folder / "archive")]
    command += ["--data", str(folder / "data"), "--part", "select", "--out", str(out)]
    assert main(command) == 0
    card = (out / "MODEL_CARD.md").read_text("utf-8")
    auroc = json.loads((out / "metrics.json").read_text("utf-8"))["patients"]["malignancy"]["unify"]
    assert f"malignancy (1000) | {auroc['auroc']:.3f}" in card
    told = capsys.readouterr().out
    assert card in told
    assert "the archive is not the bundle's own" in told
    assert "differs" not in told


def test_closing_figures_tell_of_calibration_on_thousands_of_items(
    folder: Path, tmp_path: Path
) -> None:
    data, archive = write_data(tmp_path, "report")
    figures = part_figures(Encoder(Bundle.open(folder / "tiny")), archive, data, "report")
    for level in ("frames", "patients"):
        for task in ("malignancy", "polyp_detection"):
            told = figures["reliability"][level][task]
            assert told["ece15_low"] <= told["ece15_high"]
    assert figures["reliability"]["patients"]["malignancy"]["items"] == 2000
    text = figures_text(figures)
    assert "Calibration on 2,000 items and more." in text
    assert f"| patients, anew | malignancy | 2000 ({told['groups']})" in text


def test_figures_that_differ_are_named_by_their_place() -> None:
    was = {"part": "report", "measured": "2026-11-24", "a": {"b": [0.5, None], "c": 1.0}, "d": 2.0}
    now = {"part": "report", "measured": "2026-11-25", "a": {"b": [0.5009, 1.0], "c": 1.002}}
    assert differences(was, was) == {}
    assert differences(was, now) == {
        "/a/c": (1.0, 1.002),
        "/d": (2.0, None),
        "/a/b/1": (None, 1.0),
    }
