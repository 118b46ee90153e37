"""The live view where something comes late: a disk, a clock, a permission."""

import sqlite3
from contextlib import closing

from playwright.sync_api import Browser

from tests.page.conftest import opened
from tests.page.test_live import counted, press, start, verdict
from tests.service.conftest import Running, Serve
from tests.waiting import wait_until

# A camera waits until the test allows it with `allow`.
ASKED_FOR_LONG = """() => {
  const devices = navigator.mediaDevices;
  const ask = devices.getUserMedia.bind(devices);
  window.given = null;
  devices.getUserMedia = async (wanted) => {
    await new Promise((go) => { window.allow = go; });
    return (window.given = await ask(wanted));
  };
}"""


def test_what_becomes_part_of_the_exam_at_the_end_is_counted(
    seeing: Browser, serve: Serve, store: str
) -> None:
    with serve(exam_store=store) as up, opened(seeing, up.port) as tab:
        exam = start(tab)
        with closing(sqlite3.connect(store, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")  # the service waits for it with what it is to keep
            tab.page.wait_for_timeout(1500)
            press(tab, "Stop")
            tab.page.wait_for_timeout(100)
            other.execute("COMMIT")

        def kept() -> list[int]:
            of_page = int(counted(tab)["Answered"].split(", of which ")[1].split()[0])
            return [of_page, up.client.get(f"/v1/exams/{exam}").json()["revision"]]

        wait_until(lambda: len(set(kept())) == 1)


def test_results_are_of_now_though_the_machine_has_slept(seeing: Browser, tiny: Running) -> None:
    with opened(seeing, tiny.port) as tab:
        # What a browser counts from the page's beginning stands still meanwhile.
        tab.page.evaluate("() => { const { now } = Date; Date.now = () => now() + 3_600_000; }")
        start(tab)
        verdict(tab, "#live-frame-malignancy")


def test_a_camera_that_is_allowed_too_late_stays_off(seeing: Browser, tiny: Running) -> None:
    with opened(seeing, tiny.port) as tab:
        tab.page.wait_for_selector(".state.good")
        tab.page.click("#choose-camera")
        press(tab, "Turn the camera off")
        tab.page.evaluate(ASKED_FOR_LONG)
        tab.page.click("#choose-camera")
        tab.page.wait_for_function("() => 'allow' in window")
        press(tab, "Hide")
        tab.page.evaluate("allow()")
        # A function: a string would be evaluated anew by the page, which its CSP forbids.
        tab.page.wait_for_function(
            "() => given?.getTracks().every((one) => one.readyState === 'ended')"
        )
        tab.page.wait_for_timeout(200)
        assert tab.page.text_content("#live-said") == "The camera is off."
