"""The command line of `python -m service`: what it understands, and what `keys` does.

Nothing is printed here: `service.__main__` does that with what comes back.
"""

import argparse
import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

from service.audit_commands import add_audit_commands
from service.errors import SettingsInvalid
from service.keys import Key, Scope, change_keys, new_key, read_keys
from service.logs import LogFormat
from service.remote import add_models_command

__all__ = ["make_parser", "run_keys"]

_EPILOG = """\
examples:
  python -m service --log-format text
  python -m service keys add --file keys.json --name pacs-1 --scope score --frames-per-second 50
  python -m service keys add --file keys.json --name prometheus --scope metrics
  python -m service models load my-bundle-2
  ENDOCLIP_HOST=0.0.0.0 ENDOCLIP_KEYS=keys.json python -m service

All settings are ENDOCLIP_* environment variables: docs/service.md.
"""
_KEYS_EPILOG = """\
A key is shown once, when it is made; the file holds its SHA-256. A running service takes a changed
file over within a second of its next request, or at once on SIGHUP.
"""


def make_parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    plain = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve a bundle over HTTP until stopped.",
        epilog=_EPILOG,
        formatter_class=plain,
    )
    parser.add_argument(
        "--log-format",
        choices=get_args(LogFormat),
        help="log lines as JSON for machines or as text for people; default: ENDOCLIP_LOG_FORMAT, "
        "else json",
    )
    commands = parser.add_subparsers(dest="command", metavar="command")
    add_audit_commands(commands)
    keys = commands.add_parser(
        "keys", help="make, list and revoke API keys", epilog=_KEYS_EPILOG, formatter_class=plain
    )
    actions = keys.add_subparsers(dest="action", metavar="action", required=True)
    add = actions.add_parser("add", help="make a key and print it, once")
    add.add_argument("--name", required=True, help="who will use it: letters, digits, . _ -")
    add.add_argument(
        "--scope",
        action="append",
        required=True,
        choices=[scope.value for scope in Scope],
        help="what it may do; may be given again. No scope includes another",
    )
    add.add_argument("--expires-days", type=float, help="days from now; without it, never")
    add.add_argument("--frames-per-second", type=float, help="on average; without it, no limit")
    listing = actions.add_parser("list", help="show the keys there are, without their secrets")
    revoke = actions.add_parser("revoke", help="take a key out of the file")
    revoke.add_argument("id", help="its id: the eight characters after endoclip_")
    for action in (add, listing, revoke):
        action.add_argument("--file", type=Path, help="keys file; default: ENDOCLIP_KEYS")
    add_models_command(commands)
    return parser


def run_keys(arguments: argparse.Namespace) -> str:
    """Do what `keys` was asked to.

    Returns:
        What the person is to see.

    Raises:
        SettingsInvalid: one line says what is wrong.
        OSError: the file cannot be written.
    """
    path: Path | None = arguments.file or (Path(os.environ.get("ENDOCLIP_KEYS", "")) or None)
    if path is None or path == Path():
        raise SettingsInvalid("expected --file or ENDOCLIP_KEYS; found neither")
    if arguments.action == "add":
        return _add(path, arguments)
    if arguments.action == "revoke":
        return _revoke(path, arguments.id)
    return _table(read_keys(path))


def _add(path: Path, arguments: argparse.Namespace) -> str:
    expires = None
    if arguments.expires_days is not None:
        if not 0 < arguments.expires_days <= 36500:
            raise SettingsInvalid(
                f"--expires-days: expected more than 0, 36500 at most; "
                f"found {arguments.expires_days:g}"
            )
        ends = datetime.now(UTC) + timedelta(days=arguments.expires_days)
        expires = ends.replace(microsecond=0)
    key, token = new_key(
        arguments.name,
        [Scope(scope) for scope in arguments.scope],
        expires=expires,
        frames_per_second=arguments.frames_per_second,
    )
    change_keys(path, lambda keys: [*keys, key])
    return token


def _revoke(path: Path, key_id: str) -> str:
    def without(keys: Iterable[Key]) -> list[Key]:
        keys = list(keys)
        kept = [key for key in keys if key.id != key_id]
        if len(kept) == len(keys):
            raise SettingsInvalid(f"expected the id of a key in {path}; found {key_id[:80]!r}")
        return kept

    change_keys(path, without)
    return f"{key_id} is revoked."


def _table(keys: Iterable[Key]) -> str:
    rows = [("id", "name", "scopes", "frames/s", "created", "expires")]
    now = datetime.now(UTC)
    for key in keys:
        ended = " (expired)" if key.expires and key.expires <= now else ""
        rows.append(
            (
                key.id,
                key.name,
                ",".join(key.scopes),
                f"{key.frames_per_second:g}" if key.frames_per_second else "-",
                f"{key.created:%Y-%m-%d}",
                f"{key.expires:%Y-%m-%d}{ended}" if key.expires else "never",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join(lines)
