"""The page in a stock Firefox: what Chromium's tests hold, once through, with its own engine.

Where no Firefox is installed these tests are skipped, and say so.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.page.conftest import EXAMPLES, NARROW, WIDE
from tests.page.firefox import Firefox, firefox, program
from tests.page.test_files import CLIP, JPEG_BASELINE, dicom
from tests.page.test_scores import answered
from tests.page.test_use import AXE, RULES
from tests.service.conftest import Running, Serve, image
from tests.service.keys_file import add_key
from tests.service.nginx import NAME, missing, nginx

pytestmark = pytest.mark.skipif(program() is None, reason="Firefox is not installed")

CAMERA = {"media__navigator__streams__fake": True, "media__navigator__permission__disabled": True}
# In place of a name server's answer.
HERE = {"network__dns__localDomains": NAME}
LIGHT, DARK = ({"layout__css__prefers-color-scheme__content-override": n} for n in (1, 0))
READY = "document.querySelector('.state.good') !== null"
ANSWERED = "document.querySelector('#outcome[aria-busy=false] .verdict .number, .notice') !== null"
FOCUS = "document.activeElement"
CAPTIONS = "[...document.querySelectorAll('.tile')].map((one) => one.textContent.trim())"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with firefox(tmp_path_factory.mktemp("firefox") / "own", **CAMERA, **HERE, **LIGHT) as found:
        yield found


@contextmanager
def opened(browser: Firefox, address: str, size: tuple[int, int] = WIDE) -> Iterator[Firefox]:
    """The page anew; holds at the end that it behaved."""
    browser.complaints.clear()
    browser.requests.clear()
    browser.size(*size)
    browser.open(f"{address}/")
    yield browser
    own = (f"{address}/", address.replace("http", "ws", 1), "blob:", "data:font/")
    elsewhere = [one for one in browser.requests if not one.startswith(own)]
    kept = browser.ask("[localStorage.length, sessionStorage.length, document.cookie.length]")
    assert (browser.complaints, elsewhere, kept) == ([], [], [0] * 3)


def at(up: Running) -> str:
    return f"http://127.0.0.1:{up.port}"


def give(browser: Firefox, *files: Path) -> None:
    browser.wait(READY)
    browser.give("#files", *files)
    browser.wait(ANSWERED)


def choose(browser: Firefox, field: str) -> None:
    browser.click(f"{field} + span, label:has({field})")


def press(browser: Firefox, words: str) -> None:
    """Press one of the live view's buttons, once it is there."""
    find = "[...document.querySelectorAll('#live-controls button')]"
    place = browser.wait(f"{find}.findIndex((one) => one.textContent === {json.dumps(words)}) + 1")
    browser.click(f"#live-controls button:nth-child({place})")


def test_shows_the_answer_of_the_service(browser: Firefox, shipped: Running) -> None:
    with opened(browser, at(shipped)):
        give(browser, *EXAMPLES)
        for point in ("balanced", "sensitivity_first"):
            browser.click(f"input[value={point}]")
            browser.wait(f"document.body.textContent.includes('point {point.replace('_', ' ')}')")
            [patient] = answered(shipped, "polyp-detection", operating_point=point)["patients"]
            assert browser.text(".verdict .number") == f"{patient['probability']:.3f}"
            shown = [one.split()[3] for one in browser.ask(CAPTIONS)]
            assert shown == [f"{one['probability']:.2f}," for one in patient["frames"]]
        browser.wait("document.querySelector('#stage canvas').width > 1000")
        pixels = "document.querySelector('#stage canvas').toDataURL().length"
        with_map = browser.ask(pixels)
        browser.ask("(heat.value = 0, heat.dispatchEvent(new Event('input')))")
        assert browser.ask(pixels) != with_map


def test_a_video_and_a_dicom_file_and_a_drop_become_frames(
    browser: Firefox, shipped: Running, tmp_path: Path
) -> None:
    one = tmp_path / "one"
    one.write_bytes(dicom(JPEG_BASELINE, [EXAMPLES[-1].read_bytes()]))
    with opened(browser, at(shipped)):
        give(browser, CLIP)
        words = [one.split()[2] for one in browser.ask(CAPTIONS)]
        assert words == ["Negative", "Positive"]
        give(browser, one)
        browser.wait("document.querySelectorAll('.tile').length === 3")
        browser.ask(
            """(async () => {
              const canvas = document.createElement('canvas');
              [canvas.width, canvas.height] = [320, 256];
              canvas.getContext('2d').fillRect(0, 0, 320, 256);
              const blob = await new Promise((done) => canvas.toBlob(done));
              const data = new DataTransfer();
              data.items.add(new File([blob], 'dark.png', { type: 'image/png' }));
              document.dispatchEvent(new DragEvent('drop', { dataTransfer: data }));
            })()"""
        )
        browser.wait("document.querySelectorAll('.tile').length === 4")
        browser.wait("document.body.textContent.includes('3 of 4 frames scored')")
        assert browser.ask(CAPTIONS)[3].startswith("Frame 3 Set aside")


