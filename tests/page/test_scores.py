"""What the page shows is what the service answers: the shipped bundle, real uploads."""

import csv
import json
import subprocess
from typing import Any

import pytest

from tests.page.conftest import EXAMPLES, Tab
from tests.service.conftest import Running, as_form, image

POINTS = ("sensitivity_first", "balanced", "specificity_first")
WORDS = {"positive": "Positive", "negative": "Negative", "abstained": "Not decided"}


def answered(up: Running, task: str, **options: Any) -> dict[str, Any]:
    """The service's own answer to the examples."""
    form = as_form([path.read_bytes() for path in EXAMPLES], {"explain": True, **options})
    answer = up.client.post(f"/v1/{task}", **form)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def captions(tab: Tab) -> list[str]:
    tiles = range(tab.page.locator(".tile").count())
    return [tab.named(index).partition(",")[0] for index in tiles]


def expected(patient: dict[str, Any]) -> list[str]:
    return [
        f"Frame {frame['frame_id']} {WORDS[frame['decision']]} {frame['probability']:.2f}"
        for frame in patient["frames"]
    ]


@pytest.mark.parametrize("task", ["polyp-detection", "malignancy"])
def test_shows_the_answer_of_the_service_at_each_operating_point(
    tab: Tab, shipped: Running, task: str
) -> None:
    tab.page.check(f"input[name=task][value={task}]", force=True)
    tab.give(*EXAMPLES)
    model = shipped.client.get("/v1/models/endo-clip-lite0").json()
    for point in POINTS:
        tab.page.check(f"input[name=point][value={point}]")
        tab.settled()
        [patient] = answered(shipped, task, operating_point=point)["patients"]
        assert tab.text(".verdict").split() == [
            *WORDS[patient["decision"]].split(),
            f"{patient['probability']:.3f}",
        ]
        assert captions(tab) == expected(patient)
        # A screen reader is told the same.
        told = f"Patient: {WORDS[patient['decision']]} {patient['probability']:.3f}."
        assert tab.text("#progress[role=status]") == f"{len(EXAMPLES)} frames scored. {told}"
        measured = model["operating_points"][task.replace("-", "_")][point]["measured"]
        row = tab.page.locator("tr", has=tab.page.locator(f"input[value={point}]"))
        assert row.locator("td").all_inner_texts() == [
            f"{measured[name]:.2f}"
            for name in (
                "patient_sensitivity",
                "patient_specificity",
                "frame_sensitivity",
                "frame_specificity",
            )
        ]


def test_first_shows_the_frame_that_the_result_rests_on(tab: Tab, shipped: Running) -> None:
    tab.give(*EXAMPLES)
    [patient] = answered(shipped, "polyp-detection")["patients"]
    attention = [frame["attention"] for frame in patient["frames"]]
    most = attention.index(max(attention))
    assert tab.text("#frame-title") == f"Frame {most}"
    assert f"Attention\n{max(attention):.3f}" in tab.text("#stage dl")
    name = tab.page.get_attribute("#stage canvas", "aria-label")
    assert name is not None
    assert "with a heat map of polyp in the " in name


def test_heat_map_lies_over_the_frame_as_strongly_as_is_asked(tab: Tab) -> None:
    pixels = "() => document.querySelector('#stage canvas').toDataURL()"
    tab.give(EXAMPLES[-1])
    tab.page.wait_for_function("() => document.querySelector('#stage canvas').width > 1000")
    with_map = tab.page.evaluate(pixels)
    tab.page.fill("#heat", "0")
    without = tab.page.evaluate(pixels)
    assert with_map != without
    tab.page.fill("#heat", "0.5")
    assert tab.page.evaluate(pixels) == with_map


