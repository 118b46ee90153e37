"""The ``[ingest]`` table of a recipe: where a hospital's raw data is and what its columns mean."""

from __future__ import annotations

import codecs
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from training.errors import ConfigError

__all__ = ["ColumnsConfig", "IngestConfig", "LabelsConfig", "ProfileConfig", "located"]

# As training.records.PARTS; records.py is not imported here, because config.py imports this module.
_PARTS = ("train", "select", "calibrate", "report")


@dataclass(frozen=True)
class ColumnsConfig:
    """Which column of the report table holds what; "" or an empty array = there is none.

    Attributes:
        exam: Number of the examination; also the name of its folder or file below the data folder,
            unless ``frames`` says otherwise.
        patient: Number of the patient.
        report: The report's text.
        pathology: The pathology report's text.
        date: Date of the examination; completes dates in the text that lack a year.
        frames: Folder or file of the exam's frames, relative to the data folder.
        device: Endoscope or processor, held against ``ProfileConfig.match``.
        names: Names of people (patient, physicians, nurses) to remove from that row's texts.
        numbers: Numbers of people (hospital number, insurance number), likewise.
        birth_dates: Birth dates, likewise.
    """

    exam: str
    patient: str
    report: str
    pathology: str = ""
    date: str = ""
    frames: str = ""
    device: str = ""
    names: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    birth_dates: tuple[str, ...] = ()

    def named(self) -> tuple[str, ...]:
        """Every column that the table must have."""
        single = (self.exam, self.patient, self.report, self.pathology, self.date, self.frames)
        several = (*self.names, *self.numbers, *self.birth_dates)
        return tuple(column for column in (*single, self.device, *several) if column)

    def place(self, cells: Mapping[str, str]) -> str:
        """Folder or file of a row's frames, relative to the data folder."""
        return cells[self.frames or self.exam]


@dataclass(frozen=True)
class ProfileConfig:
    """One kind of device: how to know it and where its picture is free of burned-in text.

    Attributes:
        match: Texts to look for, whatever their case, in the device column and, for DICOM, in
            Manufacturer and ManufacturerModelName.
        crop: Box (x0, y0, x1, y1) that is kept: fractions 0-1, or pixels when any is above 1.
    """

    match: tuple[str, ...]
    crop: tuple[float, ...]


@dataclass(frozen=True)
class LabelsConfig:
    """Table of frames that somebody labelled; becomes ``labelled_sample.jsonl``.

    Attributes:
        table: File, relative to the data folder.
        exam: Column of the exam number.
        frame: Column of the frame: its path below the exam's folder, with ``#n`` (from 0) for the
            n-th picture of a multi-frame DICOM file or the n-th sampled one of a video.
        lesion: Column that says whether a lesion is visible: 1/0, true/false, yes/no.
        neoplastic: Column of the judgement of that lesion, likewise; empty cell = not judged.
    """

    table: str
    exam: str
    frame: str
    lesion: str
    neoplastic: str = ""


def _default_split() -> dict[str, float]:
    return {"train": 0.7, "select": 0.1, "calibrate": 0.1, "report": 0.1}


