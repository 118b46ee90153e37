"""Ask a person about a few hundred frames: a page to label them on, and its file read back.

    python -m training sample --archive A --out labels.html     draw frames, write the page
    python -m training sample --archive A --read labels.csv     put the labels into the archive

Frames are drawn from exams whose report tells of a lesion, from the train part for the prevalence
that cleansing keeps by, from calibrate for probabilities and thresholds, from report for the
closing figures.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jinja2 import Environment, PackageLoader
from PIL import Image

from model_store.errors import ImageRejected
from model_store.images import InputContract, decode
from training.attributes import polyp_mentioned, strip_pathology
from training.errors import ArchiveRefused, RecordError
from training.frame_files import read_frame
from training.records import Record, read, write_jsonl
from training.sample import SAMPLE

__all__ = ["PARTS", "draw_frames", "read_sheet", "write_sheet"]

PARTS = ("train", "calibrate", "report")
THUMBNAIL = InputContract(
    size=256,
    resize="squash",
    interpolation="bicubic",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    jpeg="dct_scaled",
)
FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def draw_frames(records: Sequence[Record], count: int, seed: int) -> list[Path]:
    """Draw frames of positive exams, ``count`` of each part in ``PARTS`` where there are as many.

    Drawn over frames, not over exams: the share of lesions among *frames* is what is asked.

    Raises:
        ArchiveRefused: No report tells of a lesion.
    """
    chosen: list[Path] = []
    for i, part in enumerate(PARTS):
        frames = [
            frame
            for record in records
            if record.part == part and polyp_mentioned(strip_pathology(record.report))
            for frame in record.frames
        ]
        order = np.random.default_rng([seed, i]).permutation(len(frames))[:count]
        chosen += [frames[j] for j in sorted(order)]
    if not chosen:
        raise ArchiveRefused("expected reports that tell of a lesion, found none")
    return chosen


def write_sheet(archive: Path, out: Path, count: int, seed: int) -> int:
    """Draw frames and write the page; it holds the frames and needs no network.

    Args:
        archive: The archive's folder.
        out: The page; as sensitive as the archive.
        count: Frames of each part.
        seed: Of the draw.

    Returns:
        Frames on the page.

    Raises:
        ArchiveRefused: The archive cannot be used, or no report tells of a lesion.
    """
    root = archive.resolve()
    shown = []
    for path in draw_frames(read(root).records, count, seed):
        try:
            jpeg = _thumbnail(path)
        except ImageRejected:
            continue  # nobody can say what it shows
        shown.append({"name": path.relative_to(root).as_posix(), "jpeg": jpeg})
    names = "\n".join(frame["name"] for frame in shown)
    environment = Environment(loader=PackageLoader("training", ""), autoescape=True)
    page = environment.get_template("labelling.html").render(
        frames=shown, digest=hashlib.sha256(names.encode()).hexdigest()[:12]
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, "utf-8")
    return len(shown)


def read_sheet(archive: Path, path: Path) -> int:
    """Put labels of a CSV file (frame, lesion, neoplastic) into the archive, in place of its own.

    Args:
        archive: The archive's folder.
        path: The file; lesion is true or false, neoplastic true, false or empty.

    Returns:
        Labels written.

    Raises:
        RecordError: The file cannot be read, a line is not as expected, or names a frame that the
            archive does not have, or one twice; nothing is written then.
    """
    root = archive.resolve()
    known = {f.relative_to(root).as_posix() for record in read(root).records for f in record.frames}
    labels: dict[str, dict[str, object]] = {}
    for number, row in enumerate(_rows(path), start=2):
        frame = (row.get("frame") or "").strip()
        if frame not in known:
            raise RecordError(path, number, f"expected a frame of the archive, found {frame!r}")
        if frame in labels:
            raise RecordError(path, number, f"frame {frame!r} was already labelled above")
        lesion = FLAGS.get((row.get("lesion") or "").strip().lower())
        judged = (row.get("neoplastic") or "").strip().lower()
        if lesion is None or (judged and judged not in FLAGS) or (judged and not lesion):
            raise RecordError(
                path,
                number,
                "expected lesion true or false and, of a lesion, neoplastic true, false or empty; "
                f"found {row.get('lesion')!r}, {row.get('neoplastic')!r}",
            )
        labels[frame] = {"frame": frame, "lesion": lesion, "neoplastic": FLAGS.get(judged)}
    if not labels:
        raise RecordError(path, 0, "expected labels, found none")
    write_jsonl(root / SAMPLE, labels.values())
    return len(labels)


def _rows(path: Path) -> list[dict[str, str | None]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if not {"frame", "lesion"} <= set(reader.fieldnames or ()):
                raise RecordError(path, 1, "expected the columns frame, lesion, neoplastic")
            return list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise RecordError(path, 0, f"cannot be read as CSV in UTF-8: {error}") from error


def _thumbnail(path: Path) -> str:
    """A frame as base64 of a small JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(decode(read_frame(path), THUMBNAIL)).save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
