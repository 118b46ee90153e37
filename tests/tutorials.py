"""Runs a tutorial's commands as they stand on its page, in a scratch copy of the repository.

A page's `bash` blocks are one session, from top to bottom. A block titled `terminal …` is started
and left running until the page ends. A block of another language that follows at once, titled
`prints`, is what the command before it must print; `…` there stands for anything.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "tutorials"
ENVIRONMENTS = (".venv", ".venv-train")
_BLOCK = re.compile(r"^```(\w+)(?: title=\"([^\"]*)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LEFT_RUNNING = "terminal"
# A namespace of its own has all ports free, and no way out: the pages' addresses hold as they are.
_ALONE = ("unshare", "--user", "--map-root-user", "--net", "--", "bash", "-c")
_WITH_LOOPBACK = 'ip link set lo up && exec bash "$0"'


@dataclass(frozen=True)
class Command:
    """A `bash` block: its text, whether it is left running, and what it must print."""

    text: str
    left_running: bool = False
    prints: str | None = None


def read_commands(page: str) -> list[Command]:
    """The commands of a page, in its order."""
    commands: list[Command] = []
    for language, title, text in _BLOCK.findall(page):
        if language == "bash":
            commands.append(Command(text, title.startswith(_LEFT_RUNNING)))
        elif title == "prints":
            commands[-1] = Command(commands[-1].text, prints=text)
    return commands


def can_be_alone() -> bool:
    """Whether this machine lets a process have a network namespace of its own."""
    if not (shutil.which("unshare") and shutil.which("ip")):
        return False
    done = subprocess.run([*_ALONE, "ip link set lo up"], capture_output=True, check=False)
    return done.returncode == 0


def scratch_copy(folder: Path) -> Path:
    """Lay out the repository by links, with the environment of this process in place of `make`'s.

    What commands write (`runs/`, answers) stays in the folder.
    """
    for entry in ROOT.iterdir():
        if entry.name not in {"runs", "build", *ENVIRONMENTS} and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    for name in ENVIRONMENTS:
        programs = folder / name / "bin"
        programs.mkdir(parents=True)
        python = programs / "python"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
        python.chmod(0o755)
        (folder / name / ".stamp").touch()
    return folder


def run(commands: list[Command], folder: Path, timeout_s: float) -> list[str]:
    """Run a session.

    Args:
        commands: of one page.
        folder: a scratch copy.
        timeout_s: for all of it.

    Returns:
        What each command printed on both streams; of those left running, what came until the end.

    Raises:
        AssertionError: a command failed; with what it and those left running printed.
    """
    script = "".join(_as_script(i, command) for i, command in enumerate(commands))
    (folder / "session.sh").write_text(f"set -euo pipefail\n{script}", encoding="utf-8")
    session = subprocess.Popen(
        [*_ALONE, _WITH_LOOPBACK, "session.sh"],
        cwd=folder,
        # Nobody's settings but the page's, and make's own variables of the run that tests.
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = session.wait(timeout_s)
    except subprocess.TimeoutExpired:
        code = -1
    finally:
        _end(session.pid)
    printed = [
        (folder / f"printed.{i}").read_text("utf-8") if (folder / f"printed.{i}").exists() else ""
        for i in range(len(commands))
    ]
    told = "\n".join(f"$ {c.text}{p}" for c, p in zip(commands, printed, strict=True))
    assert code == 0, f"ended with {code}\n{told}"
    return printed


def _as_script(number: int, command: Command) -> str:
    end = "&" if command.left_running else ""
    # Not in a subshell otherwise: what a block sets holds for the blocks below it.
    left, right = ("(", ")") if command.left_running else ("{", "}")
    return f"{left}\n{command.text}{right} > printed.{number} 2>&1 {end}\n"


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def is_as_printed(pattern: str, printed: str) -> bool:
    """Whether an output is the one that a page shows, where `…` is anything."""
    wanted = ".*?".join(re.escape(part.strip()) for part in pattern.split("…"))
    return re.fullmatch(rf"\s*{wanted}\s*", printed, re.DOTALL) is not None
