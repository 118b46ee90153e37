"""Tables: a broken line costs itself, and no row's text ever stands in another's."""

import json
import random
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.training.raw_hospital import Exam, write_table
from training.errors import ConfigError
from training.ingest.tables import Row, read_table

REPORT = "5 mm sessile polyp in the sigmoid colon."


def rows_of(folder: Path, text: str, keys: str = "exam,patient", delimiter: str = ",") -> list[Row]:
    """Rows of a CSV file with a header, all its columns."""
    (folder / "t.csv").write_bytes(text.encode())
    columns = [name.strip('"') for name in text.splitlines()[0].split(delimiter)]
    return list(read_table(folder / "t.csv", columns, keys.split(","), delimiter))


def good(rows: list[Row]) -> dict[str, dict[str, str]]:
    return {row.cells["exam"]: row.cells for row in rows if not row.problem}


def bad(rows: list[Row]) -> list[int]:
    return [row.line for row in rows if row.problem]


# ---- quotes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", ["exam,patient,report", "exam,report,patient", "report,exam,patient"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quoted_reports_of_several_lines_are_read_whole(
    tmp_path: Path, shape: str, end: str
) -> None:
    reports = [
        f"Findings:{end}Caecum, ascending, transverse normal.{end}{end}Then: {REPORT}",
        f"04.03.2021, 14:30, room 2{end}{REPORT}{end}",
        f'{end}A ""flat"" lesion, 3 mm, 4 mm{end}, none, ""so""',
        f"5 mm, 3 mm, 2 mm{end}H-1, sessile, removed{end}1, 2, 3{end}2021, 2, 3",
    ]
    cells = [
        {"exam": f"2021-00{i}", "patient": f"4711{i}", "report": f'"{reports[i]}"'}
        for i in range(4)
    ]
    lines = [",".join(cell[name] for name in shape.split(",")) for cell in cells]
    rows = rows_of(tmp_path, end.join([shape, *lines, ""]))
    assert bad(rows) == []
    found = [cell["report"] for cell in good(rows).values()]
    assert [text.split() for text in found] == [r.replace('""', '"').split() for r in reports]


SOUND = {
    "a numbered list": 'exam,patient,report\n1,4000001,"Findings:\n1, 8 mm sessile polyp\n'
    '2, normal rectum"\n2,4000002,"Normal."\n',
    "quotes in a list": 'patient,exam,report\n17,E00001,"Good prep.\nBBPS 2,3,3\n'
    '3, ""flat"" lesion\nend"\n18,E00002,"x"\n',
    "doubled quotes": 'patient,report,exam\nP1,"Biopsies ""A"", 1, 2\nnormal",1\nP2,"normal",2\n',
    "keys behind": 'name,patient,report,date,exam\nSmith,3,"Good.\nBBPS 2,3,3",2020-01-02,E1\n'
    'Jones,4,"Normal.",2020-01-02,E2\n',
}


@pytest.mark.parametrize("name", SOUND)
def test_lines_that_begin_with_short_numbers_are_no_rows(tmp_path: Path, name: str) -> None:
    rows = rows_of(tmp_path, SOUND[name])
    assert bad(rows) == []
    assert len(rows) == 2


