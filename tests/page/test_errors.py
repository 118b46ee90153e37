"""What goes wrong is said in kind words, and what the user has gathered is still there."""

from pathlib import Path

from playwright.sync_api import Browser

from service.keys import Scope
from service.settings import Settings
from tests.page.conftest import EXAMPLES, Tab, opened
from tests.service.conftest import Running, Serve, edited, image, running
from tests.service.keys_file import add_key


def written(folder: Path, **files: bytes) -> list[Path]:
    paths = [folder / f"{name}.png" for name in files]
    for path, data in zip(paths, files.values(), strict=True):
        path.write_bytes(data)
    return paths


def notice(tab: Tab) -> str:
    tab.page.wait_for_selector("[role=alert]")
    return tab.text("[role=alert] p")


def test_service_that_is_gone_loses_no_frame_and_can_be_tried_again(
    browser: Browser, serve: Serve, bundle: Path, tmp_path: Path
) -> None:
    [red] = written(tmp_path, red=image())
    with serve() as first:
        port = first.port
        with opened(browser, port) as tab:
            tab.give(red)
            assert tab.text(".verdict .word") == "Positive"
            first.server.should_exit = True
            first.thread.join(30)
            tab.page.check("input[value=specificity_first]")
            assert notice(tab).startswith("The service cannot be reached. Your frames are still")
            assert tab.page.locator(".tile").count() == 1
            with running(Settings(bundle=bundle), port):
                tab.page.click('button:text("Try again")')
                tab.page.wait_for_selector("text=operating point specificity first")
                assert tab.page.locator("[role=alert]").count() == 0


def test_service_that_is_not_ready_says_so_and_scores_nothing(
    browser: Browser, serve: Serve, bundle: Path, tmp_path: Path
) -> None:
    def move(document: dict) -> None:  # type: ignore[type-arg]
        document["frames"][0]["probability"]["polyp_detection"] = 0.5

    [red] = written(tmp_path, red=image())
    moved = edited(bundle, tmp_path / "moved", "canaries.json", move)
    with serve(bundle=moved) as up, opened(browser, up.port) as tab:
        assert notice(tab).startswith("The service is not ready yet")
        assert tab.text("#state") == "Not ready"
        tab.give(red)
        assert "is not ready yet" in notice(tab)
        assert tab.page.locator(".tile").count() == 1
        assert tab.text(".tile .what") == "Not scored"


def test_key_is_asked_for_held_in_memory_and_forgotten(
    browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    [red] = written(tmp_path, red=image())
    keys = tmp_path / "keys.json"
    good, wrong = add_key(keys), add_key(keys, Scope.METRICS)
    with serve(keys=keys) as up, opened(browser, up.port) as tab:
        tab.page.wait_for_selector("#key-form >> visible=true")
        assert not tab.page.is_visible("#columns")
        refused = {"„käy“ ✓": "not know this key", "nonsense": "not know this key"}
        for key, words in (refused | {wrong: "may not score"}).items():
            tab.page.fill("#key", key)
            tab.page.press("#key", "Enter")
            tab.page.wait_for_selector(f"[role=alert] >> text={words}")
        tab.page.fill("#key", good)
        tab.page.press("#key", "Enter")
        tab.page.wait_for_selector("#columns >> visible=true")
        assert tab.page.input_value("#key") == ""
        tab.give(red)
        assert tab.text(".verdict .word") == "Positive"
        tab.page.click("summary >> text=The command")
        command = tab.text("#take pre")
        assert good not in tab.page.content()
        assert '-H "Authorization: Bearer $ENDOCLIP_KEY"' in command
        tab.page.click("text=Forget the key")
        tab.page.wait_for_selector("#key-form >> visible=true")
        assert tab.page.locator(".tile").count() == 0


def test_only_unreadable_files_are_named_one_by_one(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    broken = written(tmp_path, a=b"no image", b=image()[:60], c=b"")
    with opened(browser, tiny.port) as tab:
        tab.give(*broken)
        assert notice(tab).startswith("None of these frames could be read.")
        assert tab.page.locator(".tile.rejected").count() == 3
        assert tab.named(2) == "Frame 2 Unreadable. The file is empty."
        # One that can be read beside them mends it.
        tab.give(EXAMPLES[0])
        assert tab.page.locator("[role=alert]").count() == 0


def test_too_much_is_refused_before_it_is_sent(
    browser: Browser, serve: Serve, tmp_path: Path
) -> None:
    paths = written(tmp_path, **{f"f{index}": image() for index in range(5)})
    with serve(max_frames=4) as up, opened(browser, up.port) as tab:
        tab.give(*paths)
        assert notice(tab).startswith("The service takes 4 frames a request; there are 5.")
        assert tab.page.locator(".tile").count() == 5
