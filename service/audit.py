"""The audit log: what was scored, by what, with which result; and proof that nobody changed it.

One JSON line an entry, each with the digest of the one before, so a line that is changed, taken out
or put in breaks the chain from there on. Whoever keeps the digest of the last line elsewhere (it is
what `verify` prints) also sees a log that was cut short or written anew.

An entry names a frame by the SHA-256 of its file. No id of a client's, no image and no embedding is
in it: whoever has the files can find them here, nobody else learns anything of them.
"""

import fcntl
import hashlib
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.errors import SettingsInvalid

__all__ = ["AuditBroken", "AuditLog", "read_log"]

_START = "0" * 64


class AuditBroken(SettingsInvalid):
    """The log is not what was written; the detail names the first line at fault."""


class AuditLog:
    """A log that is written to; one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open the log, or begin one.

        Raises:
            SettingsInvalid: it cannot be opened, another process writes it, or its end is no entry.
        """
        self._lock = threading.Lock()
        self._number, self._digest, self._end = 0, _START, 0
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            self._file = os.fdopen(descriptor, "r+b", buffering=0)
        except OSError as error:
            raise SettingsInvalid(f"ENDOCLIP_AUDIT_LOG: {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if last := self._last_line():
                entry = _entry(last, path, "the last line")
                self._number, self._digest = entry["number"] + 1, entry["digest"]
        except OSError as error:
            self._file.close()
            raise SettingsInvalid(f"ENDOCLIP_AUDIT_LOG: {path}: {error.strerror}") from error
        except AuditBroken:
            self._file.close()
            raise

    def write(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Write entries; they are on the disk afterwards, or none is. Blocks; from any thread.

        Raises:
            OSError: they cannot be written.
        """
        with self._lock:
            # What an attempt left that failed on a full disk would stand between two entries.
            self._file.truncate(self._end)
            self._file.seek(self._end)
            lines = b""
            number, digest = self._number, self._digest
            at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            for told in entries:
                entry = {"number": number, "at": at, "before": digest, **told}
                digest = _digest(entry)
                lines += _line(entry | {"digest": digest})
                number += 1
            left = memoryview(lines)
            while left:
                left = left[self._file.write(left) :]
            os.fsync(self._file.fileno())
            self._number, self._digest, self._end = number, digest, self._end + len(lines)

    def close(self) -> None:
        """Let another process have the log."""
        self._file.close()

    def _last_line(self) -> bytes:
        """Find the end; a line that a crash has cut off was never answered for, and goes."""
        end = self._file.seek(0, os.SEEK_END)
        back = min(end, 1 << 20)
        self._file.seek(end - back)
        tail = self._file.read(back)
        whole = tail[: tail.rfind(b"\n") + 1]
        self._end = end - len(tail) + len(whole)
        self._file.truncate(self._end)
        return whole.rstrip(b"\n").rpartition(b"\n")[2]


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """Read a log and check its chain on the way.

    Yields:
        The entries in order.

    Raises:
        AuditBroken: with the number of the first line that is not what was written.
        OSError: it cannot be read.
    """
    digest = _START
    with path.open("rb") as file:
        for number, line in enumerate(file):
            where = f"line {number + 1}"
            entry = _entry(line, path, where)
            if entry["number"] != number or entry.get("before") != digest:
                raise AuditBroken(f"{path}: {where} does not follow the one before")
            digest = entry["digest"]
            yield entry


def _entry(line: bytes, path: Path, where: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
        digest = entry.pop("digest")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise AuditBroken(f"{path}: {where} is no entry") from None
    if digest != _digest(entry) or not isinstance(entry.get("number"), int):
        raise AuditBroken(f"{path}: {where} was changed after it was written")
    return {**entry, "digest": digest}


def _digest(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(_line(entry)).hexdigest()


def _line(entry: Mapping[str, Any]) -> bytes:
    text = json.dumps(entry, ensure_ascii=True, separators=(",", ":"), sort_keys=True)
    return text.encode("ascii") + b"\n"
