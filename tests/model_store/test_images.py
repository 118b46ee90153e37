"""Every kind of file becomes the right RGB pixels, upright and at the size of the contract."""

import resource
import struct

import numpy as np
import pytest
from PIL import Image

from model_store.images import (
    InputContract,
    crop_to,
    decode,
    open_rgb,
    preprocess,
    sniff,
)
from tests.model_store.pictures import SQUASH, png_of, saved, scene

SHORTEST = InputContract(224, "shortest", "bicubic", (0.5,) * 3, (0.5,) * 3, "full")
SCALED = InputContract(224, "squash", "bicubic", (0.5,) * 3, (0.5,) * 3, "dct_scaled")
RED = (200, 40, 60)


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


def test_transparency_over_black_equals_compositing_for_every_value() -> None:
    value, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = Image.fromarray(np.stack([value, 255 - value, value, alpha], axis=-1), "RGBA")
    ground = Image.new("RGBA", image.size, (0, 0, 0, 255))
    expected = Image.alpha_composite(ground, image).convert("RGB")
    assert np.array_equal(open_rgb(saved(image)), expected)


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


@pytest.mark.parametrize("contract", [SQUASH, SHORTEST])
@pytest.mark.parametrize("size", [(64, 60_000), (60_000, 64)])
def test_absurdly_long_picture_is_resized_in_little_memory(
    contract: InputContract, size: tuple[int, int]
) -> None:
    image = Image.new("RGB", size, RED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = preprocess(image, contract)
    # Resized as it stands it would pass through 50 MB (squash) or 190 MB (shortest).
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
    assert (pixels == np.array(RED, np.uint8)).all()


def test_long_picture_keeps_its_middle() -> None:
    image = Image.new("RGB", (100, 3000))
    image.paste(RED, (0, 1450, 100, 1550))
    assert (preprocess(image, SHORTEST)[8:-8] == np.array(RED, np.uint8)).all()
    rows = preprocess(image, SQUASH)[:, 0, 0].astype(int)
    assert rows[112] > 190
    assert np.abs(rows - rows[::-1]).max() <= 1


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