BROKEN = {
    "inner quote": f'exam,patient,report\nE1,P1,{REPORT}\nE2,P2,"{REPORT} 5 "" x\n'
    f'E3,P3,{REPORT}\nE4,P4,{REPORT}\nE5,P5,"{REPORT}"\n',
    "no other quote": f'exam,patient,report\nE1,P1,{REPORT}\nE2,P2,"{REPORT}\nE3,P3,{REPORT}\n'
    f"E4,P4,{REPORT}\nE5,P5,{REPORT}\n",
    "report before patient": f'exam,report,patient\nE1,{REPORT},P1\nE2,"{REPORT} open,P2\n'
    f'E3,"{REPORT}",P3\nE4,{REPORT},P4\nE5,"{REPORT}",P5\n',
    "closed by a stray quote": f'exam,report,patient\nE1,{REPORT},P1\nE2,"{REPORT} open,P2\n'
    f'E3,{REPORT},P3\nE4,{REPORT},P4\nE5,{REPORT}",P5\n',
    "closed by the next row": f'exam,report,patient\nE1,{REPORT},P1\nE2,"{REPORT} open,P2\n'
    f'E3,{REPORT}",P3\nE4,"{REPORT}",P4\nE5,{REPORT},P5\n',
    "report first": f'report,exam,patient\n{REPORT},E1,P1\n"{REPORT} open,E2,P2\n'
    f'{REPORT},E3,P3\n{REPORT},E4,P4\n"{REPORT}",E5,P5\n',
    "all quoted": f'"exam","patient","report"\n"E1","P1","{REPORT}"\n"E2","P2","{REPORT}\n'
    f'"E3","P3","{REPORT}"\n"E4","P4",""\n"E5","P5","{REPORT}"\n',
    "wide, next row opens a quote": 'exam,patient,report,who\nE1,P1,a,b\nE2,P2,"open,b\n'
    'E3,P3,"\nlines",b\nE4,P4,a,b\nE5,P5,a,b\n',
    "rows without quotes below": 'exam,report,patient\nE1,a,P1\nE2,"open,P2\nE3,a,P3\nE4,a,P4\n'
    'E5,"a",P5\n',
}


@pytest.mark.parametrize("name", BROKEN)
def test_an_unclosed_quote_costs_its_row_alone(tmp_path: Path, name: str) -> None:
    rows = rows_of(tmp_path, BROKEN[name])
    assert bad(rows) == [3]
    found = good(rows)
    assert list(found) == ["E1", "E3", "E4", "E5"]
    for exam, cells in found.items():
        assert cells["patient"] == f"P{exam[1:]}"
        assert not {f"P{i}" for i in range(1, 6)} - {cells["patient"]} & set(
            cells["report"].split()
        )


def test_a_swallowed_row_is_known_by_its_keys_though_commas_moved_them(tmp_path: Path) -> None:
    text = 'exam,report,patient\nE1,a,P1\nE2,"open,P2\nE3,4 mm, flat,P3\nE4,a",P4\nE5,a,P5\n'
    rows = rows_of(tmp_path, text)
    assert bad(rows) == [3, 4]
    assert list(good(rows)) == ["E1", "E4", "E5"]


def test_a_damaged_report_of_several_lines_costs_itself_and_names_its_lines(tmp_path: Path) -> None:
    text = f'exam,patient,report\nE1,P1,"4" snare\nCaecum, colon, rectum\nlast"\nE2,P2,{REPORT}\n'
    rows = rows_of(tmp_path, text)
    assert bad(rows) == [2]
    assert rows[0].problem.endswith("lines 2 to 4 are left out")
    assert list(good(rows)) == ["E2"]
    assert "snare" not in rows[0].problem


def test_a_quote_that_no_line_closes_is_given_up_after_a_thousand(tmp_path: Path) -> None:
    text = 'exam,patient,report\nE1,P1,"' + "words\n" * 1500 + 'end"\nE2,P2,x\n'
    rows = rows_of(tmp_path, text)
    assert bad(rows) == [2]
    assert "within 1000 lines" in rows[0].problem
    assert list(good(rows)) == ["E2"]


def test_names_as_numbers_are_told_from_text_too(tmp_path: Path) -> None:
    text = 'exam,patient,report\nMUELLER_a,x y,a\nVOGT_b,z w,"open\nKILBRIDE_c,u v,a\nT_d,s t,a"\n'
    rows = rows_of(tmp_path, text)
    assert bad(rows) == [3]
    assert list(good(rows)) == ["MUELLER_a", "KILBRIDE_c", "T_d"]


