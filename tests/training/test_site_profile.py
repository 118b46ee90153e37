"""From a table of labels to a profile that a service takes; what is wrong with it is named."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.errors import ProfileMismatch
from model_store.profile import SiteProfile, read_profile
from tests.tiny_bundle import frame_png
from tests.training.colour_archive import mixed
from tests.training.scored_archive import BLACK, dark_gate_bundle
from training.__main__ import main
from training.fewshot.labels import read_labelled

Row = tuple[str, str, str]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_gate_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    """Fifty frames of 25 patients: reddish polyps, paler mucosa; some of them the other way."""
    folder = tmp_path_factory.mktemp("site")
    rng = np.random.default_rng(4)
    rows = []
    for i in range(50):
        polyp = i % 2 == 0
        share = rng.normal(0.62 if polyp else 0.46, 0.06)
        # One pixel of the size apart, so that no two files are the same picture.
        (folder / f"{i}.png").write_bytes(frame_png(mixed(share), side=90 + i))
        rows.append((f"{i}.png", "polyp" if polyp else "no_polyp", f"p{i // 2 % 25}"))
    (folder / "dark.png").write_bytes(frame_png(BLACK))
    (folder / "torn.png").write_bytes(frame_png(BLACK)[:60])
    (folder / "again.png").write_bytes((folder / "0.png").read_bytes())
    return folder, rows


def table(path: Path, rows: Sequence[Sequence[str]], head: str = "file,label,patient_id") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([head.split(","), *rows])
    return path


def run(bundle: Path, labels: Path, images: Path, out: Path, *more: str) -> int:
    given = ["--bundle", str(bundle), "--labels", str(labels), "--images", str(images)]
    return main(["fewshot", "profile", *given, "--site", "here", "--out", str(out), *more])


@pytest.fixture(scope="module")
def made(
    bundle: Path, site: tuple[Path, list[Row]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SiteProfile]:
    """A profile of labels with every kind of bad file beside the good ones."""
    images, rows = site
    folder = tmp_path_factory.mktemp("made")
    bad = [(name, "polyp", "p99") for name in ("dark.png", "torn.png", "gone.png", "again.png")]
    few = [("0.png", "malignant", "p0"), ("1.png", "benign", "p0")]
    labels = table(folder / "labels.csv", [*rows, *bad, *few])
    assert run(bundle, labels, images, folder / "site-profile.json") == 0
    return labels, read_profile((folder / "site-profile.json").read_bytes())


def test_it_counts_what_it_rests_on_and_fits_the_bundle(
    made: tuple[Path, SiteProfile], bundle: Path
) -> None:
    profile = made[1]
    task = profile.tasks["polyp_detection"]
    assert set(profile.tasks) == {"polyp_detection"}
    counts = task.labels
    assert (counts.positive, counts.negative, counts.patients, counts.set_aside) == (25, 25, 25, 1)
    local = profile.calibrations(Bundle.open(bundle))["polyp_detection"]
    assert local.operating_points["sensitivity_first"].measured["frame_sensitivity"] > 0.8
    assert profile.provenance["held_out_by"] == "patient"
    assert profile.site == "here"


def test_every_figure_has_its_interval(made: tuple[Path, SiteProfile]) -> None:
    task = made[1].tasks["polyp_detection"]
    for point in task.operating_points.values():
        for name in ("frame_sensitivity", "frame_specificity"):
            found = point.measured
            assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]
    assert task.measured["zero_shot"]["low"] <= task.measured["zero_shot"]["auroc"]
    assert set(task.measured["adapters"]) == {"linear", "cache"}
    assert task.adapter is None  # colour is all there is, and the margin has it


def test_it_holds_no_patient_and_no_file(made: tuple[Path, SiteProfile]) -> None:
    text = (made[0].parent / "site-profile.json").read_text()
    assert "p99" not in text
    assert ".png" not in text


def test_bad_files_are_named_and_missing_patients_are_told(
    bundle: Path,
    site: tuple[Path, list[Row]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    images, rows = site
    bad = [(name, "no_polyp") for name in ("torn.png", "gone.png", "again.png")]
    labels = table(tmp_path / "labels.csv", [*(row[:2] for row in rows), *bad], "file,label")
    assert run(bundle, labels, images, tmp_path / "p.json") == 0
    shown = capsys.readouterr().out
    assert "left out, 3 files" in shown
    assert "gone.png: No such file" in shown
    assert "torn.png: image_" in shown
    assert "again.png: the same picture as 0.png" in shown
    assert "figures may be too good" in shown
    profile = read_profile((tmp_path / "p.json").read_bytes())
    assert profile.provenance["held_out_by"] == "file"


def test_the_profile_of_another_bundle_is_refused(
    made: tuple[Path, SiteProfile], tmp_path: Path
) -> None:
    other = Bundle.open(dark_gate_bundle(tmp_path / "other", version="2.0.0"))
    with pytest.raises(ProfileMismatch):
        made[1].calibrations(other)


FEW = [(f"{i}.png", "polyp" if i % 2 == 0 else "no_polyp", f"p{i}") for i in range(12)]
ONE_CLASS = [(f"{i}.png", "polyp", f"p{i}") for i in range(50)]
FEW_PATIENTS = [(f"{i}.png", "polyp" if i % 2 == 0 else "no_polyp", f"p{i % 3}") for i in range(50)]


@pytest.mark.parametrize(
    ("head", "rows", "said"),
    [
        ("file,label", FEW, "at least 20 usable positive frames of 5 patients, found 6 of 6"),
        ("file,label", ONE_CLASS, "at least 20 usable negative frames of 5 patients, found 0"),
        ("file,label,patient_id", FEW_PATIENTS, "frames of 5 patients, found 25 of 3"),
        ("file,label", [], "expected labels, found none"),
        ("file;label", [("1.png", "polyp")], "expected the columns file, label"),
        ("file,label", [("1.png", "polyps")], ":2: expected a label of polyp, no_polyp, malignant"),
        ("file,label", [("", "polyp")], ":2: expected a file, found none"),
        (
            "file,label",
            [("1.png", "polyp"), ("1.png", "no_polyp"), ("2.png", "x")],
            ":3: expected one label of polyp_detection for a file, found two (and 1 more lines)",
        ),
        (
            "file,label,patient_id",
            [("1.png", "polyp", "a"), ("1.png", "malignant", "b")],
            ":3: expected one patient for a file",
        ),
    ],
)
def test_labels_that_cannot_be_used_are_refused(
    bundle: Path,
    site: tuple[Path, list[Row]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    head: str,
    rows: list[Sequence[str]],
    said: str,
) -> None:
    width = head.count(",") + 1
    labels = table(tmp_path / "labels.csv", [row[:width] for row in rows], head)
    assert run(bundle, labels, site[0], tmp_path / "p.json") == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "p.json").exists()


def test_a_table_from_a_spreadsheet_is_read(
    bundle: Path, site: tuple[Path, list[Row]], tmp_path: Path
) -> None:
    """With a byte order mark, spaces, and words in capitals."""
    images, rows = site
    lines = ["file, label, patient_id", *(f"{f}, {w.upper()}, {p}" for f, w, p in rows)]
    labels = tmp_path / "labels.csv"
    labels.write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    opened = Bundle.open(bundle)
    plain = read_labelled(table(tmp_path / "plain.csv", rows), images, opened)
    found = read_labelled(labels, images, opened)
    assert [(i.path, i.polyp, i.group) for i in found.items] == [
        (i.path, i.polyp, i.group) for i in plain.items
    ]
    assert found.by_patient


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", None])
def test_a_file_that_is_no_table_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    labels = tmp_path / "labels.csv"
    if content is not None:
        labels.write_bytes(content)
    assert run(bundle, labels, tmp_path, tmp_path / "p.json") == 1
    assert "cannot be read as CSV in UTF-8" in capsys.readouterr().err


def test_a_site_name_that_answers_cannot_show_is_refused(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--bundle", str(bundle), "--labels", str(tmp_path / "x.csv"), "--site", "a\nb"]
    assert main(["fewshot", "profile", *given]) == 1
    assert "--site" in capsys.readouterr().err


def test_a_folder_to_write_to_is_refused_before_the_work(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(bundle, tmp_path / "x.csv", tmp_path, tmp_path) == 1
    assert "expected a file to write" in capsys.readouterr().err
