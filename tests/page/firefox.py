"""A stock Firefox, driven over WebDriver BiDi: the standard's words, and no driver between.

https://w3c.github.io/webdriver-bidi/ has the commands; only what the tests need is here.
"""

import json
import re
import shutil
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

# How long a step may take before it counts as failed; nothing waits that long when all is well.
PATIENCE_S = 60.0
KEYS = {
    "Tab": "\ue004",
    "Enter": "\ue007",
    "End": "\ue010",
    "Home": "\ue011",
    "ArrowLeft": "\ue012",
    "ArrowUp": "\ue013",
    "ArrowRight": "\ue014",
    "ArrowDown": "\ue015",
}


def program() -> str | None:
    """Find Debian's Firefox, or another one."""
    return shutil.which("firefox-esr") or shutil.which("firefox")


class Firefox:
    """One window with one tab.

    Attributes:
        complaints: what was written to the console as error or warning.
        requests: addresses that were asked for.
        version: of the browser.
    """

    def __init__(self, wire: ClientConnection) -> None:
        self._wire = wire
        self._number = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []
        wanted = {"alwaysMatch": {"acceptInsecureCerts": True, "unhandledPromptBehavior": "accept"}}
        session = self.do("session.new", capabilities=wanted)
        self.version: str = session["capabilities"]["browserVersion"]
        tree = self.do("browsingContext.getTree")
        self._tab: str = tree["contexts"][0]["context"]
        self.do("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])

    def do(self, method: str, **parameters: Any) -> Any:
        """Do one command of the standard; what happens meanwhile is noted."""
        self._number += 1
        command = {"id": self._number, "method": method, "params": parameters}
        self._wire.send(json.dumps(command))
        while True:
            told = json.loads(self._wire.recv(PATIENCE_S))
            if told.get("id") == self._number:
                assert told["type"] == "success", told
                return told["result"]
            self._note(told)

    def open(self, address: str) -> None:
        """Load a page."""
        self.do("browsingContext.navigate", context=self._tab, url=address, wait="complete")

    def size(self, width: int, height: int) -> None:
        """Make the page so large."""
        viewport = {"width": width, "height": height}
        self.do("browsingContext.setViewport", context=self._tab, viewport=viewport)

    def ask(self, expression: str) -> Any:
        """Give what an expression of JavaScript comes to, promises awaited."""
        text = self.run(f"(async () => JSON.stringify(await ({expression})) ?? 'null')()")
        return json.loads(text["value"])

    def run(self, script: str) -> Any:
        """Run JavaScript in the page, as it stands; gives what the standard says of its end."""
        found = self.do(
            "script.evaluate",
            expression=script,
            target={"context": self._tab},
            awaitPromise=True,
            userActivation=True,
        )
        assert found["type"] == "success", found
        return found["result"]

    def wait(self, expression: str) -> Any:
        """Wait until an expression comes to something, and give it."""
        until = time.monotonic() + PATIENCE_S
        while not (found := self.ask(expression)):
            assert time.monotonic() < until, expression
            time.sleep(0.05)
        return found

    def text(self, selector: str) -> str:
        """Give the visible text of an element, once it is there."""
        found: str = self.wait(f"document.querySelector({json.dumps(selector)})?.innerText")
        return found

    def click(self, selector: str) -> None:
        """Click an element in its middle, as a mouse does."""
        origin = {"type": "element", "element": self._element(selector)}
        mouse = [
            {"type": "pointerMove", "x": 0, "y": 0, "origin": origin},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self.ask(f"document.querySelector({json.dumps(selector)}).scrollIntoView()")
        self._act({"type": "pointer", "id": "mouse", "actions": mouse})

    def press(self, *keys: str) -> None:
        """Press keys one after another, by name or as what they write."""
        strokes = [
            {"type": kind, "value": KEYS.get(key, key)}
            for key in keys
            for kind in ("keyDown", "keyUp")
        ]
        self._act({"type": "key", "id": "keyboard", "actions": strokes})

    def give(self, selector: str, *files: Path) -> None:
        """Choose files in a field for them."""
        element, names = self._element(selector), [str(path) for path in files]
        self.do("input.setFiles", context=self._tab, element=element, files=names)

    def picture(self) -> bytes:
        """Give what is seen, as PNG."""
        found = self.do("browsingContext.captureScreenshot", context=self._tab)
        return b64decode(found["data"])

    def _act(self, source: dict[str, Any]) -> None:
        self.do("input.performActions", context=self._tab, actions=[source])

    def _element(self, selector: str) -> dict[str, str]:
        locator = {"type": "css", "value": selector}
        found = self.do("browsingContext.locateNodes", context=self._tab, locator=locator)
        return {"sharedId": found["nodes"][0]["sharedId"]}

    def _note(self, told: dict[str, Any]) -> None:
        event, what = told.get("method"), told.get("params", {})
        if event == "log.entryAdded" and what["level"] in ("error", "warn"):
            self.complaints.append(what["text"])
        if event == "network.beforeRequestSent":
            self.requests.append(what["request"]["url"])


@contextmanager
def firefox(folder: Path, **preferences: object) -> Iterator[Firefox]:
    """Start a Firefox with a profile of its own, without a window.

    Args:
        folder: made for its profile.
        preferences: of `about:config`, with `__` for a full stop.
    """
    found = program()
    assert found
    folder.mkdir(parents=True)
    lines = [
        f"user_pref({json.dumps(name.replace('__', '.'))}, {json.dumps(value)});\n"
        for name, value in preferences.items()
    ]
    (folder / "user.js").write_text("".join(lines), "utf-8")
    process = subprocess.Popen(
        [found, "--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = _address(process)
        with connect(f"{address}/session", max_size=None, compression=None) as wire:
            yield Firefox(wire)
    finally:
        process.terminate()
        process.communicate(timeout=60)


def _address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr
    for line in process.stderr:
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
            return found[1]
    raise AssertionError("Firefox did not start")