def test_no_fault_of_quoting_moves_text_between_rows(tmp_path: Path) -> None:
    """Hundreds of tables with one quote taken away or put in: texts stay, neighbours survive."""
    draw = random.Random(1)
    for _ in range(300):
        order = draw.choice(["exam,patient,report", "exam,report,patient"])
        texts = [
            "\n".join(f"w{i}x" + draw.choice(["", ", so", '""']) for _ in range(draw.randint(1, 4)))
            for i in range(12)
        ]
        rows = []
        for i, text in enumerate(texts):
            quoted = draw.random() < 0.5 or set(text) & set('\n,"')
            cell = f'"{text}"' if quoted else text
            told = {"exam": f"E-{i}", "patient": f"H{i:05d}", "report": cell}
            rows.append(",".join(told[name] for name in order.split(",")))
        hurt = draw.randrange(12)
        at = draw.choice([k for k in range(len(rows[hurt])) if k > 3])
        line = rows[hurt]
        rows[hurt] = line[:at] + ("" if line[at] == '"' else '"') + line[at + (line[at] == '"') :]
        found = good(rows_of(tmp_path, "\n".join([order, *rows]) + "\n"))
        for i in range(12):
            cells = found.get(f"E-{i}")
            assert cells or i == hurt, "\n".join([order, *rows])
            words = cells["report"].replace('"', " ").split() if cells and i != hurt else []
            assert all(word.startswith(f"w{i}x") or word in (",", "so") for word in words)
        mine = found.get(f"E-{hurt}", {}).get("report", "")
        assert not [i for i in range(12) if i != hurt and f"w{i}x" in mine]


# ---- columns and cells ---------------------------------------------------------------------------


def test_a_wanted_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("exam,patient,report,report,x,x\nE1,P1,a,,1,2\n", "utf-8")
    with pytest.raises(ConfigError, match=r"each column once, found \['report'\]"):
        list(read_table(tmp_path / "t.csv", ["exam", "report"], ["exam"]))
    assert list(read_table(tmp_path / "t.csv", ["exam"], ["exam"])) == [Row(2, {"exam": "E1"})]


def test_a_report_that_is_no_text_is_named(tmp_path: Path) -> None:
    entries = [{"exam": 1, "report": {"text": REPORT}}, {"exam": 2, "report": [REPORT]}]
    entries += [{"exam": 3.0, "report": REPORT}, {"exam": True, "report": None}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, entries)), "utf-8")
    rows = list(read_table(tmp_path / "t.jsonl", ["exam", "report"], ["exam"]))
    assert bad(rows) == [1, 2]
    assert rows[0].problem == "column report: expected text or a number, found dict"
    assert [row.cells.get("exam") for row in rows[2:]] == ["3", "True"]
    table = pyarrow.table({"exam": ["E1", "E2"], "report": [[REPORT], None]})
    parquet.write_table(table, tmp_path / "t.parquet")
    rows = list(read_table(tmp_path / "t.parquet", ["exam", "report"], ["exam"]))
    assert [bool(row.problem) for row in rows] == [True, False]


def test_a_missing_column_is_named_and_no_cell_is_shown(tmp_path: Path) -> None:
    for suffix in (".csv", ".jsonl", ".parquet"):
        write_table(tmp_path / f"t{suffix}", [Exam("E")])
        with pytest.raises(ConfigError, match="nothing_here"):
            list(read_table(tmp_path / f"t{suffix}", ["exam_no", "nothing_here"], []))
    (tmp_path / "headless.csv").write_text("4711;Castellane\n4712;Kilbride\n", "utf-8")
    with pytest.raises(ConfigError, match="column names") as caught:
        list(read_table(tmp_path / "headless.csv", ["exam_no"], [], ";"))
    assert "Castellane" not in str(caught.value)
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(ConfigError, match="readable Parquet"):
        list(read_table(tmp_path / "t.parquet", ["a"], []))


def test_a_table_may_have_another_encoding(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("a;b\nMüller;1\n".encode("cp1252"))
    (row,) = read_table(tmp_path / "t.csv", ["a"], [], ";", "cp1252")
    assert row.cells == {"a": "Müller"}
    (row,) = read_table(tmp_path / "t.csv", ["a"], [], ";")
    assert row.problem


def test_a_table_that_is_not_in_its_encoding_at_all_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"exam,patient\nE1,P1\n ")
    with pytest.raises(ConfigError, match="expected text in utf-16"):
        list(read_table(tmp_path / "t.csv", ["exam"], [], encoding="utf-16"))
