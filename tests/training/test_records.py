"""The archive reader names every bad line and refuses leaks between parts."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.errors import ArchiveRefused, RecordError
from training.records import PARTS, Record, components, parts_digest, read, split, write_split

FRACTIONS = {"train": 0.62, "select": 0.08, "calibrate": 0.12, "report": 0.18}


def _archive(folder: Path, rows: list, parts: dict[str, str] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "frames").mkdir(exist_ok=True)
    (folder / "frames" / "a.jpg").write_bytes(b"pixels")
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "records.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = {
        row["patient_id"]: "train"
        for row in rows
        if isinstance(row, dict) and isinstance(row.get("patient_id"), str)
    }
    write_split(folder / "split.json", found if parts is None else parts)
    (folder / "archive.json").write_text('{"format": 1, "kind": "ingested"}', encoding="utf-8")
    return folder


def _row(name: str = "r1", patient: str = "p1", **more: object) -> dict:
    return {
        "record_id": name,
        "patient_id": patient,
        "report": "No polyps.",
        "frames": ["frames/a.jpg"],
    } | more


def test_good_records_come_with_absolute_frames_groups_and_part(tmp_path: Path) -> None:
    archive = read(_archive(tmp_path / "a", [_row(groups=["g1"])]), strict=True)
    (record,) = archive.records
    assert record.frames[0].is_absolute()
    assert record.frames[0].read_bytes() == b"pixels"
    assert (record.groups, record.part, archive.kind) == (("g1",), "train", "ingested")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("{not json", "expected JSON"),
        ("[1, 2]", "expected an object"),
        (json.dumps({"record_id": "x"}), "missing keys"),
        (json.dumps(_row("x", extra=1)), "unknown keys ['extra']"),
        (json.dumps(_row("x", report=3)), "report: expected str, found int"),
        (json.dumps(_row("x", report="  ")), "report: expected text"),
        (json.dumps(_row("x", frames=[])), "expected at least one"),
        (json.dumps(_row("x", frames=["frames/none.jpg"])), "does not exist"),
        (json.dumps(_row("x", frames=["../a.jpg"])), "leaves the archive"),
        (json.dumps(_row("x", frames=["/etc/hostname"])), "leaves the archive"),
        (json.dumps(_row("x", frames=[7])), "expected paths"),
        (json.dumps(_row("x", groups=[""])), "groups: expected non-empty"),
        (json.dumps(_row("x", patient="p9")), "has no part"),
        (json.dumps(_row("r1")), "already used on line 1"),
    ],
)
def test_each_bad_line_is_reported_with_file_line_and_reason(
    tmp_path: Path, bad: str, words: str
) -> None:
    folder = _archive(tmp_path / "a", [_row(), bad, _row("r3")], {"p1": "train"})
    archive = read(folder)
    assert [r.record_id for r in archive.records] == ["r1", "r3"]
    (error,) = archive.errors
    assert (error.path.name, error.line) == ("records.jsonl", 2)
    assert words in error.reason
    with pytest.raises(RecordError, match=r"records\.jsonl:2"):
        read(folder, strict=True)


def test_a_line_that_is_not_utf8_is_reported(tmp_path: Path) -> None:
    folder = _archive(tmp_path / "a", [_row()])
    with (folder / "records.jsonl").open("ab") as file:
        file.write(b'{"report": "\xff"}\n')
    assert read(folder).errors[0].line == 2


def test_patients_connected_by_a_source_group_may_not_cross_parts(tmp_path: Path) -> None:
    rows = [_row("r1", "p1", groups=["g"]), _row("r2", "p2", groups=["g"])]
    folder = _archive(tmp_path / "a", rows, {"p1": "train", "p2": "report"})
    with pytest.raises(ArchiveRefused, match="several parts"):
        read(folder)
    assert len(read(_archive(tmp_path / "b", rows, {"p1": "train", "p2": "train"})).records) == 2


def test_a_chain_of_shared_groups_counts_as_connected(tmp_path: Path) -> None:
    rows = [
        _row("r1", "p1", groups=["a"]),
        _row("r2", "p2", groups=["a", "b"]),
        _row("r3", "p3", groups=["b"]),
    ]
    parts = {"p1": "train", "p2": "train", "p3": "select"}
    with pytest.raises(ArchiveRefused, match="several parts"):
        read(_archive(tmp_path / "a", rows, parts))


def test_an_edited_split_is_refused(tmp_path: Path) -> None:
    folder = _archive(tmp_path / "a", [_row()])
    body = json.loads((folder / "split.json").read_text())
    body["parts"]["p1"] = "report"
    (folder / "split.json").write_text(json.dumps(body))
    with pytest.raises(ArchiveRefused, match="expected digest"):
        read(folder)


@pytest.mark.parametrize("header", ['{"format": 2, "kind": "composed"}', '{"format": 1}', "["])
def test_an_unknown_header_is_refused(tmp_path: Path, header: str) -> None:
    folder = _archive(tmp_path / "a", [_row()])
    (folder / "archive.json").write_text(header)
    with pytest.raises(ArchiveRefused):
        read(folder)


def test_a_missing_header_is_refused_so_half_written_archives_are(tmp_path: Path) -> None:
    folder = _archive(tmp_path / "a", [_row()])
    (folder / "archive.json").unlink()
    with pytest.raises(ArchiveRefused, match=r"archive\.json"):
        read(folder)


_records = st.lists(
    st.tuples(st.integers(0, 30), st.lists(st.integers(0, 20), max_size=3)), max_size=40
).map(
    lambda rows: [
        Record(f"r{i}", f"p{p}", "x", (), tuple(f"g{g}" for g in groups))
        for i, (p, groups) in enumerate(rows)
    ]
)


@settings(max_examples=60, deadline=None)
@given(_records, st.randoms(use_true_random=False))
def test_split_keeps_connected_patients_together_in_any_order(records: list, random) -> None:
    parts = split(records, FRACTIONS, 7)
    for members in components(records):
        assert len({parts[name] for kind, name in members if kind == "patient"}) == 1
    random.shuffle(records)
    assert split(records, FRACTIONS, 7) == parts


def test_split_is_stable_when_unrelated_records_come() -> None:
    old = [Record(f"r{i}", f"p{i}", "x", ()) for i in range(200)]
    new = [Record(f"n{i}", f"q{i}", "x", ()) for i in range(50)]
    before, after = split(old, FRACTIONS, 1), split([*new, *old], FRACTIONS, 1)
    assert all(after[name] == part for name, part in before.items())


def test_split_follows_the_fractions() -> None:
    parts = list(
        split([Record(f"r{i}", f"p{i}", "x", ()) for i in range(5000)], FRACTIONS, 3).values()
    )
    for part in PARTS:
        assert parts.count(part) / 5000 == pytest.approx(FRACTIONS[part], abs=0.03)


def test_a_record_that_joins_patients_of_two_parts_is_refused() -> None:
    joined = [Record("r1", "p1", "x", (), ("g",)), Record("r2", "p2", "x", (), ("g",))]
    with pytest.raises(ArchiveRefused, match="connected"):
        split(joined, FRACTIONS, 0, existing={"p1": "train", "p2": "report"})
    assert split(joined, FRACTIONS, 0, existing={"p1": "report"})["p2"] == "report"


def test_fractions_must_add_up_to_one() -> None:
    with pytest.raises(ArchiveRefused, match="add up to 1"):
        split([], {"train": 0.5}, 0)


def test_the_split_digest_does_not_depend_on_order() -> None:
    assert parts_digest({"a": "train", "b": "report"}) == parts_digest(
        {"b": "report", "a": "train"}
    )
