"""The commands ``python -m training evidence`` and ``card``: options, and what they write."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_commands", "evidence_figures"]


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of ``python -m training``."""
    _add_card(commands)
    evidence = commands.add_parser(
        "evidence",
        help="false alarms on normal frames, failure signatures, frame order, calibration",
        description="What AUROCs do not say of a bundle: specificity on honest negatives and on "
        "the sources kept for tests; glare, stool, bubbles, instruments, folds; rare lesions, "
        "mixed records, drift with the number of frames; smoothing over CVC sequences; calibration "
        "error beside its floors. Embeddings are kept, so a second run takes minutes less.",
    )
    evidence.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    evidence.add_argument("--archive", type=Path, required=True, help="gives split and views")
    evidence.add_argument(
        "--data",
        type=Path,
        help="folder with index.csv; without it neither real normal frames nor sequences",
    )
    evidence.add_argument(
        "--part",
        choices=("select", "report"),
        default="select",
        help="part of the split (default: select); report is for closing figures only",
    )
    evidence.add_argument(
        "--out",
        type=Path,
        help="JSON file (default: runs/evidence-<part>.json); as RUN/evidence-<part>.json it is "
        "shown by `training report RUN`",
    )
    evidence.add_argument("--page", type=Path, help="Markdown file (default: beside --out)")
    evidence.add_argument(
        "--work",
        type=Path,
        default=Path("runs/evidence"),
        help="folder for made frames and embeddings (runs/evidence)",
    )
    evidence.set_defaults(run=_evidence)


def _add_card(commands: Any) -> None:
    card = commands.add_parser(
        "card",
        help="measure a packed bundle's model card anew, and compare",
        description="Composes the archive again with the bundle's seed (or takes --archive), "
        "measures every figure of the card, writes the card and names the figures that differ from"
        " the bundle's by more than 0.001. Exit code 1 if any does.",
    )
    card.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    card.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    card.add_argument("--archive", type=Path, help="the bundle's archive, where it is there still")
    card.add_argument(
        "--part",
        choices=("select", "calibrate", "report"),
        help="(that of the bundle's card); of another part nothing is compared",
    )
    card.add_argument(
        "--out", type=Path, default=Path("runs/card"), help="folder for the card (runs/card)"
    )
    card.set_defaults(run=_card)


def evidence_figures(
    bundle: Path, archive: Path, data: Path | None, part: str, work: Path
) -> dict[str, Any]:
    """Measure all of it.

    Args:
        bundle: Bundle folder.
        archive: Archive folder.
        data: Folder of real frames with an index, or None.
        part: select or report.
        work: Folder for made frames and embeddings.

    Returns:
        ``signatures`` and ``reliability``; with ``data`` also ``normals`` and ``sequences``. JSON
        values; what could not be measured is None.
    """
    from rich.progress import Progress

    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.evidence.decided import Scorer
    from training.evidence.normals import normal_figures
    from training.evidence.reliability import reliability_figures
    from training.evidence.sequences import sequence_figures
    from training.evidence.signatures import signature_figures
    from training.figures import plain
    from training.report.cache import Cache
    from training.runs import archive_digest, commit

    archive, work = archive.resolve(), work.resolve()
    encoder = Encoder(Bundle.open(bundle))
    manifest = encoder.bundle.manifest
    figures: dict[str, Any] = {
        "bundle": f"{manifest.name} {manifest.version}",
        "digest": encoder.bundle.digest,
        "archive": archive_digest(archive),
        "part": part,
        "commit": commit(),
    }
    with Progress(transient=True) as progress:
        scorer = Scorer(encoder, Cache(work / "embeddings"), work / "frames", progress)
        if data is not None:
            figures["normals"] = normal_figures(scorer, archive, data, part)
        figures["signatures"] = signature_figures(scorer, archive, data, part)
        if data is not None:
            # Two sequences of `select` are too few; thresholds saw those of `calibrate`.
            figures["sequences"] = sequence_figures(scorer, archive, data, ("calibrate", part))
        figures["reliability"] = reliability_figures(scorer, archive, data, part)
    return dict(plain(figures))


def _evidence(args: argparse.Namespace) -> int:
    from training.evidence.page import write_page
    from training.runs import write_json

    found = evidence_figures(args.bundle, args.archive, args.data, args.part, args.work)
    out = args.out or Path("runs") / f"evidence-{args.part}.json"
    page = args.page or out.with_suffix(".md")
    for path in (out, page):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found)
    write_page(page, found)
    print(page.read_text("utf-8"))  # noqa: T201 - what a command prints
    print(f"figures: {out}\npage: {page}")  # noqa: T201
    return 0


def _card(args: argparse.Namespace) -> int:
    from training.evidence.card_again import card_again
    from training.runs import write_json

    found = card_again(args.bundle, args.data, args.archive, args.part, args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "MODEL_CARD.md"
    path.write_text(found.text, "utf-8")
    write_json(args.out / "metrics.json", found.figures)
    lines = [found.text, f"card: {path}"]
    if not found.same_archive:
        lines.append("the archive is not the bundle's own: its composer or the data have changed")
    for place, (was, now) in found.changed.items():
        lines.append(f"differs: {place}: {was} in the bundle, {now} now")
    print("\n".join(lines))  # noqa: T201 - what a command prints
    return 1 if found.changed else 0
