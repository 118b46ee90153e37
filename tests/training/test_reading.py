"""What training reads of a record, by the rules, by a ledger, and spoilt on purpose."""

from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from training.attributes import ATTRIBUTES, polyp_mentioned, strip_pathology
from training.config import AttributesConfig
from training.errors import ArchiveRefused, StaleInput
from training.extract.extraction import extract_reports
from training.reading import Exam, attributes_digest, read_exams
from training.records import Record

RULES = AttributesConfig("rules", 0.0, 0.0)
WORDS = ("small", "pale", "smooth", "with clear margins")


def records(n: int = 60) -> list[Record]:
    report = (
        "Findings: Polyp {}: a 7 mm sessile polyp, {}, smooth, clear margins, likely adenoma, no "
        "depression. Another red polyp of 12 mm with a long stalk. It looks hyperplastic.\n"
        "Impression: Polyp 1 looks adenomatous.\nPathology: tubular adenoma."
    )
    told = [report.format(1, WORDS[k % 4]) for k in range(n)]
    told[1] = "Normal colon, no polyps."
    return [Record(f"r{k}", f"p{k}", text, (Path("f.jpg"),)) for k, text in enumerate(told)]


def read(config: AttributesConfig = RULES, archive: Path = Path()) -> list[Exam]:
    return read_exams(records(), config, archive)


def codes(exams: list[Exam]) -> list[int]:
    return [code for exam in exams for lesion in exam.lesions for code in lesion.codes]


@pytest.mark.parametrize(
    ("told", "text"),
    [
        (
            "A 12 mm sessile polyp, likely adenoma, in the sigmoid.",
            "A 12 mm sessile polyp, in the sigmoid.",
        ),
        ("A 12 mm polyp (probably hyperplastic), red.", "A 12 mm polyp, red."),
        ("An 8 mm adenomatous-looking red polyp.", "An 8 mm red polyp."),
        ("A 12 mm adenoma, granular.", "A 12 mm lesion, granular."),
        ("A red polyp. It looks adenomatous. It is smooth.", "A red polyp. It is smooth."),
        ("A smooth polyp, no features to suggest malignancy.", "A smooth polyp."),
        ("A sessile serrated lesion, pale.", "A lesion, pale."),
        ("A pale polyp, consistent with hyperplastic polyp.", "A pale polyp, polyp."),
        ("Appearance favours adenoma.", "A lesion."),
        ("A granular lesion, pale, smooth.", "A granular lesion, pale, smooth."),
    ],
)
def test_an_opinion_never_stands_in_the_morphology_text(told: str, text: str) -> None:
    (exam,) = read_exams([Record("r", "p", told, (Path("f.jpg"),))], RULES, Path())
    assert [lesion.text for lesion in exam.lesions] == [text]


def test_words_of_size_are_read_where_the_archive_is_composed() -> None:
    record = Record("r", "p", "A large polyp.", (Path("f.jpg"),))
    for composed, code in ((True, ATTRIBUTES["size_band"].index("20-29")), (False, -1)):
        (exam,) = read_exams([record], RULES, Path(), composed)
        assert exam.lesions[0].codes[0] == code


def test_the_opinion_is_kept_beside_the_text() -> None:
    (exam,) = read_exams(
        [Record("r", "p", "A red polyp, likely adenoma.", (Path("f.jpg"),))], RULES, Path()
    )
    assert exam.lesions[0].opinion == 0
    assert "adenoma" in exam.lesions[0].opinion_text


def test_a_ledger_of_the_rules_gives_the_exams_of_the_rules(tmp_path: Path) -> None:
    extract_reports({r.record_id: r.report for r in records()}, tmp_path / "l.jsonl")
    config = AttributesConfig("l.jsonl", 0.0, 0.0)
    assert read(config, tmp_path) == read()
    assert attributes_digest(config, tmp_path).startswith("sha256:")
    assert attributes_digest(RULES, tmp_path) == "rules"