def test_prompts_are_ranked_while_they_are_typed(tab: Tab, shipped: Running) -> None:
    tab.give(*EXAMPLES[-2:])
    tab.page.check("input[name=task][value=zero-shot]", force=True)
    first, second = tab.page.locator("#prompts .lines input").all()[:2]
    tab.page.locator(".remove").last.click()
    first.fill("a red polyp | a polyp redder than the mucosa around it")
    second.fill("a pale polyp")
    long = "a polyp of the large bowel that is seen from near and in good light, and "
    labels = [
        {
            "label": "a red polyp",
            "prompts": ["a red polyp", "a polyp redder than the mucosa around it"],
        },
        {"label": "a pale polyp", "prompts": ["a pale polyp"]},
    ]
    shown = int(tab.text("#frame-title").split()[1])
    frames = [path.read_bytes() for path in EXAMPLES[-2:]]
    live = zero_shot(shipped, frames[shown : shown + 1], labels)
    tab.page.wait_for_selector("#stage .ranking >> text=a red polyp")
    tab.page.wait_for_selector("#stage .ranking >> text=a pale polyp")
    assert ranking(tab, "#stage") == ranked(live)
    tab.page.click("text=Rank all 2 frames")
    tab.page.wait_for_selector("#patient .ranking")
    assert ranking(tab, "#patient") == ranked(zero_shot(shipped, frames, labels))
    # Long ones that begin alike stay two.
    first.fill(f"{long}red")
    second.fill(f"{long}pale")
    tab.page.wait_for_selector("#stage .ranking >> text=… 2")
    assert sorted(row.split()[-2] for row in ranking(tab, "#stage")) == ["1", "2"]


def zero_shot(up: Running, frames: list[bytes], labels: list[dict[str, Any]]) -> dict[str, Any]:
    document = up.client.post("/v1/zero-shot", **as_form(frames, {"labels": labels})).json()
    scores: dict[str, float] = document["patients"][0]["scores"]
    return scores


def ranked(scores: dict[str, float]) -> list[str]:
    order = sorted(scores.items(), key=lambda item: -item[1])
    return [f"{label} {score:.3f}" for label, score in order]


def ranking(tab: Tab, where: str) -> list[str]:
    rows = tab.page.locator(f"{where} .ranking li").all_inner_texts()
    return [" ".join(row.split()) for row in rows]


def test_frames_that_were_set_aside_or_unreadable_say_why(tab: Tab, tmp_path: Any) -> None:
    dark, broken = tmp_path / "a.png", tmp_path / "b.jpg"
    dark.write_bytes(image((3, 3, 3), (320, 256)))
    broken.write_bytes(EXAMPLES[0].read_bytes()[:9000])
    tab.give(dark, broken, EXAMPLES[-1])
    assert tab.named(0) == "Frame 0 Set aside. Too dark to score."
    assert tab.named(1).startswith("Frame 1 Unreadable. The file ends too early")
    assert tab.named(2).startswith("Frame 2 Positive 0.9")
    assert "Left out: 1 frame: Too dark to score." in tab.text("#patient")
    assert "1 of 3 frames scored" in tab.text("#patient")


def test_answer_is_taken_along_as_json_csv_and_fhir(tab: Tab, shipped: Running) -> None:
    tab.give(*EXAMPLES)
    documents = {}
    for kind in ("JSON", "CSV"):
        with tab.page.expect_download() as waiting:
            tab.page.click(f"text=Download {kind}")
        documents[kind] = waiting.value.path().read_text()
    answer = answered(shipped, "polyp-detection", operating_point="balanced")
    saved = json.loads(documents["JSON"])
    with tab.page.expect_download() as waiting:
        tab.page.click("text=Download FHIR")
    bundle = json.loads(waiting.value.path().read_text())
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    # One of the patient, and one of each frame.
    assert kinds.count("Observation") == 1 + len(EXAMPLES)
    assert saved | {"request_id": 0} == answer | {"request_id": 0}
    rows = list(csv.DictReader(documents["CSV"].splitlines()))
    frames = answer["patients"][0]["frames"]
    assert [row["file"] for row in rows] == [path.name for path in EXAMPLES]
    assert [float(row["probability"]) for row in rows] == [one["probability"] for one in frames]
    assert [float(row["attention"]) for row in rows] == [one["attention"] for one in frames]


def test_command_gives_the_same_answer(tab: Tab) -> None:
    tab.give(*EXAMPLES)
    tab.page.click("summary >> text=The command")
    command = tab.text("#take pre")
    done = subprocess.run(
        ["bash", "-c", command], cwd=EXAMPLES[0].parent, capture_output=True, text=True, check=True
    )
    [patient] = json.loads(done.stdout)["patients"]
    assert captions(tab) == expected(patient)
    assert tab.text(".verdict .number") == f"{patient['probability']:.3f}"
