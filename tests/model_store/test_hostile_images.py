"""Files that are empty, foreign, cut off, damaged or boastful end in their own named rejection."""

import struct
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.costly import costly
from model_store.errors import ImageCode, ImageRejected
from model_store.images import ImageLimits, count_pixels, decode
from tests.model_store.pictures import SQUASH, png_of, saved, scene


def code_of(data: bytes, **limits: int) -> ImageCode:
    with pytest.raises(ImageRejected) as caught:
        decode(data, SQUASH, limits=ImageLimits(**limits))
    assert caught.value.message
    return caught.value.code


def test_no_bytes_are_rejected_as_empty() -> None:
    assert code_of(b"") is ImageCode.EMPTY


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am named frame.jpg",
        b"%PDF-1.7",
        b"<svg/>",
        b"\0",
        b"\xff\xd8",
        b"RIFF\0\0\0\0WAVE",
    ],
)
def test_files_of_no_known_format_are_unsupported(data: bytes) -> None:
    assert code_of(data) is ImageCode.UNSUPPORTED_FORMAT


def test_gif_is_unsupported() -> None:
    assert code_of(saved(scene(), "GIF")) is ImageCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixel_types_without_one_right_reading_are_unsupported(mode: str) -> None:
    image = Image.new(mode, (96, 96), 1000)
    assert code_of(saved(image, "TIFF")) is ImageCode.UNSUPPORTED_FORMAT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_file_cut_off_is_rejected_as_truncated(kind: str, share: float) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)
    options = {"compression": "tiff_lzw"} if kind == "TIFF" else {}
    data = saved(Image.fromarray(noise), kind, **options)
    assert code_of(data[: int(len(data) * share)]) is ImageCode.IMAGE_TRUNCATED


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
@pytest.mark.parametrize("length", [12, 20, 40])
def test_file_cut_off_in_its_header_is_rejected(kind: str, length: int) -> None:
    codes = {ImageCode.IMAGE_TRUNCATED, ImageCode.IMAGE_UNDECODABLE, ImageCode.TOO_SMALL}
    assert code_of(saved(scene(), kind)[:length]) in codes - {ImageCode.TOO_SMALL}


def test_damaged_png_is_undecodable() -> None:
    data = bytearray(saved(scene()))
    at = data.index(b"IDAT") + 40
    data[at : at + 20] = b"\xff" * 20
    assert code_of(bytes(data)) is ImageCode.IMAGE_UNDECODABLE


def test_jpeg_of_rubbish_between_its_marks_is_undecodable() -> None:
    assert code_of(b"\xff\xd8\xff\xe0" + b"rubbish" * 30 + b"\xff\xd9") is (
        ImageCode.IMAGE_UNDECODABLE
    )


def test_one_pixel_is_too_small() -> None:
    assert code_of(saved(Image.new("RGB", (1, 1)))) is ImageCode.TOO_SMALL


def test_shorter_side_decides_what_is_too_small() -> None:
    assert code_of(saved(Image.new("RGB", (500, 63)))) is ImageCode.TOO_SMALL
    assert decode(saved(Image.new("RGB", (500, 64))), SQUASH).shape == (224, 224, 3)


def test_too_many_bytes_are_rejected_before_anything_is_read() -> None:
    assert code_of(b"\xff\xd8\xff" + bytes(100), max_bytes=50) is ImageCode.TOO_MANY_BYTES


def webp_canvas(width: int, height: int) -> bytes:
    body = b"\x02\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBPVP8X" + struct.pack("<I", 10) + body
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


def bomb(kind: str, side: int) -> bytes:
    """A small file whose header announces side x side pixels."""
    if kind == "PNG":
        return png_of(side, side, 8, 2, b"")
    if kind == "WEBP":
        return webp_canvas(side, side)
    if kind == "BMP":
        data = bytearray(saved(scene(), "BMP"))
        data[18:26] = struct.pack("<ii", side, side)
        return bytes(data)
    data = bytearray(saved(scene(), "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", side, side)
    return bytes(data)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "JPEG"])
@pytest.mark.parametrize("side", [8_001, 9_700, 16_383])
def test_header_that_announces_too_many_pixels_is_rejected(kind: str, side: int) -> None:
    # 9,700² lies between Pillow's own warning and its own error, 16,383² beyond both.
    assert code_of(bomb(kind, side)) is ImageCode.TOO_MANY_PIXELS


@pytest.mark.filterwarnings("ignore")
def test_pixel_limit_holds_where_pillow_only_warns() -> None:
    assert code_of(bomb("PNG", 9_700)) is ImageCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_without_canvas_header_is_held_against_the_limit(lossless: bool) -> None:
    data = saved(scene(), "WEBP", lossless=lossless)
    assert data[12:15] == b"VP8"
    assert code_of(data, max_pixels=96 * 80 - 1) is ImageCode.TOO_MANY_PIXELS
    assert decode(data, SQUASH, limits=ImageLimits(max_pixels=96 * 80)).shape == (224, 224, 3)


def test_jpeg_of_many_scans_is_rejected_before_a_pixel_is_decoded() -> None:
    data = saved(scene(), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    tables = data.rindex(b"\xff\xc4", 0, last)
    repeated = data[tables:-2]
    assert decode(data[:-2] + repeated * 80 + data[-2:], SQUASH).shape == (224, 224, 3)
    bomb = data[:-2] + repeated * 100 + data[-2:]
    assert code_of(bomb) is ImageCode.IMAGE_UNDECODABLE
    assert count_pixels(bomb, ImageLimits()) == 0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tiff_of_many_tags_is_rejected_before_its_directory_is_read(order: str, big: bool) -> None:
    mark = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head, count = (f"{order}HHQ", f"{order}Q") if big else (f"{order}I", f"{order}H")
    start = struct.pack(head, *((8, 0, 16) if big else (8,)))
    for tags, code in ((1000, None), (1001, ImageCode.IMAGE_UNDECODABLE)):
        rejected = costly(mark + start + struct.pack(count, tags), "TIFF")
        assert (rejected is None) == (code is None)
    assert code_of(mark + start + struct.pack(count, 60_000)) is ImageCode.IMAGE_UNDECODABLE
    assert costly(mark + b"\xff" * 12, "TIFF") is None


# Pillow warns about much of this; as errors the warnings would pass for rejections.
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damaged_files_are_decoded_or_rejected_and_raise_nothing_else(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "BMP", "TIFF"]))
    good = bytearray(saved(scene(), kind))
    for _ in range(data.draw(st.integers(1, 8))):
        good[data.draw(st.integers(0, len(good) - 1))] = data.draw(st.integers(0, 255))
    with suppress(ImageRejected):
        pixels = decode(bytes(good[: data.draw(st.integers(1, len(good)))]), SQUASH)
        assert pixels.shape == (224, 224, 3)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([b"\xff\xd8\xff", b"II*\0", b"MM\0+", b"BM", b""]))
def test_any_bytes_are_decoded_or_rejected(body: bytes, start: bytes) -> None:
    with pytest.raises(ImageRejected):
        decode(start + body, SQUASH)
