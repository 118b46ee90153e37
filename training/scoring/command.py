"""The command ``python -m training score``: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_command"]

CONFIGS = Path(__file__).parents[1] / "configs"


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m training``."""
    score = commands.add_parser(
        "score",
        help="score every frame of an archive into Parquet; local processes or Ray; resumes",
        description="Scores every frame of an archive into Parquet: with a packed bundle, what the "
        "service would answer per frame and per record at the balanced point; with a stage's "
        "weights, what cleansing ranks by; with neither, which frames the quality gate sets aside. "
        "A frame that cannot be read gets a row that says so. A run that was stopped, however it "
        "was, goes on where it was. Columns, clusters, measurements: docs/scoring.md.",
    )
    score.add_argument("--archive", type=Path, required=True, help="archive folder")
    score.add_argument("--out", type=Path, required=True, help="new folder for the scores")
    model = score.add_mutually_exclusive_group(required=True)
    model.add_argument("--bundle", type=Path, help="packed bundle")
    model.add_argument("--weights", type=Path, help="weights.pt of a stage; needs --recipe")
    model.add_argument("--gate-only", action="store_true", help="no model, only the quality gate")
    score.add_argument(
        "--config",
        "--recipe",
        dest="recipe",
        help="recipe of the weights, or whose pixels the gate judges",
    )
    score.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override")
    score.add_argument(
        "--part",
        action="append",
        choices=("train", "select", "calibrate", "report"),
        help="this part of the split only; repeat it (default: all)",
    )
    score.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="processes here (default), or Ray: joins RAY_ADDRESS, else starts on this machine",
    )
    score.add_argument(
        "--workers", type=int, default=0, help="processes or actors at most (0 = one per core)"
    )
    score.add_argument(
        "--embeddings", choices=("float16", "float32"), default="", help="add their column"
    )
    score.set_defaults(run=_score)


def _score(args: argparse.Namespace) -> int:
    """Score; the heavy imports wait until then."""
    from training.errors import ArchiveRefused
    from training.records import PARTS, read, write_jsonl
    from training.runs import archive_digest
    from training.scoring.scores import score_archive

    model = _model(args)
    # Before the records are read: the list of files it makes is gone by then.
    key = {"archive": archive_digest(args.archive)}
    # A frame that is missing costs its own row, not its record's.
    archive = read(args.archive, check_frames=False)
    parts = args.part or PARTS
    records = [record for record in archive.records if record.part in parts]
    left_out = [{"line": error.line, "reason": error.reason} for error in archive.errors]
    if not records:
        raise ArchiveRefused(
            f"{args.archive}: expected records in {', '.join(parts)}, found none "
            f"({len(archive.records)} in other parts, {len(left_out)} bad lines)"
        )
    out = score_archive(
        args.out,
        archive.path,
        records,
        model,
        engine=args.engine,
        workers=args.workers,
        embeddings=args.embeddings,
        key=key,
    )
    if left_out:
        write_jsonl(out / "left_out.jsonl", left_out)
    print(_summary(out, len(records), len(left_out)))  # noqa: T201 - the command's answer
    return 0


def _model(args: argparse.Namespace) -> Any:
    from training.config import load
    from training.errors import ConfigError
    from training.scoring.models import GateOnly, PackedBundle, StageWeights

    if args.bundle is not None:
        return PackedBundle.open(args.bundle)
    if args.recipe is None:
        raise ConfigError("expected --config: it says which towers and pixels are meant")
    named = args.recipe.endswith(".toml")
    config = load(Path(args.recipe) if named else CONFIGS / f"{args.recipe}.toml", args.set)
    if args.weights is not None:
        from training.cleansing import SENTENCES

        return StageWeights.of(args.weights, config.model, config.cleansing.px, SENTENCES)
    from training.batches import FrameStore
    from training.model import load_spec

    return GateOnly(FrameStore(load_spec(config.model.config).contract).contract)


def _summary(out: Path, records: int, left_out: int) -> str:
    from training.runs import stamp_of

    figures = stamp_of(out)["figures"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in figures["reasons"].items())
    lines = [f"{figures['model']}: {figures['frames']} frames of {records} records: {reasons}"]
    if left_out:
        lines.append(f"{left_out} records left out; lines and reasons: {out / 'left_out.jsonl'}")
    return "\n".join([*lines, f"scores: {out}"])
