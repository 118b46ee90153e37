"""Stage folders: a half-written one cannot be mistaken for a finished one.

A stage works in ``<name>.partial`` and is renamed to ``<name>`` when its ``stamp.json`` is
written. A finished folder with the same key (config, inputs, seed) is not redone; one with
another key is refused. Inputs are named by the digest of their bytes, so that a stage made anew
makes everything after it stale.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import subprocess  # nosec B404  # git alone is run, see `_git`
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.errors import StaleInput

__all__ = [
    "archive_digest",
    "commit",
    "file_digest",
    "libraries",
    "run_stage",
    "stamp_of",
    "write_json",
]

log = logging.getLogger(__name__)

LIBRARIES = ("torch", "torchvision", "open_clip_torch", "timm", "transformers", "onnx", "numpy")


def run_stage(
    folder: Path,
    key: Mapping[str, Any],
    body: Callable[[Path], Mapping[str, Any]],
    twins: Sequence[Path] = (),
) -> Path:
    """Run a stage once.

    Args:
        folder: Where the finished stage lies.
        key: What the result depends on; JSON values.
        body: Does the work in the folder it is given (resuming what lies there) and returns
            figures for the stamp.
        twins: Folders of the same stage in other runs; one made from the same key is linked to
            instead of being made again.

    Returns:
        ``folder``.

    Raises:
        StaleInput: The folder (or its unfinished twin) was made from another key.
    """
    plain = json.loads(json.dumps(key))
    if folder.exists():
        _compare(stamp_of(folder)["key"], plain, folder)
        log.info("stage=%s already done", folder.name)
        return folder
    for twin in twins:
        if twin.is_dir() and stamp_of(twin)["key"] == plain:
            log.info("stage=%s is that of %s", folder.name, twin.parent.name)
            folder.symlink_to(twin.resolve(), target_is_directory=True)
            return folder
    partial = folder.with_name(folder.name + ".partial")
    partial.mkdir(parents=True, exist_ok=True)
    # Beside the folder: what is in it is the stage's own.
    key_file = folder.with_name(folder.name + ".key.json")
    if key_file.exists() and any(partial.iterdir()):
        _compare(json.loads(key_file.read_text("utf-8")), plain, partial)
    write_json(key_file, plain)
    start = time.monotonic()
    figures = body(partial)
    stamp = {
        "key": plain,
        "figures": figures,
        "commit": commit(),
        "libraries": libraries(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds_this_run": round(time.monotonic() - start, 1),
    }
    write_json(partial / "stamp.json", stamp)
    partial.rename(folder)
    # Only now: a kill before the rename finds key and checkpoints where it needs them.
    for path in (key_file, *folder.glob("*.ckpt")):
        path.unlink()
    return folder


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, ``sha256:...``."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def stamp_of(folder: Path) -> dict[str, Any]:
    """Read a finished stage's stamp.

    Raises:
        StaleInput: The folder has none: it was not made by ``run_stage``.
    """
    path = folder / "stamp.json"
    if not path.is_file():
        raise StaleInput(f"{folder.name}: expected stamp.json, found none")
    return dict(json.loads(path.read_text("utf-8")))


def write_json(path: Path, value: object) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=False), "utf-8")
    temporary.replace(path)


def archive_digest(archive: Path) -> str:
    """Digest of an archive: records, split, labelled sample and the bytes of every frame.

    Ingestion lists each stored frame's digest in ``frames.jsonl``; that list then stands for the
    frames, since hashing 874,000 of them before every stage would take an hour.
    """
    state = hashlib.sha256()
    names = ("records.jsonl", "split.json", "labelled_sample.jsonl", "frames.jsonl")
    for name in names:
        if (archive / name).is_file():
            state.update((archive / name).read_bytes())
    if not (archive / names[-1]).is_file():
        for path in sorted((archive / "frames").rglob("*")):
            if path.is_file():
                state.update(f"{path.relative_to(archive)}:{file_digest(path)}\n".encode())
    return "sha256:" + state.hexdigest()


def commit() -> str:
    """The checkout's commit, ``+dirty`` where files differ, "unknown" outside a checkout."""
    try:
        head, changed = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "-uno")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+dirty" if changed else "")


def libraries() -> dict[str, str]:
    """Versions of the libraries that decide numbers."""
    found = {}
    for name in (*LIBRARIES, "onnxruntime-gpu", "onnxruntime"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(*words: str) -> str:
    done = subprocess.run(  # nosec B603, B607  # fixed words; whose git it is, the user's path says
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _compare(found: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
    if differing:
        raise StaleInput(
            f"{folder.name} was made with other {', '.join(differing)}; "
            "choose another output folder or delete this one"
        )
