"""A bundle's reference: of whole frames where there are any, an exam a group, added or packed."""

import dataclasses
import json
import logging
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleError
from model_store.reference import Reference, write_reference
from tests.tiny_bundle import build_tiny_bundle
from tests.training.colour_archive import write_archive
from training.__main__ import main
from training.fitting import part_items
from training.items import Embedded
from training.reference import add_reference, make_reference, sketch

ROWS = np.random.default_rng(0).normal(size=(400, 24)) * np.geomspace(1, 1e-2, 24)
MARGINS = ROWS[:, 0] * 3 + np.random.default_rng(1).normal(size=400)
GROUPS = [f"g{i // 4}" for i in range(400)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("data") / "archive", ("calibrate",))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def of_frames() -> Reference:
    return sketch(ROWS, MARGINS, GROUPS, threshold=0.5)


def test_axes_have_deviation_one_and_say_nothing_of_the_score() -> None:
    found = of_frames()
    along = ROWS @ found.axes.T
    assert along.std(axis=0) == pytest.approx(np.ones(24), rel=1e-3)
    left = along - MARGINS[:, None] * found.slopes
    for side in (found.threshold <= MARGINS, found.threshold > MARGINS):
        within = MARGINS[side] - MARGINS[side].mean()
        assert np.abs(within @ (left[side] - left[side].mean(axis=0))).max() < 60
    plain = np.abs((MARGINS - MARGINS.mean()) @ along).max()
    assert plain > 300  # the comparison would notice


def test_an_exam_is_a_group_and_there_are_no_more_than_the_most() -> None:
    found = of_frames()
    assert len(found.exams) == 100
    assert found.exams.frames.sum(axis=1).tolist() == [4] * 100
    every = sketch(ROWS, MARGINS, [str(i) for i in range(400)], threshold=0.5)
    assert len(every.exams) == 256


def test_a_reference_of_256_exams_in_256_dimensions_is_under_300_kb() -> None:
    rows = np.random.default_rng(2).normal(size=(600, 256))
    full = sketch(rows, rows[:, 0], [str(i) for i in range(600)], threshold=0.0)
    assert len(write_reference(full)) < 300_000


def test_it_is_added_to_a_packed_bundle_which_stays_as_it_was(
    tiny: Path, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "with"
    command = ["reference", "--bundle", str(tiny), "--archive", str(archive), "--out", str(out)]
    assert main(command) == 0
    assert "exams" in capsys.readouterr().out
    before, after = Bundle.open(tiny), Bundle.open(out)
    assert before.reference is None
    assert after.reference is not None
    assert not after.reference.as_met
    assert after.digest != before.digest
    files = dict(after.manifest.files)
    del files["reference.npz"]
    assert files == before.manifest.files
    again = add_reference(out, archive, None, tmp_path / "again")
    assert again.digest == after.digest
    assert main(command) == 1  # it exists


def test_an_exam_of_the_archive_is_a_source_group(tiny: Path, archive: Path) -> None:
    encoder = Encoder(Bundle.open(tiny))
    found = part_items(encoder, archive, None, "calibrate")
    calibration = encoder.bundle.calibrations["polyp_detection"]
    reference = make_reference(encoder, archive, found, calibration)
    assert reference is not None
    assert len(reference.exams) == len({item.group for item in found.items})
    # At the balanced threshold a tiny bundle's frame has margin 0.
    assert reference.threshold == pytest.approx(0.0, abs=1e-9)


def test_made_views_stay_out_where_there_are_frames_as_filmed(tiny: Path, archive: Path) -> None:
    encoder = Encoder(Bundle.open(tiny))
    found = part_items(encoder, archive, None, "calibrate")
    items = [
        dataclasses.replace(item, kind="frame" if i % 4 == 0 else item.kind)
        for i, item in enumerate(found.items)
    ]
    marked = Embedded(items, found.embeddings, found.reasons)
    calibration = encoder.bundle.calibrations["polyp_detection"]
    reference = make_reference(encoder, archive, marked, calibration)
    assert reference is not None
    assert int(reference.exams.frames.sum()) == sum(item.kind == "frame" for item in items)


def test_prevalence_is_as_met_in_a_hospitals_archive_alone(tiny: Path, tmp_path: Path) -> None:
    own = write_archive(tmp_path / "own", ("calibrate",))
    encoder = Encoder(Bundle.open(tiny))
    found = part_items(encoder, own, None, "calibrate")
    (own / "archive.json").write_text(json.dumps({"format": 1, "kind": "ingested"}))
    calibration = encoder.bundle.calibrations["polyp_detection"]
    reference = make_reference(encoder, own, found, calibration)
    assert reference is not None
    assert reference.as_met


def test_too_few_exams_make_no_reference_and_say_so(
    tiny: Path, archive: Path, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    encoder = Encoder(Bundle.open(tiny))
    found = part_items(encoder, archive, None, "calibrate")
    few = found.where([item.group in ("calibrateb0", "calibrateb1") for item in found.items])
    calibration = encoder.bundle.calibrations["polyp_detection"]
    with caplog.at_level(logging.WARNING):
        assert make_reference(encoder, archive, few, calibration) is None
    assert "2 exams" in caplog.text


def test_an_archive_of_too_few_exams_is_refused(tiny: Path, tmp_path: Path) -> None:
    small = write_archive(tmp_path / "small", ("calibrate",))
    path = small / "views" / "views.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    with pytest.raises(BundleError, match="at least 12 exams"):
        add_reference(tiny, small, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
