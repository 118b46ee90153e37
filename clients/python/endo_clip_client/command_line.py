"""What the package's commands share: where the service is, and the key."""

import argparse
import os
from pathlib import Path

__all__ = ["ABOUT", "key_of", "service_options"]

ABOUT = """\
The service's address is --url, else the variable ENDO_CLIP_URL, else http://127.0.0.1:8000.
A key is read from --key-file, else from ENDO_CLIP_KEY; never from the command line, which
anybody on the machine can read. Research use only; not a medical device.
"""


def service_options() -> argparse.ArgumentParser:
    """Give the options that say which service is asked, as a parent of a parser."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--url",
        default=os.environ.get("ENDO_CLIP_URL", "http://127.0.0.1:8000"),
        help="the service",
    )
    common.add_argument("--key-file", type=Path, help="file that holds the API key, on one line")
    return common


def key_of(args: argparse.Namespace) -> str | None:
    """Give the key, or None.

    Raises:
        OSError: the file cannot be read.
    """
    if args.key_file is None:
        return os.environ.get("ENDO_CLIP_KEY") or None
    text: str = args.key_file.read_text(encoding="utf-8")
    return text.strip()
