"""JSON in and out, and the pointers that say where in it something is wrong.

In: UTF-8, no repeated keys, no NaN, and no more structure than a request of the contract can have,
so that 256 MiB of `[[[[` cost a count and not 5 GB. Out: compact, numbers finite.
"""

import binascii
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from service.errors import Fault, InvalidRequest, MalformedRequest, PayloadTooLarge

__all__ = ["decode_base64", "parse", "pointer", "validate", "write"]

M = TypeVar("M", bound=BaseModel)
# Brackets and colons outside of strings: 512 frames of three keys and 64 patients need 2,000.
_MAX_MARKS = 50_000
_MAX_COMMAS = 1_000_000
_MAX_FAULTS = 20
_MAX_SHOWN_KEY = 64
_RULES = {
    "extra_forbidden": "not a key that this request takes here",
    "missing": "missing",
    "model_type": "expected an object",
    "string_unicode": "expected Unicode text; found half of a surrogate pair",
}


def parse(body: bytes | bytearray) -> Any:
    """Parse a request's JSON.

    Raises:
        MalformedRequest: not strict JSON in UTF-8.
        PayloadTooLarge: more objects, lists, keys or values than any request can need.
    """
    # The first count is quick, and enough for nearly all: base64 holds none of these.
    if _has_too_much(body) and _has_too_much(body, outside_strings=True):
        raise PayloadTooLarge("The JSON has more keys and values than any request can need.")
    try:
        text = body.decode("utf-8-sig")
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except UnicodeDecodeError:
        raise MalformedRequest("The JSON is not in UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise MalformedRequest(f"The JSON is not well-formed: {error.msg} at {where}.") from None
    except _Refused as error:
        raise MalformedRequest(str(error)) from None
    except (ValueError, RecursionError):
        raise MalformedRequest("The JSON is nested too deep or has too long a number.") from None


def validate(model: type[M], document: Any, where: str) -> M:
    """Hold a parsed document against a model.

    Args:
        model: the request model.
        document: what `parse` gave.
        where: what the caller sent, in words, for the message.

    Returns:
        The request.

    Raises:
        InvalidRequest: with a pointer for each of the first faults.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        items = error.errors(include_url=False, include_input=False, include_context=False)
    faults = [
        Fault(_pointer_into(document, item["loc"], item["type"]), _rule(item["type"], item["msg"]))
        for item in items[:_MAX_FAULTS]
    ]
    first = faults[0]
    more = f" (and {len(items) - 1} more)" if len(items) > 1 else ""
    place = first.pointer or "the whole of it"
    raise InvalidRequest(f"{where}: at {place}: {first.detail}{more}", faults=faults)


def pointer(*steps: str | int) -> str:
    """Write an RFC 6901 pointer; long keys are cut."""
    return "".join(
        "/" + str(step)[:_MAX_SHOWN_KEY].replace("~", "~0").replace("/", "~1") for step in steps
    )


def write(document: Any) -> bytes:
    """Write an answer's JSON; NaN and infinities are errors here, never output."""
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate can only come from a client's own key in a pointer; it must not be a 500.
    return text.encode("utf-8", "replace")


def _has_too_much(body: bytes | bytearray, *, outside_strings: bool = False) -> bool:
    marks = commas = 0
    for piece in _outside_strings(body) if outside_strings else (body,):
        marks += sum(piece.count(mark) for mark in (b"{", b"[", b":"))
        commas += piece.count(b",")
        if marks > _MAX_MARKS or commas > _MAX_COMMAS:
            return True
    return False


def _outside_strings(body: bytes | bytearray) -> Iterator[bytes]:
    """Give what stands between the strings, with a comma more for each string.

    That bounds their number too: side by side they are no JSON, and hold no mark at all.
    """
    plain = bytes(body).replace(rb"\\", b"").replace(rb"\"", b"")
    end = -1
    while (start := plain.find(b'"', end + 1)) >= 0:
        yield plain[end + 1 : start] + b","
        if (end := plain.find(b'"', start + 1)) < 0:
            return
    yield plain[end + 1 :]


def _pointer_into(document: Any, loc: Sequence[str | int], kind: str) -> str:
    """Turn pydantic's location into a pointer: it also holds names of union members."""
    steps: list[str | int] = []
    node = document
    for number, step in enumerate(loc):
        last = number == len(loc) - 1
        if isinstance(node, dict) and (step in node or (last and kind == "missing")):
            node = node.get(str(step))
        elif isinstance(node, list) and isinstance(step, int) and step < len(node):
            node = node[step]
        else:
            continue
        steps.append(step)
    return pointer(*steps)


def _rule(kind: str, message: str) -> str:
    """Word a fault without pydantic's names for things."""
    if kind in _RULES:
        return _RULES[kind]
    return message[:1].lower() + message[1:].replace(" after validation", "")


class _Refused(ValueError):
    """Well-formed JSON that two readers may read differently."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise _Refused("The JSON has a key twice in one object.")
    return table


def _refuse_constant(name: str) -> float:
    raise _Refused(f"{name} is not a JSON number.")


def decode_base64(text: str, place: str) -> bytes:
    """Decode what a request's JSON holds of binary data.

    Raises:
        InvalidRequest: not base64 as the contract wants it, at `place`.
    """
    try:
        # strict_mode still lets "AAAA=" pass.
        if len(text) % 4 == 0:
            return binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        pass
    raise InvalidRequest.at(
        place, "expected base64 of RFC 4648 section 4: padded, no line ends, no data URI"
    )
