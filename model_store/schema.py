"""Reads JSON into frozen dataclasses and refuses what does not fit, by name and place.

A bundle is written by one program and read by another, perhaps years later: an unknown key is as
much a sign of trouble as a missing one, and neither is patched silently.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from model_store.errors import BundleCorrupt

__all__ = ["parse_json", "read_as", "to_plain", "write_json"]

T = TypeVar("T")


def parse_json(data: bytes, where: str) -> Any:
    """Parse UTF-8 JSON; repeated keys and numbers that are not finite are refused.

    Raises:
        BundleCorrupt: naming `where`.
    """
    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except (ValueError, RecursionError) as error:
        raise BundleCorrupt(where, "strict JSON in UTF-8", str(error)) from error


def write_json(value: object) -> bytes:
    """Write a value as the bundle's JSON: sorted keys, two spaces, newline at the end."""
    plain = to_plain(value)
    text = json.dumps(plain, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode("utf-8")


def to_plain(value: object) -> Any:
    """Turn dataclasses, mappings, tuples and paths into what `json` writes."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, Path):
        return value.as_posix()
    return value


def read_as(kind: type[T], value: object, where: str) -> T:
    """Read a parsed JSON value as a type.

    Args:
        kind: a dataclass whose fields are, in any nesting, str, bool, int, float, Literal,
            tuple, dict[str, ...], another dataclass, a union of those, or Any.
        value: what `parse_json` gave.
        where: name of the place, for the error.

    Returns:
        The value as `kind`.

    Raises:
        BundleCorrupt: with the place as `file: /pointer`, what was expected and what was found.
    """
    result: T = _read(kind, value, where)
    return result


def _read(kind: Any, value: Any, where: str) -> Any:
    origin = get_origin(kind)
    if kind is Any:
        return value
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(kind, value, where)
    if origin is Literal:
        if value in get_args(kind) and isinstance(value, str):
            return value
        raise _misfit(where, " or ".join(map(repr, get_args(kind))), value)
    if origin in (Union, types.UnionType):
        return _read_union(kind, value, where)
    if origin is tuple:
        return _read_tuple(get_args(kind), value, where)
    if origin is dict:
        return _read_dict(get_args(kind)[1], value, where)
    return _read_scalar(kind, value, where)


def _read_dataclass(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _misfit(where, "an object", value)
    hints = get_type_hints(kind)
    names = [f.name for f in dataclasses.fields(kind)]
    unknown, missing = sorted(set(value) - set(names)), sorted(set(names) - set(value))
    if unknown or missing:
        found = [f"unknown {', '.join(unknown)}"] if unknown else []
        found += [f"without {', '.join(missing)}"] if missing else []
        raise BundleCorrupt(where, f"the keys {', '.join(sorted(names))}", "; ".join(found))
    fields = {name: _read(hints[name], value[name], _under(where, name)) for name in names}
    return kind(**fields)


def _read_union(kind: Any, value: Any, where: str) -> Any:
    if value is None and type(None) in get_args(kind):
        return None
    misfit: BundleCorrupt | None = None
    for option in get_args(kind):
        if option is type(None):
            continue
        try:
            return _read(option, value, where)
        except BundleCorrupt as error:
            misfit = misfit or error
    raise misfit or _misfit(where, str(kind), value)


def _read_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise _misfit(where, "a list", value)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise _misfit(where, f"a list of {len(items)}", value)
    pairs = enumerate(zip(items, value, strict=True))
    return tuple(_read(kind, item, _under(where, str(i))) for i, (kind, item) in pairs)


def _read_dict(kind: Any, value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misfit(where, "an object", value)
    return {key: _read(kind, item, _under(where, key)) for key, item in value.items()}


def _read_scalar(kind: Any, value: Any, where: str) -> Any:
    # bool is an int in Python, and JSON has one number type: 1 may stand for 1.0, true for neither.
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            raise _misfit(where, "a number that a float can hold", value) from None
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise _misfit(where, f"a value of type {getattr(kind, '__name__', kind)}", value)


def _under(where: str, key: str) -> str:
    return f"{where}/{key}" if ": /" in where else f"{where}: /{key}"


def _misfit(where: str, expected: str, value: object) -> BundleCorrupt:
    shown = repr(value)
    return BundleCorrupt(where, expected, shown if len(shown) <= 80 else shown[:77] + "...")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return table


def _finite(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text[:40]} is more than a float can hold")
    return number


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")
