"""A camera on the page: a real Chromium whose camera is a file, real streams, real scores."""

import io
import json
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from service.keys import Scope, change_keys, new_key
from service.settings import Settings, newest_bundle
from tests.page.conftest import ALLOWED, FAKE, NARROW, POLYP, WIDE, Tab, as_seen, opened
from tests.page.test_use import AXE, violations
from tests.service.conftest import Running, Serve, as_form, running
from tests.tiny_bundle import build_tiny_bundle
from tests.waiting import wait_until

TASKS = ("polyp_detection", "malignancy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("live")


@pytest.fixture(scope="module")
def shipping(serve: Serve, folder: Path) -> Iterator[Running]:
    """The service with the bundle that ships, and a place for exams."""
    with serve(bundle=newest_bundle(), exam_store=str(folder / "shipped.sqlite3")) as up:
        yield up


@pytest.fixture(scope="module")
def tiny(serve: Serve, folder: Path) -> Iterator[Running]:
    """The service with the bundle that knows colours, and a place for exams."""
    with serve(exam_store=str(folder / "tiny.sqlite3")) as up:
        yield up


def press(tab: Tab, words: str) -> None:
    tab.page.click(f'#live-controls button:text-is("{words}")')


def start(tab: Tab) -> str:
    """Turn the camera on and start; gives the exam's id once the patient has a result."""
    tab.page.wait_for_selector(".state.good")
    tab.page.click("#choose-camera")
    press(tab, "Start")
    tab.page.wait_for_selector("#live-patient-malignancy b")
    return tab.text("#live-exam").split()[1].rstrip(",")


def verdict(tab: Tab, selector: str) -> list[str]:
    """Decision and probability, once there are some: of a late frame none is shown."""

    def both() -> list[str]:
        words = tab.text(selector).split()
        return words if len(words) == 2 else []

    return wait_until(both)


def said(tab: Tab, words: str) -> None:
    tab.page.wait_for_selector(f"#live-said >> text={words}")


def noticed(tab: Tab) -> str:
    tab.page.wait_for_selector("#live-notices [role=alert]")
    return tab.text("#live-notices p")


def counted(tab: Tab) -> dict[str, str]:
    terms = tab.page.locator("#live-counts dt").all_inner_texts()
    return dict(zip(terms, tab.page.locator("#live-counts dd").all_inner_texts(), strict=True))


def add_up(counts: dict[str, str]) -> bool:
    seen, answered, dropped = (
        int(re.split("[ ,]", counts[name])[0])
        for name in ("From the camera", "Answered", "Dropped")
    )
    return seen == answered + dropped


def log_odds(probability: float) -> float:
    return math.log(probability / (1 - probability))


def test_shows_the_scores_of_the_service_and_its_final_result(
    seeing: Browser, shipping: Running
) -> None:
    picture = io.BytesIO()
    as_seen(POLYP).save(picture, "PNG")
    with opened(seeing, shipping.port) as tab:
        sent = []
        tab.page.on("request", lambda request: sent.append(request.url))
        tab.page.wait_for_selector(".state.good")
        tab.page.click("#choose-camera")
        said(tab, "The camera is on. Nothing is sent yet.")
        assert not [one for one in sent if "exams" in one]
        exam = start(tab)
        for task in TASKS:
            path = f"/v1/{task.replace('_', '-')}"
            answer = shipping.client.post(path, **as_form([picture.getvalue()])).json()
            [patient] = answer["patients"]
            for place in ("frame", "patient"):
                word, value = verdict(tab, f"#live-{place}-{task}")
                assert word.lower() == patient["decision"]
                # The picture went through the film's and the page's own compression, which moves
                # the margin; a probability about a half moves most with it.
                assert log_odds(float(value)) == pytest.approx(
                    log_odds(patient["probability"]), abs=0.5
                )
        wait_until(lambda: "s old" in tab.text("#live-age"))
        tab.page.wait_for_function(
            "() => parseInt(document.querySelector('#live-counts dd').textContent) >= 25"
        )
        press(tab, "Stop")
        press(tab, "Close the exam")
        tab.page.wait_for_selector("#live-final h3")
        document = shipping.client.get(f"/v1/exams/{exam}").json()
        assert (document["state"], document["final"]) == ("closed", True)
        assert document["revision"] >= 2
        finals = tab.page.locator("#live-final .verdict .number").all_inner_texts()
        assert finals == [f"{one['patient']['probability']:.3f}" for one in document["results"]]
        # One file counts once, and with one frame it is the frame's threshold that decides.
        polyp = document["results"][0]
        whole = [one for one in polyp["patient"]["frames"] if "duplicate_of" not in one]
        by = "frame_threshold" if len(whole) == 1 else "patient_threshold"
        threshold = polyp["operating_point"][by]
        assert f"Positive at or above {threshold:.3f}." in tab.text("#live-final")
        wait_until(lambda: add_up(counted(tab)))  # what was under way at the end as well
        kept = counted(tab)["Answered"].split(", of which ")[1]
        assert kept == f"{document['revision']} are part of the exam"
        with tab.page.expect_download() as saved:
            press(tab, "Download JSON")
        taken = json.loads(Path(saved.value.path()).read_text())
        assert taken["results"] == document["results"]
        with tab.page.expect_download() as saved:
            press(tab, "Download FHIR")
        assert json.loads(Path(saved.value.path()).read_text())["resourceType"] == "Bundle"
        press(tab, "New live view")
        assert start(tab) != exam


def test_goes_on_in_the_same_exam_and_deletes_it(seeing: Browser, shipping: Running) -> None:
    with opened(seeing, shipping.port) as tab:
        exam = start(tab)
        press(tab, "Stop")
        said(tab, "Stopped.")
        assert tab.page.evaluate("document.querySelector('#live-picture video').srcObject") is None
        before = shipping.client.get(f"/v1/exams/{exam}").json()
        assert before["state"] == "open"
        press(tab, "Go on")
        tab.page.wait_for_function(
            f"() => /rests on (\\d+)/.exec(document.getElementById('live-exam').textContent)[1]"
            f" > {before['revision']}"
        )
        assert tab.text("#live-exam").startswith(f"Exam {exam},")
        press(tab, "Stop")
        press(tab, "Delete the exam")
        said(tab, "The exam is deleted")
        assert shipping.client.get(f"/v1/exams/{exam}").status_code == 404
        assert tab.page.is_hidden("#live-results")
        press(tab, "Hide")
        assert tab.page.is_hidden("#live")
        assert tab.page.evaluate("document.activeElement.id") == "choose-camera"


def test_leaving_with_an_exam_that_is_open_is_asked_about(seeing: Browser, tiny: Running) -> None:
    asked = []
    with opened(seeing, tiny.port) as tab:
        tab.page.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.accept()))
        start(tab)
        tab.page.reload()
        assert asked == ["beforeunload"]
        tab.page.wait_for_selector(".state.good")
        tab.page.click("#choose-camera")
        tab.page.reload()
        assert asked == ["beforeunload"]


