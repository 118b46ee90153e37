"""The generated part of the reference, as Markdown: commands and settings; HTTP is `http_api`.

Each page is made from the code when the site is built; none is kept.
"""

import argparse
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

from endo_clip_client import __main__ as client
from endo_clip_client import watch
from pydantic_core import PydanticUndefined

from docs.site.http_api import http
from service.audit_commands import make_audit_parser
from service.commands import make_parser
from service.settings import Settings
from training import __main__ as training

__all__ = ["commands", "http", "settings"]

_COLUMNS = "100"


def commands() -> str:
    """Every command's `--help`, as the programs print it."""
    # The parsers are private: nothing but this page looks at a program without running it.
    programs = [
        make_parser(),
        make_audit_parser(),
        training._parser(),
        client._parser(),
        watch._parser(),
    ]
    text = (
        "# Commands\n\nWhat `--help` prints, program by program. `python` is that of the "
        "environment that `make serve` (service) or `make train` (training) sets up, where "
        "`endo-clip-audit` is, too; `endo-clip` and `endo-clip-watch` come with "
        "`pip install ./clients/python`.\n"
    )
    with mock.patch.dict(os.environ, COLUMNS=_COLUMNS):
        for program in programs:
            for depth, parser in _with_subcommands(program):
                text += (
                    f"\n{'#' * min(depth, 4)} {parser.prog}\n\n```text\n{parser.format_help()}```\n"
                )
    return text


def _with_subcommands(
    parser: argparse.ArgumentParser, depth: int = 2
) -> Iterator[tuple[int, argparse.ArgumentParser]]:
    """A parser and, below it, those of its commands, each once whatever its aliases."""
    yield depth, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in dict.fromkeys(action.choices.values()):
                yield from _with_subcommands(below, depth + 1)


def settings() -> str:
    """Every setting of the service, from the class that reads them."""
    schema = Settings.model_json_schema()["properties"]
    text = (
        "# Settings\n\nEnvironment variables of the service, read once at the start. A variable "
        "with the prefix `ENDOCLIP_` that names no setting is an error. With links to what each "
        "goes with: [the service](../service.md#settings).\n\n"
        "| variable | value | what it does, and what raising it costs |\n|---|---|---|\n"
    )
    for name, field in Settings.model_fields.items():
        cells = (
            f"`ENDOCLIP_{name.upper()}`",
            f"{takes(schema[name])}. Default: {_default(field.default)}",
            " ".join((field.description or "").split()),
        )
        text += f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"
    return text


def _default(value: Any) -> str:
    if value is None:
        return "none"
    # Worked out at the start: usable cores, for example.
    return "by the machine" if value is PydanticUndefined else f"`{value}`"


def takes(schema: dict[str, Any]) -> str:
    """What a value may be, in words, from its JSON schema."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    return " or ".join(_one_kind(kind) for kind in kinds)


def _one_kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    word = {"integer": "integer", "number": "number", "boolean": "`true`, `false`"}
    words = {"path": "path"} | {"uri": "URL"}
    kind = word.get(schema.get("type", ""), words.get(schema.get("format", ""), "text"))
    least = schema.get("minimum")
    above, most = schema.get("exclusiveMinimum"), schema.get("maximum")
    bounds = [f"≥ {least}"] * (least is not None) + [f"> {above}"] * (above is not None)
    return " ".join([kind, *bounds, *[f"≤ {most}"] * (most is not None)])
