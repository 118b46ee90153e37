"""Holds a running service against its own OpenAPI document, with requests that schemathesis makes.

    python -m bench.contract --examples 200          (the service is started, and stopped)

Requests are made from the document, good ones and ones that break it; each answer must have a
status, type, headers and body that the document names, bad requests must be refused and good ones
must not. Ends with 1 and a curl command when one does not hold.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.served import served

__all__ = ["check"]


def check(schema: str, examples: int, *options: str) -> "subprocess.CompletedProcess[str]":
    """Run schemathesis against a service; its exit code is 0 when all held.

    Args:
        schema: URL of the service's document, or path of another one.
        examples: of each operation, at most; 0 leaves out what is drawn at random.
        options: further ones of its command line.
    """
    command = [str(Path(sys.executable).with_name("schemathesis"))]
    command += ["--config-file", str(Path(__file__).resolve().with_suffix(".toml")), "run", schema]
    command += ["--max-examples", str(max(examples, 1)), "--seed", "1", "--no-color"]
    # The first text loads the text tower, which takes long where others want the cores.
    command += ["--generation-database", "none", "--workers", "2", "--request-timeout", "120"]
    command += options
    if not examples:
        command += ["--phases", "examples,coverage"]
    # It keeps notes in the folder it runs in.
    with tempfile.TemporaryDirectory() as folder:
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)


def main() -> int:
    """Start a service, check it, print what schemathesis says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--examples", type=int, default=200, help="of each operation")
    args = parser.parse_args()
    with served() as up:
        done = check(f"{up.url}/openapi.json", args.examples)
        failures = up.failures()
    sys.stdout.write("\n".join([done.stdout[-20_000:], done.stderr, *failures[:20], ""]))
    return 1 if done.returncode or failures else 0


if __name__ == "__main__":
    sys.exit(main())
