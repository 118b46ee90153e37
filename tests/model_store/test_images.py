"""Every file becomes the right RGB pixels or its own named rejection; nothing else comes out."""

import struct
import zlib
from contextlib import suppress
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from model_store.errors import ImageCode, ImageRejected
from model_store.images import (
    ImageLimits,
    InputContract,
    crop_to,
    decode,
    frame_from_array,
    open_rgb,
    preprocess,
    sniff,
)

SQUASH = InputContract(224, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, "full")
SHORTEST = InputContract(224, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3, "full")
SCALED = InputContract(224, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, "dct_scaled")
RED = (200, 40, 60)


def scene(width: int = 96, height: int = 80) -> Image.Image:
    """Smooth, and different in each quarter, so that turns and shifts show."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    planes = (60 + 180 * x, 30 + 140 * y, 40 + 60 * x * y)
    return Image.fromarray(np.stack(planes, axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def code_of(data: bytes, **limits: int) -> ImageCode:
    with pytest.raises(ImageRejected) as caught:
        decode(data, SQUASH, limits=ImageLimits(**limits))
    assert caught.value.message
    return caught.value.code


def difference(first: Image.Image, second: Image.Image) -> float:
    return float(np.abs(np.asarray(first, float) - np.asarray(second, float)).mean())


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_lossless_formats_give_the_saved_pixels(kind: str) -> None:
    assert np.array_equal(open_rgb(saved(scene(), kind)), scene())


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
        ("WEBP", {"lossless": True}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "jpeg"}),
    ],
)
def test_compressed_formats_give_nearly_the_saved_pixels(kind: str, options: dict) -> None:
    assert difference(open_rgb(saved(scene(), kind, **options)), scene()) < 3.0


def test_decode_gives_uint8_square_rgb() -> None:
    pixels = decode(saved(scene()), SQUASH)
    assert pixels.shape == (224, 224, 3)
    assert pixels.dtype == np.uint8


def test_cmyk_jpeg_keeps_its_colours() -> None:
    data = saved(Image.new("RGB", (96, 96), RED).convert("CMYK"), "JPEG", quality=95)
    assert difference(open_rgb(data), Image.new("RGB", (96, 96), RED)) < 6.0


def test_sixteen_bit_grey_png_is_scaled_and_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)
    grey = np.asarray(open_rgb(saved(Image.fromarray(ramp))))
    assert np.array_equal(grey[..., 0], np.round(ramp / 257.0).astype(np.uint8))
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_sixteen_bit_grey_tiff_of_either_byte_order_is_scaled() -> None:
    ramp = np.linspace(0, 65535, 96 * 80).astype(np.uint16).reshape(80, 96)
    little = np.asarray(open_rgb(saved(Image.fromarray(ramp), "TIFF")))
    big = Image.frombytes("I;16B", (96, 80), ramp.astype(">u2").tobytes())
    assert little[-1, -1, 0] == 255
    assert 120 < little[40, 48, 0] < 136
    assert np.array_equal(little, np.asarray(open_rgb(saved(big, "TIFF"))))


def test_sixteen_bit_rgb_png_keeps_its_high_bytes() -> None:
    row = b"\0" + struct.pack(">3H", 0xC880, 0x2840, 0x3C00) * 96
    data = png_of(96, 80, 16, 2, row * 80)
    assert np.asarray(open_rgb(data))[0, 0].tolist() == [0xC8, 0x28, 0x3C]


@pytest.mark.parametrize("mode", ["L", "1"])
def test_greyscale_becomes_three_equal_channels(mode: str) -> None:
    pixels = np.asarray(open_rgb(saved(scene().convert(mode))))
    assert np.array_equal(pixels[..., 0], pixels[..., 1])
    assert np.array_equal(pixels[..., 0], np.asarray(scene().convert(mode).convert("L")))


def test_palette_image_gives_its_colours() -> None:
    data = saved(Image.new("RGB", (96, 96), RED).convert("P", palette=Image.Palette.ADAPTIVE))
    assert np.asarray(open_rgb(data))[5, 5].tolist() == list(RED)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_pixels_become_black_and_opaque_ones_stay(mode: str) -> None:
    image = Image.new("RGB", (96, 80), (90, 90, 90)).convert(mode)
    alpha = Image.new("L", image.size, 255)
    alpha.paste(0, (0, 0, 48, 80))
    image.putalpha(alpha)
    pixels = np.asarray(open_rgb(saved(image)))
    assert pixels[10, 10].tolist() == [0, 0, 0]
    assert pixels[10, 90].tolist() == [90, 90, 90]


def test_transparent_palette_entry_becomes_black() -> None:
    image = Image.new("P", (96, 80), 1)
    image.putpalette([255, 255, 255, *RED])
    image.paste(0, (0, 0, 48, 80))
    pixels = np.asarray(open_rgb(saved(image, transparency=0)))
    assert pixels[10, 10].tolist() == [0, 0, 0]
    assert pixels[10, 90].tolist() == list(RED)


def test_transparent_colour_of_an_rgb_png_becomes_black() -> None:
    image = Image.new("RGB", (96, 80), RED)
    image.paste((255, 255, 255), (0, 0, 48, 80))
    pixels = np.asarray(open_rgb(saved(image, transparency=(255, 255, 255))))
    assert pixels[10, 10].tolist() == [0, 0, 0]
    assert pixels[10, 90].tolist() == list(RED)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_of_several_frames_the_first_is_taken(kind: str) -> None:
    first, second = Image.new("RGB", (96, 96), RED), Image.new("RGB", (96, 96), (0, 255, 0))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(first, kind, save_all=True, append_images=[second], **options)
    assert np.asarray(open_rgb(data))[5, 5].tolist() == list(RED)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_turns_the_picture_upright(kind: str, orientation: int) -> None:
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene() if orientation == 1 else scene().transpose(back[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}.get(kind, {})
    upright = open_rgb(saved(stored, kind, exif=exif, **options))
    assert upright.size == scene().size
    assert difference(upright, scene()) < 3.0


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_leaves_the_pixels_usable() -> None:
    data = saved(scene(), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    assert open_rgb(data).size == scene().size


def test_colour_profile_is_not_applied_and_a_broken_one_does_no_harm() -> None:
    assert np.array_equal(open_rgb(saved(scene(), icc_profile=b"no profile")), scene())


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


def png_of(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        total = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", total)

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", zlib.compress(rows)),
            chunk(b"IEND", b""),
        ]
    )


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


@pytest.mark.parametrize("lossless", [True, False])
def test_webp_without_canvas_header_is_held_against_the_limit(lossless: bool) -> None:
    data = saved(scene(), "WEBP", lossless=lossless)
    assert data[12:15] == b"VP8"
    assert code_of(data, max_pixels=96 * 80 - 1) is ImageCode.TOO_MANY_PIXELS
    assert decode(data, SQUASH, limits=ImageLimits(max_pixels=96 * 80)).shape == (224, 224, 3)


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


def test_crop_keeps_the_box_of_the_upright_image() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = scene().transpose(Image.Transpose.ROTATE_90)
    box = (0.25, 0.5, 0.75, 1.0)
    expected = preprocess(scene().crop((24, 40, 72, 80)), SQUASH)
    assert np.array_equal(decode(saved(stored, exif=exif), SQUASH, crop=box), expected)


@pytest.mark.parametrize("box", [(0.5, 0, 0.5, 1), (0, 0, 1.1, 1), (-0.1, 0, 1, 1), (0, 1, 1, 0)])
def test_empty_or_outside_crop_box_is_an_error(box: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="fractions"):
        crop_to(scene(), box)  # type: ignore[arg-type]


def test_tiny_crop_box_still_holds_a_pixel() -> None:
    assert crop_to(scene(), (0.999, 0.999, 1.0, 1.0)).size == (1, 1)


def test_array_and_image_are_preprocessed_alike() -> None:
    for contract in (SQUASH, SHORTEST):
        same = frame_from_array(np.asarray(scene()), contract)
        assert np.array_equal(same, preprocess(scene(), contract))


def test_array_of_another_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="uint8"):
        frame_from_array(np.zeros((8, 8), np.uint8), SQUASH)


def test_shortest_keeps_the_middle_of_a_wide_image() -> None:
    image = Image.new("RGB", (448, 224))
    image.paste(RED, (112, 0, 336, 224))
    pixels = preprocess(image, SHORTEST)
    assert (pixels == np.array(RED, np.uint8)).all()


@pytest.mark.parametrize("size", [(1280, 1024), (720, 576), (1920, 1080), (400, 300)])
def test_dct_scaled_jpeg_stays_close_to_full_decoding(size: tuple[int, int]) -> None:
    data = saved(scene(*size), "JPEG", quality=90)
    apart = decode(data, SQUASH).astype(int) - decode(data, SCALED).astype(int)
    assert np.abs(apart).mean() < 1.0


@pytest.mark.parametrize(
    ("size", "cover", "expected"),
    [
        ((1280, 1024), 224, (320, 256)),
        ((1280, 1024), 257, (640, 512)),
        ((1280, 1024), 600, (1280, 1024)),
        ((2048, 2048), 224, (256, 256)),
    ],
)
def test_dct_scaled_jpeg_still_covers_the_input(
    size: tuple[int, int], cover: int, expected: tuple[int, int]
) -> None:
    assert open_rgb(saved(scene(*size), "JPEG"), cover_px=cover).size == expected


def test_dct_scaling_spares_the_pixels_of_a_small_crop() -> None:
    data = saved(scene(1280, 1024), "JPEG", quality=95)
    box = (0.4, 0.4, 0.6, 0.6)
    full, scaled = (decode(data, c, crop=box).astype(int) for c in (SQUASH, SCALED))
    assert np.array_equal(full, scaled)


def test_formats_are_told_by_their_first_bytes() -> None:
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF"):
        assert sniff(saved(scene(), kind)) == kind
