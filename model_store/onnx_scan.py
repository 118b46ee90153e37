"""Finds external data in an ONNX file, so that a graph cannot make the runtime read other files.

The `onnx` package is not needed to serve, so this walks the few protobuf fields on the way to a
tensor: model → graph or functions → nodes → attributes → tensors and sub-graphs. Field numbers are
those of onnx.proto, which may never change them.
"""

__all__ = ["uses_external_data"]

# Message type → {field number: message type of that field}.
_WAYS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA, _DATA_LOCATION = 13, 14


def uses_external_data(model: bytes | memoryview) -> bool:
    """Tell whether any tensor of a serialised ONNX model points outside the file.

    Args:
        model: the bytes of the file.

    Returns:
        True when a tensor has an external location.

    Raises:
        ValueError: the bytes are not a protobuf message.
    """
    # A list instead of recursion: nesting depth is the file's choice, the stack is ours.
    todo = [("model", memoryview(model))]
    while todo:
        kind, message = todo.pop()
        at, end = 0, len(message)
        while at < end:
            key, at = _varint(message, at)
            number, wire = key >> 3, key & 7
            start = at
            at, body = _skip(message, at, wire)
            if kind == "tensor" and number == _EXTERNAL_DATA:
                return True
            if kind == "tensor" and number == _DATA_LOCATION and wire == 0:
                if _varint(message, start)[0] == 1:
                    return True
            elif body is not None and number in _WAYS[kind]:
                todo.append((_WAYS[kind][number], body))
    return False


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number runs past the end of its message")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7


def _skip(message: memoryview, at: int, wire: int) -> tuple[int, memoryview | None]:
    """Step over one value; of a length-delimited one its body is returned too."""
    if wire == 0:
        return _varint(message, at)[1], None
    if wire == 2:
        size, at = _varint(message, at)
        if at + size > len(message):
            raise ValueError("a field runs past the end of its message")
        return at + size, message[at : at + size]
    if wire in (1, 5):
        return at + (8 if wire == 1 else 4), None
    raise ValueError(f"unknown wire type {wire}")
