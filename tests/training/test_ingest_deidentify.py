"""Identities leave a text in many forms; what the report reader needs stays."""

import json
import socket
from collections import Counter
from datetime import date
from functools import cache
from pathlib import Path

import pytest

from training.attributes import extract, strip_pathology
from training.ingest.characters import fold
from training.ingest.dates import Dates
from training.ingest.deidentify import Deidentifier
from training.ingest.identities import Identities
from training.ingest.language import language_of
from training.ingest.pathology import is_neoplastic, split_pathology

TEXT = Path(__file__).resolve().parents[3] / "shared" / "data" / "text"
NOBODY = Identities([], [])
DATES = Dates(-30, True, date(2021, 3, 4), frozenset({date(1950, 3, 12)}))


@cache
def deidentifier() -> Deidentifier:
    return Deidentifier()


def clean(text: str, names: tuple[str, ...] = (), numbers: tuple[str, ...] = ()) -> str:
    return deidentifier().clean(text, Identities(names, numbers), DATES)[0]


@pytest.mark.parametrize(
    "written",
    [
        *("Jörg Müller", "jörg müller", "JÖRG MÜLLER", "Joerg Mueller", "JOERG MUELLER"),
        *("Jorg Muller", "MÜLLER, Jörg", "müller,jörg", "Mu\u0308ller", "Jörg-Müller", "J. Müller"),
        *(
            "joergmueller",
            "mueller_joerg",
            "jmueller",
            "muellerj",
            "J. M.",
            "J.M.",
            "M. J.",
            "j.m.",
        ),
        *(
            "Mr. JM",
            "(JM)",
            "signed JM",
            "by MJ",
            "Müllers",
            "Müller's",
            "MUELLER’S",
            "Müller/Jörg",
        ),
    ],
)
def test_a_name_of_the_row_goes_however_it_is_written(written: str) -> None:
    cleaned = clean(f"We told {written} that the polyp is gone.", ("Müller, Jörg",))
    left, _ = fold(cleaned)
    assert "mull" not in left
    assert "jorg" not in left
    assert "jm" not in left.replace(".", "").replace(" ", "")
    assert cleaned.endswith("polyp is gone.")


def test_names_in_other_scripts_go() -> None:
    cleaned = clean("王伟 had a polyp, иванов and ИВАНОВ too; 王伟说没有.", ("王伟", "Иванов"))
    assert cleaned == "[name] had a polyp, [name] and [name] too; [name]说没有."


