"""What is served at `/` is what stands in the repository, typed, and may do only what it needs."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from service.page import CONTENT_SECURITY_POLICY, PATHS
from tests.service.conftest import ROOT, Running, Serve
from tests.service.keys_file import add_key

STATIC = ROOT / "service" / "static"
HERE = Path(__file__).parent
TSC = HERE / "node_modules" / ".bin" / "tsc"
MAX_LINES = 400


def test_files_are_served_as_they_stand(tiny: Running) -> None:
    served = {path: tiny.client.get(path) for path in PATHS}
    assert {answer.status_code for answer in served.values()} == {200}
    names = {path.removeprefix("/static/") if path != "/" else "index.html" for path in PATHS}
    assert names == {path.name for path in STATIC.iterdir() if path.suffix != ".ts"}
    for path, answer in served.items():
        name = "index.html" if path == "/" else path.removeprefix("/static/")
        assert answer.content == (STATIC / name).read_bytes()
        assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
        assert answer.headers["cache-control"] == "no-store"
    assert tiny.client.get("/static/types.d.ts").status_code == 404
    assert tiny.client.get("/static/../page.py").status_code == 404


def test_policy_allows_no_text_as_code_and_nothing_from_elsewhere() -> None:
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert CONTENT_SECURITY_POLICY.startswith("default-src 'none'; ")


def test_page_needs_no_key_and_gives_none_away(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    add_key(keys)
    with serve(keys=keys) as up:
        assert {up.client.get(path).status_code for path in PATHS} == {200}
        assert up.client.get("/v1/models").status_code == 401
        assert up.client.get("/static/nothing.js").status_code == 401


def test_page_names_no_other_host() -> None:
    for path in STATIC.iterdir():
        found = set(re.findall(r"https?://[^\s'\"`]+", path.read_text(encoding="utf-8")))
        assert found <= {"http://www.w3.org/2000/svg"}, path.name


def test_scripts_are_short_and_parse_no_markup() -> None:
    scripts = sorted(STATIC.glob("*.js"))
    assert len(scripts) >= 8
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= MAX_LINES, path.name
        assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\(", text)
        assert not re.search(r"localStorage|sessionStorage|indexedDB|document\.cookie", text)


@pytest.mark.skipif(not TSC.exists(), reason="typescript is not installed (make page-tools)")
@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_types_hold(tmp_path: Path) -> None:
    done = subprocess.run([TSC, "-p", HERE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    # The check can fail: a name of the contract misspelt.
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace("frame.decision", "frame.decison"))
    config = (HERE / "tsconfig.json").read_text().replace("../../service/static/*", "*")
    (tmp_path / "tsconfig.json").write_text(config)
    wrong = subprocess.run([TSC, "-p", tmp_path], capture_output=True, text=True, check=False)
    assert "decison" in wrong.stdout


def test_types_are_the_contract_s(tiny: Running) -> None:
    text = (STATIC / "types.d.ts").read_text(encoding="utf-8")
    schemas = tiny.client.get("/openapi.json").json()["components"]["schemas"]
    told = set().union(*(one.get("properties", {}) for one in schemas.values()))
    for name in ("Limits", "FrameAnswer", "PatientAnswer", "Answer", "Heatmap", "Model", "Device"):
        [block] = re.findall(rf"interface {name}(?: extends \w+)? {{(.*?)\n}}", text, re.DOTALL)
        fields = set(re.findall(r"^  (\w+)\??:", block, re.MULTILINE))
        assert fields
        assert fields <= told, name
