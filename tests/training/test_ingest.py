"""Ingestion: no planted identity survives, the archive is what its documents say."""

import hashlib
import json
import logging
import shutil
import stat
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
import webdataset

from tests.training.raw_hospital import (
    PLAIN,
    PLANTED,
    Exam,
    config,
    dicom_jpegs,
    dicom_native,
    digests,
    entry,
    every_byte,
    jpeg,
    lines,
    picture,
    planted_jpeg,
    reasons,
    save,
    small_exams,
    video_bytes,
    write_frames,
    write_recipe,
    write_table,
)
from training.__main__ import main
from training.frame_files import read_frame
from training.ingest.config import LabelsConfig, ProfileConfig, located
from training.ingest.ledger import Reason
from training.ingest.pipeline import ingest
from training.ingest.shards import ShardPacker
from training.records import read
from training.sample import Label, read_labels


def folded(text: str) -> str:
    """Without case and diacritics."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(char for char in plain if not unicodedata.combining(char))


def planted_in(data: bytes) -> list[str]:
    """Planted identities that bytes hold, as UTF-8 or Latin-1."""
    text = folded(data.decode("utf-8", "replace") + data.decode("latin-1"))
    return [secret for secret in PLANTED if folded(secret) in text]


# ---- planted identities --------------------------------------------------------------------------


def exams_of(kind: str) -> list[Exam]:
    second = Exam("E-Quarlinghaus-2", report=f"{PLAIN} Seen by sister wrobelska.", pathology="")
    return [Exam("MUELLER_Joerg_19500312"), second, Exam(f"{kind} Okonkwo", report="")]


def write_raw(folder: Path, kind: str, suffix: str = ".csv") -> None:
    """Raw data of one kind with planted identities in every place there is."""
    raw = folder / "raw"
    exams = exams_of(kind)
    write_table(raw / f"reports{suffix}", exams)
    for number, exam in enumerate(exams):
        place = raw / exam.exam
        if kind == "folders":
            names = ("Müller 1.jpg", "quarlinghaus.png", "Joerg_Mueller.jpg")
            write_frames(place, *names, start=10 * number)
            (place / "Zibulski.jpg").write_bytes(planted_jpeg(1)[:700])
            (place / "Wrobelska.doc").write_bytes("Müller".encode())
        elif kind == "dicom":
            save(dicom_jpegs(10 * number, 10 * number + 1), place / "Mueller.dcm")
            save(dicom_native(10 * number + 2), place / "Joerg.dcm")
            (place / "Okonkwo.dcm").write_bytes(b"Mueller" * 40)
        else:
            place.mkdir(parents=True)
            (place / "Mueller Joerg.mp4").write_bytes(video_bytes((number, number + 50)))
            (place / "Okonkwo.mp4").write_bytes(b"Mueller" * 40)
    (raw / "Zibulski_ohne_Befund").mkdir()


@pytest.mark.parametrize("output", ["files", "shards"])
@pytest.mark.parametrize("kind", ["folders", "dicom", "video"])
def test_no_planted_identity_is_found_anywhere(
    tmp_path: Path,
    kind: str,
    output: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    write_raw(tmp_path, kind)
    caplog.set_level(logging.DEBUG)
    ingest(config(tmp_path, kind=kind, output=output), tmp_path / "raw", tmp_path / "out")
    assert len(read(tmp_path / "out", strict=True).records) == 2
    found: dict[str, list[str]] = {}

    def look(name: str, data: bytes) -> None:
        if secrets := planted_in(name.encode() + b"\n" + data):
            found[name] = secrets

    every_byte(tmp_path / "out", look)
    said = capfd.readouterr()
    look("logs", (caplog.text + said.out + said.err).encode())
    assert found == {}
    everything = (tmp_path / "out" / "records.jsonl").read_text("utf-8")
    for kept in ("12 mm sessile polyp, Paris 0-IIa", "NICE type 2, reddish", "[name]"):
        assert kept in everything
    assert "adenoma" not in everything


def test_the_search_for_planted_identities_can_fail(tmp_path: Path) -> None:
    write_raw(tmp_path, "folders")
    found = set()
    every_byte(tmp_path / "raw", lambda name, data: found.update(planted_in(name.encode() + data)))
    assert {"Müller", "Quarlinghaus", "4711-0815-99", "12.03.1950", "Okonkwo"} <= found
    save(dicom_native(1), tmp_path / "a.dcm")
    assert len(planted_in((tmp_path / "a.dcm").read_bytes())) >= 8
    assert len(planted_in(video_bytes((1,)))) >= 3
    assert planted_in(b"\0MULLER\0") == ["Müller", "MULLER"]
    assert planted_in("x müller".encode("latin-1")) == ["Müller", "MULLER"]


def test_the_command_says_no_identity_either(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    write_raw(tmp_path, "folders")
    recipe = write_recipe(tmp_path)
    arguments = ["ingest", "--config", str(recipe), "--out", str(tmp_path / "out")]
    assert main(arguments) == 0
    said = capfd.readouterr()
    assert "records" in said.out
    assert planted_in((said.out + said.err).replace(str(tmp_path), "").encode()) == []
    before = digests(tmp_path / "out")
    assert main(arguments) == 0  # already done
    assert digests(tmp_path / "out") == before
    assert main([*arguments, "--set", "ingest.day_first=false"]) == 1
    assert "was made with other ingest" in capfd.readouterr().err


# ---- what comes out ------------------------------------------------------------------------------


def test_tables_of_any_form_give_the_same_archive(tmp_path: Path) -> None:
    found = []
    for suffix in (".csv", ".jsonl", ".parquet"):
        shutil.rmtree(tmp_path / "raw", ignore_errors=True)
        write_raw(tmp_path, "folders", suffix)
        out = tmp_path / suffix[1:]
        ingest(config(tmp_path, table=f"reports{suffix}"), tmp_path / "raw", out)
        found.append({k: v for k, v in digests(out).items() if k != "ledger.jsonl"})
    assert found[0] == found[1] == found[2]


def test_ids_are_stable_under_a_key_and_differ_between_keys(tmp_path: Path) -> None:
    write_raw(tmp_path, "folders")
    first = config(tmp_path)
    for name, settings in (("a", first), ("b", first), ("c", config(tmp_path, secret="other.key"))):
        ingest(located(settings, tmp_path), tmp_path / "raw", tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    ids = [{r.record_id for r in read(tmp_path / name).records} for name in ("a", "c")]
    assert not ids[0] & ids[1]
    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600


def test_shards_hold_what_files_hold_and_webdataset_reads_them(tmp_path: Path) -> None:
    small_exams(tmp_path, 3)
    for output in ("files", "shards"):
        ingest(config(tmp_path, output=output), tmp_path / "raw", tmp_path / output)
    files, shards = (read(tmp_path / output, strict=True) for output in ("files", "shards"))
    for a, b in zip(files.records, shards.records, strict=True):
        assert a.record_id == b.record_id
        assert [read_frame(p) for p in a.frames] == [read_frame(p) for p in b.frames]
    assert not (tmp_path / "shards" / ".ingest").exists()
    shard = tmp_path / "shards" / "frames" / "000000.tar"
    with shard.open("rb") as file:
        source = [{"url": shard.name, "stream": file}]
        samples = webdataset.tariterators.group_by_keys(
            webdataset.tariterators.tar_file_expander(source)
        )
        found = {sample["__key__"]: sample["jpg"] for sample in samples}
    wanted = {f"{r.record_id}/{p.stem}": p.read_bytes() for r in files.records for p in r.frames}
    assert found == wanted


def test_shards_are_closed_when_full_and_taken_up_when_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.ingest.shards.SHARD_FRAMES", 3)

    def pack(folder: Path, stop: int = 100) -> list[int]:
        packer = ShardPacker(folder / "waiting", folder / "shards")
        numbers = [packer.add(f"r{i // 2}/{i:04d}.jpg", 10) for i in range(8)[:stop]]
        if stop == 100:
            packer.flush()
        return numbers

    for name in ("whole", "cut"):
        for i in range(8):
            path = tmp_path / name / "waiting" / f"r{i // 2}" / f"{i:04d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([i]) * 10)
    assert pack(tmp_path / "whole") == [0, 0, 0, 1, 1, 1, 2, 2]
    pack(tmp_path / "cut", 5)
    (tmp_path / "cut" / "shards" / "000001.partial").write_bytes(b"half")
    pack(tmp_path / "cut")
    assert digests(tmp_path / "whole" / "shards") == digests(tmp_path / "cut" / "shards")


def test_patients_who_share_a_picture_stay_together(tmp_path: Path) -> None:
    small_exams(tmp_path, 12)
    shared, again = jpeg(picture(1)), jpeg(picture(1), quality=60)
    (tmp_path / "raw" / "E1" / "x.jpg").write_bytes(shared)
    (tmp_path / "raw" / "E5" / "x.jpg").write_bytes(shared)
    (tmp_path / "raw" / "E7" / "x.jpg").write_bytes(again)
    for i in range(12):  # a test card that every exam begins with
        (tmp_path / "raw" / f"E{i}" / "card.jpg").write_bytes(jpeg(picture(2)))
    summary = ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    records = {r["record_id"]: r for r in lines(tmp_path / "out" / "records.jsonl")}
    tied = [r for r in records.values() if r["groups"]]
    assert len(tied) == 3
    assert len({str(r["groups"]) for r in tied}) == 1
    parts = json.loads((tmp_path / "out" / "split.json").read_text("utf-8"))["parts"]
    assert len({parts[r["patient_id"]] for r in tied}) == 1
    assert summary["groups"] == 1
    assert reasons(tmp_path / "out")["shared_by_many"] == 12
    kinds = Counter(f["duplicate"] for f in lines(tmp_path / "out" / "frames.jsonl"))
    assert kinds == {None: 24 + 2, "exact": 1 + 11, "near": 1}
    for frame in lines(tmp_path / "out" / "frames.jsonl"):
        data = (tmp_path / "out" / str(frame["path"])).read_bytes()
        assert hashlib.sha256(data).hexdigest() == frame["sha256"]
        assert (frame["duplicate"] is None) == (frame["duplicate_of"] is None)


def test_a_frame_twice_in_one_exam_is_stored_once(tmp_path: Path) -> None:
    small_exams(tmp_path, 1)
    (tmp_path / "raw" / "E0" / "9.jpg").write_bytes(
        (tmp_path / "raw" / "E0" / "0.jpg").read_bytes()
    )
    ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    (record,) = read(tmp_path / "out").records
    assert [p.name for p in record.frames] == ["0000.jpg", "0001.jpg"]
    told = entry(tmp_path / "out", Reason.DUPLICATE_EXACT)
    assert told["frame"] == f"{record.record_id}/0002"
    assert told["of"] == f"{record.record_id}/0000"


def test_profiles_crop_and_name_the_source(tmp_path: Path) -> None:
    exams = [Exam("E0", "P0", PLAIN, processor="Olympus cv-190 of room 2"), Exam("E1", "P1", PLAIN)]
    exams[1].processor = "another"
    write_table(tmp_path / "raw" / "reports.csv", exams)
    for i in range(2):
        write_frames(tmp_path / "raw" / f"E{i}", "a.jpg", start=i)
    profiles = {"olympus-190": ProfileConfig(("CV-190",), (0.25, 0.0, 1.0, 1.0))}
    ingest(config(tmp_path, profiles=profiles), tmp_path / "raw", tmp_path / "out")
    by_source = {r.source: r for r in read(tmp_path / "out").records}
    assert by_source.keys() == {"olympus-190", "unknown"}
    widths = {f["path"].split("/")[1]: f["width"] for f in lines(tmp_path / "out" / "frames.jsonl")}
    assert widths[by_source["olympus-190"].record_id] == 120
    told = entry(tmp_path / "out", Reason.CROP_PROFILE_MISSING)
    assert (told["fate"], told["count"]) == ("marked", 1)
    strict = config(tmp_path, profiles=profiles, require_profile=True)
    ingest(strict, tmp_path / "raw", tmp_path / "strict")
    assert [r.source for r in read(tmp_path / "strict").records] == ["olympus-190"]
    assert entry(tmp_path / "strict", Reason.CROP_PROFILE_MISSING)["fate"] == "left_out"


def test_a_labels_table_becomes_the_labelled_sample(tmp_path: Path) -> None:
    small_exams(tmp_path, 2)
    (tmp_path / "raw" / "labels.csv").write_text(
        "exam,frame,lesion,neo\nE0,0.jpg,yes,1\nE0,1.jpg,0,\nE0,none.jpg,1,\nE9,0.jpg,1,\n"
        "E1,0.jpg,perhaps,\nE1,1.jpg,true,maybe\n",
        "utf-8",
    )
    labels = LabelsConfig("labels.csv", "exam", "frame", "lesion", "neo")
    ingest(config(tmp_path, labels=labels), tmp_path / "raw", tmp_path / "out")
    frames = sorted(f["path"] for f in lines(tmp_path / "out" / "frames.jsonl"))
    found = sorted(read_labels(tmp_path / "out"), key=lambda label: label.frame)
    assert found[0] == Label(found[0].frame, True, True)
    assert found[1] == Label(found[1].frame, False, None)
    assert {label.frame for label in found} < set(frames)
    unknown = [
        x for x in lines(tmp_path / "out" / "ledger.jsonl") if x["reason"] == "label_unknown"
    ]
    assert sorted(x["line"] for x in unknown) == [4, 5, 6, 7]


def test_linkage_is_written_only_when_asked_for_and_only_for_its_owner(tmp_path: Path) -> None:
    small_exams(tmp_path, 1)
    ingest(config(tmp_path), tmp_path / "raw", tmp_path / "a")
    assert not list(tmp_path.rglob("*link*"))
    linkage = tmp_path / "linkage.jsonl"
    ingest(config(tmp_path, linkage=str(linkage)), tmp_path / "raw", tmp_path / "b")
    (record,) = read(tmp_path / "b").records
    told = {"record_id": record.record_id, "exam": "E0"}
    assert lines(linkage) == [told | {"patient_id": record.patient_id, "patient": "P0"}]
    assert stat.S_IMODE(linkage.stat().st_mode) == 0o600
