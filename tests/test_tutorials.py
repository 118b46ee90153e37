"""The tutorials' commands are run as they stand on the pages, and print what the pages show."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from tests.tutorials import (
    PAGES,
    Command,
    can_be_alone,
    is_as_printed,
    read_commands,
    run,
    scratch_copy,
)

# What a page needs beyond the service's environment: a program, or a package.
NEEDS = {"integrate": "pydicom", "operate": "prometheus", "train": "presidio_analyzer"}
# Training takes 160 s of processor time; on a machine that others use, it took 15 minutes.
MAX_S = 1800.0

alone = pytest.mark.skipif(
    not can_be_alone(), reason="needs network namespaces of one's own (unshare, ip)"
)


def missing(name: str) -> str:
    """What is not installed here of the things that a page needs, or nothing."""
    wanted = NEEDS.get(name, "make")
    there = shutil.which(wanted) or importlib.util.find_spec(wanted)
    return "" if there else wanted


@alone
@pytest.mark.parametrize(
    "name",
    ["first-answer", "integrate", "operate", pytest.param("train", marks=pytest.mark.slow)],
)
def test_tutorial_does_what_it_says(name: str, tmp_path: Path):
    if absent := missing(name):
        pytest.skip(f"needs {absent}")
    commands = read_commands((PAGES / f"{name}.md").read_text(encoding="utf-8"))
    assert len(commands) >= 4
    assert sum(command.prints is not None for command in commands) >= 3
    printed = run(commands, scratch_copy(tmp_path), MAX_S)
    for command, output in zip(commands, printed, strict=True):
        if command.prints is not None:
            assert is_as_printed(command.prints, output), (command.text, output)


def test_every_tutorial_is_run():
    assert {page.stem for page in PAGES.glob("*.md")} == {"first-answer", *NEEDS}


@alone
def test_a_command_that_fails_fails_its_tutorial(tmp_path: Path):
    with pytest.raises(AssertionError, match="no-such-command"):
        run([Command("true\n"), Command("no-such-command\n")], scratch_copy(tmp_path), 60)


@alone
def test_what_is_left_running_ends_with_its_page(tmp_path: Path):
    left = Command("echo up; sleep 30; touch late\n", left_running=True)
    wait = Command("until grep -q up printed.0; do sleep 0.1; done\n")
    assert run([left, wait], scratch_copy(tmp_path), 60)[0] == "up\n"
    assert not (tmp_path / "late").exists()


@pytest.mark.parametrize(
    ("pattern", "output", "same"),
    [
        ("positive 0.9…\n", "positive 0.94\n", True),
        ("a…c\n", "a\nb\nc\n", True),
        ("positive 0.9…\n", "negative 0.94\n", False),
        ("201\n", "201\n500\n", False),
    ],
)
def test_output_guard_can_fail(pattern: str, output: str, same: bool):
    assert is_as_printed(pattern, output) is same


def test_blocks_are_read_with_what_they_print():
    page = (
        '```bash title="terminal 1"\na\n```\n\n```bash\nb\n```\n\n```text title="prints"\nc\n```\n'
    )
    assert read_commands(page) == [Command("a\n", left_running=True), Command("b\n", prints="c\n")]
