"""Pathology leaves the report, however it is worded; lesions and the endoscopist's view stay."""

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.training.raw_hospital import Exam, config, write_frames, write_table
from training.attributes import extract, polyp_mentioned, strip_pathology
from training.ingest.pathology import is_neoplastic, split_pathology
from training.ingest.pipeline import ingest
from training.pathology_text import stated_pathology, without_pathology

LESION = "8 mm sessile polyp in the sigmoid"
# By class of wording.
STATED = {
    "header": (
        "Histo: TA",
        "Histo - hyperplastic",
        "Histopath - HP",
        "Hist.: hyperplastic polyp",
        "Path: HP",
        "Pathol: benign",
        "PATH: hyperplastic. No dysplasia.",
        "Micro: adenoma",
        "Histology report ref. 123: HP",
        "Histology (12/3): adenoma",
        "Final pathology report - benign",
        "Addendum (histo): adenoma",
        "**Histology** HP",
        "Histology | HP",
        "Histologie: tubuläres Adenom",
        "Histologischer Befund: Adenom",
        "Pathologie: hyperplastischer Polyp",
        "Befund: tubuläres Adenom",
        "Biopsie: Adenom",
        "Istologia: adenoma",
        "Histología: adenoma",
        "Anatomía patológica: adenoma",
    ),
    "lead": (
        "Biopsies: hyperplastic polyp. No dysplasia seen.",
        "Bx = adenoma",
        "Bx HP only",
        "Lab: adenoma.",
        "Pot 1: hyperplastic polyp",
        "Specimen 1 - hyperplastic polyp",
        "Colon, sigmoid, polypectomy: Hyperplastic polyp.",
        "Results: TA x1, HP x2",
        "Final: adenocarcinoma pT1 sm1 R0.",
        "FINAL DIAGNOSIS: Hyperplastic polyp.",
        "Dx: adenoma",
        "Addendum 12/3: adenoma, complete.",
        "ADDENDUM - adenoma confirmed",
        "Addendum: histology now back, adenoma.",
        "Supplementary report: adenoma.",
        "Letter sent: polyp benign.",
    ),
    "verb": (
        "Biopsies came back as adenoma.",
        "Biopsies have come back benign.",
        "Biopsies were benign.",
        "Biopsy negative.",
        "Biopsies of the edge were reported as adenomatous.",
        "Lab confirmed adenoma.",
        "The lab reported a hyperplastic polyp.",
        "It proved to be an adenoma.",
        "This proved adenomatous.",
        "It turned out to be hyperplastic.",
        "It was subsequently shown to be cancer.",
        "Later diagnosed as cancer.",
        "Was upgraded to carcinoma.",
        "Sections show adenoma.",
        "Confirmed adenoma.",
        "Adenoma, confirmed.",
        "Biopsy-proven adenoma.",
        "On biopsy an adenoma.",
        "Adenoma (biopsy).",
        "Patient informed: adenoma.",
        "MDT: confirmed adenocarcinoma",
    ),
    "stage": (
        "ypT0",
        "pTis, R0.",
        "Stage pT1N0",
        "T1 cancer, sm2.",
        "Haggitt 2.",
        "Dukes A.",
        "TA with LGD",
        "TVA, HGD",
        "Tubular adenomas x 2.",
        "G2 adenocarcinoma.",
        "Well-differentiated adenocarcinoma",
        "IHC: MMR proficient",
        "KRAS wild type",
        "SNOMED T-67000 M-82110",
        "Adenoma, completely excised.",
        "Margins free of adenoma.",
        "Deep margin clear.",
        "Positive for malignancy.",
    ),
}
OWN = (
    "Polyp 6 mm, looks like an adenoma.",
    "6 mm polyp, suspicious for carcinoma.",
    "6 mm polyp, suspicious for HGD.",
    "6 mm polyp, ?adenoma.",
    "12 mm polyp, likely adenoma, in the sigmoid.",
    "Likely sporadic adenoma.",
    "Suspicion of submucosal invasion, ?sm2.",
    "NBI confirmed adenomatous pattern in the 6 mm polyp.",
    "6 mm polyp, NICE 2, confirmed as adenoma on NBI.",
    "6 mm sessile adenoma removed by cold snare.",
    "Small hyperplastic polyps in the rectum.",
    "Diagnosis: 6 mm adenoma in the sigmoid.",
    "Cecal SSL approx. 1 cm.",
    "Carcinoma of the rectum at 8 cm.",
    "Patient told of a suspicious lesion.",
    "Caecal intubation confirmed by the appendix orifice.",
    "Biopsies: taken from the inflamed rectum.",
    "The lesion was biopsied to confirm an established malignancy.",
    "Specimen sent to histo.",
    "Sent for path.",
    "Histology to follow.",
    "No significant pathology other than a 6 mm polyp.",
    "No obvious colonic pathology.",
    "Path of the scope was straightforward.",
    "The polyp turned out to be pedunculated.",
    "The lesion was found to be sessile.",
    "Final position of scope: caecum.",
    "Addendum: the polyp was 6 mm and not 8 mm.",
    "All sections of colon showed normal mucosa.",
    "A 4 mm polyp; snared; margins clear.",
    "6 mm polyp, completely excised.",
    "Grade 2 haemorrhoids.",
)


