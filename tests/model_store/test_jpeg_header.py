"""The quick reading of a JPEG's size gives what Pillow gives, or nothing; never less."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from model_store.images import ImageLimits, count_pixels
from model_store.jpeg_header import jpeg_size


def _jpeg(size: tuple[int, int] = (200, 100), **options: object) -> bytes:
    out = BytesIO()
    Image.new("RGB", size, (200, 90, 70)).save(out, "JPEG", **options)
    return out.getvalue()


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"x" * 60_000}])
@pytest.mark.parametrize("size", [(64, 64), (1920, 1080), (70, 4000)])
def test_an_ordinary_file_has_the_size_that_pillow_reads(
    size: tuple[int, int], options: dict[str, object]
) -> None:
    data = _jpeg(size, **options)
    assert jpeg_size(data) == jpeg_size(bytearray(data)) == size
    assert count_pixels(data, ImageLimits()) == size[0] * size[1]


def test_of_two_frame_headers_the_larger_counts() -> None:
    data = _jpeg()
    at = data.index(b"\xff\xc0")
    header = data[at : at + 19]
    large = header[:5] + (60_000).to_bytes(2, "big") * 2 + header[9:]
    for first, second in ((header, large), (large, header)):
        doubled = data[:at] + first + second + data[at + 19 :]
        assert jpeg_size(doubled) == (60_000, 60_000)
        assert count_pixels(doubled, ImageLimits()) == 0  # refused, as it will be when decoded


def test_a_header_that_would_take_long_is_left_to_pillow() -> None:
    data = _jpeg()
    assert jpeg_size(data[:2] + b"\xff\xfe\x00\x02" * 63 + data[2:]) is None
    assert jpeg_size(b"\xff\xd8" + b"\xff" * 1_000_000) is None
    assert jpeg_size(b"\xff\xd8" + b"\xff\xfe\x00\x00" * 1_000_000) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", _jpeg()[:100]])
def test_what_is_no_whole_header_has_no_size(data: bytes) -> None:
    assert jpeg_size(data) is None


@given(st.integers(2, 700), st.binary(min_size=1, max_size=8))
def test_damage_gives_a_size_not_smaller_than_pillows_or_none(at: int, change: bytes) -> None:
    data = bytearray(_jpeg())
    data[at : at + len(change)] = change
    size = jpeg_size(data)
    if size is not None:
        try:
            with Image.open(BytesIO(data), formats=["JPEG"]) as image:
                assert image.width * image.height <= size[0] * size[1]
        except Exception:  # unreadable, and refused when its turn comes
            return
