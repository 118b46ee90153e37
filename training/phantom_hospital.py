"""Draw a hospital's raw data: exam folders, a report table with identities, labels, a recipe.

    python -m training phantom --raw --out runs/hospital
    python -m training run --config runs/hospital/hospital.toml

For whoever wants to see the way from raw records to a bundle before showing it real ones. Names
are made up.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from training.attributes import strip_pathology
from training.phantom import compose_phantom
from training.records import Record, read, read_truth

__all__ = ["write_hospital"]

RECIPE = Path(__file__).parent / "configs" / "smoke.toml"
FIRST = ("Anna", "Jörg", "Maria", "Piotr", "Siobhán", "Thomas", "Yasmin", "Zoë")
LAST = ("Abelson", "Brzęczyk", "Castellane", "Dünnwald", "Eversfield", "Ó Faoláin", "Grünewald")
DOCTORS = ("Hollingsworth", "Ibáñez", "Jankowiak")
DEVICES = ("PHANTOM CF-100", "PHANTOM CF-200")
FOUND = {
    "neoplastic": "tubular adenoma with low grade dysplasia",
    "non-neoplastic": "hyperplastic polyp, no dysplasia",
}
COLUMNS = (
    "accession",
    "mrn",
    "patient",
    "endoscopist",
    "exam_date",
    "device",
    "report",
    "pathology",
)
LABELLED = 12
"""Labelled frames of each exam that holds a lesion."""

INGEST = """
[ingest]
data = "."
kind = "folders"
table = "reports.csv"
secret = "pseudonyms.key"
# A hospital's thousands of exams need less than a third for calibration and report.
split = { train = 0.4, select = 0.1, calibrate = 0.25, report = 0.25 }

[ingest.columns]
exam = "accession"
patient = "mrn"
report = "report"
pathology = "pathology"
date = "exam_date"
frames = "folder"
device = "device"
names = ["patient", "endoscopist"]
numbers = ["mrn", "accession"]

[ingest.labels]
table = "labels.csv"
exam = "accession"
frame = "file"
lesion = "lesion"
"""


def write_hospital(out: Path, exams: int, seed: int) -> Path:
    """Draw the raw data.

    Args:
        out: New folder.
        exams: Number of exams, at least 16.
        seed: Of pixels, words and names.

    Returns:
        The recipe, ``hospital.toml``.

    Raises:
        ArchiveRefused: The folder is not empty.
    """
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "archive"
        compose_phantom(archive, exams, seed)
        truth = read_truth(archive)
        records = read(archive).records
        out.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng([seed, 31])
        rows, labels = [], []
        for number, record in enumerate(records):
            row = _row(record, truth[record.record_id], number, rng)
            labels += _stored(out / row["folder"], row["accession"], record, truth)
            rows.append(row)
    _write(out / "reports.csv", (*COLUMNS, "folder"), rows)
    _write(out / "labels.csv", ("accession", "file", "lesion"), labels)
    text = RECIPE.read_text("utf-8")
    body = text[text.index("name =") :].replace('name = "smoke"', 'name = "hospital"', 1)
    # Drawn like the rest, so that the same seed gives the same split; a hospital's is its own.
    (out / "pseudonyms.key").write_text(rng.bytes(32).hex() + "\n", "ascii")
    (out / "pseudonyms.key").chmod(0o600)
    head = "# Drawn raw data:  python -m training run --config hospital.toml\n"
    (out / "hospital.toml").write_text(head + body.rstrip() + "\n" + INGEST, "utf-8")
    return out / "hospital.toml"


def _row(
    record: Record, told: Mapping[str, Any], number: int, rng: np.random.Generator
) -> dict[str, str]:
    patient = f"{rng.choice(FIRST)} {rng.choice(LAST)}"
    doctor = f"Dr {rng.choice(DOCTORS)}"
    day = date(2021, 3, 1) + timedelta(days=int(rng.integers(900)))
    accession = f"ACC{7000 + number}"
    report = strip_pathology(record.report)  # what it says of histology is drawn at random
    found = [FOUND[lesion["histology"]] for lesion in told["lesions"] if lesion["histology"]]
    return {
        "accession": accession,
        "mrn": f"H{int(rng.integers(10**6, 10**7))}",
        "patient": patient,
        "endoscopist": doctor,
        "exam_date": day.isoformat(),
        "device": str(rng.choice(DEVICES)),
        "report": f"Patient: {patient}. Seen on {day:%d/%m/%Y} by {doctor}.\n{report}",
        "pathology": "; ".join(f"{i}. {text}" for i, text in enumerate(found, 1)),
        "folder": f"exams/{accession}",
    }


def _stored(
    folder: Path, accession: str, record: Record, truth: Mapping[str, Any]
) -> list[dict[str, str]]:
    """Copy an exam's frames under camera-like names; labels of some where it holds a lesion."""
    folder.mkdir(parents=True)
    told = truth[record.record_id]
    labels = []
    for i, (frame, known) in enumerate(zip(record.frames, told["frames"], strict=True)):
        name = f"IMG_{i:04}{frame.suffix}"
        shutil.copy(frame, folder / name)
        if told["lesions"] and i < LABELLED:
            lesion = "yes" if known["kind"] == "lesion" else "no"
            labels.append({"accession": accession, "file": name, "lesion": lesion})
    return labels


def _write(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
