"""Bad raw data and settings: each named, the run goes on; the documents list every reason."""

import csv
import dataclasses
import re
import tomllib
from pathlib import Path

import pytest

from tests.training.raw_hospital import (
    COLUMNS,
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
    video_bytes,
    write_frames,
    write_recipe,
    write_table,
)
from training.config import load
from training.errors import ArchiveRefused, ConfigError
from training.ingest.config import IngestConfig, LabelsConfig, ProfileConfig, located
from training.ingest.ledger import Reason
from training.ingest.pipeline import ingest, ingest_key
from training.ingest.pseudonyms import Pseudonyms, identity, read_key
from training.records import read
from training.sample import read_labels

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


@pytest.mark.parametrize(
    "spelling", ["h0047 ", "H0047\t", "\u00a0H0047", "\ufeffh-0047", "H\u20110047", "H 0047"]
)
def test_a_patient_in_any_spelling_is_one(spelling: str) -> None:
    names = Pseudonyms(b"k" * 32)
    assert names.patient(spelling) == names.patient("H0047") != names.patient("H0048")
    assert names.shift_days(spelling) == names.shift_days("H0047")


def test_numbers_that_tables_turned_into_floats_or_stripped_are_one_patient(tmp_path: Path) -> None:
    exams = [Exam(f"E{i}", p, PLAIN, "") for i, p in enumerate(("4711", "4711.0", "04711", "4712"))]
    write_table(tmp_path / "raw" / "reports.csv", exams)
    for i in range(4):
        write_frames(tmp_path / "raw" / f"E{i}", "a.jpg", start=i)
    summary = ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    assert summary["patients"] == 2
    assert identity("4710") != identity("471") == identity("47-1")
    assert identity("0") == identity("000") == "0"


def test_words_for_no_patient_are_named_like_an_empty_cell(tmp_path: Path) -> None:
    words = ["", "NULL", "n/a", "N/A", "None", "-", "unknown", "?", "#N/A", "<NA>", "nan", " "]
    exams = [Exam(f"E{i}", word, PLAIN, "") for i, word in enumerate(words)]
    exams += [Exam("NULL", "P", PLAIN, ""), Exam("good", "P", PLAIN, "")]
    write_table(tmp_path / "raw" / "reports.csv", exams)
    for exam in exams:
        write_frames(tmp_path / "raw" / exam.exam.replace("/", "-"), "a.jpg")
    ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    assert reasons(tmp_path / "out")["patient_without_id"] == len(words)
    assert reasons(tmp_path / "out")["exam_without_id"] == 1
    assert len(read(tmp_path / "out").records) == 1


# ---- folders -------------------------------------------------------------------------------------


def write_placed(folder: Path, places: dict[str, str], *unnamed: str) -> IngestConfig:
    """Exams of a patient each whose frames lie where a column says, and folders of no row."""
    exams = []
    for number, (exam, place) in enumerate(places.items()):
        exams.append(Exam(exam, f"P{exam}", PLAIN, "", extra={"folder": place}))
        if not (folder / "raw" / place).exists():
            write_frames(folder / "raw" / place, "a.jpg", start=number)
    for number, place in enumerate(unnamed, 100):
        write_frames(folder / "raw" / place, "a.jpg", start=number)
    write_table(folder / "raw" / "reports.csv", exams)
    return config(folder, columns=dataclasses.replace(COLUMNS, frames="folder"))


def named(folder: Path, reason: Reason) -> set[object]:
    return {x["record"] for x in lines(folder / "out" / "ledger.jsonl") if x["reason"] == reason}


def test_frames_without_a_report_are_named_where_exams_lie_deeper(tmp_path: Path) -> None:
    places = {f"E{i}": f"exams/2021/E{i}" for i in range(3)}
    unnamed = ("exams/2021/E7", "exams/2022/E8", "exams/2022/E9", "loose")
    chosen = write_placed(tmp_path, places, *unnamed)
    (tmp_path / "raw" / "exams" / "2021" / ".cache").mkdir()
    ingest(chosen, tmp_path / "raw", tmp_path / "out")
    pseudonyms = Pseudonyms(read_key(tmp_path / "secret.key"))
    wanted = {pseudonyms.record(name) for name in ("E7", "E8", "E9", "loose")}
    assert named(tmp_path, Reason.REPORT_MISSING) == wanted
    assert len(read(tmp_path / "out").records) == 3


def test_exam_numbers_may_be_paths(tmp_path: Path) -> None:
    exams = [Exam(f"2021/{i}", f"P{i}", PLAIN, "") for i in range(2)]
    write_table(tmp_path / "raw" / "reports.csv", exams)
    for i in range(3):
        write_frames(tmp_path / "raw" / "2021" / str(i), "a.jpg", start=i)
    write_frames(tmp_path / "raw" / "2021" / "1" / "second", "b.jpg", start=9)
    ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    pseudonyms = Pseudonyms(read_key(tmp_path / "secret.key"))
    assert named(tmp_path, Reason.REPORT_MISSING) == {pseudonyms.record("2021/2")}
    assert sorted(len(r.frames) for r in read(tmp_path / "out").records) == [1, 2]


