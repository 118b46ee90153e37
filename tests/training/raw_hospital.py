"""Raw data of an invented hospital, with identities planted wherever a hospital leaves them."""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import pydicom
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian, JPEGBaseline8Bit, generate_uid

from model_store.images import open_rgb
from training.ingest.config import ColumnsConfig, IngestConfig
from training.ingest.ledger import Reason
from training.ingest.raw import RawFrame, Trouble, raw_frames

ROOT = Path(__file__).resolve().parents[2]
PLAIN = "A 5 mm sessile polyp in the rectum."
PLANTED = (
    *("Müller", "Mueller", "MULLER", "Jörg", "Joerg", "Quarlinghaus", "Zibulski", "Wrobelska"),
    *("Okonkwo", "4711-0815-99", "4711081599", "1950-03-12", "12.03.1950", "19500312"),
    *("jmueller@klinik-nord.example", "0171 5551234", "S21-98765", "Haus Lindenhof"),
    *("2021-03-04", "04.03.2021", "20210304"),
)
"""Strings that must be found nowhere in what ingestion writes or says."""
COLUMNS = ColumnsConfig(
    exam="exam_no",
    patient="patient_no",
    report="report",
    pathology="histology",
    date="date",
    device="processor",
    names=("patient_name", "endoscopist"),
    numbers=("hospital_no",),
    birth_dates=("born",),
)
REPORT = (
    "Patient Jörg Müller (born 12.03.1950, hospital no 4711-0815-99) seen by Dr. Quarlinghaus on "
    "04.03.2021. Referred by dr zibulski, tel 0171 5551234, jmueller@klinik-nord.example.\n"
    "Findings: A 12 mm sessile polyp, Paris 0-IIa, in the sigmoid colon, NICE type 2, reddish. "
    "mr mueller tolerated it well; J. M. was told. MÜLLER, JÖRG agreed. MUELLER's wife came.\n"
    "Pathology S21-98765: tubular adenoma of Mr. Müller, signed Sister Wrobelska.\n"
    "Signed: E. Quarlinghaus / Sister Wrobelska, Haus Lindenhof"
)
PATHOLOGY = "Tubular adenoma, low grade dysplasia. Patient muller, joerg. Reported by dr okonkwo."


@dataclass
class Exam:
    """One row of the table."""

    exam: str
    patient: str = "P-4711081599"
    report: str = REPORT
    pathology: str = PATHOLOGY
    date: str = "04.03.2021"
    processor: str = "CV-190"
    patient_name: str = "Müller, Jörg"
    endoscopist: str = "Dr. E. Quarlinghaus"
    hospital_no: str = "4711-0815-99"
    born: str = "12.03.1950"
    extra: dict[str, str] = field(default_factory=dict)

    def row(self) -> dict[str, str]:
        return {
            "exam_no": self.exam,
            "patient_no": self.patient,
            "report": self.report,
            "histology": self.pathology,
            "date": self.date,
            "processor": self.processor,
            "patient_name": self.patient_name,
            "endoscopist": self.endoscopist,
            "hospital_no": self.hospital_no,
            "born": self.born,
            **self.extra,
        }


def config(folder: Path, **settings: object) -> IngestConfig:
    """Settings for raw data below ``folder / "raw"``."""
    plain: dict[str, object] = {
        "data": str(folder / "raw"),
        "kind": "folders",
        "table": "reports.csv",
        "secret": str(folder / "secret.key"),
        "columns": COLUMNS,
        "deny": ("Haus Lindenhof",),
        "workers": 1,
    }
    return IngestConfig(**(plain | settings))  # type: ignore[arg-type]


def write_table(path: Path, exams: Sequence[Exam]) -> None:
    """Write the report table as the suffix says."""
    rows = [exam.row() for exam in exams]
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
        path.write_text("".join(lines), "utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)


def picture(seed: int, size: tuple[int, int] = (160, 128)) -> Image.Image:
    """A drawn picture; another seed is another picture."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (20, 25, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, quality: int = 90, **told: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality, **told)
    return file.getvalue()


def png(image: Image.Image, **told: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG", **told)
    return file.getvalue()


def planted_jpeg(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "Müller, Jörg 12.03.1950"
    exif[0x013B] = "Quarlinghaus"
    data = jpeg(picture(seed), exif=exif, comment=b"Mueller 4711-0815-99", icc_profile=b"Zibulski")
    return data + b"trailing Wrobelska"


def planted_png(seed: int) -> bytes:
    told = PngInfo()
    told.add_text("Patient", "Müller, Jörg", zip=False)
    told.add_itxt("Physician", "Quarlinghaus")
    told.add_text("Title", "MUELLER 19500312")
    return png(picture(seed), pnginfo=told) + b"Okonkwo"


def write_frames(folder: Path, *names: str, start: int = 0) -> None:
    """Frames with identities in names and metadata, JPEG or PNG by suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names, start):
        make = planted_png if name.endswith(".png") else planted_jpeg
        (folder / name).write_bytes(make(seed))


