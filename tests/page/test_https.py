"""The page as others reach it: by a name, through nginx, with a key; its camera over wss."""

import hashlib
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser

from service.page import CONTENT_SECURITY_POLICY
from service.settings import newest_bundle
from tests.page.conftest import ALLOWED, EXAMPLES, FAKE, Tab, opened
from tests.page.test_live import press, said, start
from tests.service.conftest import Running, Serve
from tests.service.keys_file import add_key, bearer
from tests.service.nginx import NAME, Nginx, missing, nginx

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("https")


@pytest.fixture(scope="module")
def token(folder: Path) -> str:
    return add_key(folder / "keys.json")


@pytest.fixture(scope="module")
def up(serve: Serve, folder: Path, token: str) -> Iterator[Running]:
    store = str(folder / "exams.sqlite3")
    with serve(bundle=newest_bundle(), keys=folder / "keys.json", exam_store=store) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(up: Running, folder: Path) -> Iterator[Nginx]:
    with nginx(folder / "nginx", up.port) as found:
        yield found


@pytest.fixture(scope="module")
def believing(launch: Callable[..., Browser], proxy: Nginx, film: Path) -> Browser:
    """A browser that takes the proxy's certificate, and no other that nobody has signed."""
    pin = f"--ignore-certificate-errors-spki-list={pinned(proxy.certificate)}"
    camera = (FAKE, ALLOWED, f"--use-file-for-fake-video-capture={film}")
    return launch(*camera, pin, f"--host-resolver-rules=MAP {NAME} 127.0.0.1")


def pinned(certificate: Path) -> str:
    """Give the digest of a certificate's public key, as Chromium wants it."""
    as_text = ["openssl", "x509", "-in", certificate, "-pubkey", "-noout"]
    text = subprocess.run(as_text, check=True, capture_output=True).stdout
    as_bytes = ["openssl", "pkey", "-pubin", "-outform", "der"]
    key = subprocess.run(as_bytes, input=text, check=True, capture_output=True).stdout
    return b64encode(hashlib.sha256(key).digest()).decode()


def give_key(tab: Tab, token: str) -> None:
    tab.page.fill("#key", token)
    tab.page.press("#key", "Enter")
    tab.page.wait_for_selector("#columns >> visible=true")
    tab.page.wait_for_selector(".state.good")


def test_frames_and_camera(believing: Browser, proxy: Nginx, up: Running, token: str) -> None:
    served = httpx.get(f"{proxy.url}/", verify=proxy.trust)
    assert served.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    with opened(believing, proxy.port, host=NAME, protocol="https") as tab:
        sockets: list[str] = []
        tab.page.on("websocket", lambda socket: sockets.append(socket.url))
        give_key(tab, token)
        tab.give(*EXAMPLES)
        assert f"{len(EXAMPLES)} of {len(EXAMPLES)} frames scored" in tab.text("#patient")
        exam = start(tab)
        press(tab, "Stop")
        press(tab, "Close the exam")
        said(tab, "The exam is closed")
        head = bearer(token)
        document = up.client.get(f"/v1/exams/{exam}", headers=head).json()
        assert (document["final"], document["revision"] >= 1) == (True, True)
        assert sockets == [f"wss://{NAME}:{proxy.port}/v1/exams/{exam}/stream"]
    assert token.split("_", 2)[-1] not in proxy.written()
