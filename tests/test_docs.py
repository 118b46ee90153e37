"""The documents say what the code does: names are looked up, commands are run."""

import io
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from examples.draw import draw
from model_store.errors import ImageCode
from model_store.quality import AbstainReason
from service.app import create_app
from service.errors import STATUS
from service.health import Reason
from service.models import Refusal
from service.settings import Settings, read_settings
from tests.tiny_bundle import build_tiny_bundle

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICE = (ROOT / "docs" / "service.md").read_text(encoding="utf-8")
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), ROOT / "model_store" / "FORMAT.md"]
DOCUMENTS += [*(ROOT / "clients").rglob("*.md")]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    bundle = build_tiny_bundle(tmp_path_factory.mktemp("docs") / "tiny")
    settings = read_settings({"ENDOCLIP_BUNDLE": str(bundle), "ENDOCLIP_ENCODE_THREADS": "1"})
    with TestClient(create_app(settings)) as client:
        yield client


# ---- names ---------------------------------------------------------------------------------------


def codes(text: str) -> set[str]:
    """Everything that a document sets in single backticks outside of fenced blocks."""
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", prose))


def missing(wanted: set[str], text: str) -> set[str]:
    return wanted - codes(text)


def test_every_setting_is_documented():
    assert not missing({f"ENDOCLIP_{name.upper()}" for name in Settings.model_fields}, SERVICE)


def test_no_setting_is_documented_that_is_not_there():
    named = {code for code in codes(SERVICE) if re.fullmatch(r"ENDOCLIP_[A-Z_]*[A-Z]", code)}
    assert named == {f"ENDOCLIP_{name.upper()}" for name in Settings.model_fields}


def documented_defaults(text: str) -> dict[str, str]:
    """Name of a setting → its default as the table has it, in the words of the code."""
    rows = re.findall(r"^\| `ENDOCLIP_([A-Z_]+)` \| ([^|]+) \|", text, flags=re.MULTILINE)
    return {name.lower(): in_words_of_the_code(cell) for name, cell in rows}


def in_words_of_the_code(cell: str) -> str:
    if cell.endswith(" MiB"):
        return str(int(cell.removesuffix(" MiB")) * 1024 * 1024)
    return cell.strip("`") if cell.startswith("`") else cell.replace(" ", "")


def test_documented_defaults_are_those_of_the_code():
    # Of the others the default depends on the machine or the installation, and is put in words.
    wanted = {
        name: str(field.default)
        for name, field in Settings.model_fields.items()
        if field.default is not None and field.default_factory is None
    }
    found = documented_defaults(SERVICE)
    assert len(wanted) >= 10
    assert {name: found[name] for name in wanted} == wanted


def test_default_guard_can_fail():
    assert documented_defaults("| `ENDOCLIP_MAX_BATCH` | `8` | frames |") == {"max_batch": "8"}
    assert documented_defaults("| `ENDOCLIP_X_BYTES` | 2 MiB | a |") == {"x_bytes": "2097152"}


def test_every_error_code_is_documented_beside_its_status():
    rows = [line.split("|") for line in SERVICE.splitlines() if line.startswith("|")]
    documented = {
        (cells[1].strip(), code) for cells in rows if len(cells) > 3 for code in codes(cells[2])
    }
    assert {(str(status), code.value) for code, (status, _) in STATUS.items()} <= documented


@pytest.mark.parametrize("vocabulary", [ImageCode, AbstainReason, Reason, Refusal])
def test_every_word_for_a_frame_or_for_readiness_is_documented(vocabulary: type):
    assert not missing({word.value for word in vocabulary}, SERVICE)


def test_every_route_is_documented(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {path}" for path, operations in paths.items() for method in operations
    }
    assert len(routes) >= 10
    assert not missing(routes, SERVICE)


def test_name_guard_can_fail():
    assert missing({"overloaded", "new_code"}, "| 503 | `overloaded` |") == {"new_code"}
    assert missing({"in_a_block"}, "```\n`in_a_block`\n```") == {"in_a_block"}


# ---- places --------------------------------------------------------------------------------------


