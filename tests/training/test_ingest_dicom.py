"""Pictures of DICOM and video files are read right; damaged ones are named."""

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    MPEG4HP41,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from tests.training.raw_hospital import (
    dicom,
    dicom_jpegs,
    dicom_native,
    frames_of,
    jpeg,
    picture,
    save,
    shown,
    video_bytes,
)
from training.ingest.ledger import Reason
from training.ingest.pictures import prepare
from training.ingest.raw import RawFrame, Trouble

# ---- DICOM ---------------------------------------------------------------------------------------


def test_encapsulated_jpegs_are_taken_as_they_are(tmp_path: Path) -> None:
    save(dicom_jpegs(1, 2, 3), tmp_path / "a.dcm")
    found = frames_of(tmp_path / "a.dcm", "dicom")
    assert [f.name for f in found] == ["a.dcm#0", "a.dcm#1", "a.dcm#2"]
    for seed, frame in enumerate(found, 1):
        assert prepare(frame.picture, None).data == jpeg(picture(seed))  # type: ignore[union-attr]
    save(dicom_jpegs(1), tmp_path / "b.dcm")
    assert [f.name for f in frames_of(tmp_path / "b.dcm", "dicom")] == ["b.dcm"]


def test_native_frames_are_exact(tmp_path: Path) -> None:
    save(dicom_native(1, 2), tmp_path / "a.dcm")
    for seed, frame in enumerate(frames_of(tmp_path / "a.dcm", "dicom"), 1):
        assert np.array_equal(shown(frame), np.asarray(picture(seed)))
        assert "CV-190" in frame.device  # type: ignore[union-attr]


def photometric(name: str) -> tuple[pydicom.Dataset, np.ndarray, int]:
    """A file of one photometric interpretation, the picture it means, and the tolerance."""
    rgb = np.asarray(picture(7))
    grey = np.asarray(picture(7).convert("L"))
    one = {"SamplesPerPixel": 1}
    del_planar = ExplicitVRLittleEndian
    if name == "MONOCHROME1":
        told = one | {"PhotometricInterpretation": name}
        return dicom((255 - grey).tobytes(), del_planar, (1, 128, 160), **told), grey, 0
    if name == "MONOCHROME2 12 bit":
        told = one | {"PhotometricInterpretation": "MONOCHROME2", "BitsAllocated": 16}
        told |= {"BitsStored": 12, "HighBit": 11}
        wide = (grey.astype(int) * 4095 // 255).astype("<u2")
        return dicom(wide.tobytes(), del_planar, (1, 128, 160), **told), grey, 1
    if name == "PALETTE COLOR":
        image = picture(7).quantize(64)
        palette = np.array(image.getpalette()[: 64 * 3], np.uint16).reshape(64, 3) * 257
        told = one | {"PhotometricInterpretation": name}
        for channel, colour in enumerate(("Red", "Green", "Blue")):
            told[f"{colour}PaletteColorLookupTableDescriptor"] = [64, 0, 16]
            lut = palette[:, channel].astype("<u2").tobytes()
            told[f"{colour}PaletteColorLookupTableData"] = lut
        data = dicom(np.asarray(image).tobytes(), del_planar, (1, 128, 160), **told)
        return data, np.asarray(image.convert("RGB")), 1
    if name == "YBR_FULL":
        ybr = np.asarray(picture(7).convert("YCbCr"))
        told = {"PhotometricInterpretation": name}
        return dicom(ybr.tobytes(), del_planar, (1, 128, 160), **told), rgb, 4
    if name == "RGB planar":
        told = {"PlanarConfiguration": 1}
        planes = rgb.transpose(2, 0, 1).tobytes()
        return dicom(planes, del_planar, (1, 128, 160), **told), rgb, 0
    if name == "RGB in JPEG":
        stream = jpeg(picture(7), keep_rgb=True, quality=95, subsampling=0)
        return (
            dicom(
                encapsulate([stream + b"\0" * (len(stream) % 2)]), JPEGBaseline8Bit, (1, 128, 160)
            ),
            rgb,
            12,
        )
    data = dicom(rgb.tobytes(), del_planar, (1, 128, 160))
    data.compress(RLELossless)
    return data, rgb, 0


@pytest.mark.parametrize(
    "name",
    [
        *("MONOCHROME1", "MONOCHROME2 12 bit", "PALETTE COLOR", "YBR_FULL", "RGB planar"),
        *("RGB in JPEG", "RLE"),
    ],
)
def test_colours_are_what_the_file_means(tmp_path: Path, name: str) -> None:
    data, wanted, tolerance = photometric(name)
    save(data, tmp_path / "a.dcm")
    (frame,) = frames_of(tmp_path / "a.dcm", "dicom")
    wanted = np.stack([wanted] * 3, -1) if wanted.ndim == 2 else wanted
    assert np.abs(shown(frame).astype(int) - wanted.astype(int)).max() <= tolerance


JPEG_2000_LOSSLESS = "1.2.840.10008.1.2.4.90"


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80", JPEG_2000_LOSSLESS]
)
def test_lossless_streams_are_exact(tmp_path: Path, syntax: str) -> None:
    """Lossless JPEG, JPEG-LS and JPEG 2000, which gdcm writes."""
    import gdcm

    save(dicom_native(1), tmp_path / "plain.dcm")
    reader = gdcm.ImageReader()
    reader.SetFileName(str(tmp_path / "plain.dcm"))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    kind = gdcm.TransferSyntax.GetTSType(syntax)
    change.SetTransferSyntax(gdcm.TransferSyntax(kind))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(tmp_path / "a.dcm"))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    (frame,) = frames_of(tmp_path / "a.dcm", "dicom")
    assert np.array_equal(shown(frame), np.asarray(picture(1)))


