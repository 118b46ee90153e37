"""The samples in other languages, ready to be run; skipped where a language is not here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT


def javascript() -> list[str]:
    """Command of the JavaScript sample."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    return [node, str(ROOT / "clients" / "javascript" / "endo-clip.mjs")]


def csharp(folder: Path) -> list[str]:
    """Command of the C# sample, compiled into a folder."""
    compiler, mono = shutil.which("mcs"), shutil.which("mono")
    if compiler is None or mono is None:
        pytest.skip("Mono is not installed (Debian: mono-mcs, libmono-system-net-http4.0-cil)")
    program = folder / "EndoClip.exe"
    parts = ["-r:System.Net.Http.dll", "-r:System.Runtime.Serialization.dll", f"-out:{program}"]
    source = ROOT / "clients" / "csharp" / "EndoClip.cs"
    subprocess.run([compiler, "-warnaserror", *parts, str(source)], check=True, timeout=120)
    return [mono, str(program)]
