"""Bad raw data and settings: each named, the run goes on; the documents list every reason."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.training.raw_hospital import (
    PLAIN,
    ROOT,
    Exam,
    config,
    entry,
    jpeg,
    lines,
    picture,
    reasons,
    small_exams,
    write_frames,
    write_recipe,
    write_table,
)
from training.config import load
from training.errors import ArchiveRefused, ConfigError
from training.ingest.config import IngestConfig, ProfileConfig, located
from training.ingest.ledger import Reason
from training.ingest.pipeline import ingest, ingest_key
from training.ingest.tables import read_table
from training.records import read

DOCS = (ROOT / "docs" / "ingestion.md").read_text("utf-8")


def test_everything_bad_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    german = "Im Colon sigmoideum ein 8 mm großer gestielter Polyp, mit der Schlinge abgetragen."
    exams = [
        *(Exam("good", "P1", PLAIN), Exam("good", "P2", PLAIN), Exam("empty", "P3", " ")),
        *(Exam("german", "P4", german), Exam("clear", "P5", "Normal mucosa throughout.")),
        *(Exam("", "P6", PLAIN), Exam("nobody", "", PLAIN), Exam("gone", "P7", PLAIN)),
        *(Exam("../out", "P8", PLAIN), Exam("broken", "P9", PLAIN)),
        Exam("histology", "P10", "Histology: tubular adenoma.", ""),
        Exam("endless", "P11", "polyp " * 4000, ""),
    ]
    write_table(raw / "reports.csv", exams)
    with (raw / "reports.csv").open("ab") as file:
        file.write(b'too,few\r\n"never,closed\xff,1,2\r\n')
    for exam in exams:
        if exam.exam and exam.exam not in ("gone", "../out", "broken"):
            write_frames(raw / exam.exam, "a.jpg", start=len(exam.exam))
    place = raw / "broken"
    place.mkdir()
    data = jpeg(picture(1))
    (place / "cut.jpg").write_bytes(data[: len(data) // 2])
    (place / "empty.jpg").write_bytes(b"")
    (place / "text.jpg").write_bytes(b"hello")
    (place / "tiny.jpg").write_bytes(jpeg(picture(1, (20, 20))))
    (place / "noise.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(50))
    (raw / "unlisted").mkdir()
    ingest(config(tmp_path), raw, tmp_path / "out")
    archive = read(tmp_path / "out", strict=True)
    assert sorted(r.report for r in archive.records) == [PLAIN, "Normal mucosa throughout."]
    assert reasons(tmp_path / "out") == {
        "exam_repeated": 1,
        "report_empty": 2,
        "report_too_long": 1,
        "report_language": 1,
        "report_without_lesion": 1,
        "exam_without_id": 1,
        "patient_without_id": 1,
        "frames_missing": 1,
        "path_outside": 1,
        "row_unreadable": 2,
        "report_missing": 2,  # the folder of the exam without a patient, and the unlisted one
        "image_truncated": 2,
        "image_undecodable": 1,
        "not_an_image": 1,
        "image_size": 1,
        "frames_none_left": 1,
        "crop_profile_missing": 3,
        "identities_removed": 5,
    }
    told = entry(tmp_path / "out", Reason.EXAM_REPEATED)
    assert (told["first_line"], told["line"]) == (2, 3)
    assert entry(tmp_path / "out", Reason.REPORT_LANGUAGE)["detail"] == "de"
    bad = [x for x in lines(tmp_path / "out" / "ledger.jsonl") if x["reason"] == "row_unreadable"]
    assert [x["line"] for x in bad] == [14, 15]


def test_a_report_in_another_language_can_be_kept_marked(tmp_path: Path) -> None:
    small_exams(tmp_path, 1, "Im Colon sigmoideum ein 8 mm großer gestielter Polyp, abgetragen.")
    ingest(config(tmp_path, other_language="mark"), tmp_path / "raw", tmp_path / "out")
    assert len(read(tmp_path / "out").records) == 1
    assert entry(tmp_path / "out", Reason.REPORT_LANGUAGE)["fate"] == "marked"


def test_an_archive_of_nothing_is_refused_with_the_reasons(tmp_path: Path) -> None:
    small_exams(tmp_path, 2, "")
    with pytest.raises(ArchiveRefused, match="report_empty"):
        ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    assert not (tmp_path / "out" / "archive.json").exists()


@pytest.mark.parametrize(
    ("settings", "raw", "message"),
    [
        ({"secret": "out/key"}, "raw", "secret: expected a file outside"),
        ({"linkage": "out/links"}, "raw", "linkage: expected a file outside"),
        ({}, "nowhere", "folder of the raw data"),
        ({}, ".", "inside each other"),
        ({"table": "none.csv"}, "raw", "none.csv"),
    ],
)
def test_places_that_cannot_be_used_are_refused(
    tmp_path: Path, settings: dict[str, str], raw: str, message: str
) -> None:
    small_exams(tmp_path, 1)
    chosen = located(config(tmp_path, **settings), tmp_path)
    with pytest.raises((ConfigError, ArchiveRefused), match=message):
        ingest(chosen, tmp_path / raw, tmp_path / "out")


def test_a_missing_column_is_named_and_no_cell_is_shown(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_table(tmp_path / f"t{suffix}", [Exam("E")])
        with pytest.raises(ConfigError, match="nothing_here"):
            list(read_table(tmp_path / f"t{suffix}", ["exam_no", "nothing_here"]))
    (tmp_path / "headless.csv").write_text("4711;Castellane\n4712;Kilbride\n", "utf-8")
    with pytest.raises(ConfigError, match="column names") as caught:
        list(read_table(tmp_path / "headless.csv", ["exam_no"], ";"))
    assert "Castellane" not in str(caught.value)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match="readable Parquet"):
        list(read_table(tmp_path / "t.parquet", ["a"]))


def test_a_table_may_have_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a;b\nMüller;1\n".encode("cp1252"))
    (row,) = read_table(tmp_path / "t.csv", ["a"], ";", "cp1252")
    assert row.cells == {"a": "Müller"}
    (row,) = read_table(tmp_path / "t.csv", ["a"], ";")
    assert row.problem


def test_a_key_file_with_something_else_is_refused(tmp_path: Path) -> None:
    small_exams(tmp_path, 1)
    for content in ("", "abc", "zz" * 32, "ab" * 16):
        (tmp_path / "secret.key").write_text(content, "ascii")
        with pytest.raises(ConfigError, match="64 hexadecimal digits"):
            ingest_key(config(tmp_path), tmp_path / "raw")


# ---- recipes and documents -----------------------------------------------------------------------


def test_the_documented_example_is_a_recipe(tmp_path: Path) -> None:
    (example,) = re.findall(r"^```toml\n(.*?)^```$", DOCS, flags=re.DOTALL | re.MULTILINE)
    found = load(write_recipe(tmp_path, example)).ingest
    assert isinstance(found, IngestConfig)
    assert found.profiles
    assert found.labels
    documented = set(re.findall(r"^\| `([a-z_.<>]+)` \|", DOCS, flags=re.MULTILINE))
    for table, kind in ((found, ""), (found.columns, "columns."), (found.labels, "labels.")):
        names = {f"{kind}{name}" for name in vars(table)} - {"columns", "profiles", "labels"}
        assert names <= documented
    assert tomllib.loads(example)["ingest"].keys() <= vars(found).keys()


def test_every_reason_is_documented() -> None:
    missing = [reason.value for reason in Reason if f"| `{reason.value}` |" not in DOCS]
    assert missing == []


def test_every_problem_of_the_settings_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(
            tmp_path,
            kind="films",
            output="tape",
            table="reports.xlsx",
            video_fps=0.0,
            split={"train": 0.5},
            profiles={"x": ProfileConfig((), (0.5, 0.5, 0.1, 1.0))},
        )
    for word in ("kind", "output", "table", "video_fps", "split", "x.crop", "x.match"):
        assert word in str(caught.value)
    recipe = write_recipe(tmp_path, "[ingest]\ndata = 1\nprofiles = 3\n")
    with pytest.raises(ConfigError, match=r"ingest\.profiles: expected a table"):
        load(recipe)