def jpeg_2000(seed: int, colours: str, **told: object) -> pydicom.Dataset:
    """A file of one JPEG 2000 stream that OpenJPEG wrote, through Pillow."""
    file = io.BytesIO()
    picture(seed).convert("RGB").save(file, "JPEG2000", no_jp2=True, **told)
    stream = file.getvalue()
    syntax = JPEG2000 if told.get("irreversible") else JPEG2000Lossless
    body = encapsulate([stream + b"\0" * (len(stream) % 2)])
    return dicom(body, syntax, (1, 128, 160), PhotometricInterpretation=colours)


@pytest.mark.parametrize(
    ("colours", "told", "tolerance"),
    [
        ("RGB", {"mct": 0}, 0),
        ("YBR_RCT", {"mct": 1}, 0),
        ("YBR_ICT", {"mct": 1, "irreversible": True, "quality_layers": [4]}, 40),
    ],
)
def test_jpeg_2000_is_read(
    tmp_path: Path, colours: str, told: dict[str, object], tolerance: int
) -> None:
    save(jpeg_2000(7, colours, **told), tmp_path / "a.dcm")
    (frame,) = frames_of(tmp_path / "a.dcm", "dicom")
    wanted = np.asarray(picture(7)).astype(int)
    assert np.abs(shown(frame).astype(int) - wanted).max() <= tolerance


def test_a_damaged_jpeg_2000_stream_is_named(tmp_path: Path) -> None:
    save(
        dicom(encapsulate([b"\xff\x4f\xff\x51" + bytes(60)]), JPEG2000Lossless, (1, 128, 160)),
        tmp_path / "a.dcm",
    )
    assert frames_of(tmp_path / "a.dcm", "dicom") == [Trouble("a.dcm", Reason.DICOM_UNREADABLE)]


def test_a_transfer_syntax_without_a_decoder_is_named(tmp_path: Path) -> None:
    for syntax, detail in (
        ("1.2.840.10008.1.2.4.201", "High-Throughput JPEG 2000 Image Compression (Lossless Only)"),
        ("1.2.3.4.5", "unknown"),
    ):
        data = dicom(encapsulate([b"xx"]), JPEGBaseline8Bit, (1, 128, 160))
        data.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
        pydicom.dcmwrite(tmp_path / "a.dcm", data, implicit_vr=False, little_endian=True)
        (trouble,) = frames_of(tmp_path / "a.dcm", "dicom")
        assert trouble == Trouble("a.dcm", Reason.DICOM_TRANSFER_SYNTAX, detail)


def test_damaged_dicom_files_are_named_and_cost_no_more(tmp_path: Path) -> None:
    save(dicom_native(1, 2, 3), tmp_path / "whole.dcm")
    data = (tmp_path / "whole.dcm").read_bytes()
    frame_bytes = 128 * 160 * 3
    cases = {
        "cut.dcm": data[: -frame_bytes - 100],
        "header.dcm": data[:300],
        "text.dcm": b"no dicom at all",
        "empty.dcm": b"",
    }
    found = {}
    for name, body in cases.items():
        (tmp_path / name).write_bytes(body)
        found[name] = frames_of(tmp_path / name, "dicom")
    assert all(isinstance(f, Trouble) for f in found["header.dcm"] + found["text.dcm"])
    assert found["text.dcm"] == [Trouble("text.dcm", Reason.NOT_AN_IMAGE)]
    assert found["empty.dcm"] == [Trouble("empty.dcm", Reason.NOT_AN_IMAGE)]
    assert isinstance(found["cut.dcm"][-1], Trouble)