@pytest.mark.parametrize("joint", [". ", "\n", ", ", "; ", " (", " - "])
@pytest.mark.parametrize("kind", STATED)
def test_what_states_pathology_goes_and_the_lesion_beside_it_stays(kind: str, joint: str) -> None:
    close = ")" if joint == " (" else ""
    for words in STATED[kind]:
        report = f"Findings: {LESION}{joint}{words}{close}\nPlan: repeat."
        kept, told = split_pathology(report)
        bare = kept.replace("Plan: repeat.", "").strip().rstrip(" .;,-")
        assert bare == f"Findings: {LESION}", words
        assert told
        assert strip_pathology(kept) == kept


@pytest.mark.parametrize(
    "header", ["HISTOLOGY REPORT", "Histology", "PATHOLOGY", "Final pathology"]
)
@pytest.mark.parametrize(
    "listed", ["A. Sigmoid: adenoma.\nB. Rectum: HP.", "\nBenign.\n\nComplete."]
)
def test_a_header_on_its_own_line_opens_pathology(header: str, listed: str) -> None:
    report = f"Findings: {LESION}.\n{header}\n{listed}\nImpression: polyp."
    kept, told = split_pathology(report)
    assert kept == f"Findings: {LESION}.\nImpression: polyp."
    assert told == listed.strip()


@pytest.mark.parametrize("words", OWN)
def test_what_the_endoscopist_says_stays(words: str) -> None:
    report = f"Findings: Complete to caecum.\n{words}\nPlan: repeat."
    assert strip_pathology(report) == report


@pytest.mark.parametrize(
    ("report", "kept"),
    [
        (
            "8 mm polyp in the sigmoid, removed by snare (histology: tubular adenoma).",
            "8 mm polyp in the sigmoid, removed by snare.",
        ),
        (
            "8 mm polyp in the sigmoid (histology: TA) and a 12 mm pale polyp in the caecum.",
            "8 mm polyp in the sigmoid and a 12 mm pale polyp in the caecum.",
        ),
        (
            "8 mm polyp, histology: TA; 12 mm polyp in the caecum, pale.",
            "8 mm polyp; 12 mm polyp in the caecum, pale.",
        ),
        ("8 mm polyp which on histology was a TA, completely excised.", "8 mm polyp."),
        ("8 mm polyp, histology: TA (biopsy: adenoma), R0.", "8 mm polyp."),
        ("Looks like an adenoma, 8 mm (histology: HP).", "Looks like an adenoma, 8 mm."),
        # What is confirmed is the result.
        ("8 mm adenoma, confirmed on histology.", ""),
        ("A) hyperplastic polyp B) TA", ""),
        ("Sigmoid polyp: tubular adenoma.", ""),
    ],
)
def test_only_the_pathology_of_a_sentence_goes(report: str, kept: str) -> None:
    assert strip_pathology(report) == kept
    assert polyp_mentioned(report) is bool(kept)


