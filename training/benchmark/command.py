"""The commands ``webdataset`` and ``clip-benchmark``: their options, and what they print."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

__all__ = ["add_commands"]


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of ``python -m training``."""
    write = commands.add_parser(
        "webdataset",
        help="frames of a part as a WebDataset for LAION's clip_benchmark",
        description="Writes one kind of frame of a part, with a task's truth and the bundle's "
        "prompts, in the layout that clip_benchmark reads. The folder holds frames: as sensitive "
        "as the archive.",
    )
    write.add_argument("--bundle", type=Path, required=True, help="gives labels and prompts")
    write.add_argument("--archive", type=Path, required=True, help="gives split and views")
    write.add_argument("--data", type=Path, help="folder with index.csv: crops and whole frames")
    write.add_argument("--out", type=Path, required=True, help="new folder")
    write.add_argument(
        "--task", choices=("polyp_detection", "malignancy"), default="polyp_detection"
    )
    write.add_argument(
        "--kind",
        default="crop",
        help="crop, frame (both need --data), view, scope, or exam (default: crop)",
    )
    write.add_argument(
        "--part",
        choices=("select", "calibrate", "report"),
        default="select",
        help="part of the split (default: select); report is for closing figures only",
    )
    write.set_defaults(run=_write)
    compare = commands.add_parser(
        "clip-benchmark",
        help="a bundle inside LAION's clip_benchmark, beside the figures of `evaluate`",
        description="Runs the bundle through clip_benchmark's own loader, dataset and zero-shot "
        "evaluation, and through model_store, on the same WebDataset. Its own command line, with "
        "other models on the same folder, is `python -m training.benchmark.clip_benchmark`.",
    )
    compare.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    compare.add_argument("--dataset", type=Path, required=True, help="made by `webdataset`")
    compare.add_argument("--out", type=Path, help="also write the figures there, as JSON")
    compare.set_defaults(run=_compare)


def _write(args: argparse.Namespace) -> int:
    """Write; the heavy imports wait until then."""
    from model_store.bundle import Bundle
    from training.benchmark.webdataset import write_webdataset
    from training.errors import ArchiveRefused
    from training.protocol import archive_items, data_items

    bundle = Bundle.open(args.bundle)
    items = archive_items(args.archive, args.part)
    items += data_items(args.data, args.archive, args.part) if args.data else []
    kinds = sorted({item.kind for item in items})
    if args.kind not in kinds:
        raise ArchiveRefused(
            f"expected a kind of frame out of {', '.join(kinds)}; found {args.kind}"
            + ("" if args.data else " (crop and frame need --data)")
        )
    chosen = [item for item in items if item.kind == args.kind]
    written = write_webdataset(args.out, bundle.label_set(args.task), chosen)
    print(  # noqa: T201 - what a command prints
        f"{written.positives} positive and {written.negatives} negative frames, "
        f"{written.unreadable} unreadable left out: {args.out}\n"
        f"  python -m training clip-benchmark --bundle {args.bundle} --dataset {args.out}"
    )
    return 0


def _compare(args: argparse.Namespace) -> int:
    from training.benchmark.clip_benchmark import compare
    from training.runs import write_json

    found = compare(args.bundle, args.dataset)
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(args.out, found)
    print(json.dumps(found, indent=1))  # noqa: T201
    return 0
