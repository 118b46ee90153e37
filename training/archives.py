"""A whole archive in one call: composed, drawn or ingested."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from training.compose import compose
from training.errors import ArchiveRefused
from training.ingest.config import IngestConfig
from training.ingest.pipeline import ingest, ingest_key
from training.ingest.summary import summary_text
from training.phantom import compose_phantom
from training.probes import report_probes
from training.runs import file_digest, run_stage, stamp_of
from training.sample import write_labelled_sample

__all__ = ["archive_of_run", "ingested_archive", "make_archive"]

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


def ingested_archive(config: IngestConfig, data: Path | None, folder: Path) -> Path:
    """An archive of a hospital's raw data: ingested once, resumed; prints what was left out.

    Args:
        config: With absolute paths (``training.ingest.config.located``).
        data: Raw data; None is the recipe's.
        folder: The archive's.

    Returns:
        ``folder``.

    Raises:
        ConfigError: Settings or tables cannot be used.
        ArchiveRefused: No exam is left to make an archive of.
        StaleInput: It was made from other tables or settings.
    """
    raw = (data or Path(config.data)).resolve()
    run_stage(folder, ingest_key(config, raw), lambda partial: ingest(config, raw, partial))
    print(summary_text(stamp_of(folder)["figures"]))  # noqa: T201 - whoever ingests must see it
    return folder
