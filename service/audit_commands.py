"""The command line of the audit log: `endo-clip-audit`, and `python -m service audit`.

Nothing is printed here: `service.__main__` does that with what comes back.
"""

import argparse
from pathlib import Path
from typing import Any

from service.audit import AuditBroken, read_log
from service.replay import replay

__all__ = ["add_audit_commands", "make_audit_parser", "run_audit"]

# What another batch, thread count or runtime moves a probability by; a changed score is far beyond.
_TOLERANCE = 1e-4
_ABOUT: dict[str, Any] = {
    "description": "Check an audit log, and score its frames again.",
    "epilog": """\
Exit code 0: the log is whole (verify), frames come out as recorded (replay); 1: they do not, or it
is not; 2: it could not be found out. replay needs the bundle of the log: --bundle, else the newest
one shipped.
""",
}


def make_audit_parser() -> argparse.ArgumentParser:
    """Describe the command line of `endo-clip-audit`."""
    parser = argparse.ArgumentParser(prog="endo-clip-audit", **_ABOUT)
    _add_actions(parser)
    return parser


def add_audit_commands(commands: Any) -> None:
    """Describe the same, below `python -m service`."""
    _add_actions(commands.add_parser("audit", help="check an audit log", **_ABOUT))


def _add_actions(audit: argparse.ArgumentParser) -> None:
    actions = audit.add_subparsers(dest="action", metavar="action", required=True)
    verify = actions.add_parser("verify", help="check that nobody changed the log")
    verify.add_argument("--last", help="digest that the last entry must have, kept elsewhere")
    again = actions.add_parser("replay", help="score and decide frames again, from their files")
    again.add_argument("--frames", type=Path, required=True, help="folder with the files")
    again.add_argument("--bundle", type=Path, help="folder of the bundle")
    again.add_argument("--site-profile", type=Path, help="the site profile, where one was in force")
    again.add_argument("--tolerance", type=float, default=_TOLERANCE, help="of a probability")
    for action in (verify, again):
        action.add_argument("log", type=Path, help="the audit log")


def run_audit(arguments: argparse.Namespace) -> tuple[str, int]:
    """Do what the command line asks.

    Returns:
        (what the person is to see, exit code).

    Raises:
        SettingsInvalid: the bundle or site profile is not the log's, or cannot be read.
        BundleError: the bundle cannot be used.
        OSError: a file cannot be read.
    """
    try:
        entries = list(read_log(arguments.log))
    except AuditBroken as error:
        return f"broken: {error.detail}", 1
    if arguments.action == "replay":
        lines, passed = replay(
            entries,
            arguments.frames,
            bundle=arguments.bundle,
            site_profile=arguments.site_profile,
            tolerance=arguments.tolerance,
        )
        return "\n".join(lines), 0 if passed else 1
    last = entries[-1]["digest"] if entries else "-"
    if arguments.last not in (None, last):
        return f"broken: the last entry is {last}; expected {arguments.last}", 1
    return f"whole: {len(entries)} entries, the last is {last}", 0
