"""API keys: made once, shown once, kept as hashes; which one asks, and what it may do.

A key is `endoclip_<id>_<secret>` with a secret of 256 random bits. One SHA-256 is the right hash
for that: slow hashes (argon2, bcrypt) and salts are for what people choose, where an attacker who
has the file can try a dictionary; here there is none, and a slow hash would cost each request more
than its frame. The id finds the entry, so all that is compared is a digest, in constant time.

The file is looked at again at most once a second, when a request comes, and on SIGHUP. One that
cannot be read then changes nothing: the keys of before stay in force, and the log says so.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from service.errors import SettingsInvalid, Unauthenticated
from service.logs import Event
from service.rates import FrameRate

__all__ = ["Caller", "Key", "Keyring", "Scope", "change_keys", "new_key", "read_keys"]

_TOKEN = re.compile(r"endoclip_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")
_LOOK_EVERY_S = 1.0
# Compared with where no key has the id: a guessed id answers as slowly as a known one.
_NO_DIGEST = "0" * 64
_logger = logging.getLogger(__name__)


class Scope(StrEnum):
    """What a key may do; no scope includes another."""

    SCORE = "score"
    """Score and embed; read models, devices and limits."""
    ADMIN = "admin"
    """Everything below `/v1/admin`."""
    METRICS = "metrics"
    """Read `/metrics`."""


class Key(BaseModel):
    """A key as the file holds it; the key itself is in no file.

    Attributes:
        id: public; what logs name.
        name: for people.
        sha256: of the whole key, hexadecimal.
        scopes: what it may do.
        created: when it was made.
        expires: when it ends; None is never.
        frames_per_second: what it may send on average; None is as much as the service takes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Annotated[str, Field(pattern=r"^[0-9a-f]{8}$")]
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]
    created: AwareDatetime
    expires: AwareDatetime | None = None
    frames_per_second: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None


class _KeysFile(BaseModel):
    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    keys: tuple[Key, ...]


class Caller:
    """A key in use, with what it has sent of late."""

    def __init__(self, key: Key) -> None:
        self.key = key
        self.rate = FrameRate(key.frames_per_second)
        self._ends = key.expires.timestamp() if key.expires else None

    @property
    def has_ended(self) -> bool:
        """Whether the key has expired."""
        return self._ends is not None and time.time() >= self._ends


class Keyring:
    """The keys of a file, as they are now."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            SettingsInvalid: it cannot be read; one line.
        """
        self._path = path
        self._seen = _stamp(path)
        self._callers = {key.id: Caller(key) for key in read_keys(path)}
        self._look_at = time.monotonic() + _LOOK_EVERY_S

    def authenticate(self, authorization: str) -> Caller:
        """Find out whose key a request carries.

        Args:
            authorization: the header's value; empty where there is none.

        Returns:
            The key's caller.

        Raises:
            Unauthenticated: no key, or none that is in force.
        """
        if time.monotonic() >= self._look_at:
            self.look_again()
        kind, _, token = authorization.partition(" ")
        token = token.strip()
        if kind.lower() != "bearer" or not token:
            raise Unauthenticated("expected Authorization: Bearer <key>")
        shape = _TOKEN.fullmatch(token)
        caller = self._callers.get(shape[1]) if shape else None
        expected = caller.key.sha256 if caller else _NO_DIGEST
        same = hmac.compare_digest(_digest(token), expected)
        if not same or caller is None:
            raise Unauthenticated("The key is not known here.", token_given=True)
        if caller.has_ended:
            raise Unauthenticated("The key has expired.", token_given=True)
        return caller

    def look_again(self, *, even_if_unchanged: bool = False) -> None:
        """Take over the file as it is now; keys that stay keep their count of frames."""
        self._look_at = time.monotonic() + _LOOK_EVERY_S
        stamp = _stamp(self._path)
        if stamp == self._seen and not even_if_unchanged:
            return
        self._seen = stamp
        try:
            keys = read_keys(self._path)
        except SettingsInvalid as error:
            kept = len(self._callers)
            _logger.error(Event("keys", state="unreadable", in_force=kept, reason=error))
            return
        self._callers = {key.id: self._kept(key) for key in keys}
        _logger.info(Event("keys", state="read", in_force=len(keys)))

    def _kept(self, key: Key) -> Caller:
        before = self._callers.get(key.id)
        return before if before is not None and before.key == key else Caller(key)


def read_keys(path: Path) -> tuple[Key, ...]:
    """Read a keys file.

    Raises:
        SettingsInvalid: it cannot be read or breaks a rule; one line that quotes no digest.
    """
    try:
        keys = _KeysFile.model_validate_json(path.read_bytes()).keys
    except OSError as error:
        raise SettingsInvalid(f"keys file {path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = "/".join(map(str, first["loc"])) or "the whole of it"
        raise SettingsInvalid(f"keys file {path}: at {place}: {first['msg']}") from None
    if len({key.id for key in keys}) < len(keys):
        raise SettingsInvalid(f"keys file {path}: expected distinct ids; found one twice")
    return keys


def change_keys(path: Path, change: Callable[[tuple[Key, ...]], Iterable[Key]]) -> None:
    """Rewrite a keys file in one step: readers see the one of before or the new one, whole.

    Owner and mode stay those of the file that is replaced; a new one is its owner's alone.

    Args:
        path: the file; one that is not there has no keys.
        change: gives the keys to be, from those there are.

    Raises:
        SettingsInvalid: it cannot be read, or another command is at it; `change` may raise too.
        OSError: it cannot be written.
    """
    beside = path.with_name(f"{path.name}.new")
    try:
        handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsInvalid(
            f"another command is writing {path}; if none is, remove {beside.name} beside it"
        ) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            there = path.exists()
            keys = tuple(change(read_keys(path) if there else ()))
            file.write(_KeysFile(keys=keys).model_dump_json(indent=1, exclude_none=True) + "\n")
            file.flush()
            os.fsync(handle)
        if there:
            _keep_owner(beside, path.stat())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def new_key(
    name: str,
    scopes: Iterable[Scope],
    *,
    expires: datetime | None = None,
    frames_per_second: float | None = None,
) -> tuple[Key, str]:
    """Make a key.

    Returns:
        Its entry for the file, and the key itself, which is nowhere else.

    Raises:
        SettingsInvalid: the name, the scopes or the rate break a rule.
    """
    key_id = secrets.token_hex(4)
    token = f"endoclip_{key_id}_{secrets.token_urlsafe(32)}"
    try:
        key = Key(
            id=key_id,
            name=name,
            sha256=_digest(token),
            scopes=tuple(sorted(set(scopes))),
            created=datetime.now(UTC).replace(microsecond=0),
            expires=expires,
            frames_per_second=frames_per_second,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = "/".join(map(str, first["loc"]))
        raise SettingsInvalid(f"{place}: {first['msg']}; found {first['input']!r}") from None
    return key, token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _keep_owner(path: Path, before: os.stat_result) -> None:
    now = path.stat()
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid):
        os.chown(path, before.st_uid, before.st_gid)
    path.chmod(before.st_mode & 0o777)


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
