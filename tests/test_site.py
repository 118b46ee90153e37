"""The documentation site: built as `make docs` builds it, read without a network."""

import html
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="needs the documentation tools (group `docs`)")
pytest.importorskip("training.scoring", reason="needs the training environment")

from mkdocs.exceptions import PluginError
from playwright.sync_api import Page, sync_playwright

from docs.site.checks import foreign_assets
from docs.site.pages import ELSEWHERE, GENERATED, relink
from docs.site.rendering import draw, set_formulas
from service.settings import Settings
from tests.test_docs import ROOT

CHROMIUM = shutil.which("chromium")
MAX_S = 300
SECOND_PAGE = "# Second\n\n## A part\n"


def built(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "mkdocs", "build", "--strict"),
            *("--config-file", str(config), "--site-dir", str(out)),
        ],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=MAX_S,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole site; a dead link or anchor, or a page that no menu leads to, fails here."""
    out = tmp_path_factory.mktemp("site")
    done = built(ROOT / "mkdocs.yml", out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def text_of(site: Path, page: str) -> str:
    """What a reader sees of a page, without its tags."""
    source = (site / page).read_text(encoding="utf-8")
    article = source[source.index("<article") : source.index("</article>")]
    return html.unescape(re.sub(r"<[^>]+>", "", article))


# ---- what is on it -------------------------------------------------------------------------------


def test_every_document_and_every_generated_page_is_there(site: Path):
    wanted = {*ELSEWHERE, *GENERATED}
    wanted |= {p.relative_to(ROOT / "docs").as_posix() for p in (ROOT / "docs").rglob("*.md")}
    assert len(wanted) >= 40
    assert [page for page in wanted if not (site / page).with_suffix(".html").is_file()] == []


def test_formulas_are_set_without_a_script(site: Path):
    source = (site / "method.html").read_text(encoding="utf-8")
    assert source.count("<math") >= 15
    assert "arithmatex" not in source
    assert "$" not in text_of(site, "method.html")


@pytest.mark.parametrize("page", ["architecture", "integration"])
def test_diagrams_are_drawn_without_a_script_each_under_its_own_ids(site: Path, page: str):
    document = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    source = (site / f"{page}.html").read_text(encoding="utf-8")
    ids = re.findall(r'<svg id="(diagram-[0-9a-f]{8})"', source)
    assert len(ids) == len(set(ids)) == document.count("```mermaid") >= 3
    assert 'class="mermaid"' not in source


def test_http_reference_has_every_operation_and_object(site: Path):
    from service.app import create_app
    from service.settings import read_settings

    document = create_app(read_settings({})).openapi()
    told = text_of(site, "reference/http.html")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert f"{method.upper()} {path}" in told
            assert operation["summary"] in told
    for name, schema in document["components"]["schemas"].items():
        assert name.lstrip("_") in told
        assert all(field in told for field in schema.get("properties", {}))


def test_settings_reference_has_every_setting_with_its_description(site: Path):
    told = text_of(site, "reference/settings.html")
    for name, field in Settings.model_fields.items():
        assert f"ENDOCLIP_{name.upper()}" in told
        assert " ".join((field.description or "").replace("`", "").split()) in told


@pytest.mark.parametrize(
    "command",
    ["python -m service keys add", "python -m training fewshot profile", "endo-clip score"],
)
def test_command_reference_is_what_help_prints(site: Path, command: str):
    program = command.replace("python -m ", "").replace("endo-clip", "endo_clip_client").split()
    done = subprocess.run(
        [sys.executable, "-m", *program, "--help"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100", "PYTHONPATH": f"{ROOT}:{ROOT / 'clients/python'}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() in text_of(site, "reference/commands.html")


def test_links_to_code_are_text_and_links_to_documents_lead_to_their_pages():
    pages, known = {"DESIGN.md": "explanation/design.md"}, {"docs/service.md"}
    told = "[a](DESIGN.md) [b](docs/service.md#tls) [c](service/app.py) [d](gone.md) [e](https://e.org)"
    assert relink(told, "README.md", "project/readme.md", pages, known) == (
        "[a](../explanation/design.md) [b](../service.md#tls) c [d](gone.md) [e](https://e.org)"
    )


def test_links_in_blocks_of_code_are_left_alone():
    told = "```\n[a](DESIGN.md)\n```\n"
    assert relink(told, "README.md", "x.md", {"DESIGN.md": "d.md"}, set()) == told


# ---- guards --------------------------------------------------------------------------------------


def test_build_fails_with_a_dead_link_a_dead_anchor_and_an_asset_from_elsewhere(tmp_path: Path):
    page = '[a](gone.md) [b](second.md#gone) <img src="https://example.org/pixel.png" alt="">'
    done = built(small_site(tmp_path, page), tmp_path / "out")
    told = done.stdout + done.stderr
    assert done.returncode != 0
    assert "'gone.md', but the target is not found" in told
    assert "'second.md#gone', but the doc 'second.md' does not contain an anchor" in told
    assert "index.html: https://example.org/pixel.png" in told


def test_build_fails_with_a_dead_link_alone(tmp_path: Path):
    assert built(small_site(tmp_path, "[a](gone.md)"), tmp_path / "out").returncode != 0


def test_what_cannot_be_drawn_or_set_is_named():
    with pytest.raises(PluginError, match="a diagram cannot be drawn"):
        draw("flowchart LR\n  a --> --> b")
    with pytest.raises(PluginError, match="expected a formula in TeX"):
        set_formulas('<span class="arithmatex">\\(\\frac{1}{\\)</span>')


def test_a_small_site_without_a_fault_is_built(tmp_path: Path):
    page = "[there](second.md#a-part), $x^2$\n\n```mermaid\nflowchart LR\n  a --> b\n```"
    done = built(small_site(tmp_path, page), tmp_path / "out")
    assert done.returncode == 0, done.stdout + done.stderr


def small_site(folder: Path, page: str) -> Path:
    """A site of two pages with the real one's settings, without the pages that stand elsewhere."""
    pages = folder / "pages"
    pages.mkdir()
    (pages / "index.md").write_text(f"# First\n\n[second](second.md)\n\n{page}\n", "utf-8")
    (pages / "second.md").write_text(SECOND_PAGE, encoding="utf-8")
    shutil.copytree(ROOT / "docs" / "site", pages / "site")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    settings = settings[: settings.index("nav:")].replace("docs_dir: docs", f"docs_dir: {pages}")
    hooks = [str(ROOT / "docs" / "site" / name) for name in ("rendering.py", "checks.py")]
    settings = re.sub(r"hooks: \[.*\]", f"hooks: [{', '.join(hooks)}]", settings)
    config = folder / "mkdocs.yml"
    config.write_text(settings, encoding="utf-8")
    return config


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ('<script src="https://e.org/a.js"></script>', ".html"),
        ('<link rel="stylesheet" href="//e.org/a.css">', ".html"),
        ("<style>@import 'http://e.org/a.css'</style>", ".html"),
        ('<p style="background: url(https://e.org/a.png)">', ".html"),
        ("a { background: url('https://e.org/a.png') }", ".css"),
    ],
)
def test_asset_guard_can_fail(text: str, kind: str):
    assert len(foreign_assets(text, kind)) == 1


def test_links_that_a_reader_may_follow_are_no_assets():
    source = '<a href="https://e.org">e</a><link rel="canonical" href="https://e.org/a">'
    assert foreign_assets(f'{source}<img src="a.png">', ".html") == []


# ---- in a browser --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tab() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("needs Debian's chromium")
    with sync_playwright() as tools:
        browser = tools.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def test_the_site_is_read_and_searched_from_its_folder_without_a_network(site: Path, tab: Page):
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto((site / "index.html").as_uri())
    tab.get_by_role("textbox", name="Search").fill("operating point")
    tab.locator(".md-search-result__link").first.wait_for(timeout=60_000)
    tab.goto((site / "architecture.html").as_uri())
    assert tab.locator(".diagram svg").count() == 3
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", ["index", "method", "architecture", "reference/http", "evidence"])
def test_no_page_is_wider_than_the_window(site: Path, tab: Page, page: str, width: int):
    tab.set_viewport_size({"width": width, "height": 900})
    tab.goto((site / f"{page}.html").as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