def test_a_line_that_was_cut_is_taken_up_again(
    seeing: Browser, serve: Serve, bundle: Path, store: str
) -> None:
    with serve(exam_store=store) as first, opened(seeing, first.port) as tab:
        exam = start(tab)
        kept = first.client.get(f"/v1/exams/{exam}").json()["revision"]
        first.server.should_exit = True
        first.thread.join(30)
        said(tab, "The line to the service is cut. What was kept is not lost; trying again")
        with running(Settings(bundle=bundle, exam_store=store), first.port) as again:
            said(tab, "Live.")
            tab.page.wait_for_function(
                f"() => /rests on (\\d+)/.exec(document.getElementById('live-exam').textContent)[1]"
                f" > {kept}"
            )
            press(tab, "Stop")
            press(tab, "Delete the exam")
            said(tab, "The exam is deleted")
            assert again.client.get(f"/v1/exams/{exam}").status_code == 404


@pytest.mark.parametrize(
    ("word", "words"),
    [("close", "The exam was closed elsewhere"), ("delete", "No exam of this id.")],
)
def test_an_exam_that_ends_elsewhere_is_said(
    seeing: Browser, tiny: Running, word: str, words: str
) -> None:
    with opened(seeing, tiny.port) as tab:
        exam = f"/v1/exams/{start(tab)}"
        done = tiny.client.post(f"{exam}/close") if word == "close" else tiny.client.delete(exam)
        assert done.is_success
        assert words in noticed(tab)
        press(tab, "Delete the exam")
        said(tab, "The exam is deleted")


