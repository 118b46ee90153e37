"""DICOM files of endoscopes, in every way of writing pixels, with an identity in each header."""

from io import BytesIO
from typing import Any

import gdcm
import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
    generate_uid,
)

WHO = "Zebrafink"
ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
VIDEO_ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1.1"
PHOTOGRAPHIC = "1.2.840.10008.5.1.4.1.1.77.1.4"
LOSSLESS_JPEG, JPEG_LS = "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2.4.80"


def flat(colour: tuple[int, int, int], size: tuple[int, int] = (96, 80)) -> Image.Image:
    return Image.new("RGB", size, colour)


def data_set(pixels: bytes, syntax: str, frames: int = 1, **told: Any) -> Dataset:
    """A file of 96 x 80 pixels; `told` are attributes that differ."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(told.get("SOPClassUID", ENDOSCOPIC))
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = UID(syntax)
    data = Dataset()
    data.file_meta, data.preamble = meta, bytes(128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.StudyInstanceUID, data.SeriesInstanceUID = generate_uid(), generate_uid()
    data.PatientName, data.PatientID = f"{WHO}^Jörg", f"{WHO}-4711"
    data.PatientBirthDate, data.PatientSex = "19500312", "M"
    data.StudyDate, data.StudyTime, data.StudyID = "20260102", "101112", "7"
    data.AccessionNumber, data.ReferringPhysicianName = f"{WHO}7", f"{WHO}^Doctor"
    data.InstitutionName, data.StudyDescription = f"{WHO} clinic", f"{WHO} colonoscopy"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.Manufacturer, data.ManufacturerModelName = "Olympus", "CV-190"
    data.Modality, data.SeriesNumber, data.InstanceNumber = "ES", 1, 1
    data.add_new(0x00091010, "LO", f"{WHO} private")
    data.Rows, data.Columns = 80, 96
    if frames > 1:
        data.NumberOfFrames = frames
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration, data.PixelRepresentation = 0, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 8, 8, 7
    data.PixelData = pixels
    for name, value in told.items():
        setattr(data, name, value)
    if data.SamplesPerPixel == 1:
        del data.PlanarConfiguration
    return data


def written(data: Dataset) -> bytes:
    out = BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True, implicit_vr=False, little_endian=True)
    return out.getvalue()


def native(*colours: tuple[int, int, int], **told: Any) -> bytes:
    pixels = b"".join(np.asarray(flat(colour)).tobytes() for colour in colours)
    return written(data_set(pixels, ExplicitVRLittleEndian, len(colours), **told))


def _padded(stream: bytes) -> bytes:
    return stream + b"\0" * (len(stream) % 2)


def stream(colour: tuple[int, int, int], kind: str, **save: Any) -> bytes:
    out = BytesIO()
    flat(colour, save.pop("size", (96, 80))).save(out, kind, **save)
    return _padded(out.getvalue())


def jpegs(*colours: tuple[int, int, int], **told: Any) -> bytes:
    streams = [stream(colour, "JPEG", quality=95) for colour in colours]
    told = {"PhotometricInterpretation": "YBR_FULL_422", **told}
    return written(data_set(encapsulate(streams), JPEGBaseline8Bit, len(colours), **told))


def jpeg_2000(*colours: tuple[int, int, int], size: tuple[int, int] = (96, 80)) -> bytes:
    streams = [stream(colour, "JPEG2000", no_jp2=True, mct=1, size=size) for colour in colours]
    told = {"PhotometricInterpretation": "YBR_RCT"}
    return written(data_set(encapsulate(streams), JPEG2000Lossless, len(colours), **told))


def rle(*colours: tuple[int, int, int]) -> bytes:
    pixels = b"".join(np.asarray(flat(colour)).tobytes() for colour in colours)
    data = data_set(pixels, ExplicitVRLittleEndian, len(colours))
    data.compress(RLELossless)
    return written(data)


def by_gdcm(colour: tuple[int, int, int], syntax: str, folder: Any) -> bytes:
    """JPEG lossless and JPEG-LS, which gdcm writes."""
    plain, out = folder / "plain.dcm", folder / "out.dcm"
    plain.write_bytes(native(colour))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(out))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return bytes(out.read_bytes())


def in_colours(name: str, colour: tuple[int, int, int]) -> bytes:
    """One native frame in a photometric interpretation."""
    image = flat(colour)
    rgb, grey = np.asarray(image), np.asarray(image.convert("L"))
    one: dict[str, Any] = {"SamplesPerPixel": 1, "PhotometricInterpretation": name.split()[0]}
    if name == "YBR_FULL":
        told: dict[str, Any] = {"PhotometricInterpretation": name}
        pixels = np.asarray(image.convert("YCbCr")).tobytes()
    elif name == "RGB planar":
        told, pixels = {"PlanarConfiguration": 1}, rgb.transpose(2, 0, 1).tobytes()
    elif name == "MONOCHROME1":
        told, pixels = one, (255 - grey).tobytes()
    elif name == "MONOCHROME2 12 bit":
        told = one | {"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}
        pixels = (grey.astype(int) * 4095 // 255).astype("<u2").tobytes()
    else:
        told, pixels = one | {"PhotometricInterpretation": "PALETTE COLOR"}, bytes(96 * 80)
        for channel, value in zip(("Red", "Green", "Blue"), colour, strict=True):
            told[f"{channel}PaletteColorLookupTableDescriptor"] = [2, 0, 16]
            table = np.array([value * 257, 0], "<u2").tobytes()
            told[f"{channel}PaletteColorLookupTableData"] = table
    return written(data_set(pixels, ExplicitVRLittleEndian, **told))