def test_a_damaged_frame_costs_no_neighbour(tmp_path: Path) -> None:
    data = dicom(b"", ExplicitVRLittleEndian, (3, 128, 160))
    data.PixelData = b"".join(np.asarray(picture(s)).tobytes() for s in (1, 2, 3))
    data.compress(RLELossless)
    save(data, tmp_path / "a.dcm")
    raw = bytearray((tmp_path / "a.dcm").read_bytes())
    items = [i for i in range(len(raw) - 4) if raw[i : i + 4] == b"\xfe\xff\x00\xe0"]
    raw[items[2] + 8 : items[2] + 12] = b"\xff\xff\xff\xff"  # the second frame's RLE header
    (tmp_path / "a.dcm").write_bytes(raw)
    first, second, third = frames_of(tmp_path / "a.dcm", "dicom")
    assert second == Trouble("a.dcm#1", Reason.DICOM_UNREADABLE)
    assert np.array_equal(shown(first), np.asarray(picture(1)))
    assert np.array_equal(shown(third), np.asarray(picture(3)))


def test_implicit_vr_is_read_too(tmp_path: Path) -> None:
    data = dicom(np.asarray(picture(1)).tobytes(), ImplicitVRLittleEndian, (1, 128, 160))
    save(data, tmp_path / "a.dcm")
    (frame,) = frames_of(tmp_path / "a.dcm", "dicom")
    assert np.array_equal(shown(frame), np.asarray(picture(1)))


# ---- video ---------------------------------------------------------------------------------------


def close_to(image: np.ndarray, seed: int) -> bool:
    return bool(np.abs(image.astype(int) - np.asarray(picture(seed)).astype(int)).mean() < 12)


def test_a_video_is_sampled_at_the_rate(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(video_bytes((1, 2, 3), fps=5))
    found = frames_of(tmp_path / "a.mp4", "video", fps=1)
    assert [f.name for f in found] == ["a.mp4#0", "a.mp4#1", "a.mp4#2"]
    assert all(close_to(shown(f), seed) for seed, f in enumerate(found, 1))
    assert len(frames_of(tmp_path / "a.mp4", "video", fps=2)) == 6
    assert len(frames_of(tmp_path / "a.mp4", "video", fps=100)) == 15


def test_a_video_inside_dicom_is_sampled_alike(tmp_path: Path) -> None:
    stream = video_bytes((1, 2), fps=5)
    stream += b"\0" * (len(stream) % 2)
    half = len(stream) // 4 * 2
    from pydicom.encaps import itemize_fragment

    body = b"\xfe\xff\x00\xe0\0\0\0\0" + b"".join(
        itemize_fragment(part) for part in (stream[:half], stream[half:])
    )
    data = dicom(body, MPEG4HP41, (10, 128, 160), PhotometricInterpretation="YBR_PARTIAL_420")
    save(data, tmp_path / "a.dcm")
    found = frames_of(tmp_path / "a.dcm", "dicom", fps=1)
    assert [f.name for f in found] == ["a.dcm#0", "a.dcm#1"]
    assert all(close_to(shown(f), seed) for seed, f in enumerate(found, 1))


def test_unreadable_and_damaged_videos_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 50)
    assert frames_of(tmp_path / "a.mp4", "video") == [Trouble("a.mp4", Reason.VIDEO_UNREADABLE)]
    whole = bytearray(video_bytes((1, 2, 3, 4), fps=5))
    body = whole.index(b"mdat") + 4
    size = int.from_bytes(whole[body - 8 : body - 4], "big")
    whole[body + size // 3 : body + size // 2] = bytes(size // 2 - size // 3)
    (tmp_path / "b.mp4").write_bytes(whole)
    found = frames_of(tmp_path / "b.mp4", "video", fps=5)
    assert isinstance(found[0], RawFrame)
    assert all(t.reason is Reason.VIDEO_DAMAGED for t in found if isinstance(t, Trouble))