def test_an_exam_whose_bundle_was_exchanged_is_said_and_closed_by_it(
    seeing: Browser, serve: Serve, bundle: Path, store: str, tmp_path: Path
) -> None:
    shutil.copytree(bundle, tmp_path / "one")
    build_tiny_bundle(tmp_path / "two", version="2.0.0")
    with (
        serve(bundle=tmp_path / "one", bundles=tmp_path, exam_store=store) as up,
        opened(seeing, up.port) as tab,
    ):
        exam = f"/v1/exams/{start(tab)}"
        before = up.client.get(exam).json()["model"]
        load = up.client.post("/v1/admin/models/load", json={"bundle": "two"})
        assert load.is_success, load.text
        assert "takes no more frames" in noticed(tab)
        press(tab, "Close the exam")
        said(tab, "The exam is closed; its result is final.")
        final = up.client.get(exam).json()
        assert (final["final"], final["model"]) == (True, before)


def test_an_exam_whose_bundle_changed_while_the_line_was_cut_is_said(
    seeing: Browser, serve: Serve, bundle: Path, store: str, tmp_path: Path
) -> None:
    build_tiny_bundle(tmp_path / "two", version="2.0.0")
    shutil.copytree(bundle, tmp_path / "bundles" / "one")
    other = {"bundle": tmp_path / "two", "bundles": tmp_path / "bundles"}
    with serve(exam_store=store) as first, opened(seeing, first.port) as tab:
        start(tab)
        first.server.should_exit = True
        first.thread.join(30)
        said(tab, "The line to the service is cut. What was kept is not lost; trying again")
        with running(Settings(exam_store=store, **other), first.port):
            assert "The service serves another bundle now" in noticed(tab)


def test_an_exam_that_is_full_is_said_and_results_go_on(
    seeing: Browser, serve: Serve, store: str
) -> None:
    with serve(max_exam_frames=1, exam_store=store) as up, opened(seeing, up.port) as tab:
        start(tab)
        assert noticed(tab).startswith("The exam has as many frames as it takes.")
        before = int(counted(tab)["Answered"].split(",")[0])
        tab.page.wait_for_function(
            "() => parseInt(document.querySelectorAll('#live-counts dd')[1].textContent)"
            f" > {before}"
        )
        assert tab.page.is_visible('#live-controls >> text="Stop"')


def test_no_room_for_another_exam_is_said_and_can_be_tried_again(
    seeing: Browser, serve: Serve, store: str
) -> None:
    with serve(max_exams=1, exam_store=store) as up, opened(seeing, up.port) as tab:
        other = up.client.post("/v1/exams").json()["exam_id"]
        tab.page.wait_for_selector(".state.good")
        tab.page.click("#choose-camera")
        press(tab, "Start")
        assert "as many exams as one client may have" in noticed(tab)
        assert up.client.delete(f"/v1/exams/{other}").status_code == 204
        tab.page.click('#live-notices button:text("Try again")')
        tab.page.wait_for_selector("#live-patient-malignancy b")
        assert tab.page.locator("#live-notices [role=alert]").count() == 0