@dataclass(frozen=True)
class IngestConfig:
    """A hospital's raw data.

    Attributes:
        data: Folder of the raw data, relative to the recipe's folder; ``--data`` overrides it.
        kind: What frames are: ``folders`` of image files, ``dicom`` files, or ``video`` files.
        table: Report table (.csv, .jsonl or .parquet), relative to the data folder.
        secret: Key file of the pseudonyms, relative to the recipe's folder; made (mode 0600) where
            it is missing. The same key gives the same ids again; never inside the archive.
        columns: Columns of the table.
        delimiter: Of a CSV table.
        encoding: Of a CSV table: ``utf-8``, ``cp1252``, ...
        day_first: 3/4/2021 is the 3rd of April.
        profiles: Devices by name; the name becomes the records' source.
        require_profile: Leave frames out that no profile crops, instead of marking them.
        video_fps: Frames a second taken from a video.
        deny: Words always removed from texts (staff, wards), besides the table's identities.
        languages: Languages of reports that are taken in, as ISO 639-1 codes.
        other_language: ``leave_out`` a report in another language, or only ``mark`` it.
        output: Frames as ``files``, or in WebDataset ``shards``.
        encode: ``jpeg`` (quality 95, 4:4:4) or ``png``, for pictures that cannot keep their bytes.
        split: Share of each part.
        split_seed: Seed of the split.
        linkage: File that ties original ids to pseudonyms, relative to the recipe's folder, mode
            0600, never inside the archive; "" = none is written.
        labels: Frames that somebody labelled.
        workers: Processes; 0 = one a core. With 1 all work is done in this process, where a decoder
            that crashes takes the run with it.
    """

    data: str
    kind: str
    table: str
    secret: str
    columns: ColumnsConfig
    delimiter: str = ","
    encoding: str = "utf-8"
    day_first: bool = True
    profiles: dict[str, ProfileConfig] = field(default_factory=dict)
    require_profile: bool = False
    video_fps: float = 1.0
    deny: tuple[str, ...] = ()
    languages: tuple[str, ...] = ("en",)
    other_language: str = "leave_out"
    output: str = "files"
    encode: str = "jpeg"
    split: dict[str, float] = field(default_factory=_default_split)
    split_seed: int = 1
    linkage: str = ""
    labels: LabelsConfig | None = None
    workers: int = 0

    def __post_init__(self) -> None:
        """Refuse values that the types allow and ingestion does not.

        Raises:
            ConfigError: With every problem found, one a line.
        """
        if problems := list(_problems(self)):
            raise ConfigError("\n".join(["[ingest]:", *(f"  {problem}" for problem in problems)]))


_CHOICES = {
    "kind": ("folders", "dicom", "video"),
    "output": ("files", "shards"),
    "encode": ("jpeg", "png"),
    "other_language": ("leave_out", "mark"),
}


def _problems(config: IngestConfig) -> list[str]:
    found = [
        f"{key}: expected one of {', '.join(known)}, found {getattr(config, key)!r}"
        for key, known in _CHOICES.items()
        if getattr(config, key) not in known
    ]
    for key in ("exam", "patient", "report"):
        if not getattr(config.columns, key):
            found.append(f"columns.{key}: expected a column's name, found ''")
    if Path(config.table).suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        found.append(f"table: expected a .csv, .jsonl or .parquet file, found {config.table!r}")
    if not config.secret:
        found.append("secret: expected the path of a key file, found ''")
    if len(config.delimiter) != 1:
        found.append(f"delimiter: expected one character, found {config.delimiter!r}")
    try:
        codecs.lookup(config.encoding)
    except LookupError:
        found.append(f"encoding: expected a known one, found {config.encoding!r}")
    if config.video_fps <= 0:
        found.append(f"video_fps: expected a number above 0, found {config.video_fps}")
    if set(config.split) - set(_PARTS) or abs(sum(config.split.values()) - 1) > 1e-6:
        found.append(f"split: expected shares of {', '.join(_PARTS)} that add up to 1")
    for name, profile in config.profiles.items():
        x0, y0, x1, y1 = profile.crop if len(profile.crop) == 4 else (0, 0, 0, 0)
        if not (x0 < x1 and y0 < y1):
            found.append(f"profiles.{name}.crop: expected [x0, y0, x1, y1], x0 < x1 and y0 < y1")
        if not profile.match or not all(profile.match):
            found.append(f"profiles.{name}.match: expected texts to look for, found none")
    return found


def located(config: IngestConfig, folder: Path) -> IngestConfig:
    """Make a recipe's paths absolute.

    Args:
        config: As read.
        folder: The recipe's folder, which relative paths start from.
    """
    return dataclasses.replace(
        config,
        data=str((folder / config.data).resolve()),
        secret=str((folder / config.secret).resolve()),
        linkage=str((folder / config.linkage).resolve()) if config.linkage else "",
    )
