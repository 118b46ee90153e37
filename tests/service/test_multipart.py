"""The streaming form parser: however the bytes are cut, the same form comes out."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidRequest, MalformedRequest, PayloadTooLarge
from service.multipart import MultipartForm, read_multipart

BOUNDARY = b"b0undary"
TYPE = "multipart/form-data; boundary=b0undary"


def part(name: bytes, data: bytes, more: bytes = b"") -> bytes:
    head = b'Content-Disposition: form-data; name="' + name + b'"; filename="x"\r\n' + more
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def read(
    data: bytes, cuts: list[int] | None = None, *, frames: int = 5, size: int = 1000
) -> MultipartForm:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]

    async def chunks() -> AsyncIterator[bytes]:
        for start, end in pairwise(places):
            yield data[start:end]

    return asyncio.run(read_multipart(chunks(), TYPE, max_frames=frames, max_frame_bytes=size))


@given(
    frames=st.lists(
        st.binary(max_size=60) | st.sampled_from([b"\r\n--b0undar", b"\r\n\r\n--", b"--b0undary"]),
        max_size=4,
    ),
    cuts=st.lists(st.integers(min_value=0), max_size=6),
)
def test_frames_survive_any_cut_of_the_stream(frames: list[bytes], cuts: list[int]) -> None:
    data = body(*(part(b"frames", frame) for frame in frames), part(b"request", b'{"a":1}'))
    form = read(data, cuts)
    assert [bytes(frame.data) for frame in form.frames] == frames
    assert form.request == b'{"a":1}'


@given(data=st.binary(max_size=200), cut=st.integers(min_value=0))
def test_arbitrary_bytes_are_a_form_or_a_named_error(data: bytes, cut: int) -> None:
    for candidate in (data, body(part(b"frames", data))[: -cut or None], b"--b0undary\r\n" + data):
        with suppress(MalformedRequest, InvalidRequest, PayloadTooLarge):
            read(candidate, [cut])


def test_frame_over_the_limit_is_counted_and_not_kept() -> None:
    form = read(body(part(b"frames", b"x" * 1001), part(b"frames", b"y" * 1000)), [300, 900])
    first, second = form.frames
    assert (len(first.data), first.length) == (0, 1001)
    assert (len(second.data), second.length) == (1000, 1000)


def test_part_too_many_ends_the_form_before_it_is_read() -> None:
    reached_end = False

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal reached_end
        yield part(b"frames", b"x") * 6
        reached_end = True
        yield body()

    with pytest.raises(PayloadTooLarge):
        asyncio.run(read_multipart(chunks(), TYPE, max_frames=5, max_frame_bytes=9))
    assert not reached_end


def test_request_part_too_long_is_refused() -> None:
    with pytest.raises(PayloadTooLarge):
        read(body(part(b"request", b" " * (4 * 1024 * 1024 + 1))))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"--b0undary",
        part(b"frames", b"x"),
        part(b"frames", b"x") + b"--b0undary",
        b"--other\r\n\r\n",
        b'--b0undary\r\nContent-Disposition: attachment; name="frames"\r\n\r\nx\r\n--b0undary--',
        b"--b0undary\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b0undary--",
        b"--b0undary\r\n" + b"A: b\r\n" * 500 + b"\r\nx\r\n--b0undary--",
        b"--b0undary\r\nA: " + b"b" * 100_000,
    ],
)
def test_what_is_no_whole_form_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        read(data)


@pytest.mark.parametrize("more", ["", "; boundary=", "; boundary=" + "x" * 999])
def test_boundary_is_needed_and_bounded(more: str) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield body()

    kind = "multipart/form-data" + more
    with pytest.raises(MalformedRequest):
        asyncio.run(read_multipart(chunks(), kind, max_frames=5, max_frame_bytes=9))


def test_unknown_part_is_named() -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body(part(b"fra~mes/", b"x")))
    assert refused.value.faults[0].pointer == "/fra~0mes~1"


@given(cuts=st.lists(st.integers(min_value=0), max_size=6))
@pytest.mark.parametrize(
    "preamble", [b"\r\n", b"read me\r\n", b"a --b0undary b\r\n\r\n-\r\n--\r\n"]
)
def test_preamble_is_ignored_however_it_is_cut(preamble: bytes, cuts: list[int]) -> None:
    form = read(preamble + body(part(b"frames", b"x"), part(b"frames", b"y")), cuts)
    assert [bytes(frame.data) for frame in form.frames] == [b"x", b"y"]


def test_epilogue_is_ignored() -> None:
    assert len(read(body(part(b"frames", b"x")) + b"anything at all").frames) == 1
