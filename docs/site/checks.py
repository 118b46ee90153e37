"""Hook: the built site loads nothing from elsewhere.

A hospital network has no way out, and a page that asks a font server says who reads it. Links to
other sites that a reader may follow are no assets.
"""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError

_ELSEWHERE = re.compile(r"\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
_LOADED = {
    "audio": ("src",),
    "embed": ("src",),
    "iframe": ("src",),
    "image": ("href", "xlink:href"),
    "img": ("src", "srcset"),
    "link": ("href",),
    "object": ("data",),
    "script": ("src",),
    "source": ("src", "srcset"),
    "use": ("href", "xlink:href"),
    "video": ("src", "poster"),
}
# What these links name, a reader may go to; the others are loaded.
_ONLY_NAMED = {"alternate", "canonical", "next", "prev"}
_IN_CSS = re.compile(r"(?:url\(|@import)\s*['\"]?([^'\")\s;]+)", re.IGNORECASE)


class _Assets(HTMLParser):
    """Collects what a page loads: addresses in tags, styles and style attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        if tag == "link" and given.get("rel") in _ONLY_NAMED:
            return
        self.found += [given[name] for name in _LOADED.get(tag, ()) if name in given]
        self.found += _IN_CSS.findall(given.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += _IN_CSS.findall(data)


def foreign_assets(text: str, kind: str) -> list[str]:
    """Addresses on other machines that a file has a browser load.

    Args:
        text: of the file.
        kind: its suffix, `.html` or `.css`.
    """
    if kind == ".css":
        assets = _IN_CSS.findall(text)
    else:
        page = _Assets()
        page.feed(text)
        assets = page.found
    return [asset for asset in assets if _ELSEWHERE.match(asset)]


def built_files(folder: Path) -> Iterator[Path]:
    """Pages and style sheets of a built site."""
    yield from (path for path in sorted(folder.rglob("*")) if path.suffix in (".html", ".css"))


def on_post_build(config: MkDocsConfig) -> None:
    """Fail the build where a page or a style sheet loads something from elsewhere.

    Raises:
        PluginError: with each file and address.
    """
    folder = Path(config.site_dir)
    found = {
        path.relative_to(folder).as_posix(): foreign
        for path in built_files(folder)
        if (foreign := foreign_assets(path.read_text(encoding="utf-8"), path.suffix))
    }
    if found:
        told = "\n".join(f"  {name}: {', '.join(them)}" for name, them in found.items())
        raise PluginError(f"expected no asset from elsewhere, found:\n{told}")