def test_a_folder_of_several_exams_goes_into_no_record(tmp_path: Path) -> None:
    places = {f"E{i}": f"exams/E{i}" for i in range(5)}
    places |= {"parent": "exams", "other": "site", "twin": "exams/E1", "sound": "alone"}
    unnamed = ("site/E6", "site/E7", "alone/second", "exams/E2/second")
    chosen = write_placed(tmp_path, places, *unnamed)
    (tmp_path / "raw" / "site" / "a.jpg").unlink()
    (tmp_path / "raw" / "link").symlink_to(tmp_path / "raw" / "exams" / "E0")
    with (tmp_path / "raw" / "reports.csv").open("a") as file:
        last = Exam("linked", "PL", PLAIN, "", extra={"folder": "link"}).row()
        csv.DictWriter(file, last.keys()).writerow(last)
    ingest(chosen, tmp_path / "raw", tmp_path / "out")
    pseudonyms = Pseudonyms(read_key(tmp_path / "secret.key"))
    refused = {pseudonyms.record(e) for e in ("parent", "other", "E1", "twin", "E0", "linked")}
    assert named(tmp_path, Reason.FOLDER_SHARED) == refused
    kept = {pseudonyms.record(exam) for exam in ("E2", "E3", "E4", "sound")}
    assert {r.record_id for r in read(tmp_path / "out").records} == kept
    strays = {pseudonyms.record(name) for name in ("E6", "E7")}
    assert named(tmp_path, Reason.REPORT_MISSING) == strays
    told = [
        x["line"]
        for x in lines(tmp_path / "out" / "ledger.jsonl")
        if x["reason"] == "folder_shared"
    ]
    assert told == sorted(told) != []


def test_files_of_no_row_are_named_in_folders_too(tmp_path: Path) -> None:
    exams = [Exam(f"films/{name}", f"P{name}", PLAIN, "") for name in ("a", "b.mp4")]
    write_table(tmp_path / "raw" / "films" / "reports.csv", exams)
    for number, name in enumerate(("a", "b", "c")):
        (tmp_path / "raw" / "films" / f"{name}.mp4").write_bytes(video_bytes((number,)))
    chosen = config(tmp_path, kind="video", table="films/reports.csv")
    ingest(chosen, tmp_path / "raw", tmp_path / "out")
    pseudonyms = Pseudonyms(read_key(tmp_path / "secret.key"))
    assert named(tmp_path, Reason.REPORT_MISSING) == {pseudonyms.record("films/c.mp4")}
    assert len(read(tmp_path / "out").records) == 2


# ---- labels --------------------------------------------------------------------------------------


def test_labels_that_contradict_are_named_and_the_run_goes_on(tmp_path: Path) -> None:
    small_exams(tmp_path, 2)
    (tmp_path / "raw" / "labels.csv").write_text(
        "exam,frame,lesion,neo\nE0,0.jpg,no,yes\nE0,1.jpg,no,no\nE1,0.jpg,yes,no\n"
        "E1,0.jpg,yes,yes\nE1,0.jpg,no,\nE1,0.jpg,1,0\n",
        "utf-8",
    )
    labels = LabelsConfig("labels.csv", "exam", "frame", "lesion", "neo")
    ingest(config(tmp_path, labels=labels), tmp_path / "raw", tmp_path / "out")
    found = sorted(read_labels(tmp_path / "out"), key=lambda label: label.lesion)
    assert [(x.lesion, x.neoplastic) for x in found] == [(False, None), (True, False)]
    bad = [x for x in lines(tmp_path / "out" / "ledger.jsonl") if x["reason"].startswith("label")]  # type: ignore[attr-defined]
    assert [x["reason"] for x in bad] == ["label_contradictory"] * 3
    assert [(x["line"], x.get("first_line")) for x in bad] == [(2, None), (5, 4), (6, 4)]


def test_labels_of_an_exam_that_is_refused_are_named(tmp_path: Path) -> None:
    chosen = write_placed(tmp_path, {"E0": "a", "E1": "b", "E2": "b"})
    (tmp_path / "raw" / "labels.csv").write_text("exam,frame,lesion\nE1,a.jpg,1\n", "utf-8")
    labels = LabelsConfig("labels.csv", "exam", "frame", "lesion")
    ingest(dataclasses.replace(chosen, labels=labels), tmp_path / "raw", tmp_path / "out")
    assert entry(tmp_path / "out", Reason.LABEL_UNKNOWN)["line"] == 2


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
