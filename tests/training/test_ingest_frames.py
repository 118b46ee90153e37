"""Frames: metadata off without touching pixels, crops, files in order, duplicates found."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model_store.errors import ImageRejected
from tests.training.raw_hospital import (
    jpeg,
    picture,
    pixels,
    planted_jpeg,
    planted_png,
    png,
)
from training.ingest.duplicates import MOST_PATIENTS, find_duplicates
from training.ingest.pictures import prepare, strip
from training.ingest.raw import PathOutside, find_exam

# ---- metadata ------------------------------------------------------------------------------------


def variants() -> dict[str, bytes]:
    image = picture(3)
    turned = Image.Exif()
    turned[0x0112], turned[0x010E] = 6, "Müller"
    mpo = io.BytesIO()
    image.save(mpo, "MPO", save_all=True, append_images=[picture(4)])
    return {
        "planted": planted_jpeg(3),
        "progressive": jpeg(image, progressive=True, exif=turned),
        "turned": jpeg(image, exif=turned),
        "grey": jpeg(image.convert("L"), comment=b"Mueller"),
        "cmyk": jpeg(image.convert("CMYK"), comment=b"Mueller"),
        "restarts": jpeg(image, restart_marker_rows=2, comment=b"Mueller"),
        "several": mpo.getvalue(),
        "png": planted_png(3),
        "png turned": png(image, exif=turned),
        "png palette": png(image.quantize(16), pnginfo=None, exif=turned),
        "png 16 bit": png(Image.fromarray(np.arange(16384, dtype=np.uint16).reshape(128, 128))),
    }


@pytest.mark.parametrize("name", variants())
def test_stripping_changes_no_pixel_and_leaves_no_metadata(name: str) -> None:
    data = variants()[name]
    bare = strip(data)
    assert np.array_equal(pixels(bare), pixels(data))
    for secret in (b"M\xc3\xbcller", b"Mueller", b"Quarlinghaus", b"Wrobelska", b"Okonkwo"):
        assert secret not in bare
    with Image.open(io.BytesIO(bare)) as image:
        assert set(image.getexif()) <= {0x0112}
        assert not image.info.keys() & {"comment", "icc_profile", "xmp", "Patient", "Title"}
    assert strip(bare) == bare


def test_a_file_without_metadata_keeps_its_bytes() -> None:
    for data in (jpeg(picture(1)), png(picture(1))):
        assert prepare(data, None).data == data


def test_a_thumbnail_in_the_header_goes() -> None:
    data = jpeg(picture(1))
    at = data.index(b"JFIF\0")
    thumb = data[: at - 2] + (16 + 12).to_bytes(2, "big") + data[at : at + 12] + b"\2\2" + b"x" * 12
    assert strip(thumb + data[at + 14 :]) == data


def test_every_cut_of_a_file_is_refused() -> None:
    for data in (planted_jpeg(1), planted_png(1)):
        whole = strip(data)
        for end in range(4, len(whole) - 1, 41):
            with pytest.raises(ImageRejected):
                prepare(whole[:end], None)


def test_size_is_the_upright_one() -> None:
    made = prepare(variants()["turned"], None)
    assert (made.width, made.height) == (128, 160)
    assert pixels(made.data).shape[:2] == (160, 128)


# ---- crops ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("encode", ["jpeg", "png"])
def test_a_crop_keeps_the_box_alone(encode: str) -> None:
    image = picture(5)
    for crop in ((0.25, 0.0, 1.0, 0.75), (40.0, 0.0, 160.0, 96.0)):
        made = prepare(planted_jpeg(5) if encode == "jpeg" else png(image), crop, encode)
        assert (made.width, made.height) == (120, 96)
        assert made.suffix == {"jpeg": ".jpg", "png": ".png"}[encode]
        wanted = np.asarray(image)[0:96, 40:160].astype(int)
        limit = 12 if encode == "jpeg" else 0
        assert np.abs(pixels(made.data).astype(int) - wanted).mean() <= limit
        assert b"Mueller" not in made.data


def test_a_box_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="fractions"):
        prepare(jpeg(picture(1)), (0.0, 0.0, 400.0, 300.0))
    with pytest.raises(ImageRejected):
        prepare(jpeg(picture(1)), (0.0, 0.0, 0.1, 0.1))


# ---- files ---------------------------------------------------------------------------------------


def test_files_come_in_natural_order_without_litter(tmp_path: Path) -> None:
    for name in ("10.jpg", "2.jpg", "1.jpg", ".hidden", "Thumbs.db", "sub/3.jpg"):
        (tmp_path / "e" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "e" / name).write_bytes(b"x")
    names = [p.relative_to(tmp_path / "e").as_posix() for p in find_exam(tmp_path, "e")[1]]
    assert names == ["1.jpg", "2.jpg", "10.jpg", "sub/3.jpg"]
    (tmp_path / "film.mp4").write_bytes(b"x")
    assert (
        find_exam(tmp_path, "film")
        == find_exam(tmp_path, "film.mp4")
        == (tmp_path, [tmp_path / "film.mp4"])
    )
    assert find_exam(tmp_path, "nowhere")[1] == find_exam(tmp_path, "a/b/c")[1] == []


def test_links_and_either_spelling_of_an_umlaut_are_followed(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "1.jpg").write_bytes(b"x")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "E1").symlink_to(tmp_path / "store")
    (tmp_path / "raw" / "Mu\u0308ller").mkdir()
    (tmp_path / "raw" / "Mu\u0308ller" / "2.jpg").write_bytes(b"x")
    assert [p.name for p in find_exam(tmp_path / "raw", "E1")[1]] == ["1.jpg"]
    assert [p.name for p in find_exam(tmp_path / "raw", "M\u00fcller")[1]] == ["2.jpg"]


@pytest.mark.parametrize("name", ["..", "../x", "/etc", "e/../../x"])
def test_no_exam_lies_outside_the_data_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(PathOutside):
        find_exam(tmp_path / "raw", name)


# ---- duplicates ----------------------------------------------------------------------------------


def naive_first(hashes: np.ndarray, digests: np.ndarray) -> np.ndarray:
    first = np.full(len(hashes), -1)
    for j in range(len(hashes)):
        same = [i for i in range(j) if (digests[i] == digests[j]).all()]
        near = [
            i
            for i in range(j)
            if hashes[i].any()
            and hashes[j].any()
            and int(np.unpackbits(hashes[i] ^ hashes[j]).sum()) <= 10
        ]
        first[j] = same[0] if same else near[0] if near else -1
    return first


def test_duplicates_are_those_of_comparing_all_pairs() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 256, (400, 32), dtype=np.uint8)
    digests = rng.integers(0, 256, (400, 32), dtype=np.uint8)
    for j in range(200, 400):  # copies with 0 to 14 bits turned over
        hashes[j] = hashes[rng.integers(0, j)]
        for bit in rng.choice(256, rng.integers(0, 15), replace=False):
            hashes[j, bit // 8] ^= 1 << (bit % 8)
    for j in (50, 350):
        hashes[j], digests[j] = hashes[10], digests[10]
    hashes[[5, 6, 70]] = 0
    digests[70] = digests[5]
    found = find_duplicates(digests, hashes, np.arange(400) // 4)
    assert np.array_equal(found.first, naive_first(hashes, digests))
    assert sorted(np.flatnonzero(found.exact)) == [50, 70, 350]
    assert (found.first >= 0).sum() > 100
    for j in np.flatnonzero(found.first >= 0):
        assert found.picture[j] == found.picture[found.first[j]]


def test_patients_of_a_picture_are_counted() -> None:
    hashes = np.random.default_rng(0).integers(0, 256, (20, 32), dtype=np.uint8)
    hashes[:12] = hashes[0]
    digests = np.arange(20, dtype=np.uint8)[:, None].repeat(32, 1)
    found = find_duplicates(digests, hashes, np.arange(20))
    assert found.patients[found.picture].tolist() == [12] * 12 + [1] * 8
    assert MOST_PATIENTS < 12
    empty = find_duplicates(digests[:0], hashes[:0], np.arange(0))
    assert len(empty.first) == 0


def test_a_recompressed_picture_is_near_and_another_is_not() -> None:
    one, again = prepare(jpeg(picture(1)), None), prepare(jpeg(picture(1), quality=50), None)
    smaller = prepare(png(picture(1).resize((120, 96))), None)
    other = prepare(jpeg(picture(2)), None)

    def bits(a: str, b: str) -> int:
        return (int(a, 16) ^ int(b, 16)).bit_count()

    assert max(bits(one.phash, again.phash), bits(one.phash, smaller.phash)) <= 10
    assert bits(one.phash, other.phash) > 40
    assert prepare(jpeg(Image.new("RGB", (128, 128))), None).phash == ""
