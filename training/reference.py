"""The reference of a bundle, sketched from the ``calibrate`` part, and the command that adds one.

    python -m training reference --bundle B --archive A --data D --out NEW

Whole frames as they were filmed: an ingested archive's exams, else the data folder's frames. The
made windows and covered frames of a composed archive show no endoscope's image; they stand in only
where there is nothing else. An exam is what belongs to one patient or source group.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.bundle import Bundle, pack
from model_store.encoder import Encoder
from model_store.errors import BundleError
from model_store.reference import REFERENCE, Exams, Reference, write_reference
from model_store.scoring import Calibration
from model_store.selftest import self_test
from training.evaluate import frame_margins
from training.fitting import part_items
from training.items import Embedded
from training.real_exams import is_ingested
from training.runs import archive_digest

__all__ = ["LABEL_SET", "add_command", "add_reference", "make_reference", "sketch"]

LABEL_SET = "polyp_detection"
AXES = 32
"""Of 256 dimensions, 32 hold 99.8 % of the variance of whole frames (bundle 0.2.0)."""
LEAST_EXAMS, MOST_EXAMS = 12, 256
FILMED = ("exam", "frame")
_LOG = logging.getLogger(__name__)


def make_reference(
    encoder: Encoder, archive: Path, found: Embedded, calibration: Calibration
) -> Reference | None:
    """Sketch the reference of a bundle that is being made.

    Args:
        encoder: Of a draft.
        archive: Names the origin, and says whether exams are a hospital's own.
        found: The ``calibrate`` part, as from ``part_items``.
        calibration: Of ``polyp_detection``.

    Returns:
        The reference, or None (and a warning) where there are too few exams to compare with.
    """
    filmed = found.where([item.kind in FILMED for item in found.items])
    used = filmed if len(filmed.items) else found
    used = used.where(used.scored)
    groups = [item.group for item in used.items]
    count = len(set(groups))
    if count < LEAST_EXAMS:
        _LOG.warning("no reference for drift: %d exams, expected %d", count, LEAST_EXAMS)
        return None
    point = calibration.operating_point("balanced").frame_threshold
    point = float(np.clip(point, 1e-6, 1 - 1e-6))
    logit = np.log(point / (1 - point))
    return sketch(
        used.embeddings,
        frame_margins(encoder, LABEL_SET, used),
        groups,
        threshold=float((logit - calibration.frame.intercept) / calibration.frame.slope),
        as_met=is_ingested(archive),
        origin=archive_digest(archive),
    )


def sketch(
    embeddings: npt.NDArray[np.floating],
    margins: npt.NDArray[np.float64],
    groups: list[str],
    *,
    threshold: float,
    as_met: bool = False,
    origin: str = "",
) -> Reference:
    """Sketch frames.

    Args:
        embeddings: (n, d) unit rows, n at least 3.
        margins: (n,) of ``LABEL_SET``.
        groups: n names of exams; beyond ``MOST_EXAMS``, that many are drawn.
        threshold: Least margin of a positive frame.
        as_met: As in ``Reference``.
        origin: As in ``Reference``.
    """
    rows = np.asarray(embeddings, np.float64)
    centred = rows - rows.mean(axis=0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    count = int(min(AXES, (sizes > sizes[0] * 1e-6).sum()))
    axes = directions[:count] * (np.sqrt(len(rows)) / sizes[:count, None])
    # Along each axis within a decision: what is left after this says nothing of the score.
    told = np.column_stack([margins, margins >= threshold, np.ones(len(rows))])
    slopes = np.linalg.lstsq(told, rows @ axes.T, rcond=None)[0][0]
    empty = Exams(
        np.zeros((0, 2, count), np.float32), np.zeros(0, np.float32), np.zeros((0, 2), np.int32)
    )
    reference = Reference(
        LABEL_SET,
        threshold,
        axes.astype(np.float32),
        slopes.astype(np.float32),
        empty,
        as_met,
        origin,
    )
    names = np.array(groups)
    chosen = np.unique(names)
    if len(chosen) > MOST_EXAMS:
        chosen = np.random.default_rng(0).choice(chosen, MOST_EXAMS, replace=False)
    exams = [reference.measure(rows[names == one], margins[names == one]) for one in chosen]
    return dataclasses.replace(reference, exams=Exams.of(exams))


def add_reference(bundle: Path, archive: Path, data: Path | None, out: Path) -> Bundle:
    """Pack a bundle anew with a reference from an archive, in the place of any it has.

    Its digest is another one afterwards, so a site profile must be made anew.

    Args:
        bundle: Bundle folder; left as it is.
        archive: Gives the ``calibrate`` part.
        data: Folder of index.csv, for a composed archive.
        out: New folder.

    Returns:
        The new bundle, which has passed its own self-test.

    Raises:
        BundleError: ``out`` exists, the bundle lacks the label set, or there are too few exams.
    """
    opened = Bundle.open(bundle)
    calibration = opened.calibrations.get(LABEL_SET)
    if calibration is None:
        raise BundleError(f"expected {LABEL_SET} with a calibration; found none")
    encoder = Encoder(opened)
    found = part_items(encoder, archive, data, "calibrate")
    reference = make_reference(encoder, archive, found, calibration)
    if reference is None:
        raise BundleError(
            f"expected at least {LEAST_EXAMS} exams in the part calibrate; found fewer"
        )
    files: dict[str, bytes | Path] = {name: opened.path / name for name in opened.manifest.files}
    packed = pack(out, opened.manifest, {**files, REFERENCE: write_reference(reference)})
    self_test(Encoder(packed))
    return packed


def add_command(commands: Any) -> None:
    """Add ``reference`` to the subparsers of ``python -m training``."""
    parser = commands.add_parser(
        "reference",
        help="give a packed bundle a reference of exams, for drift",
        description="Sketches the exams of the archive's calibrate part and packs the bundle anew "
        "with it. Of a hospital's own archive it says what is usual there; that of a composed one "
        "says what the figures of the card rest on. The new bundle has another digest.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="bundle folder; is not changed")
    parser.add_argument("--archive", type=Path, required=True, help="gives the exams")
    parser.add_argument("--data", type=Path, help="folder with index.csv, for a composed archive")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the bundle")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    bundle = add_reference(args.bundle, args.archive, args.data, args.out)
    if bundle.reference is not None:
        size = bundle.manifest.files[REFERENCE].bytes
        print(f"reference: {len(bundle.reference.exams)} exams, {size / 1000:.0f} kB")  # noqa: T201
    print(f"bundle: {args.out}  ({bundle.digest})")  # noqa: T201
    return 0
