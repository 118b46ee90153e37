"""The page with keyboard and screen reader, light and dark, wide and narrow, and many frames."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.page.conftest import EXAMPLES, NARROW, WIDE, Tab, opened
from tests.service.conftest import Running, image

AXE = Path(__file__).parent / "node_modules" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
MANY = 200


def violations(tab: Tab) -> list[str]:
    """What axe finds against WCAG 2.2 AA and good practice."""
    tab.page.evaluate(AXE.read_text(encoding="utf-8"))
    found: dict[str, Any] = tab.page.evaluate(
        f"() => axe.run({{runOnly: {json.dumps(RULES)}}})",
    )
    assert found["passes"]
    return [
        f"{one['id']}: {node['html'][:120]} {node['failureSummary']}"
        for one in found["violations"]
        for node in one["nodes"]
    ]


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make page-tools)")
@pytest.mark.parametrize(("size", "scheme"), [(WIDE, "light"), (NARROW, "dark")])
def test_axe_finds_nothing(
    browser: Browser, shipped: Running, tmp_path: Path, size: tuple[int, int], scheme: str
) -> None:
    dark, broken = tmp_path / "dark.png", tmp_path / "broken.jpg"
    dark.write_bytes(image((3, 3, 3)))
    broken.write_bytes(b"no image")
    with opened(browser, shipped.port, size, scheme) as tab:
        tab.page.wait_for_selector(".state.good")
        assert violations(tab) == []
        tab.give(*EXAMPLES, dark, broken)
        for summary in tab.page.locator("summary").all():
            summary.click()
        assert violations(tab) == []
        width = tab.page.evaluate("document.documentElement.scrollWidth")
        assert width <= size[0], "scrolls sideways"
        tab.page.check("input[value=zero-shot]", force=True)
        tab.page.wait_for_selector("#stage .ranking")
        assert violations(tab) == []
        tab.page.evaluate("() => document.getElementById('key-form').hidden = false")
        tab.page.set_input_files("#files", [str(broken)])
        assert violations(tab) == []


@pytest.mark.skipif(not AXE.exists(), reason="axe-core is not installed (make page-tools)")
def test_axe_guard_can_fail(browser: Browser, tiny: Running) -> None:
    with opened(browser, tiny.port) as tab:
        tab.page.evaluate("() => document.getElementById('state').style.color = '#e8e8e8'")
        tab.page.evaluate("() => document.querySelector('label[for=every]').remove()")
        found = " ".join(violations(tab))
        assert "color-contrast" in found


def test_keyboard_alone_reaches_everything(browser: Browser, shipped: Running) -> None:
    with opened(browser, shipped.port) as tab:
        page = tab.page
        page.wait_for_selector(".state.good")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the result"
        page.on("filechooser", lambda chooser: chooser.set_files([str(one) for one in EXAMPLES]))
        page.focus("#choose")
        page.keyboard.press("Enter")
        page.wait_for_selector(".tile")
        tab.settled()
        page.focus(".tile[tabindex='0']")
        page.keyboard.press("Home")
        assert tab.text("#frame-title") == "Frame 0"
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        assert tab.text("#frame-title") == "Frame 2"
        assert page.evaluate("document.activeElement.dataset.index") == "2"
        page.keyboard.press("End")
        assert tab.text("#frame-title") == "Frame 5"
        page.focus("input[name=point]:checked")
        page.keyboard.press("ArrowDown")
        page.wait_for_selector("text=operating point specificity first")
        assert page.evaluate("document.activeElement.value") == "specificity_first"


def test_frames_are_sorted_and_filtered(browser: Browser, shipped: Running) -> None:
    with opened(browser, shipped.port) as tab:
        tab.give(*EXAMPLES)
        tab.page.select_option("#order", "attention")
        shares = [
            float(tab.named(place).split("attention ")[1].strip("<."))
            for place in range(len(EXAMPLES))
        ]
        assert shares == sorted(shares, reverse=True)
        tab.page.select_option("#group", "positive")
        words = tab.tiles(".what")
        assert words
        assert set(words) == {"Positive"}


def test_two_hundred_frames_do_not_stop_the_page(
    browser: Browser, tiny: Running, tmp_path: Path
) -> None:
    paths = []
    for index in range(MANY):
        paths.append(tmp_path / f"frame_{index}.png")
        paths[-1].write_bytes(image((100 + index % 100, 30, 30), (640, 512)))
    with opened(browser, tiny.port) as tab:
        tab.page.wait_for_selector(".state.good")
        # A page that is stopped cannot count; how long a turn takes is the machine's own business.
        tab.page.evaluate(
            """() => {
              window.turns = []; let last = performance.now();
              setInterval(() => {
                const now = performance.now(); turns.push(now - last); last = now;
              }, 10);
            }"""
        )
        tab.give(*paths)
        turns = tab.page.evaluate("turns")
        assert tab.page.locator(".tile").count() == MANY
        assert "200 of 200 frames scored" in tab.text("#patient")
        # Sorted as people count, not as strings compare.
        assert tab.page.get_attribute(".tile >> nth=10", "title") == "frame_10.png"
        assert max(turns) < 0.5 * sum(turns), sorted(turns)[-5:]


def test_command_that_may_not_be_copied_stands_below(
    launch: Callable[..., Browser], tiny: Running, tmp_path: Path
) -> None:
    red = tmp_path / "red.png"
    red.write_bytes(image())
    # No clipboard for a page from http:// under a name.
    named = launch("--host-resolver-rules=MAP endo.example 127.0.0.1")
    with opened(named, tiny.port, host="endo.example") as tab:
        tab.give(red)
        tab.page.click("text=Copy as curl")
        tab.page.wait_for_selector("#take [role=status] >> text=does not let the page copy")