# Made from the code when the site is built; docs/site/pages.py.
MADE = {ROOT / "docs" / "reference" / f"{name}.md" for name in ("http", "commands", "settings")}


def dead_links(document: Path) -> list[str]:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    here = [target for target in targets if not urlsplit(target).scheme]
    dead = [target for target in here if not (document.parent / target).exists()]
    return [target for target in dead if (document.parent / target).resolve() not in MADE]


def test_links_between_documents_lead_somewhere():
    assert not {str(d): dead for d in DOCUMENTS if d.exists() and (dead := dead_links(d))}


def test_link_guard_can_fail(tmp_path: Path):
    document = tmp_path / "a.md"
    document.write_text("[b](b.md) [c](https://example.org/c) [a](a.md#top)", encoding="utf-8")
    assert dead_links(document) == ["b.md"]


def test_every_entry_of_the_tree_exists():
    tree = next(block for block in blocks("") if "model_store/ " in block)
    entries = [line.split()[0] for line in tree.splitlines() if line.strip()]
    assert len(entries) >= 10
    assert [entry for entry in entries if not (ROOT / entry).exists()] == []


def pages_without_an_entry(pages: set[str], menu: str) -> set[str]:
    return {page for page in pages if f": {page}\n" not in menu}


def test_every_page_has_an_entry_in_the_menu_of_the_site():
    docs = ROOT / "docs"
    pages = {page.relative_to(docs).as_posix() for page in docs.rglob("*.md")}
    assert len(pages) >= 20
    assert not pages_without_an_entry(pages, (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))


def test_menu_guard_can_fail():
    assert pages_without_an_entry({"a.md", "b/a.md"}, "nav:\n  - A: b/a.md\n") == {"a.md"}


def test_make_targets_that_documents_name_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.MULTILINE))
    for document in DOCUMENTS:
        if document.exists():
            assert set(re.findall(r"`make ([a-z-]+)", document.read_text("utf-8"))) <= targets
    commands = "\n".join(blocks("bash"))
    named = set(re.findall(r"^make ([a-z-]+)", commands, flags=re.MULTILINE))
    assert {"serve", "test", "train"} <= named <= targets


def made(target: str, *arguments: str, **environment: str) -> str:
    """What make would run for a target whose environment is already set up."""
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", *arguments, target],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout


def test_make_takes_its_settings_from_the_command_line_and_not_from_the_shell():
    exported = {"HOST": "evil", "PORT": "1", "BUNDLE": "elsewhere", "DATA": "elsewhere"}
    serve = made("serve", **exported)
    assert "ENDOCLIP_HOST=127.0.0.1 ENDOCLIP_PORT=8000 " in serve
    assert "elsewhere" not in serve + made("train", **exported)
    assert 'ENDOCLIP_PORT=9001 ENDOCLIP_BUNDLE="b"' in made("serve", "PORT=9001", "BUNDLE=b")


def test_documents_hold_no_machine_paths():
    machine = re.compile(r"(?<![\w./])/(?:home|root|tmp|work|Users)/")
    assert [d.name for d in DOCUMENTS if d.exists() and machine.search(d.read_text("utf-8"))] == []


def uneven_tables(text: str) -> list[str]:
    """Heads of tables whose rule has another number of cells: no reader shows these as tables."""
    lines = [re.sub(r"\\\|", "", line) for line in text.splitlines()]
    return [
        head
        for head, rule in pairwise(lines)
        if re.fullmatch(r"\|(?:\s*:?-+:?\s*\|)+", rule) and head.count("|") != rule.count("|")
    ]


def test_tables_have_a_rule_as_wide_as_their_head():
    found = {str(d): uneven_tables(d.read_text(encoding="utf-8")) for d in DOCUMENTS if d.exists()}
    assert {document: heads for document, heads in found.items() if heads} == {}


def test_table_guard_can_fail():
    assert uneven_tables("| a | b |\n|---|\n| 1 | 2 |\n\n| a \\| c |\n|---|\n") == ["| a | b |"]


# ---- commands ------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    """Give the README's fenced blocks of a language; the empty one is plain text."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def curls() -> list[str]:
    joined = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("curl ")]


