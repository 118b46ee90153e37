"""Hook: the pages of the site that do not lie below `docs/`, and links that lead out of it.

Documents that stand beside their code (FORMAT.md, DESIGN.md, …) are shown as they stand, the
reference is made from the code at every build, and both may be linked by their place in the
repository. A link to a file that is no page (code, say) becomes plain text.
"""

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
# mkdocs may be started by its own script, which does not look for modules here.
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "clients/python")) if path not in sys.path]

from docs.site import reference  # noqa: E402 (needs the path above)
from service.settings import newest_bundle  # noqa: E402 (likewise)

ELSEWHERE = {
    "how-to/python-client.md": "clients/python/README.md",
    "reference/bundle-format.md": "model_store/FORMAT.md",
    "reference/conformance.md": "clients/conformance/README.md",
    "explanation/model-card.md": (newest_bundle() / "MODEL_CARD.md").relative_to(ROOT).as_posix(),
    "explanation/design.md": "DESIGN.md",
    "explanation/experiments.md": "training/LOG.md",
    "explanation/labelling.md": "training/extract/labels/GUIDELINES.md",
    "explanation/performance.md": "bench/RESULTS.md",
    "explanation/performance-gpu.md": "bench/GPU.md",
    "explanation/peers.md": "bench/peers/README.md",
    "explanation/security.md": "SECURITY.md",
    "project/changelog.md": "CHANGELOG.md",
    "project/contributing.md": "CONTRIBUTING.md",
    "project/readme.md": "README.md",
}
"""Page of the site → the document that it shows."""

GENERATED: dict[str, Callable[[], str]] = {
    "reference/http.md": reference.http,
    "reference/commands.md": reference.commands,
    "reference/settings.md": reference.settings,
}
"""Page of the site → what writes it."""

_FENCE = re.compile(r"(^```.*?^```[^\n]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\(([^()\s#]+)(#[^()\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not below `docs/`."""
    for uri, place in ELSEWHERE.items():
        text = (ROOT / place).read_text(encoding="utf-8")
        files.append(File.generated(config, uri, content=text))
    for uri, write in GENERATED.items():
        files.append(File.generated(config, uri, content=write()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links that lead out of `docs/` at the page that shows their target."""
    uri = page.file.src_uri
    pages = {place: page_uri for page_uri, place in ELSEWHERE.items()}
    known = {f"docs/{file.src_uri}" for file in files} - {f"docs/{uri}" for uri in ELSEWHERE}
    return relink(markdown, ELSEWHERE.get(uri, f"docs/{uri}"), uri, pages, known)


def relink(markdown: str, place: str, uri: str, pages: dict[str, str], known: set[str]) -> str:
    """Rewrite a document's relative links for the page that shows it.

    Args:
        markdown: the document.
        place: where it stands in the repository.
        uri: of its page, below `docs/`.
        pages: documents that stand elsewhere → the page that shows each.
        known: files of the site below `docs/`, by their place in the repository.

    Returns:
        The document, fenced blocks untouched. A link to what is nowhere in the repository stays
        as it was, for mkdocs to complain about.
    """

    def replaced(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        if re.match(r"[a-z]+:", target):
            return found[0]
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(place), target))
        if meant in known:
            to = meant.removeprefix("docs/")
        elif meant in pages:
            to = pages[meant]
        else:
            return text if (ROOT / meant).exists() else found[0]
        return f"[{text}]({posixpath.relpath(to, posixpath.dirname(uri) or '.')}{anchor})"

    parts = _FENCE.split(markdown)
    return "".join(part if i % 2 else _LINK.sub(replaced, part) for i, part in enumerate(parts))