def test_what_goes_wrong_is_said(browser: Firefox, serve: Serve, tmp_path: Path) -> None:
    broken, red = tmp_path / "broken.jpg", tmp_path / "red.png"
    broken.write_bytes(EXAMPLES[0].read_bytes()[:9000])
    red.write_bytes(image())
    token = add_key(tmp_path / "keys.json")
    with serve(keys=tmp_path / "keys.json") as up, opened(browser, at(up)):
        browser.wait("!document.getElementById('key-form').hidden")
        assert browser.ask(f"{FOCUS}.id") == "key"
        browser.press(*"nonsense", "Enter")
        browser.wait("document.querySelector('[role=alert]')?.innerText.includes('not know this')")
        browser.ask("document.getElementById('key').value = ''")
        browser.press(*token, "Enter")
        browser.wait("!document.getElementById('columns').hidden")
        give(browser, broken)
        assert browser.text("[role=alert] p").startswith("None of these frames could be read.")
        give(browser, red)
        browser.wait("document.querySelector('.verdict .word')?.textContent === 'Positive'")
        up.server.should_exit = True
        up.thread.join(30)
        browser.click("input[value=specificity_first]")
        browser.wait(
            "document.querySelector('[role=alert]')?.innerText.includes('cannot be reached')"
        )
        assert browser.ask("document.querySelectorAll('.tile').length") == 2


def test_keyboard_alone_reaches_everything(browser: Firefox, shipped: Running) -> None:
    with opened(browser, at(shipped)):
        browser.wait(READY)
        browser.press("Tab")
        assert browser.ask(f"{FOCUS}.textContent") == "Skip to the result"
        give(browser, *EXAMPLES)
        browser.ask("document.querySelector('.tile[tabindex=\"0\"]').focus()")
        for key, place in (("Home", 0), ("ArrowRight", 1), ("End", 5), ("ArrowLeft", 4)):
            browser.press(key)
            assert browser.ask(f"{FOCUS}.dataset.index") == str(place)
            assert browser.text("#frame-title") == f"Frame {place}"
        browser.ask("document.querySelector('input[name=point]:checked').focus()")
        browser.press("ArrowDown")
        browser.wait("document.body.textContent.includes('operating point specificity first')")
        assert browser.ask(f"{FOCUS}.value") == "specificity_first"
        browser.ask("document.querySelector('input[name=task]:checked').focus()")
        browser.press("ArrowRight", "ArrowRight")
        browser.wait("document.querySelector('#stage .ranking') !== null")


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_a_camera_s_exam_over_https(browser: Firefox, serve: Serve, tmp_path: Path) -> None:
    token = add_key(tmp_path / "keys.json")
    settings = {"keys": tmp_path / "keys.json", "exam_store": str(tmp_path / "exams.sqlite3")}
    with (
        serve(**settings) as up,
        nginx(tmp_path / "nginx", up.port) as proxy,
        opened(browser, f"https://{NAME}:{proxy.port}"),
    ):
        browser.wait("!document.getElementById('key-form').hidden")
        browser.press(*token, "Enter")
        browser.wait(READY)
        browser.click("#choose-camera")
        press(browser, "Start")
        browser.wait("document.querySelector('#live-patient-polyp_detection b') !== null")
        browser.wait("/rests on [2-9]/.test(document.getElementById('live-exam').textContent)")
        press(browser, "Stop")
        press(browser, "Go on")
        browser.wait("document.getElementById('live-said').textContent.startsWith('Live.')")
        press(browser, "Stop")
        press(browser, "Close the exam")
        browser.wait("document.querySelectorAll('#live-final h3').length === 2")
        exam = browser.text("#live-exam").split()[1].rstrip(",")
        head = {"Authorization": f"Bearer {token}"}
        assert up.client.get(f"/v1/exams/{exam}", headers=head).json()["final"] is True


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make page-tools)")
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, LIGHT), (NARROW, DARK)])
def test_axe_finds_nothing(
    shipped: Running, tmp_path: Path, size: tuple[int, int], scheme: dict[str, int]
) -> None:
    with (
        firefox(tmp_path / "own", **scheme) as browser,
        opened(browser, at(shipped), size),
    ):
        dark = "matchMedia('(prefers-color-scheme: dark)').matches"
        assert browser.ask(dark) is (scheme is DARK)
        give(browser, *EXAMPLES)
        browser.ask("document.querySelectorAll('details').forEach((one) => one.open = true)")
        browser.run(AXE.read_text("utf-8"))
        found = browser.ask(f"axe.run({{runOnly: {json.dumps(RULES)}}})")
        assert found["passes"]
        assert [(one["id"], len(one["nodes"])) for one in found["violations"]] == []
        assert browser.ask("document.documentElement.scrollWidth") <= size[0], "scrolls sideways"


def test_the_policy_holds_and_what_it_stops_is_noticed(browser: Firefox, tiny: Running) -> None:
    def deed(script: str) -> None:
        with opened(browser, at(tiny)):
            browser.wait(READY)
            browser.ask(f"({script}, new Promise((done) => setTimeout(done, 1000)))")

    stopped = {
        "console.error('planted')": "planted",
        # Told twice, in either order.
        "setTimeout('planted = 1')": "blocked by CSP|Content-Security-Policy",
        "document.body.append(new Image()), document.body.lastChild.src = 'https://else.example'": (
            "else.example"
        ),
    }
    for script, words in stopped.items():
        with pytest.raises(AssertionError, match=words):
            deed(script)
    deed("0")