def dicom(pixels: bytes, syntax: str, shape: tuple[int, int, int], **told: object) -> Dataset:
    """A VL Endoscopic Image with identities all over its header.

    Args:
        pixels: Value of PixelData.
        syntax: Transfer syntax.
        shape: Frames, rows, columns.
        told: Attributes that differ.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID("1.2.840.10008.5.1.4.1.1.77.1.1")
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = UID(syntax)
    data = Dataset()
    data.file_meta = meta
    data.preamble = bytes(128)
    data.SOPClassUID = meta.MediaStorageSOPClassUID
    data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = "Müller^Jörg", "4711-0815-99"
    data.PatientBirthDate, data.StudyDate = "19500312", "20210304"
    data.ReferringPhysicianName = "Quarlinghaus^E"
    data.InstitutionName, data.AccessionNumber = "Haus Lindenhof", "S21-98765"
    data.StudyDescription = "Okonkwo Zibulski"
    data.SpecificCharacterSet = "ISO_IR 192"
    data.Manufacturer, data.ManufacturerModelName = "Olympus", "CV-190 Wrobelska"
    data.add_new(0x00091010, "LO", "MUELLER private")
    data.NumberOfFrames, data.Rows, data.Columns = (str(shape[0]), *shape[1:])
    data.SamplesPerPixel, data.PhotometricInterpretation = 3, "RGB"
    data.PlanarConfiguration, data.PixelRepresentation = 0, 0
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit = 7
    for name, value in told.items():
        setattr(data, name, value)
    data.PixelData = pixels
    if UID(syntax).is_compressed:
        data["PixelData"].is_undefined_length = True
    return data


def dicom_jpegs(*seeds: int) -> Dataset:
    """Encapsulated baseline JPEG, one fragment a frame."""
    streams = [planted_jpeg(seed) for seed in seeds]
    streams = [s + b"\0" * (len(s) % 2) for s in streams]
    told = {"PhotometricInterpretation": "YBR_FULL_422"}
    return dicom(encapsulate(streams), JPEGBaseline8Bit, (len(seeds), 128, 160), **told)


def dicom_native(*seeds: int) -> Dataset:
    pixels = b"".join(np.asarray(picture(seed)).tobytes() for seed in seeds)
    return dicom(pixels, ExplicitVRLittleEndian, (len(seeds), 128, 160))


def video_bytes(seeds: Sequence[int], fps: int = 5, seconds_each: int = 1) -> bytes:
    """An MP4 that shows each picture for a while, with identities in its metadata."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        container.metadata["title"] = "Müller, Jörg 12.03.1950"
        container.metadata["artist"] = "Quarlinghaus"
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        stream.bit_rate = 4_000_000
        for seed in seeds:
            shown = np.asarray(picture(seed))
            for _ in range(fps * seconds_each):
                frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def save(data: Dataset, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data, enforce_file_format=True)


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(open_rgb(data))


def frames_of(path: Path, kind: str, fps: float = 1.0) -> list[RawFrame | Trouble]:
    """What ingestion finds in one file."""
    return list(raw_frames([path], path.parent, kind, fps))


def shown(item: RawFrame | Trouble) -> np.ndarray:
    """Pixels of a raw frame, which it must be."""
    assert isinstance(item, RawFrame), item
    is_file = isinstance(item.picture, bytes)
    return pixels(item.picture) if is_file else np.asarray(item.picture)  # type: ignore[arg-type]


def every_byte(folder: Path, visit: Callable[[str, bytes], None]) -> None:
    """Show the name and the content of each file below a folder."""
    for path in sorted(folder.rglob("*")):
        visit(path.relative_to(folder).as_posix(), path.read_bytes() if path.is_file() else b"")


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def reasons(archive: Path) -> dict[str, int]:
    return dict(Counter(str(row["reason"]) for row in lines(archive / "ledger.jsonl")))


def entry(archive: Path, reason: Reason) -> dict[str, object]:
    (found,) = [x for x in lines(archive / "ledger.jsonl") if x["reason"] == reason.value]
    return found


def digests(folder: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    every_byte(folder, lambda name, data: found.update({name: hashlib.sha256(data).hexdigest()}))
    return found


def small_exams(folder: Path, count: int, report: str = PLAIN) -> None:
    """Exams E0, E1, ... of patients P0, P1, ... with two frames each."""
    exams = [Exam(f"E{i}", f"P{i}", report, "") for i in range(count)]
    write_table(folder / "raw" / "reports.csv", exams)
    for i in range(count):
        place = folder / "raw" / f"E{i}"
        place.mkdir(parents=True)
        for j in range(2):
            (place / f"{j}.jpg").write_bytes(jpeg(picture(100 + 10 * i + j)))


def write_recipe(folder: Path, table: str = "") -> Path:
    """The default recipe with an ``[ingest]`` table, by default a small one."""
    small = """
[ingest]
data = "raw"
kind = "folders"
table = "reports.csv"
secret = "secret.key"
workers = 1
deny = ["Haus Lindenhof"]
[ingest.columns]
exam = "exam_no"
patient = "patient_no"
report = "report"
pathology = "histology"
names = ["patient_name", "endoscopist"]
numbers = ["hospital_no"]
birth_dates = ["born"]
"""
    default = (ROOT / "training" / "configs" / "default.toml").read_text("utf-8")
    (folder / "hospital.toml").write_text(default + (table or small), "utf-8")
    return folder / "hospital.toml"
