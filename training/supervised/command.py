"""The command ``python -m training supervised``: its options, and what it writes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_command"]

DEFAULT = Path(__file__).parents[1] / "configs" / "default.toml"


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m training``."""
    supervised = commands.add_parser(
        "supervised",
        help="fine-tune the same tower on the data's labels: the ceiling beside zero-shot",
        description="Fine-tunes a recipe's image tower on the labels of the train part (no "
        "reports) and measures it on another part, beside a bundle's zero-shot answers on the "
        "same items. Writes JSON and prints the table.",
    )
    supervised.add_argument("--archive", type=Path, required=True, help="gives split and views")
    supervised.add_argument("--data", type=Path, help="folder with index.csv; else views only")
    supervised.add_argument("--bundle", type=Path, help="measured beside it on the same items")
    supervised.add_argument(
        "--recipe", type=Path, default=DEFAULT, help="TOML file that gives the towers (default)"
    )
    supervised.add_argument(
        "--part", choices=("select", "calibrate", "report"), default="select", help="(select)"
    )
    supervised.add_argument("--epochs", type=float, default=7.0, help="(7)")
    supervised.add_argument("--seed", type=int, default=1, help="(1)")
    supervised.add_argument(
        "--out", type=Path, help="JSON file (default: runs/supervised-<part>.json)"
    )
    supervised.set_defaults(run=_supervised)


def _supervised(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.config import load
    from training.items import embed
    from training.protocol import archive_items, data_items
    from training.runs import archive_digest, commit, write_json
    from training.supervised.ceiling import (
        Settings,
        ceiling_figures,
        ceiling_table,
        score_items,
        train_ceiling,
    )

    archive, towers = args.archive.resolve(), load(args.recipe).model
    items = {
        part: archive_items(archive, part)
        + (data_items(args.data, archive, part) if args.data else [])
        for part in ("train", args.part)
    }
    settings = Settings(epochs=args.epochs, seed=args.seed)
    ceiling, store = train_ceiling(items["train"], towers, settings)
    beside, digest = None, None
    if args.bundle is not None:
        encoder = Encoder(Bundle.open(args.bundle))
        beside, digest = (encoder, embed(encoder, items[args.part])), encoder.bundle.digest
    logits = score_items(ceiling, store, items[args.part])
    figures = ceiling_figures(items[args.part], logits, beside)
    told = {
        "part": args.part,
        "settings": asdict(settings),
        "train_items": len(items["train"]),
        "archive": archive_digest(archive),
        "bundle": digest,
        "commit": commit(),
        "figures": figures,
    }
    out = args.out or Path(f"runs/supervised-{args.part}.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, told)
    print(f"{ceiling_table(figures)}\nfigures: {out}")  # noqa: T201 - what a command prints
    return 0
