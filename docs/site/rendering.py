"""Hook: formulas and diagrams are drawn when the site is built, so that no page needs a script.

`$…$` and `$$…$$` (TeX) become MathML, which browsers set themselves; `mermaid` blocks become SVG by
Mermaid itself, run by mermaidx without a browser. Both are read as text where the Markdown is shown
by a git host.
"""

import hashlib
import html
import re
from functools import lru_cache
from typing import Any

import mermaidx
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
_LOOK = {
    "fontFamily": "system-ui, sans-serif",
    "fontSize": "15px",
    "flowchart": {"curve": "basis", "nodeSpacing": 30, "rankSpacing": 36},
    "sequence": {"mirrorActors": False, "messageMargin": 28},
}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Have `mermaid` blocks drawn; here, since a function cannot stand in plain YAML."""
    fence = {"name": "mermaid", "class": "mermaid", "format": draw}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def draw(source: str, *_: Any, **__: Any) -> str:
    """Give a diagram as a figure; its ids are its own, so that a page may have several."""
    return f'<figure class="diagram">{_svg(source)}</figure>'


@lru_cache
def _svg(source: str) -> str:
    try:
        drawn: str = mermaidx.render(source, theme="neutral", config=_LOOK).svg()
    except RuntimeError as error:
        raise PluginError(f"a diagram cannot be drawn: {error}\n{source}") from error
    name = hashlib.sha256(source.encode()).hexdigest()[:8]
    return drawn.replace("my-svg", f"diagram-{name}")


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Set the formulas of a page."""
    return set_formulas(content)


def set_formulas(content: str) -> str:
    """Replace what arithmatex has marked as TeX by MathML.

    Raises:
        PluginError: names the formula that is none.
    """
    return _FORMULA.sub(_set, content)


def _set(found: re.Match[str]) -> str:
    display = "block" if found[1] == "div" else "inline"
    tex = html.unescape(found[2]).strip()
    try:
        return str(convert(tex, display=display))
    except Exception as error:  # latex2mathml has a dozen, without a common base
        raise PluginError(f"expected a formula in TeX, got {tex!r}: {error}") from error
