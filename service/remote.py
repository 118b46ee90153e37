"""`python -m service models`: asks a running service for its bundles, or for others.

The key is read from a file and sent in the header; it is on no command line, where every process of
the machine could read it.
"""

import argparse
import json
import ssl
import sys
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

from service.errors import SettingsInvalid

__all__ = ["add_models_command", "run_models"]

_PATH = "/v1/admin/models"
# Opening a bundle takes a second; on a busy GPU more.
_PATIENCE_S = 300.0
_EPILOG = """\
examples:
  python -m service models list
  python -m service models load my-bundle-2 --digest sha256:...
  python -m service models rollback --url https://scoring:8000 --key-file admin.key --ca ca.pem
  python -m service models shadow my-bundle-3
  python -m service models shadow --end

Bundles are folders directly below ENDOCLIP_BUNDLES of the service. Exit code 2 and one line on
stderr when nothing was changed.
"""


def add_models_command(commands: Any) -> None:
    """Describe the command to the parser of `python -m service`."""
    models = commands.add_parser(
        "models",
        help="exchange the bundle of a running service",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = models.add_subparsers(dest="action", metavar="action", required=True)
    listing = actions.add_parser("list", help="show what is served, was, and could be")
    load = actions.add_parser("load", help="serve another bundle")
    load.add_argument("bundle", help="name of its folder")
    back = actions.add_parser("rollback", help="serve the bundle before this one again")
    shadow = actions.add_parser("shadow", help="let a bundle score beside the one that is served")
    which = shadow.add_mutually_exclusive_group(required=True)
    which.add_argument("bundle", nargs="?", help="name of its folder")
    which.add_argument("--end", action="store_true", help="end the comparison")
    for action in (load, shadow):
        action.add_argument("--digest", help="sha256:... that the bundle must have")
    for action in (listing, load, back, shadow):
        action.add_argument("--url", default="http://127.0.0.1:8000", help="default: %(default)s")
        action.add_argument("--key-file", help="file with an admin key; - is standard input")
        action.add_argument("--ca", type=Path, help="PEM file of authorities, for https")
        action.add_argument("--json", action="store_true", help="show the answer as it came")


def run_models(arguments: argparse.Namespace) -> str:
    """Do what `models` was asked to.

    Returns:
        What the person is to see.

    Raises:
        SettingsInvalid: one line says what is wrong, or why the service refused.
        OSError: a file cannot be read.
    """
    method, path, body = _call(arguments)
    document = _ask(arguments, method, path, body)
    return json.dumps(document, indent=1) if arguments.json else _table(document)


def _call(arguments: argparse.Namespace) -> tuple[str, str, dict[str, str] | None]:
    if arguments.action == "list":
        return "GET", _PATH, None
    if arguments.action == "shadow" and arguments.end:
        return "DELETE", f"{_PATH}/shadow", None
    named = {
        name: value
        for name in ("bundle", "digest")
        if (value := getattr(arguments, name, None)) is not None
    }
    return "POST", f"{_PATH}/{arguments.action}", named or None


def _ask(
    arguments: argparse.Namespace, method: str, path: str, body: dict[str, str] | None
) -> dict[str, Any]:
    url = arguments.url.rstrip("/")
    if urlsplit(url).scheme not in ("http", "https"):
        raise SettingsInvalid(f"--url: expected http:// or https://; found {url[:80]!r}")
    headers = {"Content-Type": "application/json"} if body else {}
    if arguments.key_file:
        headers["Authorization"] = f"Bearer {_key(arguments.key_file)}"
    data = json.dumps(body).encode() if body else None
    request = Request(url + path, data=data, headers=headers, method=method)
    context = ssl.create_default_context(cafile=arguments.ca) if arguments.ca else None
    # No proxy of the environment: a key is for the service alone.
    opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context))
    try:
        with opener.open(request, timeout=_PATIENCE_S) as answer:
            document: dict[str, Any] = json.load(answer)
            return document
    except HTTPError as error:
        raise SettingsInvalid(f"{url}: {_problem(error)}") from error
    except (URLError, HTTPException, ValueError) as error:
        said = getattr(error, "reason", None) or error
        raise SettingsInvalid(f"{url}: expected a running service; found {said}") from error


def _key(path: str) -> str:
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    key = text.strip()
    if not key or not key.isascii() or " " in key or "\n" in key:
        raise SettingsInvalid("--key-file: expected one key and nothing else")
    return key


def _problem(error: HTTPError) -> str:
    try:
        document = json.load(error)
        reason = f" ({document['reason']})" if document.get("reason") else ""
        return f"{document['code']}{reason}: {document['detail']}"
    except (ValueError, KeyError, TypeError, OSError):
        return f"status {error.code}"


def _table(document: dict[str, Any]) -> str:
    rows = [("", "folder", "name", "version", "digest")]
    for role in ("active", "previous", "shadow", "configured"):
        if document.get(role):
            rows.append((role, *_columns(document[role])))
    rows += [("available", *_columns(found)) for found in document["available"]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    if not document["active"]["ready"]:
        lines.append("The active bundle is not ready: GET /readyz says why.")
    shadow = document.get("shadow") or {}
    for task, counts in shadow.get("agreement", {}).items():
        lines.append(f"shadow, {task}: {_agreement(counts)}")
    return "\n".join(lines)


def _columns(bundle: dict[str, Any]) -> tuple[str, str, str, str]:
    return bundle["folder"], bundle["name"], bundle["version"], bundle["digest"][:19]


def _agreement(counts: dict[str, Any]) -> str:
    parts = [f"{counts[one]} answers {one}" for one in ("compared", "dropped", "failed")]
    for of in ("patients", "frames"):
        same, other = counts[of]["same"], counts[of]["other"]
        parts.append(f"{same} of {same + other} {of} decided alike")
    return ", ".join(parts)
