"""Which clause of a report speaks of which lesion."""

import pytest

from training.attributes import extract, polyp_mentioned


@pytest.mark.parametrize(
    "report",
    [
        "A 3 mm pale polyp in the caecum and a 12 mm red polyp in the rectum.",
        "There is a 3 mm pale polyp. Another polyp of 12 mm is red.",
        "Polyp 1: 3 mm, pale. Polyp 2: 12 mm, red.",
        "CAECUM: 3mm pale polyp. TRANSVERSE COLON: 12-14 mm red polyp.",
        "3mm polyp, pale. 12 mm polyp rectum, red.",
        "In the caecum, 3 mm pale polyp. At the rectum 12mm red polyp.",
        "Findings:\n1. Pale polyp of 3 mm.\n2. Red polyp of 12 mm.",
        "The first polyp is 3 mm and pale. The second polyp is 12 mm and red.",
        "Lesion 2 is a red polyp of 12 mm. Lesion 1 is a 3 mm polyp. Lesion 1 is pale.",
        "Hepatic flexure 3 mm polyp, pale. Sigmoid 12 mm polyp, red, left in situ.",
        "Sigmoid: polyp, 3 mm, pale. Caecum: polyp, 12mm, red.",
        "SIGMOID COLON:\n- 3 mm polyp, pale, hot snare\n- 12-14 mm polyp, red, cold snare",
        "Two polyps in the sigmoid: (1) 3mm, pale, sessile; (2) 12mm on a broad stalk, red.",
        "Ascending colon - 2 polyps: one 3 mm pale dome; the other 12mm, pedunculated, red.",
        "Lesion 1 hepatic flexure 3mm, pale; lesion 2 distal to this, 12 mm, red.",
        "A 3 mm pale polyp; at the hepatic flexure a 12 mm red polyp.",
        "Rectum: 3 mm polyp, pale; second polyp nearby, 12 mm, red.",
        "Two lesions were seen. In the cecum there is a 3 mm pale polyp. A red lesion of 12 mm.",
        "Cecum 3 mm pale polyp; ascending colon 12 mm red polyp.",
        "Polyps: 3 mm pale caecum; 12 mm red sigmoid.",
        "1) 3 mm pale polyp caecum 2) 12 mm red polyp sigmoid",
        "Polyps: a) 3 mm, pale; b) 12 mm, red.",
        "Polyps at the caecum (3mm, pale) and sigmoid (12mm, red).",
        "A 3 mm pale polyp in the caecum and 12 mm red polyp in the rectum.",
        "The first polyp, in the caecum, is 3 mm, pale. The second, at the flexure, is 12 mm, red.",
        "A 3 mm pale polyp. Synchronous 12 mm red polyp in the sigmoid.",
        "Two polyps: the larger, 12 mm, is red; the smaller, 3 mm, is pale.",
    ],
)
def test_each_lesion_becomes_one_finding(report: str) -> None:
    found = {f.attributes["size_band"].value: f.attributes["colour"].value for f in extract(report)}
    assert found == {"<=5": "pale", "10-19": "red"}


def test_following_sentences_belong_to_the_lesion_before_them() -> None:
    first, second = extract(
        "Lesion 1: a small polyp. It has a smooth surface. Good preparation. "
        "Lesion 2: a large polyp. There is a granular surface."
    )
    assert first.attributes["surface_texture"].value == "smooth"
    assert second.attributes["surface_texture"].value == "granular"
    assert "preparation" not in first.text


@pytest.mark.parametrize(
    ("report", "mentioned"),
    [
        ("A polyp was seen.", True),
        ("No polyps seen.", False),
        ("Polyps were not seen.", False),
        ("No evidence of polyps or other lesions.", False),
        ("The colon is free of polyps.", False),
        ("Normal examination without any polyps.", False),
        ("Indication: polyp surveillance.\nFindings: normal mucosa.", False),
        ("History of polyps. Normal colon.", False),
        ("Findings: normal.\nPathology: tubular adenoma.", False),
        ("No polyps in the rectum. A 4 mm polyp in the caecum.", True),
        ("Polypoid lesions: nil.", False),
        ("Rectosigmoid junction: sessile, 8mm, snared.", True),
        ("TI: at least 10 cm explored, normal mucosa.", False),
        ("Large polyp in sigmoid; two clips placed prior to hot snare.", True),
        ("Known FAP: innumerable adenomas, 2-4 mm.", True),
        ("A known polyp was not sought.", False),
        ("Residual polyp at the previous EMR site.", True),
        ("Previous polyp of 4 mm removed.", False),
        ("Cecal SSL approx. 1 cm.", True),
        ("Polpy removed.", True),
        ("Two pieces of tissue, the larger 4 mm, the smaller 2 mm.", False),
    ],
)
def test_polyps_are_found_but_not_denied_or_past_ones(report: str, mentioned: bool) -> None:
    assert polyp_mentioned(report) is mentioned
    assert bool(extract(report)) is mentioned


def test_a_form_is_read_as_one_lesion() -> None:
    (found,) = extract("Site: rectum | Size: 40 mm | Paris: 0-Is | Ulceration: none")
    assert {n: v.value for n, v in found.attributes.items()} == {
        "size_band": ">=30",
        "paris": "Is",
        "surface_integrity": "intact",
    }


@pytest.mark.parametrize(
    "report",
    [
        "A 4 mm polyp. Polyp retrieved, histology pending.",
        "A 4 mm polyp. The polyp was removed by snare.",
        "A 4 mm polyp. Rectum: normal. Red mucosa at 20 cm.",
        "A polyp was seen in the sigmoid. Polyp of 4 mm, pale.",
        "Ileum: 10 cm explored. A 4 mm polyp.",
        "RECTUM: 4 mm polyp, removed and sent for histology.",
        "A polyp on a pedicle, 4 mm.",
        "A 4 mm polyp. The second part of the colon was normal.",
        "A 4 mm polyp; snared; margins clear.",
        "Two sessile polyps in the rectum, the largest 4 mm.",
        "A 4 mm polyp. Rectum- 1cm .",
    ],
)
def test_what_goes_on_about_a_lesion_or_about_none_makes_no_new_one(report: str) -> None:
    (found,) = extract(report)
    assert found.attributes["size_band"].value == "<=5"
    assert found.attributes.get("colour") is None or "pale" in report
