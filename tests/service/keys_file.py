"""A keys file and the keys that go with it."""

from pathlib import Path

from service.keys import Scope, change_keys, new_key


def add_key(path: Path, *scopes: Scope, **more: object) -> str:
    """Add a key to a file; gives the key itself."""
    key, token = new_key("test", scopes or (Scope.SCORE,), **more)  # type: ignore[arg-type]
    change_keys(path, lambda keys: [*keys, key])
    return token


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