@pytest.mark.parametrize("before", ["", "Findings: Complete to caecum.\n"])
@pytest.mark.parametrize(
    "words",
    [
        "Scope returned to the ascending colon where a 12 mm adenoma was snared.",
        "Caecum confirmed by photo, 5 mm adenoma next to the orifice.",
        "Ileal intubation confirmed, 4 mm adenoma in caecum.",
        "Position confirmed with ScopeGuide at the splenic flexure where an 8 mm adenoma was seen.",
        "Stricture turned out to be a large circumferential cancer at 20 cm.",
        "Hist: PR bleeding\nCaecum reached. 8 mm sessile polyp in sigmoid.",
        "Path: straight to caecum\nRectum: 8 mm sessile polyp",
        "Macroscopic appearance: 8 mm sessile polyp",
        "Macroscopic: normal colon\n8 mm polyp in rectum",
        "Gross: blood in rectum\n8 mm polyp in sigmoid",
        "Micro: 2 mm polyps in rectum\n8 mm polyp in caecum",
        "Specimens\n1. 8 mm sigmoid polyp\n2. caecal polyp",
        "Pot 1: 5 mm caecal adenoma, NICE 2",
        "Sample A - 12 mm rectal adenoma",
        "8 mm adenoma, completely excised with cold snare.",
        "5 mm adenoma, excised.",
        "Two adenomas excised by cold snare.",
        "Polypectomy: 3 adenomas removed from the sigmoid.",
        "EMR: flat adenoma lifted and resected.",
    ],
)
def test_words_a_laboratory_shares_with_the_endoscopist_hide_no_lesion(
    before: str, words: str
) -> None:
    assert strip_pathology(before + words) == before + words


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ("Specimens\n1. adenoma\n2. HP", ""),
        ("Hist: TA\n5 mm polyp", "5 mm polyp"),
        ("Path: HP\nRectum: 8 mm sessile polyp", "Rectum: 8 mm sessile polyp"),
        ("Path:\n\nBenign.", ""),
        ("Path: A. Sigmoid - TA\nB. Rectum - HP", ""),
        ("Path: TA.\nConclusion: adenoma, low grade.", ""),
        ("Macro: pale polyp 4 mm in one cassette\nMicro: TA", ""),
        ("It came back as a 6 mm adenoma.", ""),
        ("Pot 1: 5 mm polyp - adenoma", ""),
        ("Specimen 1: 5 mm fragment, adenoma", ""),
        ("Histo: sent. 8 mm polyp", "8 mm polyp"),
    ],
)
def test_a_short_header_ends_with_the_lines_that_hold_a_result(told: str, kept: str) -> None:
    report = f"Findings: {LESION}.\n{told}"
    assert strip_pathology(report).split() == f"Findings: {LESION}. {kept}".split()


def test_what_follows_a_result_goes_with_it_until_the_next_lesion() -> None:
    report = (
        "Biopsies came back as adenoma. Low grade. Margins clear. A 4 mm red polyp. No adenoma."
    )
    assert strip_pathology(report) == "A 4 mm red polyp. No adenoma."


def test_a_conclusion_below_pathology_is_the_pathologists() -> None:
    report = f"Findings: {LESION}.\nHistology: TA.\nConclusion: adenoma, low grade."
    assert strip_pathology(report) == f"Findings: {LESION}."
    own = f"Findings: {LESION}.\nConclusion: adenoma."
    assert strip_pathology(own) == own
    assert strip_pathology("Histology: TA.\nImpression: adenoma.") == "Impression: adenoma."


def test_histology_that_is_awaited_hides_nothing_behind_it() -> None:
    report = "Findings: 5 mm polyp.\nHistology: awaited.\nSecond polyp of 12 mm, red."
    assert "12 mm" in strip_pathology(report)


