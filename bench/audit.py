"""Asks the public advisories about every pinned requirement: `make audit`.

Exit code 0: asked about all, nothing known. 1: advisories apply; they are listed. 2: not everything
could be asked about, with the reason; that is no clean bill.

Runs pip-audit in an environment of its own that is thrown away, so that it is in none of the
project's. It is the one tool that is not pinned: an old one knows old advisories.
"""

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Asked in turn until one answers.
SERVICES = ("pypi", "osv")


def main() -> int:
    """Ask about all files; gives the exit code."""
    files = sorted((ROOT / "requirements").glob("*.txt"))
    with tempfile.TemporaryDirectory() as scratch:
        python = _environment(Path(scratch) / "venv")
        if python is None:
            print("audit: not done: pip-audit cannot be installed here (is there a network?)")
            return 2
        reasons = []
        for service in SERVICES:
            found, reason = ask(python, service, files)
            if found is not None:
                return tell(found, service)
            reasons.append(f"{service}: {reason}")
    print(f"audit: not done: no advisory source answers ({'; '.join(reasons)})")
    return 2


def ask(
    python: Path, service: str, files: Sequence[Path]
) -> tuple[list[dict[str, Any]] | None, str]:
    """Ask one service about all files: its answers, or None and the reason."""
    answers = []
    for file in files:
        command = [python, "-m", "pip_audit", "--requirement", file, "--vulnerability-service"]
        command += [service, "--require-hashes", "--disable-pip", "--format", "json"]
        command += ["--progress-spinner", "off", "--timeout", "15"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        try:
            found = json.loads(done.stdout)["dependencies"]
        except (ValueError, KeyError):
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            return None, lines[-1][:200]
        if found and all("skip_reason" in one for one in found):
            return None, found[0]["skip_reason"][:200]
        answers += found
    return answers, ""


def tell(found: Sequence[dict[str, Any]], service: str) -> int:
    """Print what a service knows; gives the exit code."""
    asked = {(one["name"], one["version"]) for one in found if "skip_reason" not in one}
    unknown = {one["name"]: one["skip_reason"] for one in found if "skip_reason" in one}
    known = sorted(set(advisories(found)))
    for line in known:
        print(f"audit: {line}")
    for name, reason in sorted(unknown.items()):
        print(f"audit: not asked about: {name}: {reason}")
    print(f"audit: {service} knows {len(known)} advisories of {len(asked)} packages")
    return 1 if known else 2 if unknown else 0


def advisories(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Describe each advisory that applies."""
    for one in found:
        for advisory in one.get("vulns", ()):
            mended = ", ".join(advisory["fix_versions"]) or "no version yet"
            yield f"{one['name']} {one['version']}: {advisory['id']}, mended in {mended}"


def _environment(folder: Path) -> Path | None:
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    command = [python, "-m", "pip", "install", "--quiet", "pip-audit"]
    return python if subprocess.run(command, check=False).returncode == 0 else None


if __name__ == "__main__":
    sys.exit(main())