def test_a_ledger_that_does_not_fit_is_refused_with_the_command_that_mends_it(
    tmp_path: Path,
) -> None:
    reports = {r.record_id: r.report for r in records()}
    reports |= {"r3": "A polyp."}
    del reports["r7"], reports["r9"]
    extract_reports(reports, tmp_path / "l.jsonl")
    config = AttributesConfig("l.jsonl", 0.0, 0.0)
    with pytest.raises(StaleInput, match=r"lacks 2 of 60 .* another report of 1") as error:
        read(config, tmp_path)
    command = f"python -m training extract --archive {tmp_path} --out {tmp_path / 'l.jsonl'}"
    assert command in str(error.value)
    for missing in (read, lambda c, a: attributes_digest(c, a)):
        with pytest.raises(ArchiveRefused, match=r"other\.jsonl"):
            missing(replace(config, source="other.jsonl"), tmp_path)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_a_share_of_mentioned_values_is_corrupted_or_dropped(share: float) -> None:
    clean = read()
    before = codes(clean)
    mentioned = sum(code >= 0 for code in before)
    wrong = codes(read(replace(RULES, corrupted=share)))
    changed = [(a, b) for a, b in zip(before, wrong, strict=True) if a != b]
    assert all(a >= 0 and b >= 0 for a, b in changed)
    assert len(changed) / mentioned == pytest.approx(share, abs=0.05)
    gone = codes(read(replace(RULES, dropped=share)))
    dropped = [(a, b) for a, b in zip(before, gone, strict=True) if a != b]
    assert {b for _, b in dropped} == {-1}
    assert len(dropped) / mentioned == pytest.approx(share, abs=0.05)


def test_spoiling_touches_codes_alone_and_knows_no_order() -> None:
    config = replace(RULES, corrupted=0.4, dropped=0.3)
    clean, spoilt = read(), read(config)
    for a, b in zip(clean, spoilt, strict=True):
        assert replace(a, lesions=()) == replace(b, lesions=())
        assert len(a.lesions) == len(b.lesions)
        for one, other in zip(a.lesions, b.lesions, strict=True):
            assert replace(one, codes=()) == replace(other, codes=())
    assert read_exams(records()[::-1], config, Path()) == spoilt[::-1]
    assert read_exams(records()[5:9], config, Path()) == spoilt[5:9]


def test_everything_can_be_spoilt_and_codes_stay_levels() -> None:
    assert set(codes(read(replace(RULES, dropped=1.0)))) == {-1}
    levels = [len(values) for values in ATTRIBUTES.values()]
    for exam, clean in zip(read(replace(RULES, corrupted=1.0)), read(), strict=True):
        for lesion, was in zip(exam.lesions, clean.lesions, strict=True):
            for code, before, n in zip(lesion.codes, was.codes, levels, strict=True):
                assert -1 <= code < n
                assert (code == before) is (before < 0)


def test_a_larger_share_spoils_all_that_a_smaller_one_does() -> None:
    before, some, more = (codes(read(replace(RULES, corrupted=s))) for s in (0.0, 0.1, 0.3))
    for clean, a, b in zip(before, some, more, strict=True):
        assert a in (clean, b)


@pytest.mark.parametrize(
    "report",
    [
        "Complete. Polyp removed and specimen retrieved.",
        "One 8 mm sessile polyp in the sigmoid snared, specimen sent.",
        "5 mm polyp snared and retrieved for pathology.",
        "6 mm polyp, awaiting pathology.",
        "6 mm polyp, histology pending.",
        "8 mm polyp, muscularis visible at its base.",
    ],
)
def test_what_is_done_with_a_specimen_does_not_cost_the_lesion(report: str) -> None:
    assert strip_pathology(report) == report
    assert polyp_mentioned(report)


@pytest.mark.parametrize(
    "report",
    [
        "Histology showed a tubular adenoma.",
        "The specimen shows a tubular adenoma.",
        "Sent for histology: tubular adenoma.",
        "Pathology: polyp fragments. Resection margins clear.",
    ],
)
def test_what_a_microscope_showed_still_goes(report: str) -> None:
    assert not strip_pathology(report)
