"""The table of `make bench`, the file it is kept in, and the comparison of `make bench-check`."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from PIL import features

from model_store.cores import usable_cores

__all__ = ["RESULTS", "fallen", "machine", "read_ratios", "table", "write_ratios"]

RESULTS = Path(__file__).with_name("RESULTS.md")
# Ratios of two halves of one run vary by about 5 % on a shared machine.
_TOLERATED = 0.15
_HEADING = "## Ratios that are held"
_ROW = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<value>[0-9.]+) \|$", re.MULTILINE)


def machine() -> list[str]:
    """Say where and with what is measured, a line each."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    ).stdout.strip()
    names = ("onnxruntime-gpu", "pillow", "numpy", "fastapi", "uvicorn", "h11")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    turbo = features.version("libjpeg_turbo") if features.check("libjpeg_turbo") else "none"
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return [
        f"Commit {commit or 'unknown'}; Python {platform.python_version()}, {versions}, "
        f"libjpeg-turbo {turbo}.",
        f"{_processor()}, {usable_cores()} usable cores; no GPU. Load of the last 1, 5 and 15 "
        f"minutes before: {load}.",
    ]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def write_ratios(ratios: Mapping[str, float]) -> list[str]:
    """Lines of the section that `read_ratios` reads."""
    rows = [(name, f"{value:.3f}") for name, value in ratios.items()]
    return [_HEADING, "", *table(["ratio", "value"], rows)]


def read_ratios(text: str) -> dict[str, float]:
    """Read the ratios of a results file.

    Raises:
        ValueError: it holds none.
    """
    _, found, section = text.partition(_HEADING)
    ratios = {row["name"]: float(row["value"]) for row in _ROW.finditer(section.split("\n## ")[0])}
    if not found or not ratios:
        raise ValueError(f"expected a section {_HEADING!r} with ratios; found none")
    return ratios


def fallen(recorded: Mapping[str, float], measured: Mapping[str, float]) -> list[str]:
    """Name the ratios that are more than 15 % below what was recorded, or were not measured."""
    told = []
    for name, was in recorded.items():
        now = measured.get(name)
        if now is None:
            told.append(f"{name}: {was:.3f} recorded, not measured")
        elif now < was * (1 - _TOLERATED):
            told.append(f"{name}: {was:.3f} recorded, {now:.3f} now")
    return told


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.machine()
