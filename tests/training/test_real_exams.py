"""An ingested archive is measured on its own exams, by what people said of them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch (extra `train`)")

from tests.training.hospital_archive import write_hospital_archive
from training.errors import ArchiveRefused
from training.protocol import archive_items, part_patients
from training.real_exams import (
    check_known,
    exam_items,
    exam_patients,
    is_ingested,
    read_outcomes,
)
from training.records import PARTS, read, write_jsonl, write_split

Truth = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Truth]:
    out = tmp_path_factory.mktemp("hospital") / "archive"
    return out, write_hospital_archive(out)


def test_every_frame_is_an_item_and_what_is_known_is_true(hospital: tuple[Path, Truth]) -> None:
    archive, truth = hospital
    assert is_ingested(archive)
    kinds = {f["file"]: f["kind"] for told in truth.values() for f in told["frames"]}
    shown = {
        f["file"]: told["lesions"][f["lesion"]]["histology"]
        for told in truth.values()
        for f in told["frames"]
        if f["kind"] == "lesion"
    }
    for part in PARTS:
        items = exam_items(archive, part)
        assert [i.path for i in items] == [f for r in read(archive).part(part) for f in r.frames]
        for item in items:
            if item.polyp is not None:
                assert item.polyp == (kinds[item.image] == "lesion")
            if item.neoplastic is not None:
                assert item.neoplastic == (shown[item.image] == "neoplastic")
        assert {True, False, None} <= {item.polyp for item in items}
    assert archive_items(archive, "report") == exam_items(archive, "report")


def test_a_neoplastic_exam_of_several_lesions_says_nothing_of_each(
    hospital: tuple[Path, Truth],
) -> None:
    archive, truth = hospital
    outcomes = read_outcomes(archive)
    several = {r for r, told in truth.items() if len(told["lesions"]) > 1 and outcomes.get(r)}
    assert several
    for part in PARTS:
        for item in exam_items(archive, part):
            if item.image.split("/")[1] in several:
                assert item.neoplastic is None


def test_a_judgement_beside_a_label_goes_before_pathology(
    hospital: tuple[Path, Truth], tmp_path: Path
) -> None:
    archive, _ = hospital
    own = tmp_path / "archive"
    own.mkdir()
    for path in archive.iterdir():
        (own / path.name).symlink_to(path)
    item = next(i for i in exam_items(archive, "train") if i.neoplastic is not None)
    (own / "labelled_sample.jsonl").unlink()
    row = {"frame": item.image, "lesion": True, "neoplastic": not item.neoplastic}
    (own / "labelled_sample.jsonl").write_text(json.dumps(row), "utf-8")
    found = {i.image: i.neoplastic for i in exam_items(own, "train")}
    assert found[item.image] is not item.neoplastic


def test_patients_are_the_exams_once_each(hospital: tuple[Path, Truth]) -> None:
    archive, truth = hospital
    among = part_patients(archive, "report")
    records = read(archive).part("report")
    rows = [
        r for p in sorted((*among.holding, *among.without), key=lambda p: p.rows) for r in p.rows
    ]
    assert rows == list(range(len(among.items)))
    assert len(among.holding) == sum(bool(truth[r.record_id]["lesions"]) for r in records)
    assert all(p.positive for p in among.holding)
    assert not any(p.positive for p in among.without)
    outcomes = read_outcomes(archive)
    told = [outcomes.get(r.record_id) for r in records]
    assert [p.positive for p in among.malignancy] == [t for t in told if t is not None]
    assert exam_patients(archive, "report")[0] == among.malignancy


def test_what_calibration_lacks_is_all_named_before_training(
    hospital: tuple[Path, Truth], tmp_path: Path
) -> None:
    archive, _ = hospital
    check_known(archive)
    bare = tmp_path / "archive"
    bare.mkdir()
    for path in archive.iterdir():
        if path.name not in ("labelled_sample.jsonl", "pathology.jsonl"):
            (bare / path.name).symlink_to(path)
    with pytest.raises(ArchiveRefused) as caught:
        check_known(bare)
    for part in ("with a lesion: 0", "neoplastic pathology: 0", "training sample"):
        assert part in str(caught.value)


def test_known_polyp_free_frames_do_not_swamp_the_labelled_ones(
    hospital: tuple[Path, Truth],
) -> None:
    archive, _ = hospital
    items = exam_items(archive, "train")
    labelled = sum(
        json.loads(line)["frame"] in {i.image for i in items}
        for line in (archive / "labelled_sample.jsonl").read_text("utf-8").splitlines()
    )
    free = np.array([i.polyp is False for i in items]).sum()
    assert free <= 2 * max(labelled, 50)


def _archive(folder: Path, rows: list[tuple[str, str, str, list[str], bool | None]]) -> Path:
    """Exams of one frame each: record, patient, report, groups, what pathology says."""
    (folder / "frames").mkdir(parents=True)
    records = []
    for record, patient, report, groups, _ in rows:
        (folder / "frames" / f"{record}.jpg").touch()
        records.append(
            {"record_id": record, "patient_id": patient, "report": report, "groups": groups}
            | {"frames": [f"frames/{record}.jpg"], "source": "s"}
        )
    write_jsonl(folder / "records.jsonl", records)
    told = [{"record_id": r, "text": "", "neoplastic": v} for r, *_, v in rows if v is not ...]
    write_jsonl(folder / "pathology.jsonl", told)
    write_split(folder / "split.json", {patient: "train" for _, patient, *_ in rows})
    (folder / "archive.json").write_text(json.dumps({"format": 1, "kind": "ingested"}), "utf-8")
    return folder


@pytest.mark.parametrize(
    ("outcome", "known"), [(True, False), (None, False), (False, True), (..., True)]
)
def test_an_exam_that_pathology_contradicts_is_no_known_negative(
    tmp_path: Path, outcome: Any, known: bool
) -> None:
    rows = [("a", "A", "Normal colon.", [], outcome), ("b", "B", "Normal colon.", [], ...)]
    archive = _archive(tmp_path / "archive", rows)
    assert [i.polyp for i in exam_items(archive, "train")] == [False if known else None, False]
    judged, holding, without = exam_patients(archive, "train")
    assert not judged
    assert not holding
    assert [p.rows for p in without] == ([(0,), (1,)] if known else [(1,)])


def test_patients_who_share_frames_through_others_are_resampled_as_one(tmp_path: Path) -> None:
    polyp = "A 5 mm polyp."
    rows = [
        # The patient A shares frames with B in one exam only; C shares others with B.
        ("a1", "A", polyp, ["dup-1", "dup-2"], True),
        ("a2", "A", polyp, [], True),
        ("b1", "B", polyp, ["dup-2", "dup-3"], False),
        ("c1", "C", "Normal colon.", ["dup-3"], ...),
        ("d1", "D", polyp, [], True),
        ("d2", "D", polyp, ["dup-4"], True),
    ]
    archive = _archive(tmp_path / "archive", rows)
    units = [i.group for i in exam_items(archive, "train")]
    assert len(set(units[:4])) == len(set(units[4:])) == 1
    assert len(set(units)) == 2
    found = {
        row: p.groups for kind in exam_patients(archive, "train") for p in kind for row in p.rows
    }
    assert [found[i] for i in range(6)] == [(unit,) for unit in units]