def test_a_key_opens_the_stream_and_its_rate_is_said(
    seeing: Browser, serve: Serve, store: str, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    slow, token = new_key("room", [Scope.SCORE], frames_per_second=1)
    free, other = new_key("room", [Scope.SCORE])
    change_keys(keys, lambda _: [slow, free])
    with serve(keys=keys, exam_store=store) as up, opened(seeing, up.port) as tab:
        tab.page.fill("#key", token)
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector("#columns >> visible=true")
        exam = start(tab)
        tab.page.wait_for_selector("#live-counts >> text=beyond the key’s rate")
        assert token not in tab.page.content()
        head = {"Authorization": f"Bearer {other}"}
        assert up.client.get(f"/v1/exams/{exam}", headers=head).json()["revision"] >= 1


def test_another_camera_is_chosen_while_the_exam_goes_on(
    launch: Callable[..., Browser], tiny: Running
) -> None:
    on = "document.querySelector('#live-picture video').srcObject?.getVideoTracks()[0]"
    with opened(launch(f"{FAKE}=device-count=2", ALLOWED), tiny.port) as tab:
        exam = start(tab)
        chosen = tab.page.input_value("#live-camera")
        options = tab.page.locator("#live-camera option").all()
        [other] = {one.get_attribute("value") or "" for one in options} - {chosen}
        tab.page.select_option("#live-camera", other)
        tab.page.wait_for_function(f"() => {on}?.getSettings().deviceId === '{other}'")
        before = int(counted(tab)["From the camera"].split()[0])
        tab.page.wait_for_function(
            f"() => parseInt(document.querySelector('#live-counts dd').textContent) > {before + 5}"
        )
        assert tab.text("#live-exam").startswith(f"Exam {exam},")
        # The camera is pulled out.
        tab.page.evaluate(f"() => {on}.dispatchEvent(new Event('ended'))")
        assert noticed(tab).startswith("The camera was disconnected")
        said(tab, "Stopped. The exam is still open")


@pytest.mark.parametrize(
    ("switches", "host", "words"),
    [
        ([], "127.0.0.1", "No camera was found."),
        ([FAKE, f"{ALLOWED}=deny"], "127.0.0.1", "This page may not use the camera."),
        (
            [FAKE, ALLOWED, "--host-resolver-rules=MAP endo.example 127.0.0.1"],
            "endo.example",
            "Browsers let only pages from https:// or from localhost use a camera.",
        ),
    ],
)
def test_why_there_is_no_picture_is_said(
    launch: Callable[..., Browser], tiny: Running, switches: list[str], host: str, words: str
) -> None:
    with opened(launch(*switches), tiny.port, host=host) as tab:
        tab.page.wait_for_selector(".state.good")
        tab.page.click("#choose-camera")
        assert noticed(tab).startswith(words)
        press(tab, "Turn the camera on")
        assert noticed(tab).startswith(words)
        assert tab.page.is_hidden('#live-controls >> text="Start"')


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make page-tools)")
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "dark"), (NARROW, "light")])
def test_axe_finds_nothing_in_any_state(
    seeing: Browser, tiny: Running, size: tuple[int, int], scheme: str
) -> None:
    with opened(seeing, tiny.port, size, scheme) as tab:
        for step in ("Start", "Stop", "Close the exam", "New live view"):
            if step == "Start":
                start(tab)
            else:
                press(tab, step)
            tab.page.wait_for_selector("#live[aria-busy=false], #live:not([aria-busy])")
            assert violations(tab) == []
            width = tab.page.evaluate("document.documentElement.scrollWidth")
            assert width <= size[0], "scrolls sideways"


def test_keyboard_alone_runs_an_exam(seeing: Browser, tiny: Running) -> None:
    with opened(seeing, tiny.port) as tab:
        page = tab.page
        page.wait_for_selector(".state.good")
        page.focus("#choose-camera")
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "live-title"
        said(tab, "The camera is on.")
        page.keyboard.press("Tab")
        for words, then in (("Start", "Stop"), ("Stop", "Go on"), ("Go on", "Stop")):
            assert page.evaluate("document.activeElement.textContent") == words
            page.keyboard.press("Enter")
            page.wait_for_function(f"() => document.activeElement.textContent === '{then}'")
