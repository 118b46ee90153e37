"""The samples in other languages, ready to be run; skipped where a language is not here."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT

_MONO = (
    "Mono is not whole here (Debian: mono-mcs, mono-runtime, libmono-system-net-http4.0-cil, "
    "libmono-system-runtime-serialization4.0-cil)"
)


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
        pytest.skip(_MONO)
    program = folder / "EndoClip.exe"
    parts = ["-r:System.Net.Http.dll", "-r:System.Runtime.Serialization.dll", f"-out:{program}"]
    source = ROOT / "clients" / "csharp" / "EndoClip.cs"
    command = [compiler, "-warnaserror", *parts, str(source)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=120)
    if "error CS0006" in done.stderr:  # a library of Mono's that is a package of its own
        pytest.skip(f"{_MONO}: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return [mono, str(program)]
