"""Videos, DICOM files, folders and drops become frames; a DICOM header goes nowhere."""

import base64
import struct
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Route

from tests.page.conftest import EXAMPLES, Tab, opened
from tests.service.conftest import Running, as_form, image
from tests.tiny_bundle import PINK, RED

CLIP = Path(__file__).parent / "clip.webm"
JPEG_BASELINE, EXPLICIT, JPEG_2000 = (f"1.2.840.10008.1.2{end}" for end in (".4.50", ".1", ".4.90"))
NAME = b"MUELLER^ERIKA "


def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
    """An explicit little endian element of definite length."""
    value += b" " * (len(value) % 2) if kind in (b"CS", b"IS", b"PN") else b"\0" * (len(value) % 2)
    head = struct.pack("<HH2s", group, number, kind)
    if kind in (b"OB", b"OW", b"SQ"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def dicom(syntax: str, frames: list[bytes], size: tuple[int, int] = (0, 0)) -> bytes:
    """A file as an endoscope writes it: a nested sequence and a name before the pixels."""
    short = struct.Struct("<H").pack
    nested = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + element(8, 0x100, b"PN", NAME)
    nested += struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    body = element(2, 0x10, b"UI", syntax.encode())
    body += struct.pack("<HH2sHI", 8, 0x1140, b"SQ", 0, 0xFFFFFFFF) + nested
    body += element(0x10, 0x10, b"PN", NAME)
    body += element(0x28, 2, b"US", short(3)) + element(0x28, 4, b"CS", b"RGB")
    body += element(0x28, 6, b"US", short(0)) + element(0x28, 8, b"IS", b"%d" % len(frames))
    body += element(0x28, 0x10, b"US", short(size[1])) + element(0x28, 0x11, b"US", short(size[0]))
    body += element(0x28, 0x100, b"US", short(8))
    if syntax == EXPLICIT:
        return bytes(128) + b"DICM" + body + element(0x7FE0, 0x10, b"OW", b"".join(frames))
    body += struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OB", 0, 0xFFFFFFFF)
    for part in [b"", *frames]:
        padded = part + b"\0" * (len(part) % 2)
        body += struct.pack("<HHI", 0xFFFE, 0xE000, len(padded)) + padded
    return bytes(128) + b"DICM" + body + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def given(tab: Tab, folder: Path, **files: bytes) -> None:
    paths = []
    for name, data in files.items():
        paths.append(folder / name)
        paths[-1].write_bytes(data)
    tab.give(*paths)


def shares(tab: Tab) -> list[str]:
    return tab.tiles(".caption b")


def test_video_is_sampled_as_often_as_is_asked(browser: Browser, shipped: Running) -> None:
    with opened(browser, shipped.port) as tab:
        tab.page.click("summary >> text=How frames are sent")
        tab.page.select_option("#every", "0.5")
        tab.give(CLIP)
        # A second of normal mucosa, then a second with a polyp.
        words = tab.tiles(".what")
        assert words == ["Negative", "Negative", "Positive", "Positive"]
        titles = [one.get_attribute("title") for one in tab.page.locator(".tile").all()]
        assert titles == [f"clip.webm at {second} s" for second in ("0.0", "0.5", "1.0", "1.5")]
        assert "such files" in tab.text("#take")


def test_dicom_file_gives_its_pixels_and_keeps_the_rest(
    browser: Browser, shipped: Running, tmp_path: Path
) -> None:
    example = EXAMPLES[-1].read_bytes()
    bodies: list[bytes] = []
    with opened(browser, shipped.port) as tab:
        # What the page hands to the network, read back in the page: blobs are not shown outside it.
        tab.page.evaluate(
            """() => { window.sent = []; const send = window.fetch;
              window.fetch = async (path, request) => {
                if (request?.body instanceof FormData)
                  window.sent.push(new Uint8Array(await new Response(request.body).arrayBuffer()));
                return send(path, request);
              }; }"""
        )
        given(tab, tmp_path, one=dicom(JPEG_BASELINE, [example]))
        alone = shipped.client.post("/v1/polyp-detection", **as_form([example])).json()
        assert shares(tab) == [f"{alone['patients'][0]['probability']:.2f}"]
        text = tab.page.evaluate(
            "() => sent.map((body) => { let all = ''; for (const one of body)"
            " all += String.fromCharCode(one); return btoa(all); })"
        )
        bodies = [base64.b64decode(one) for one in text]
    assert len(bodies) == 1
    assert example in bodies[0]
    assert b"MUELLER" not in bodies[0]
    assert b"DICM" not in bodies[0]


def test_frames_of_an_uncompressed_dicom_file_are_frames(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    width, height = 96, 80
    frames = [bytes(colour) * (width * height) for colour in (RED, PINK, RED)]
    expected = [
        tiny.client.post("/v1/polyp-detection", **as_form([image(colour)])).json()
        for colour in (RED, PINK, RED)
    ]
    with opened(browser, tiny.port) as tab:
        given(tab, tmp_path, three=dicom(EXPLICIT, frames, (width, height)))
        found = [float(share.strip("<")) for share in shares(tab)]
        wanted = [one["patients"][0]["probability"] for one in expected]
        assert found == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.dcm", dicom(JPEG_2000, [b"x" * 100]), "compressed in a way that this page does not"),
        ("b.dcm", dicom(JPEG_BASELINE, [image()])[:300], "ends too early"),
        ("c.dcm", bytes(128) + b"DICM", "no pixels"),
        ("d.mp4", b"no video", "cannot play the video"),
        ("e.txt", b"notes", "no frame among these files"),
    ],
)
def test_file_that_holds_no_frame_for_the_page_says_so(
    tab_of_tiny: Tab, tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    given(tab_of_tiny, tmp_path, **{name: data})
    assert words in tab_of_tiny.text("[role=alert] >> nth=0")


@pytest.fixture(scope="module")
def tab_of_tiny(browser: Browser, tiny: Running) -> Any:
    with opened(browser, tiny.port) as one:
        yield one


def test_folder_and_drop_give_frames_in_the_order_of_their_names(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    folder = tmp_path / "exam" / "inner"
    folder.mkdir(parents=True)
    for name, colour in (("f10.png", RED), ("f9.png", PINK), (".hidden", RED), ("notes.txt", RED)):
        (folder / name).write_bytes(image(colour))
    with opened(browser, tiny.port) as tab:
        tab.page.wait_for_selector(".state.good")
        tab.page.set_input_files("#folder", str(tmp_path / "exam"))
        tab.settled()
        titles = [one.get_attribute("title") for one in tab.page.locator(".tile").all()]
        assert titles == ["f9.png", "f10.png"]
        tab.page.evaluate(
            """(text) => { const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
              const dropped = new DataTransfer();
              dropped.items.add(new File([bytes], 'dropped.png'));
              document.body.dispatchEvent(
                new DragEvent('drop', { dataTransfer: dropped, bubbles: true })); }""",
            base64.b64encode(image()).decode(),
        )
        tab.page.wait_for_selector(".tile >> nth=2")
        tab.settled()
        assert tab.page.get_attribute(".tile >> nth=2", "title") == "dropped.png"


def dropped(tab: Tab, *paths: Path) -> None:
    """Drop files and folders of the disk on the page, as a file manager does."""
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    line = tab.page.context.new_cdp_session(tab.page)
    for kind in ("dragEnter", "dragOver", "drop"):
        where = {"type": kind, "x": 200, "y": 200, "data": data}
        line.send("Input.dispatchDragEvent", where)


# Reading a folder waits, so that it can be taken away between the drop and that.
HELD_BACK = """() => {
  const held = new Promise((done) => { window.readNow = done; });
  const item = DataTransferItem.prototype;
  const give = item.webkitGetAsEntry;
  item.webkitGetAsEntry = function () {
    const entry = give.call(this);
    const reader = entry.createReader();
    entry.createReader = () => ({
      readEntries: (...how) => void held.then(() => reader.readEntries(...how)),
    });
    return entry;
  };
}"""


# What is read of a file waits in `readers` until the test lets it go on.
SLOWLY_READ = """() => {
  const { text } = Blob.prototype;
  window.readers = [];
  Blob.prototype.text = async function () {
    await new Promise((go) => readers.push(go));
    return text.call(this);
  };
}"""


def test_what_cannot_be_read_of_a_drop_is_named_and_the_rest_is_scored(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    exam, gone = tmp_path / "exam", tmp_path / "gone"
    exam.mkdir()
    gone.mkdir()
    for name, colour in (("a.png", RED), ("c.png", PINK)):
        (exam / name).write_bytes(image(colour))
    (exam / "bad.dcm").write_bytes(bytes(128) + b"DICM")
    with opened(browser, tiny.port) as tab:
        tab.page.wait_for_selector(".state.good")
        tab.page.evaluate(HELD_BACK)
        dropped(tab, exam, gone)
        gone.rmdir()
        tab.page.evaluate("readNow()")
        tab.page.wait_for_selector("#outcome[aria-busy=false] .tile .what")
        titles = [one.get_attribute("title") for one in tab.page.locator(".tile").all()]
        assert titles == ["a.png", "c.png"]
        # Asking has not taken it away.
        said = tab.text("#left-out [role=alert]")
        assert "The folder “gone” cannot be read." in said
        assert "bad.dcm: there are no pixels in this DICOM file." in said
        tab.give(exam / "a.png")
        tab.page.wait_for_selector("#left-out:empty", state="attached")


def test_of_many_files_that_cannot_be_read_a_few_are_named(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    with opened(browser, tiny.port) as tab:
        given(tab, tmp_path, **{f"{place}.dcm": bytes(128) + b"DICM" for place in range(9)})
        said = tab.text("#left-out [role=alert]")
        assert said.count("there are no pixels in this DICOM file.") == 3
        assert said.endswith("And 6 more.")


def test_frames_that_are_removed_while_they_are_read_do_not_come_back(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    for name, colour in (("a.png", RED), ("b.png", PINK), ("c.png", PINK)):
        (tmp_path / name).write_bytes(image(colour))
    with opened(browser, tiny.port) as tab:
        tab.give(tmp_path / "a.png")
        tab.page.evaluate(SLOWLY_READ)
        tab.page.set_input_files("#files", str(tmp_path / "b.png"))
        tab.page.wait_for_function("() => readers.length === 1")
        tab.page.click("#clear")
        tab.page.evaluate("readers.splice(0).forEach((one) => one())")
        tab.page.set_input_files("#files", str(tmp_path / "c.png"))
        tab.page.wait_for_function("() => readers.length === 1")
        tab.page.evaluate("readers.splice(0).forEach((one) => one())")
        tab.page.wait_for_selector("#outcome[aria-busy=false] .tile .what")
        titles = [one.get_attribute("title") for one in tab.page.locator(".tile").all()]
        assert titles == ["c.png"]


def test_large_frames_are_reduced_where_that_is_asked(browser: Browser, shipped: Running) -> None:
    with opened(browser, shipped.port) as tab:
        tab.give(EXAMPLES[-1])
        as_it_is = float(tab.text("#stage .badge b"))
        tab.page.click("summary >> text=How frames are sent")
        assert "896 px" in tab.text("#reduce-hint")
        tab.page.check("#reduce")
        tab.settled()
        assert abs(float(tab.text("#stage .badge b")) - as_it_is) < 0.02


def test_frames_that_are_small_enough_leave_no_bitmap_open(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    with opened(browser, tiny.port) as tab:
        tab.page.click("summary >> text=How frames are sent")
        tab.page.check("#reduce")
        tab.page.evaluate(
            """() => { window.open_bitmaps = 0;
              const make = window.createImageBitmap, close = ImageBitmap.prototype.close;
              window.createImageBitmap = async (...given) => {
                const made = await make(...given); open_bitmaps += 1; return made; };
              ImageBitmap.prototype.close = function () {
                open_bitmaps -= this.width ? 1 : 0; close.call(this); }; }"""
        )
        given(tab, tmp_path, **{f"{place}.png": image(RED, (96, 80)) for place in range(3)})
        # The stage's own, of the frame that it shows.
        assert tab.page.evaluate("open_bitmaps") == 1


def test_frames_that_come_before_the_service_has_answered_are_scored_and_once(
    browser: Browser, shipped: Running
) -> None:
    with opened(browser, shipped.port) as tab:
        asked, held = list[str](), list[Route]()
        tab.page.on("request", lambda one: asked.append(one.url) if one.method == "POST" else None)
        tab.page.route("**/v1/models/**", lambda route: held.append(route))
        tab.page.reload()
        tab.page.set_input_files("#files", str(EXAMPLES[-1]))
        assert asked == []
        tab.page.wait_for_timeout(200)
        for route in held:
            route.continue_()
        tab.settled()
        assert len(shares(tab)) == 1
        assert len(asked) == 1
