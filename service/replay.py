"""`python -m service audit`: checks an audit log, and scores its frames again from their files."""

import argparse
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import ImageRejected
from model_store.images import decode
from model_store.patient import score_patient
from service.audit import AuditBroken, read_log
from service.errors import SettingsInvalid
from service.settings import newest_bundle

__all__ = ["add_audit_commands", "run_audit"]

# What another batch, thread count or runtime moves a probability by; a changed score is far beyond.
_TOLERANCE = 1e-4
_EPILOG = """\
Exit code 0: the log is whole (verify), frames score as recorded (replay); 1: they do not, or it is
not. replay needs the bundle of the log: --bundle, else the newest one shipped.
"""


def add_audit_commands(commands: Any) -> None:
    """Describe the commands, below `python -m service`."""
    audit = commands.add_parser("audit", help="check an audit log", epilog=_EPILOG)
    actions = audit.add_subparsers(dest="action", metavar="action", required=True)
    verify = actions.add_parser("verify", help="check that nobody changed the log")
    verify.add_argument("--last", help="digest that the last entry must have, kept elsewhere")
    replay = actions.add_parser("replay", help="score frames again, from their files")
    replay.add_argument("--frames", type=Path, required=True, help="folder with the files")
    replay.add_argument("--bundle", type=Path, help="folder of the bundle")
    replay.add_argument("--tolerance", type=float, default=_TOLERANCE, help="of a probability")
    for action in (verify, replay):
        action.add_argument("log", type=Path, help="the audit log")


def run_audit(arguments: argparse.Namespace) -> tuple[str, int]:
    """Do what `audit` was asked to.

    Returns:
        (what the person is to see, exit code).

    Raises:
        SettingsInvalid: the bundle is not the log's.
        OSError: a file cannot be read.
    """
    try:
        entries = list(read_log(arguments.log))
    except AuditBroken as error:
        return f"broken: {error.detail}", 1
    if arguments.action == "replay":
        return _replay(entries, arguments)
    last = entries[-1]["digest"] if entries else "-"
    if arguments.last not in (None, last):
        return f"broken: the last entry is {last}; expected {arguments.last}", 1
    return f"whole: {len(entries)} entries, the last is {last}", 0


def _replay(entries: list[dict[str, Any]], arguments: argparse.Namespace) -> tuple[str, int]:
    bundle = Bundle.open(arguments.bundle or newest_bundle())
    encoder = Encoder(bundle)
    lines, worst, found = [], 0.0, 0
    wanted = {entry["file"]: entry for entry in entries if entry["event"] == "frame"}
    for path, data in _files(arguments.frames):
        entry = wanted.get(hashlib.sha256(data).hexdigest())
        if entry is None:
            continue
        if entry["bundle"] != bundle.digest:
            raise SettingsInvalid(f"expected the bundle {entry['bundle']}; found {bundle.digest}")
        if entry["site_profile"] is not None:
            raise SettingsInvalid("the log's scores rest on a site profile; replay has none")
        found += 1
        for task, again in _scores(encoder, data, entry).items():
            deviation = abs(again - entry["probabilities"][task])
            worst = max(worst, deviation)
            lines.append(
                f"{path.name}  {task}  recorded {entry['probabilities'][task]:.6f}  "
                f"again {again:.6f}  deviation {deviation:.2g}"
            )
    passed = worst <= arguments.tolerance and found > 0
    verdict = "as recorded" if passed else "NOT as recorded"
    lines.append(
        f"{verdict}: {found} of {len(wanted)} frames found, largest deviation {worst:.2g}, "
        f"tolerance {arguments.tolerance:g}"
    )
    return "\n".join(lines), 0 if passed else 1


def _files(folder: Path) -> Iterator[tuple[Path, bytes]]:
    paths: Iterable[Path] = sorted(path for path in folder.rglob("*") if path.is_file())
    for path in paths:
        yield path, path.read_bytes()


def _scores(encoder: Encoder, data: bytes, entry: dict[str, Any]) -> dict[str, float]:
    bundle = encoder.bundle
    try:
        pixels = decode(data, bundle.manifest.input, crop=tuple(entry["crop"]))
    except ImageRejected:
        return {task: float("inf") for task in entry["probabilities"]}
    embedding = encoder.encode_images(pixels[None])
    scores = {}
    for task in entry["probabilities"]:
        label_set = bundle.label_set(task)
        classes = encoder.class_embeddings(label_set)
        score = score_patient(encoder, label_set, classes, bundle.calibrations[task], embedding)
        scores[task] = float(score.probability or 0.0)
    return scores
