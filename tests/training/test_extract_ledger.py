"""The ledger: it resumes after a kill, holds no text, and is read back as the rules read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from training.__main__ import main
from training.attributes import extract
from training.errors import ArchiveRefused, RecordError, StaleInput
from training.extract.answer import rules_lesions
from training.extract.extraction import extract_reports
from training.extract.ledger import (
    Entry,
    Extractor,
    Ledger,
    findings_of,
    read_ledger,
    report_digest,
)
from training.phantom import compose_phantom

ROOT = Path(__file__).resolve().parents[2]
REPORTS = {
    "r1": "Findings: Lesion 1: a 7 mm red polyp. It is smooth. Lesion 2: a 3 cm sessile polyp.\n"
    "Impression: Lesion 2 looks adenomatous. Histology: tubular adenoma.",
    "r2": "No polyps.",
    "r3": "A 12 mm polyp, likely adenoma, on a long stalk.",
}


def entry(name: str) -> Entry:
    return Entry(name, report_digest(REPORTS[name]), rules_lesions(REPORTS[name]))


def test_a_ledger_gives_back_what_the_rules_read(tmp_path: Path) -> None:
    entries = extract_reports(REPORTS, tmp_path / "l.jsonl")
    extractor, read = read_ledger(tmp_path / "l.jsonl")
    assert extractor == Extractor()
    assert read == entries
    for name, report in REPORTS.items():
        found, wanted = findings_of(read[name], report), extract(report)
        assert len(found) == len(wanted)
        for a, b in zip(found, wanted, strict=True):
            assert (a.text, a.attributes, a.number, a.impression, a.impression_text) == (
                b.text,
                b.attributes,
                b.number,
                b.impression,
                b.impression_text,
            )


def test_no_words_of_a_report_stand_in_the_ledger(tmp_path: Path) -> None:
    extract_reports(REPORTS, tmp_path / "l.jsonl")
    text = (tmp_path / "l.jsonl").read_text()
    for word in ("polyp", "Findings", "stalk", "7 mm", "3 cm", "adenoma"):
        assert word not in text


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_cut_off_and_read_again(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "l.jsonl"
    whole = extract_reports(REPORTS, path)
    data = path.read_bytes()
    path.write_bytes(data[:-cut])
    assert list(read_ledger(path)[1]) == ["r1", "r2"]
    assert extract_reports(REPORTS, path) == whole
    assert path.read_bytes() == data


def test_a_ledger_of_which_only_half_a_first_line_was_written_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_bytes(b'{"format": 1, "ext')
    assert set(extract_reports(REPORTS, path)) == set(REPORTS)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"nonsense",
        b'{"record_id": "x", "report": "d", "by": "rules", "lesions": [{"number": 1, "spans": [], '
        b'"by": "rules", "attributes": {"colour": ["blue", 0, 1]}}]}',
    ],
)
def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "l.jsonl"
    extract_reports(REPORTS, path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", *lines[2:]]))
    with pytest.raises(RecordError, match=r"l\.jsonl:3: expected an entry of a ledger"):
        read_ledger(path)


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveRefused, match="no such file"):
        read_ledger(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(ArchiveRefused, match="an empty file"):
        read_ledger(tmp_path / "empty.jsonl")


def test_the_last_entry_of_a_record_counts_and_a_changed_report_is_read_again(
    tmp_path: Path,
) -> None:
    path = tmp_path / "l.jsonl"
    extract_reports(REPORTS, path)
    changed = REPORTS | {"r2": "A 4 mm polyp."}
    assert extract_reports(changed, path)["r2"].lesions[0].attributes["size_band"].value == "<=5"
    assert len(path.read_text().splitlines()) == 1 + 3 + 1
    with pytest.raises(StaleInput, match="of another report"):
        findings_of(read_ledger(path)[1]["r2"], REPORTS["r2"])


def test_one_ledger_has_one_extractor_and_one_writer(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    extract_reports(REPORTS, path)
    with pytest.raises(StaleInput, match=r"made by the rules, not by 'm' with prompt 1:ab"):
        Ledger(path, Extractor("m", "1:ab"))
    with Ledger(path, Extractor()), pytest.raises(StaleInput, match="another extraction"):
        Ledger(path, Extractor())


def test_a_ledger_without_an_entry_is_anybodys(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    Ledger(path, Extractor("m", "1:ab")).__exit__(None, None, None)
    extract_reports(REPORTS, path)
    assert read_ledger(path)[0] == Extractor()


def test_lone_surrogates_have_a_digest() -> None:
    assert report_digest("\ud800") != report_digest("\udfff")


KILLED = """
import sys, time
from pathlib import Path
from training.extract.ledger import Extractor, Entry, Ledger
with Ledger(Path(sys.argv[1]), Extractor()) as ledger:
    for n in range(100_000):
        ledger.append([Entry(f"r{n}", "sha256:" + "0" * 64, ())])
"""


def test_what_was_appended_survives_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], cwd=ROOT)
    try:
        until = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size > 2_000):
            assert time.monotonic() < until
            time.sleep(0.01)
    finally:
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
    _, entries = read_ledger(path)
    assert list(entries) == [f"r{n}" for n in range(len(entries))]
    with Ledger(path, Extractor()) as ledger:
        ledger.append([Entry("more", "d", ())])
    assert list(read_ledger(path)[1])[-1] == "more"


def test_the_command_writes_the_ledger_of_an_archive_and_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    compose_phantom(archive, 16, 1)
    assert main(["extract", "--archive", str(archive)]) == 0
    said = capsys.readouterr().out
    assert "reports, " in said
    ledger = archive / "attributes-rules.jsonl"
    before = ledger.read_bytes()
    assert main(["extract", "--archive", str(archive)]) == 0
    assert ledger.read_bytes() == before
    names = [json.loads(line)["record_id"] for line in before.splitlines()[1:]]
    assert (
        len(names) == len(set(names)) == len((archive / "records.jsonl").read_text().splitlines())
    )


def test_the_command_refuses_half_an_endpoint(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "--archive", "x", "--llm", "http://127.0.0.1:1/v1"]) == 1
    assert "--llm URL and --model NAME belong together" in capsys.readouterr().err
