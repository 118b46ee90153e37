"""Check any deployment against the HTTP contract, a line each.

    python clients/conformance http://localhost:8000
    python clients/conformance https://scoring.example --key-file key --json
    python clients/conformance faults http://localhost:8000     # a proxy to test clients with

Needs httpx. Sends a drawn frame, some hundred times in all; deletes the exams that it opens.
Exit code: 0 all lines hold (or were skipped, with a reason), 1 some do not, 2 nobody answers.
"""

import argparse
import json
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import dicom  # noqa: F401  (registers its lines)
import edges  # noqa: F401
import exams  # noqa: F401
import faults
import httpx
import scoring  # noqa: F401
import streams  # noqa: F401
from kit import LINES, Kit, Line, Skipped


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all checks and print a line for each."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["faults"]:
        return faults.main(given[1:])
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("conformance", description=__doc__, formatter_class=layout)
    parser.add_argument("url", help="root of the service")
    parser.add_argument("--key-file", type=Path, help="file that holds an API key")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    args = parser.parse_args(given)
    key = args.key_file.read_text(encoding="utf-8").strip() if args.key_file else None
    kit = Kit(args.url, key)
    try:
        kit.get("/healthz")
    except (httpx.TransportError, httpx.UnsupportedProtocol) as error:
        print(f"conformance: {args.url} cannot be asked: {type(error).__name__}", file=sys.stderr)
        return 2
    found = [(one.text, *_verdict(one, kit)) for one in LINES]
    if args.json:
        rows = [{"line": text, "verdict": verdict, "said": said} for text, verdict, said in found]
        print(json.dumps(rows, indent=1))
    else:
        for text, verdict, said in found:
            print(f"{verdict}  {text}" + (f"\n      {said}" if said else ""))
        counts = {word: sum(row[1] == word for row in found) for word in ("pass", "FAIL", "skip")}
        print(", ".join(f"{count} {word}" for word, count in counts.items()))
    return int(any(verdict == "FAIL" for _, verdict, _ in found))


def _verdict(one: Line, kit: Kit) -> tuple[str, str]:
    try:
        one.run(kit)
    except Skipped as reason:
        return "skip", str(reason)
    except AssertionError as error:
        return "FAIL", str(error)
    except (httpx.HTTPError, OSError, LookupError, TypeError, ValueError, struct.error) as error:
        return "FAIL", f"expected an answer of the contract's shape; found {error!r}"[:200]
    return "pass", ""


if __name__ == "__main__":
    sys.exit(main())
