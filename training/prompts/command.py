"""The command ``python -m training prompts``: its options, and what it writes."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

__all__ = ["add_command", "prompt_figures"]


def add_command(commands: Any) -> None:
    """Add the command to the subparsers of ``python -m training``."""
    prompts = commands.add_parser(
        "prompts",
        help="does zero-shot survive another wording? paraphrases and free questions, measured",
        description="AUROC of a bundle under paraphrases of its labels (English in two "
        "spellings, German, Chinese), of ensembles of them, and of free questions about size, "
        "place, number and looks where the data knows the answer. The ensemble of the best "
        "paraphrases is chosen on `select`, whatever part is measured.",
    )
    prompts.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    prompts.add_argument("--archive", type=Path, required=True, help="gives split and views")
    prompts.add_argument("--data", type=Path, help="folder with index.csv; without it views only")
    prompts.add_argument(
        "--part",
        choices=("select", "calibrate", "report"),
        default="select",
        help="part of the split (default: select); report is for closing figures only",
    )
    prompts.add_argument("--out", type=Path, help="JSON file (default: runs/prompts-<part>.json)")
    prompts.add_argument(
        "--page", type=Path, help="Markdown file, a plot (SVG) beside it (default: beside --out)"
    )
    prompts.add_argument(
        "--cache", type=Path, default=Path("runs/embeddings"), help="(runs/embeddings)"
    )
    prompts.set_defaults(run=_prompts)


def prompt_figures(
    bundle: Path, archive: Path, data: Path | None, part: str, cache: Path
) -> dict[str, Any]:
    """Measure paraphrases and free questions on a part.

    Args:
        bundle: Bundle folder.
        archive: Archive folder.
        data: Folder of real frames with an index, or None.
        part: select, calibrate or report.
        cache: Folder in which embeddings of frames are kept.
    """
    from rich.progress import Progress

    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.prompts.questions import QUESTIONS, question_figures, read_facts
    from training.prompts.spread import best_pairs, spread_figures
    from training.prompts.wordings import PARAPHRASES
    from training.protocol import archive_items, data_items
    from training.report.cache import Cache
    from training.runs import archive_digest, commit, file_digest

    archive = archive.resolve()
    encoder = Encoder(Bundle.open(bundle))
    items = {
        name: archive_items(archive, name) + (data_items(data, archive, name) if data else [])
        for name in {part, "select"}
    }
    digests = [archive_digest(archive), *([file_digest(data / "index.csv")] if data else [])]
    with Progress(transient=True) as progress:
        frames = {
            name: Cache(cache).frames(encoder, told, digests, progress)
            for name, told in items.items()
        }
    found, select = frames[part], frames["select"]
    chosen = {
        task: best_pairs(encoder, task, select, told["en"]) for task, told in PARAPHRASES.items()
    }
    facts = read_facts(archive, data, part)
    manifest = encoder.bundle.manifest
    return {
        "bundle": f"{manifest.name} {manifest.version}",
        "digest": encoder.bundle.digest,
        "part": part,
        "commit": commit(),
        "set_aside": int((~found.scored).sum()),
        "items": len(found.items),
        "chosen": chosen,
        "tasks": {
            task: spread_figures(encoder, task, found, told, chosen[task])
            for task, told in PARAPHRASES.items()
        },
        "questions": {
            question.name: question_figures(encoder, question, found, facts)
            for question in QUESTIONS
        },
    }


def _prompts(args: argparse.Namespace) -> int:
    from training.prompts.page import write_page
    from training.runs import write_json

    found = prompt_figures(args.bundle, args.archive, args.data, args.part, args.cache)
    out = args.out or Path("runs") / f"prompts-{args.part}.json"
    page = args.page or out.with_suffix(".md")
    for path in (out, page):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found)
    write_page(page, found)
    print(page.read_text("utf-8"))  # noqa: T201 - what a command prints
    print(f"figures: {out}\npage: {page}")  # noqa: T201
    return 0
