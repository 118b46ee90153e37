"""Dates are moved, birth dates removed, high ages blurred; what only looks like one stays."""

from datetime import date
from pathlib import Path

import pytest

from tests.training.raw_hospital import (
    Exam,
    config,
    entry,
    lines,
    reasons,
    write_frames,
    write_table,
)
from training.ingest.dates import Dates, parse_births, parse_date
from training.ingest.ledger import Reason
from training.ingest.pipeline import ingest
from training.records import read

EXAMINED = date(2021, 3, 4)
DATES = Dates(-30, True, EXAMINED, frozenset({date(1950, 3, 12)}))


def moved(text: str, dates: Dates = DATES) -> str:
    """The text after its dates; of findings that overlap the longest counts."""
    taken: list[tuple[int, int, str]] = []
    for found in sorted(dates.find(text), key=lambda f: f.start - f.end):
        if all(found.end <= start or end <= found.start for start, end, _ in taken):
            taken.append((found.start, found.end, found.shown))
    for start, end, shown in sorted(taken, reverse=True):
        text = text[:start] + shown + text[end:]
    return text


@pytest.mark.parametrize(
    "written",
    [
        *("04.03.2021", "4/3/21", "2021-03-04T10:00:00", "20210304", "4th of March 2021"),
        *("March 4, 2021", "4-Mar-2021", "4/Mar/2021", "4.Mar.2021", "04MAR2021", "04MAR21"),
        *("04 03 2021", "04032021", "4\\3\\2021", "4|3|2021", "4. 3. 2021", "04/03-2021"),
        *("March the 4th, 2021", "Mar-4-2021", "4th March, 2021", "4.III.2021", "2021/03/04"),
        *("Thursday, 4 March 2021", "4 March 2021 (Thursday)", "20210304-0815", "3-4/3/2021"),
        *("2021 03 04", "4 March", "4/Mar", "04/03", "March 4th"),
    ],
)
def test_dates_of_every_form_are_moved(written: str) -> None:
    assert moved(f"seen on {written}, polyp") == "seen on 2021-02-02, polyp"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("in March 2019", "in 2019-02"),
        ("2019-03, 2019/3; 03-2019 3/2019", "2019-02, 2019-02; 2019-02 2019-02"),
        ("Mar2019, Mar-2019, Mar '19", "2019-02, 2019-02, 2019-02"),
        ("twelfth of March 2019", "2019-02"),
        ("since early March", "since early 2021-02"),
        ("Q1/2019, KW 10/2019, summer 2019", "[date], [date], [date]"),
        ("31.02.2020", "[date]"),
        ("from 03/12/2018-04/12/2018", "from 2018-11-03-2018-11-04"),
        ("Colonoscopy on 12/3 showed", "Colonoscopy on 2021-02-10 showed"),
        ("repeat 12.03. planned", "repeat 2021-02-10 planned"),
        ("next on 12/03/26", "next on 2026-02-10"),
        ("first in 12/03/76", "first in 1976-02-11"),
        ("at 14:35, 0815 hrs", "at [time], [time]"),
        ("previous polypectomy in 2019", "previous polypectomy in 2019"),
    ],
)
def test_parts_of_dates_are_moved_or_removed(text: str, expected: str) -> None:
    assert moved(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("3/5 polyps", "12/03 polyps", "12/03 mm", "Boston 3/3/2", "BBPS 2-3-3", "12 x 03 mm"),
        *("score 2-3", "pain score 05/10", "comfort 02/10", "adenoma on 2/3, none on 1/3"),
        *("repeat 3/12", "review in 6/12.", "symptoms for 09/12", "treated for 10/7", "6/52"),
        *("10-12-15 mm", "20-30-40 cm", "in 2016. 3-4 mm polyp", "in 2019 10 12 mm polyps"),
        *("withdrawal 12:03", "Withdrawal time 8:30", "12:30 min", "may return in 12 months"),
        *("1. 5 mm 2. 12 mm", "2.5 x 1.2 x 0.8 cm", "1:10,000", "BP 120/80", "pots 1/2/3"),
        *("0-IIa + IIc", "jar 1, 2, 3, 4, 5", "in 3/12 biopsies", "on 3/5 occasions"),
        *("at 95 cm", "sats 95, pulse 92", "95% of the mucosa", "aged 67", "age: 91 mm"),
        *("Ki-67 95%", "100 mcg", "F 95 mm", "men of 92 kg", "12 03 49"),
        *("Repeat colonoscopy 06/12", "Follow up 06/12", "FU 03/12", "Rescope 06/12"),
        *("Surveillance 06/12", "Follow-up: 06/12", "Recheck 06/52", "f/u 06/12"),
        *("Retrieved 02/03", "polyp 02/03 sessile", "Polyps: 04/05 sigmoid", "clip 01/02"),
        *("Colon segment 01/05", "05/10 comfort", "subscore 01/03", "Position 05/12 o'clock"),
        *("Biopsies 02/03", "lesion, 05/12 o'clock", "02/03 resected"),
        *("Polyps seen: 2. 3. No", "Lesions seen 2.4. cm", "Polyps seen: 2.3. No", "seen 2. 3. No"),
        *("turned 90 degrees", "turning 120 degrees", "turned 90°", "turned 90 deg"),
        *("Sats 98 woman", "HR 92 man", "Weight 95 female", "HR: 92 M"),
        *("Withdrawal time was 12:15", "Cecal intubation in 04:10", "Time to caecum 7:30"),
        *("withdrawal time (excluding polypectomy) 09:12", "Caecal intubation took 04:10"),
        *("Insertion time of 04:10", "Time to reach the cecum was 09:12"),
    ],
)
def test_what_only_looks_like_a_date_or_an_age_stays(text: str) -> None:
    assert moved(text) == text


