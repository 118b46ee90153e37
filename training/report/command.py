"""The command ``python -m training report``: its options, and what it prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m training``."""
    report = commands.add_parser(
        "report",
        help="one page (HTML, nothing loaded) that shows how a run went and what it is worth",
        description="Writes one self-contained HTML page: training curves, what cleansing kept "
        "and dropped, attributes, t-SNE of attunement, cross-attention maps, ROC and calibration "
        "of the packed bundle, its most confident errors, and how to make it all again. What is "
        "missing is named with the command that makes it. The page shows frames and sentences of "
        "the archive and is as sensitive as that. Choose between recipes on `select`. `report` is "
        "for closing figures only: once anything was chosen by it, a published figure of it is "
        "too good, and no other part is left to tell.",
    )
    report.add_argument("folder", type=Path, metavar="RUN", help="folder of the run")
    report.add_argument(
        "--config", metavar="RECIPE", help="the run's recipe (default: found by its digests)"
    )
    report.add_argument("--archive", type=Path, help="the archive (default: RUN/0-archive)")
    report.add_argument(
        "--data", type=Path, help="folder with index.csv: its frames and crops are measured too"
    )
    report.add_argument(
        "--experiments",
        type=Path,
        metavar="FOLDER",
        help="what `arms` wrote (default: RUN/experiments)",
    )
    report.add_argument(
        "--part",
        choices=("select", "calibrate", "report"),
        default="select",
        help="part of the split (default: select); report is for closing figures only",
    )
    report.add_argument("--out", type=Path, help="the page (default: RUN/report.html)")
    report.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> int:
    """Write the page; the heavy imports wait until a page is asked for."""
    from training.report.inputs import CONFIGS, Inputs
    from training.report.page import write_report

    experiments = args.experiments or args.folder / "experiments"
    config = None
    if args.config:
        named = args.config.endswith(".toml")
        config = Path(args.config) if named else CONFIGS / f"{args.config}.toml"
    inputs = Inputs(args.folder, args.archive, args.data, args.part, experiments, config)
    out = write_report(inputs, args.out or args.folder / "report.html")
    told = f"report: {out}  ({out.stat().st_size / 1e6:.1f} MB)"
    print(told)  # noqa: T201 - what a command prints
    return 0
