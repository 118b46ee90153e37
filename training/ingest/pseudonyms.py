"""Keyed pseudonyms: one original id gives one pseudonym under one key, and no id without it."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import secrets
import unicodedata
from pathlib import Path

from training.errors import ConfigError

__all__ = ["Pseudonyms", "identity", "read_key"]

log = logging.getLogger(__name__)

_SHIFT_DAYS = 183
# What tables write where there is no number, as ``identity`` leaves it; "-" and "?" become "".
_NOBODY = frozenset(("na", "nan", "nat", "nil", "none", "null", "unknown", "notknown"))


def identity(number: str) -> str:
    """What of a number says who it is, whatever the spelling.

    One patient under two spellings would stand on two sides of the split, which spoils every
    figure; two patients taken for one only share a side. So whatever might be mere spelling goes:
    case, width, blanks and punctuation, the ".0" of a number that was a float, and the leading
    zeros of a plain number, which spreadsheets drop.

    Args:
        number: A cell of the table.

    Returns:
        Letters and digits; "" where the cell is empty or says that there is no number ("NULL",
        "n/a", "-", "unknown", ...).
    """
    plain = unicodedata.normalize("NFKC", number).casefold().strip()
    plain = re.sub(r"^(\d+)[.,]0+$", r"\1", plain)
    plain = "".join(char for char in plain if char.isalnum())
    if plain.isdecimal():
        plain = plain.lstrip("0") or "0"
    return "" if plain in _NOBODY else plain


class Pseudonyms:
    """Pseudonyms and date shifts under one secret key (BLAKE2b in its keyed mode, RFC 7693)."""

    def __init__(self, key: bytes) -> None:
        """Args: key: secret, 16 to 64 bytes."""
        self._key = key

    def record(self, exam: str) -> str:
        """Pseudonym of an exam number, ``r`` and 20 hexadecimal digits."""
        return "r" + self._digest("exam", exam).hex()

    def patient(self, patient: str) -> str:
        """Pseudonym of a patient number in any spelling, ``p`` and 20 hexadecimal digits."""
        return "p" + self._digest("patient", identity(patient)).hex()

    def shift_days(self, patient: str) -> int:
        """Days, -183 to -1, that every date of this patient is moved by; intervals survive."""
        return -1 - int.from_bytes(self._digest("shift", identity(patient)), "big") % _SHIFT_DAYS

    def fingerprint(self) -> str:
        """Says whether two keys are the same without giving them away."""
        return self._digest("fingerprint", "").hex()

    def _digest(self, use: str, text: str) -> bytes:
        # One spelling: exports differ in how they compose an umlaut and in blanks around a number.
        plain = unicodedata.normalize("NFC", text.strip()).encode("utf-8", "surrogatepass")
        return hashlib.blake2b(
            plain, digest_size=10, key=self._key, person=use.encode().ljust(16, b"\0")
        ).digest()


def read_key(path: Path) -> bytes:
    """Read the secret key, or make one where there is none.

    Args:
        path: Key file, 64 hexadecimal digits; made with mode 0600.

    Returns:
        32 bytes.

    Raises:
        ConfigError: The file holds something else or cannot be read or written.
    """
    try:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            if path.stat().st_mode & 0o077:
                log.warning("the key file of the pseudonyms can be read by others: chmod 600 it")
            key = bytes.fromhex(path.read_text("ascii").strip())
        else:
            key = secrets.token_bytes(32)
            with os.fdopen(handle, "w", encoding="ascii") as file:
                file.write(key.hex() + "\n")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"ingest.secret: expected a readable file of 64 hexadecimal digits, or a place where "
            f"one can be made; found {type(error).__name__}"
        ) from error
    if len(key) != 32:
        raise ConfigError(f"ingest.secret: expected 64 hexadecimal digits, found {2 * len(key)}")
    return key
