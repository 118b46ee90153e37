"""A real Chromium in front of a real service.

Where Debian's `chromium` is not installed these tests are skipped, and say so.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from service.settings import newest_bundle
from tests.service.conftest import ROOT, Running, Serve, bundle, serve

__all__ = ["bundle", "serve"]

EXAMPLES = sorted((ROOT / "examples").glob("*.jpg"))
POLYP = EXAMPLES[-1]
# Of what a camera sees here.
SIZE = (640, 512)
FAKE, ALLOWED = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"
CHROMIUM = shutil.which("chromium")
WIDE, NARROW = (1280, 900), (390, 844)
# How long a step may take before it counts as failed; nothing waits that long when all is well.
PATIENCE_MS = 60_000


@dataclass
class Tab:
    """A page, and what it did that it should not have."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    def give(self, *files: Path) -> None:
        """Choose files, and wait until they are scored or something is said."""
        self.page.set_input_files("#files", [str(path) for path in files])
        self.settled()

    def settled(self) -> None:
        """Wait until nothing is under way any more."""
        self.page.wait_for_selector("#outcome[aria-busy=false], .notice")

    def named(self, place: int) -> str:
        """What a screen reader calls the frame at a place of the list."""
        words = self.page.locator(".tile").nth(place).text_content() or ""
        return " ".join(words.split())

    def tiles(self, selector: str) -> list[str]:
        """Texts inside the frames of the list; the visible text of one not yet painted is empty."""
        found = self.page.locator(f".tile {selector}").all_text_contents()
        return [text.strip() for text in found]

    def text(self, selector: str) -> str:
        return self.page.inner_text(selector)


@pytest.fixture(scope="package")
def launch() -> Iterator[Callable[..., Browser]]:
    """Start a browser with some switches; it is closed with the package's tests."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    # Chromium's own sandbox does not start as root.
    root = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright, ExitStack() as closing:

        def start(*switches: str) -> Browser:
            found = playwright.chromium.launch(executable_path=CHROMIUM, args=[*root, *switches])
            closing.callback(found.close)
            return found

        yield start


@pytest.fixture(scope="package")
def browser(launch: Callable[..., Browser]) -> Browser:
    return launch()


@contextmanager
def opened(
    browser: Browser,
    port: int,
    size: tuple[int, int] = WIDE,
    scheme: str = "light",
    host: str = "127.0.0.1",
    protocol: str = "http",
) -> Iterator[Tab]:
    """A tab at the page, in a browser profile of its own; holds at the end that it behaved."""
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,  # type: ignore[arg-type]
    )
    context.set_default_timeout(PATIENCE_MS)
    tab = Tab(context.new_page())
    own = f"{protocol}://{host}:{port}/"

    def console(kind: str, text: str) -> None:
        # An answer that is no success is written to the console by the browser itself.
        its_own = text.startswith(("Failed to load resource", "WebSocket connection to"))
        if kind in ("error", "warning") and not its_own:
            tab.complaints.append(text)

    tab.page.on("console", lambda message: console(message.type, message.text))
    tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
    tab.page.on(
        "request",
        lambda request: (
            None if request.url.startswith((own, "blob:")) else tab.elsewhere.append(request.url)
        ),
    )
    try:
        tab.page.goto(own)
        yield tab
        kept = tab.page.evaluate(
            "async () => [localStorage.length, sessionStorage.length, document.cookie.length,"
            " (await indexedDB.databases()).length, self.caches ? (await caches.keys()).length : 0]"
        )
        assert (tab.complaints, tab.elsewhere, kept) == ([], [], [0] * 5)
    finally:
        context.close()


def as_seen(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB").resize(SIZE)


@pytest.fixture(scope="package")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of one frame, ten times a second, over and over."""
    path = tmp_path_factory.mktemp("film") / "polyp.y4m"
    light, *colours = as_seen(POLYP).convert("YCbCr").split()
    halves = [one.resize((SIZE[0] // 2, SIZE[1] // 2)) for one in colours]
    planes = b"".join(one.tobytes() for one in (light, *halves))
    head = f"YUV4MPEG2 W{SIZE[0]} H{SIZE[1]} F10:1 Ip A1:1 C420jpeg\nFRAME\n"
    path.write_bytes(head.encode() + planes)
    return path


@pytest.fixture(scope="package")
def seeing(launch: Callable[..., Browser], film: Path) -> Browser:
    """A browser with one camera, which it may use."""
    return launch(FAKE, ALLOWED, f"--use-file-for-fake-video-capture={film}")


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "exams.sqlite3")


@pytest.fixture(scope="package")
def shipped(serve: Serve) -> Iterator[Running]:
    """The service with the bundle that ships."""
    with serve(bundle=newest_bundle()) as up:
        yield up


@pytest.fixture(scope="package")
def tiny(serve: Serve) -> Iterator[Running]:
    """The service with the bundle that knows colours."""
    with serve() as up:
        yield up


@pytest.fixture
def tab(browser: Browser, shipped: Running) -> Iterator[Tab]:
    with opened(browser, shipped.port) as one:
        yield one
