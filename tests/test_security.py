"""The code is scanned, and what the scan passes over says why; the audit tells what it knows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench import audit
from tests.test_architecture import CLIENT, PACKAGES, modules

ROOT = Path(__file__).resolve().parents[1]
SKIP = re.compile(r"#\s*nosec\b(.*)$", flags=re.MULTILINE)


def unexplained(source: str) -> list[str]:
    """Skips of bandit's that do not name their rules and give a reason after them."""
    found = SKIP.findall(source)
    return [text for text in found if not re.fullmatch(r" B\d{3}(, B\d{3})*  # .{10,}", text)]


def scan(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bandit", "-q", "-c", "pyproject.toml", "-r", *paths]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False
    )


def test_bandit_finds_nothing_that_is_not_explained():
    pytest.importorskip("bandit", reason="bandit is in the environment of `make check` alone")
    done = scan(*(ROOT / package for package in (*PACKAGES, CLIENT)))
    assert done.returncode == 0, done.stdout


def test_scan_can_fail(tmp_path: Path):
    pytest.importorskip("bandit", reason="bandit is in the environment of `make check` alone")
    (tmp_path / "bad.py").write_text("import pickle\npickle.loads(b'')\n")
    assert "B301" in scan(tmp_path).stdout


def test_every_skip_names_its_rule_and_gives_its_reason():
    found = {
        str(path.relative_to(ROOT)): wrong
        for package in (*PACKAGES, CLIENT)
        for path in modules(package)
        if (wrong := unexplained(path.read_text(encoding="utf-8")))
    }
    assert not found


@pytest.mark.parametrize("comment", ["# nosec", "# nosec B301", "# nosec all  # for a reason"])
def test_skip_guard_can_fail(comment: str):
    assert unexplained(f"x = 1  {comment}\n")
    assert not unexplained("x = 1  # nosec B301  # of our own worker processes\n")


def test_tests_that_security_md_names_exist():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tests/)?[\w/]*test_\w+\.py)`", text))
    assert len(named) >= 10
    paths = {name if name.startswith("tests/") else f"tests/service/{name}" for name in named}
    assert not {path for path in paths if not (ROOT / path).exists()}


# ---- audit ---------------------------------------------------------------------------------------

CLEAN = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "X-1", "fix_versions": ["3"]}]}
SKIPPED = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("found", "code", "said"),
    [
        ([CLEAN], 0, "knows 0 advisories of 1 packages"),
        ([CLEAN, BAD], 1, "b 2: X-1, mended in 3"),
        ([CLEAN, SKIPPED], 2, "not asked about: c: not found"),
    ],
)
def test_audit_is_clean_only_when_all_was_asked_about(
    found: list[dict[str, object]], code: int, said: str, capsys: pytest.CaptureFixture[str]
):
    assert audit.tell(found, "pypi") == code
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import sys; sys.exit('cannot reach the service')", "cannot reach the service"),
        (
            'print(\'{"dependencies": [{"name": "c", "skip_reason": "none"}]}\')',
            "none",
        ),
    ],
)
def test_audit_says_why_a_source_does_not_answer(tmp_path: Path, script: str, reason: str):
    python = tmp_path / "python"
    python.write_text(f"#!{sys.executable}\n{script}\n")
    python.chmod(0o755)
    assert audit.ask(python, "pypi", [tmp_path / "x.txt"]) == (None, reason)