def test_other_words_stay_when_a_name_of_the_row_goes() -> None:
    text = "The muller-like stain, a mulled edge and jorgensen forceps: no name."
    assert clean(text, ("Mull, Org",)) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seen by dr mueller in clinic", "seen by [name] in clinic"),
        ("Referred by Prof. Dr. A. von der Leyen-Schmidt.", "Referred by [name]."),
        ("mr smith tolerated it", "[name] tolerated it"),
        ("Sister Wrobelska assisted", "[name] assisted"),
        ("Endoscopist: maria gonzalez", "Endoscopist: [name]"),
        ("Signed: J. Smith", "Signed: [name]"),
        ("Dr Mueller removed a polyp", "[name] removed a polyp"),
        ("dr brown removed a brown polyp", "[name] removed a brown polyp"),
        ("We informed Peter Schuster today.", "We informed [name] today."),
        ("per Tanaka, Hiroshi MD", "per [name] MD"),
        ("Adeyemi consented. Interpreter: Mbeki", "[name] consented. Interpreter: [name]"),
        ("photo by j.smith", "photo by [name]"),
        ("cc Dr G Rossi", "cc [name]"),
    ],
)
def test_titles_and_leads_announce_names(text: str, expected: str) -> None:
    assert clean(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "seen by the team",
            "Removed by cold snare",
            "performed by EMR",
            "Patient tolerated well",
        ),
        *("The patient's wife came.", "Discussed with the surgeon", "the consultant was told"),
        *("Barrett's oesophagus C2M3", "Crohn's disease", "Paris 0-IIa + IIc", "Kudo type IIIs"),
        *("Sano IIIa", "Hartmann's pouch", "Buscopan 20 mg", "Hodgkin lymphoma", "Lynch syndrome"),
        *("Peutz-Jeghers polyp", "Forrest Ib ulcer", "Mallory-Weiss tear", "Boston score 9"),
        *("Kudo pit pattern V", "NICE type 2", "JNET 2A", "a 12 mm polyp at 30 cm", "4 x 6 mm"),
        *("Haggitt 2", "2/3 of the circumference", "1:10,000 adrenaline", "10x8x6 mm", "BBPS 9"),
        *("3 polyps of 2-3-4 mm", "aged 67", "4 biopsies x 2", "Withdrawal time 8:30", "0-Is"),
        *("Roth net", "Mayo 2", "6 o'clock position", "Polyp- Pedunculated", "SIGMOID: 5mm polyp"),
        *("pH 7.35", "PCF-H290DL", "Procedure tolerated well.", "colon.de novo", "2.1.1.3 Colon"),
    ],
)
def test_what_medicine_says_stays(text: str) -> None:
    assert clean(text) == text


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        (
            "Hartmann, Eva",
            "explained to Hartmann. hartmann left",
            "explained to [name]. [name] left",
        ),
        ("Lynch, Mary", "Lynch syndrome; she is a Lynch.", "[name] syndrome; she is a [name]."),
        ("Karl Weiß", "Weiss tolerated it.", "[name] tolerated it."),
        ("Barrett", "Mrs Barrett has Barrett's oesophagus", "[name] has [name] oesophagus"),
        ("Maria De Luca", "from DeLuca; de luca, De Luca", "from [name]; [name]"),
        ("DELUCA", "from De Luca", "from [name]"),
        ("Sean O'Brien", "o brien, O’Brien; OBrien", "[name]; [name]"),
        ("OBrien", "from O ' Brien", "from [name]"),
        ("Ian McDonald", "mc donald; Mac Donald; MACDONALD", "[name]; [name]; [name]"),
        ("Jan van den Berg", "vandenberg; van den berg", "[name]; [name]"),
        ("Vandenberg", "Van den Berg", "[name]"),
        ("Omar Al-Mahdi", "Almahdi; al mahdi", "[name]; [name]"),
        ("Mary St. John", "St. John; StJohn", "[name]; [name]"),
        (
            "Ben Le",
            "told ben. Le was seen",
            "told [name]. [name] was seen",
        ),
        ("Castellane", "Cas\u00adtellane; Castel\u200blane", "[name]; [name]"),
        ("Castellane", "Castel-\nlane; Castel\u00ad\n lane", "[name]; [name]"),
        ("Castellane", "C a s t e l l a n e", "[name]"),
        ("John Smith", "J Smith; Smith J was seen", "[name]; [name] was seen"),
        ("Ng, Wei", "Ng was seen, told NG. ng tube", "[name] was seen, told [name]. ng tube"),
        ("Wu", "wu left", "[name] left"),
        ("王 芳", "王 芳; 芳王", "[name]; [name]"),
        (
            "Long, Amy",
            "LONG agreed. told long. A long polyp",
            "[name] agreed. told [name]. A long polyp",
        ),
        ("White", "White plaque, pinkish-white is seen", "White plaque, pinkish-white is seen"),
        ("No, Kim", "No polyps. No fistula", "No polyps. No fistula"),
        ("Ip", "Paris Ip; 0-Ip", "Paris Ip; 0-Ip"),
        ("Oscar", "o scar in the rectum", "o scar in the rectum"),
        ("Thomas Castellane", "TC agreed; normal TC", "[name] agreed; normal TC"),
    ],
)
def test_the_name_of_the_row_goes_even_where_it_costs_a_word(
    name: str, text: str, expected: str
) -> None:
    assert clean(text, (name,)) == expected


def test_a_name_that_is_a_word_goes_where_it_is_somebody() -> None:
    text = "Mrs Long has a long brown polyp."
    assert clean(text, ("Long, Ann",)) == "[name] has a long brown polyp."
    assert clean("A brown polyp. Mr Brown left.", ("Brown, Tom",)) == "A brown polyp. [name] left."


def test_denied_phrases_go_across_lines() -> None:
    who = Identities([], [], ["Haus Lindenhof"])
    for written in ("Haus\nLindenhof", "HAUS  LINDENHOF", "hauslindenhof", "Haus Linden-\nhof"):
        assert deidentifier().clean(f"in {written}.", who, DATES)[0] == "in [name]."


@pytest.mark.parametrize(
    "secret",
    [
        *(
            "S21-98765",
            "MRN: 8812345",
            "Hospital No. AB12345",
            "NHS 943 476 5919",
            "accession 77/1234",
        ),
        *("+49 89 1234567", "Tel. 0171 5551234", "a.b@klinik.example", "www.klinik.example/p"),
        *(
            "1.2.840.113619.2.55.3",
            "SW1A 1AA",
            "Hauptstraße 12",
            "12 High Street",
            "ACC-2021-00012",
            "943-476-5919",
            "QQ123456C",
            "12 elm street",
            "80331 München",
            "pacs.klinik.example.com/view",
            "(020) 7946–0958",
        ),
    ],
)
def test_numbers_and_addresses_go(secret: str) -> None:
    cleaned = clean(f"Ward 3, {secret}, a 12 mm polyp.")
    assert max(secret.split(), key=len) not in cleaned
    assert cleaned.endswith("a 12 mm polyp.")


def test_numbers_of_the_row_go_in_any_punctuation() -> None:
    for written in (
        "4711-0815-99",
        "4711081599",
        "4711 0815 99",
        "4711/0815/99",
        "4711 / 08 15-99",
    ):
        assert "15" not in clean(f"no {written}.", numbers=("4711-0815-99",))
    for written in ("9,391,803", "9'391'803", "9.391.803", "009391803", "９３９１８０３"):
        assert clean(f"no {written}.", numbers=("09391803",)) == "no [id]."
    assert clean("AB 12 34 56 78", numbers=("AB12345678",)) == "[id]"
    assert clean("Hospital number: AB 12 34 56 78.") == "[id]."
    assert clean("at 120 cm", numbers=("120",)) == "at 120 cm"


