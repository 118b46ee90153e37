"""A whole archive in one call: exams, the labelled sample, and the probes for shortcuts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from training.compose import compose
from training.errors import ArchiveRefused
from training.phantom import compose_phantom
from training.probes import report_probes
from training.runs import file_digest, run_stage
from training.sample import write_labelled_sample

__all__ = ["archive_of_run", "make_archive"]

PHANTOM_EXAMS = 40


def make_archive(
    data: Path | None, out: Path, seed: int, *, exams: int = PHANTOM_EXAMS
) -> dict[str, Any]:
    """Compose an archive from real frames, or draw one.

    Args:
        data: Folder of index.csv; None draws phantom exams.
        out: New folder.
        seed: Of the exams and the sample.
        exams: Phantom exams where ``data`` is None.

    Returns:
        What it is, for a stamp. The probes are printed and stand in ``probes.json``.
    """
    if data is None:
        compose_phantom(out, exams, seed)
    else:
        compose(data, out, seed)
    write_labelled_sample(out, seed=seed)
    print(report_probes(out, data))  # noqa: T201 - whoever composes must see these
    return {"kind": "phantom" if data is None else "composed"}


def archive_of_run(data: Path | None, out: Path, seed: int) -> Path:
    """The archive of a run, ``<out>/0-archive``: made once, begun anew if it was cut off.

    Raises:
        ArchiveRefused: ``data`` holds no index.csv.
        StaleInput: It was made from other data or another seed.
    """
    if data is not None and not (data / "index.csv").is_file():
        raise ArchiveRefused(f"expected index.csv in {data}, found no such file")
    key = {"seed": seed, "index": file_digest(data / "index.csv") if data else "drawn"}

    def body(folder: Path) -> dict[str, Any]:
        shutil.rmtree(folder)  # what a killed composition left
        return make_archive(data, folder, seed)

    return run_stage(out / "0-archive", key, body)