def run_curl(client: TestClient, command: str) -> tuple[int, str]:
    """Do what a curl command of the README does, against the app."""
    words = shlex.split(command)[1:]
    parts: list[tuple[str, tuple[str | None, bytes]]] = []
    headers: dict[str, str] = {}
    body: bytes | None = None
    url = ""
    while words:
        word = words.pop(0)
        if word == "-s":
            continue
        if word == "-H":
            name, _, value = words.pop(0).partition(":")
            headers[name] = value.strip()
        elif word == "--data-binary":
            body = given(words.pop(0))
        elif word == "-F":
            name, _, value = words.pop(0).partition("=")
            file_name = Path(value).name if value.startswith("@") else None
            parts.append((name, (file_name, given(value))))
        elif word.startswith("-"):
            raise AssertionError(f"the test does not know curl's {word}")
        else:
            url = word
    split = urlsplit(url)
    assert split.netloc == "localhost:8000", url
    path = split.path + (f"?{split.query}" if split.query else "")
    if parts or body is not None:
        answer = client.post(path, files=parts or None, content=body, headers=headers)
    else:
        answer = client.get(path, headers=headers)
    return answer.status_code, answer.text


def given(value: str) -> bytes:
    return (ROOT / value[1:]).read_bytes() if value.startswith("@") else value.encode()


def test_readme_has_commands_for_each_scoring_form():
    assert len(curls()) >= 6


@pytest.mark.parametrize("command", curls())
def test_readme_command_is_answered(client: TestClient, command: str):
    status, text = run_curl(client, command)
    assert status == 200, text
    if "/v1/" in command and " -F " in command:
        assert {p["status"] for p in json.loads(text)["patients"]} == {"scored"}


def shown() -> list[tuple[str, Any]]:
    """Give the README's curl commands with the answer that is shown below each."""
    rest = r"((?:(?!^```).)*)"  # up to the next fence
    fenced = rf"^```bash\n(?=curl){rest}^```$(?:(?!^```).)*^```json\n{rest}^```$"
    found = re.findall(fenced, README, flags=re.DOTALL | re.MULTILINE)
    return [(command.replace("\\\n", " "), json.loads(answer)) for command, answer in found]


def rounded(value: Any) -> Any:
    """Bring numbers to what another machine's arithmetic leaves of them."""
    if isinstance(value, dict):
        return {name: rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return pytest.approx(value, abs=1e-3) if isinstance(value, float) else value


def test_readme_shows_what_the_shipped_bundle_answers():
    examples = shown()
    assert len(examples) >= 3
    with TestClient(create_app(read_settings({}))) as client:
        for command, expected in examples:
            answer = json.loads(run_curl(client, command)[1])
            if isinstance(expected, list):  # the patients alone
                assert answer["patients"] == rounded(expected), command
            else:
                assert answer | {"request_id": "-"} == rounded(expected | {"request_id": "-"})
        expected[0]["scores"]["polyp"] += 0.01
        assert answer["patients"] != rounded(expected)


def test_command_guard_can_fail(client: TestClient):
    status, _ = run_curl(client, "curl -s http://localhost:8000/v1/no-such-task")
    assert status == 404


# ---- examples ------------------------------------------------------------------------------------


def test_examples_are_small_drawn_frames_of_full_size():
    paths = sorted((ROOT / "examples").glob("*.jpg"))
    assert len(paths) >= 4
    for path in paths:
        data = path.read_bytes()
        assert len(data) < 200_000
        with Image.open(io.BytesIO(data)) as image:
            assert image.size == (1280, 1024)
            assert not image.getexif(), path


@pytest.mark.parametrize("name", ["polyp_1", "normal_2"])
def test_examples_are_what_their_script_draws(name: str):
    with Image.open(ROOT / "examples" / f"{name}.jpg") as stored:
        difference = np.abs(np.asarray(stored, np.int16) - np.asarray(draw(name), np.int16))
    # What JPEG at quality 90 leaves; another seed or specification is above 10.
    assert difference.mean() < 2.5