@pytest.mark.parametrize("number", ["10000", "10,000", "110000"])
def test_a_dilution_stays_whatever_number_the_patient_has(number: str) -> None:
    for text in ("Adrenaline 1:10,000", "Adrenaline 1:10000 injected"):
        assert clean(text, numbers=(number,)) == text
    assert "0" not in clean("No 10,000, no 10000.", numbers=("10000",))


def test_removals_are_counted_by_kind() -> None:
    text = "Mr Smith, Mr Jones, 04.03.2021, a@b.example"
    _, removed = deidentifier().clean(text, NOBODY, DATES)
    assert removed == {"name": 2, "date": 1, "email": 1}


def test_no_text_costs_nothing() -> None:
    assert deidentifier().clean("", NOBODY, DATES) == ("", Counter())


def test_nothing_is_looked_up_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    text = "Dr Smith, a.smith@klinik.example.co.uk, www.klinik.example, tel 0171 5551234"
    assert Deidentifier().clean(text, NOBODY, DATES)[0] == "[name], [email], [url], [phone]"
    assert language_of("Im Colon sigmoideum findet sich ein gestielter Polyp.") == "de"
    with pytest.raises(AssertionError, match="network"):
        socket.create_connection(("localhost", 9), timeout=0.1)


def test_attributes_survive_deidentification() -> None:
    """On all reports of the development data 0 of 2,431 mentions change (docs/ingestion.md)."""
    if not TEXT.is_dir():
        pytest.skip("../shared/data/text is absent")
    lines = (TEXT / "endominer_fake_colon_reports.jsonl").read_text("utf-8").splitlines()[::40]
    reports = ["Findings: " + json.loads(line)["Findings"].replace(".,", ". ") for line in lines]
    people = ("Brown, Mary", "Dr. Long", "Barrett")

    def mentions(report: str) -> Counter[tuple[int, str, str]]:
        return Counter(
            (i, name, found.value)
            for i, lesion in enumerate(extract(strip_pathology(report)))
            for name, found in lesion.attributes.items()
        )

    total = changed = 0
    for report in reports:
        before, after = mentions(report), mentions(clean(report, people, ("123456",)))
        total += before.total()
        changed += (before - after).total() + (after - before).total()
    assert total >= 20
    assert changed / total <= 0.005


# ---- language and pathology ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Im Colon sigmoideum ein 8 mm großer gestielter Polyp, Abtragung mit der Schlinge.", "de"),
        ("Pólipo sésil de 5 mm en colon ascendente, resecado con asa fría.", "es"),
        ("Polype sessile de 6 mm du côlon droit, réséqué à l'anse froide.", "fr"),
        ("Poliep van 4 mm in het sigmoid, verwijderd met een koude lis.", "nl"),
        ("直肠可见一枚息肉,大小约5mm", "zh"),
        ("3mm sessile polyp rectosigmoid- snare polypectomy.", "en"),
        ("Normal, albeit prominent ileocaecal valve.", "en"),
        ("NAD", "en"),
    ],
)
def test_languages_are_told_apart(text: str, language: str) -> None:
    assert language_of(text) == language


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Tubular adenoma with low grade dysplasia.", True),
        ("Moderately differentiated adenocarcinoma.", True),
        ("Tubulovillous adenoma; random biopsies normal.", True),
        ("Traditional serrated adenoma.", True),
        ("Sessile serrated lesion with low-grade dysplasia.", True),
        ("Sessile serrated lesion without dysplasia.", None),
        ("Sessile serrated adenoma.", None),
        ("Hyperplastic polyp. No dysplasia.", False),
        ("Inflammatory polyp, no adenoma seen.", False),
        ("Non-neoplastic polyp.", False),
        ("Normal colonic mucosa. No evidence of malignancy.", False),
        ("1. Tubular adenoma. 2. Hyperplastic polyp.", True),
        ("Indefinite for dysplasia.", None),
        ("Suspicious for adenocarcinoma.", None),
        ("Adenoma cannot be excluded.", None),
        ("No dysplasia or malignancy.", None),
        ("Clinical details: adenoma surveillance. Diagnosis: hyperplastic polyp.", None),
        ("Bowel cancer screening. Hyperplastic polyp, no dysplasia.", False),
        ("Indication: adenoma follow-up\nMicroscopy: normal colonic mucosa.", False),
        ("", None),
    ],
)
def test_pathology_becomes_a_verdict_or_none(text: str, verdict: bool | None) -> None:
    assert is_neoplastic(text) is verdict


def test_pathology_is_split_off_the_report() -> None:
    report = "Findings: A 5 mm polyp.\nHistology: tubular adenoma.\nPlan: repeat in 3 years."
    kept, told = split_pathology(report)
    assert "adenoma" not in kept
    assert "A 5 mm polyp." in kept
    assert told == "tubular adenoma."