@pytest.mark.parametrize(
    "text",
    [
        *("Colonoscopy 06/11", "Colonoscopy 06/12", "seen on 12/03", "Repeat colonoscopy 06/11"),
        *("Polyp removed on 02/03", "Polyp removed 12/03", "Follow up on 06/12", "Clip. 02/03 by"),
        *("seen: 12.03. again", "seen 12.03. and", "seen on 2.3. by", "clinic: 2.3.", "due 12.3."),
        *("intubation at 12:15", "Withdrawal started at 09:12", "caecum reached at 09:12"),
        *(
            "It was 12:15",
            "Procedure time was 14:35",
            "Start time was 14:35",
            "Caecal intubation. Left in 09:12",
        ),
    ],
)
def test_dates_and_times_beside_words_of_counts_and_durations_go(text: str) -> None:
    assert moved(text) != text


def test_six_months_are_a_date_where_the_month_is_written_first() -> None:
    american = Dates(-30, False, EXAMINED)
    assert moved("Repeat colonoscopy 06/12", american) == "Repeat colonoscopy 2021-05-13"


@pytest.mark.parametrize(
    "text",
    [
        *("95 y.o.", "95 y.o. man", "Age: 91y", "(F, 92)", "aged ninety-one", "aged ninety five"),
        *("ninety-five year old lady", "a 93-year-old man", "95yo", "93 y/o", "aged 101", "91M"),
        *("92 F", "female, 92", "woman of 92", "he is 97", "Age 103", "95-jährig", "turned 90"),
        *("one hundred and two years old", "a centenarian"),
    ],
)
def test_ages_over_89_are_blurred(text: str) -> None:
    blurred = moved(text)
    assert "90+" in blurred
    assert not any(told in blurred for told in ("91", "92", "93", "95", "97", "10", "ninety"))
    assert moved("a 67-year-old man, 89 y.o.") == "a 67-year-old man, 89 y.o."


@pytest.mark.parametrize(
    "written",
    [
        *("born 12.03.1950", "12 March 1950", "12.3.50", "12/Mar/50", "12 03 50", "120350"),
        *("born 1.1.1951", "DOB: 01011951", "born in March 1950", "b. 1950", "1950 born", "*1950"),
        *("03/12/1950", "March 1950", "DOB12/03/1950"),
    ],
)
def test_birth_dates_go(written: str) -> None:
    cleaned = moved(f"Female, {written}, referred.")
    assert "[birth date]" in cleaned
    assert not set("0123456789") & set(cleaned)


def test_intervals_survive_the_shift() -> None:
    first, second = (moved(day) for day in ("01.02.2020", "15.08.2021"))
    assert (date.fromisoformat(second) - date.fromisoformat(first)).days == 561
    assert parse_date("3/4/2021", day_first=False) == date(2021, 3, 4)


@pytest.mark.parametrize(
    "cell",
    [
        *("12/03/49", "12.03.49", "12 Mar 49", "12/Mar/1949", "12 03 1949", "12–03–1949"),
        *("12\u20103\u20101949", "12\u22123\u22121949", "1949-03-12 00:00:00", "19490312"),
        *("12031949", "March 12th 1949", "12.III.1949"),
    ],
)
def test_cells_of_birth_dates_are_read(cell: str) -> None:
    assert parse_births(cell, True, EXAMINED) == {date(1949, 3, 12)}


def test_a_birth_year_of_two_digits_keeps_every_century_that_is_possible() -> None:
    assert parse_births("12/03/15", True, EXAMINED) == {date(2015, 3, 12), date(1915, 3, 12)}
    assert parse_births("12/03/49") == {date(1949, 3, 12), date(2049, 3, 12)}
    assert parse_births("03/25/49", True, EXAMINED) == {date(1949, 3, 25)}
    for cell in ("1949", "unknown", "", "spring"):
        assert parse_births(cell, True, EXAMINED) == frozenset()


def test_cells_without_a_known_date_are_counted_in_the_ledger(tmp_path: Path) -> None:
    report = "A 5 mm polyp. Female, 12.03.1949."
    exams = [
        Exam("read", "P1", report, "", date="04-03-21", born="12/03/49"),
        Exam("unread", "P2", report, "", date="some day", born="MCMXLIX"),
        Exam("silent", "P3", report, "", date="", born=""),
    ]
    raw = tmp_path / "raw"
    write_table(raw / "reports.csv", exams)
    for number, exam in enumerate(exams):
        write_frames(raw / exam.exam, "a.jpg", start=10 * number)
    ingest(config(tmp_path), raw, tmp_path / "out")
    reports = [record.report for record in read(tmp_path / "out").records]
    assert reports.count("A 5 mm polyp. Female, [birth date].") == 1
    assert reasons(tmp_path / "out")["date_unread"] == 1
    told = entry(tmp_path / "out", Reason.DATE_UNREAD)
    assert (told["fate"], told["count"]) == ("marked", 2)
    assert not any("MCM" in str(row) for row in lines(tmp_path / "out" / "ledger.jsonl"))
