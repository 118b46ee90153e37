"""Labels of a few hundred frames: drawn from the right exams, read back whole or refused whole."""

import base64
import json
import re
from pathlib import Path

import pytest

from training.attributes import polyp_mentioned
from training.errors import RecordError
from training.labelling import PARTS, draw_frames, read_sheet, write_sheet
from training.phantom import compose_phantom
from training.records import read
from training.sample import read_labels


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn") / "archive"
    compose_phantom(out, 16, 2)
    return out


def test_frames_are_drawn_from_exams_with_a_lesion_in_each_part(archive: Path) -> None:
    records = read(archive).records
    owner = {frame: record for record in records for frame in record.frames}
    drawn = draw_frames(records, 6, 1)
    assert drawn == draw_frames(records, 6, 1) != draw_frames(records, 6, 2)
    assert all(polyp_mentioned(owner[frame].report) for frame in drawn)
    assert {owner[frame].part for frame in drawn} <= set(PARTS)
    assert len(draw_frames(records, 10**6, 1)) == sum(
        len(r.frames) for r in records if r.part in PARTS and polyp_mentioned(r.report)
    )


def test_the_page_holds_its_frames_and_loads_nothing(archive: Path, tmp_path: Path) -> None:
    count = write_sheet(archive, tmp_path / "labels.html", 5, 1)
    page = (tmp_path / "labels.html").read_text("utf-8")
    names = re.findall(r'data-frame="([^"]+)"', page)
    assert len(names) == count == len(re.findall("data:image/jpeg;base64,", page))
    assert all((archive / name).is_file() for name in names)
    assert "://" not in page
    jpeg = base64.b64decode(re.search(r"base64,([^\"]+)", page).group(1))  # type: ignore[union-attr]
    assert jpeg[:2] == b"\xff\xd8"


def test_labels_are_put_into_the_archive(archive: Path, tmp_path: Path) -> None:
    frames = [f.relative_to(archive).as_posix() for f in read(archive).records[0].frames[:3]]
    text = (
        f"\ufeffframe,lesion,neoplastic\n{frames[0]},true,TRUE\n{frames[1]},no,\n{frames[2]},yes,\n"
    )
    (tmp_path / "labels.csv").write_text(text, "utf-8")
    assert read_sheet(archive, tmp_path / "labels.csv") == 3
    found = read_labels(archive)
    assert [(x.frame, x.lesion, x.neoplastic) for x in found] == [
        (frames[0], True, True),
        (frames[1], False, None),
        (frames[2], True, None),
    ]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("frames/none.jpg,true,", "expected a frame of the archive"),
        ("{0},perhaps,", "expected lesion true or false"),
        ("{0},false,true", "of a lesion, neoplastic"),
        ("{0},true,maybe", "found 'true', 'maybe'"),
        ("{0},true,\n{0},false,", "already labelled"),
        ("", "found none"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(
    archive: Path, tmp_path: Path, rows: str, told: str
) -> None:
    before = (archive / "labelled_sample.jsonl").read_bytes()
    frame = read(archive).records[0].frames[0].relative_to(archive).as_posix()
    (tmp_path / "x.csv").write_text("frame,lesion,neoplastic\n" + rows.format(frame), "utf-8")
    with pytest.raises(RecordError, match=re.escape(told)):
        read_sheet(archive, tmp_path / "x.csv")
    assert (archive / "labelled_sample.jsonl").read_bytes() == before


def test_a_file_that_is_no_table_is_named(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(RecordError, match="cannot be read as CSV"):
        read_sheet(archive, tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text(json.dumps({"frame": 1}), "utf-8")
    with pytest.raises(RecordError, match="expected the columns"):
        read_sheet(archive, tmp_path / "x.csv")
    with pytest.raises(RecordError, match="cannot be read"):
        read_sheet(archive, tmp_path / "none.csv")


def test_a_neoplastic_frame_without_a_lesion_is_named(tmp_path: Path) -> None:
    (tmp_path / "labelled_sample.jsonl").write_text(
        '{"frame": "a", "lesion": false, "neoplastic": false}\n'
        '{"frame": "b", "lesion": false, "neoplastic": true}\n'
    )
    with pytest.raises(RecordError, match=r":2.*without a lesion"):
        read_labels(tmp_path)