@pytest.mark.parametrize(
    "report",
    [
        "No pathology seen other than a 6 mm polyp.",
        "No significant pathology apart from a 6 mm polyp.",
        "No lesions save for a 6 mm polyp in the caecum.",
        "No pathology besides a 6 mm sessile polyp in the sigmoid.",
    ],
)
def test_what_is_excepted_from_a_denial_is_mentioned(report: str) -> None:
    assert polyp_mentioned(report)
    (found,) = extract(report)
    assert found.attributes["size_band"].value == "6-9"


def test_offsets_hold_and_the_next_header_is_still_known() -> None:
    report = "8 mm polyp. HISTO: TA LGD. Impression: adenoma.\nPath: HP\nPlan: no adenoma left."
    blank = without_pathology(report)
    assert len(blank) == len(report)
    assert "TA" not in blank
    pieces = stated_pathology(report)
    assert all(a.end <= b.start for a, b in pairwise(pieces))
    (found,) = extract(report)
    assert found.impression == "neoplastic"
    assert report[slice(*found.attributes["size_band"].span)] == "8 mm"


@pytest.mark.parametrize(
    "unit", ["biopsy ", "(histology) ", "which ", "; ", "colonic, ", "final : ", "Addendum 1 "]
)
def test_hostile_text_takes_no_longer_than_its_length_allows(unit: str) -> None:
    text = "6 mm polyp " + unit * (5000 // len(unit)) + "histology"
    start = time.thread_time()
    strip_pathology(text)
    assert time.thread_time() - start < 2


def test_a_long_sentence_of_diagnoses_is_read_in_time() -> None:
    start = time.thread_time()
    assert is_neoplastic("adenoma " * 2500) is True
    assert time.thread_time() - start < 2


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        # It names no lesion: of an adenoma it would deny high grade only.
        ("Negative for dysplasia.", None),
        ("Hyperplastic polyp, negative for dysplasia.", False),
        ("Colonic mucosa, negative for dysplasia or malignancy.", False),
        ("Adenoma, negative for high grade dysplasia.", True),
        ("SSL, negative for dysplasia.", None),
        ("TA with LGD", True),
        ("TVA HGD", True),
        ("A. TA; B. HP", True),
        ("HP, no LGD", False),
        ("No LGD.", None),
        ("SSL with LGD", True),
        ("TA cannot be excluded.", None),
        ("? dysplasia.", None),
        ("Dysplasia?", None),
        ("Hyperplastic polyp ? dysplasia", None),
        ("Tubular adenoma ? HGD", True),
        ("? dysplasia. Normal colonic mucosa.", False),
    ],
)
def test_abbreviations_denials_and_questions_become_verdicts(
    text: str, verdict: bool | None
) -> None:
    assert is_neoplastic(text) is verdict


def test_ingested_reports_hold_no_pathology_and_pathology_holds_it(tmp_path: Path) -> None:
    words = [words for kind in STATED.values() for words in kind]
    reports = [
        f"Findings: {LESION}.\n" + "\n".join(words[i::4]) + "\nImpression: a polyp."
        for i in range(4)
    ]
    # A soft hyphen and a blank that does not break.
    reports[0] = reports[0].replace("\nImpression", "\nHisto\u00adlogy\u00a0report: HP\nImpression")
    exams = [Exam(f"E{i}", f"P{i}", report, "") for i, report in enumerate(reports)]
    write_table(tmp_path / "raw" / "reports.csv", exams)
    for i, exam in enumerate(exams):
        write_frames(tmp_path / "raw" / exam.exam, "a.jpg", start=i)
    ingest(config(tmp_path), tmp_path / "raw", tmp_path / "out")
    kept, told = (
        [json.loads(line) for line in (tmp_path / "out" / name).read_text("utf-8").splitlines()]
        for name in ("records.jsonl", "pathology.jsonl")
    )
    assert {row["report"] for row in kept} == {f"Findings: {LESION}.\nImpression: a polyp."}
    assert [row["neoplastic"] for row in told] == [True] * 4
