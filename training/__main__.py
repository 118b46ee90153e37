"""Train and pack bundles from the command line.

python -m training run --recipe default --data path/to/colonoscopy/dev --out runs/default
python -m training run --recipe smoke
python -m training --help
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, or stopped by SIGTERM; 1 refused with a message; 130 stopped by Ctrl-C. What was
        stopped is resumed by the same command.
    """
    # Before transformers is imported: nothing is ever fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from model_store.errors import EndoClipError
    from training.stopping import Stopped, stop_at_once

    args = _parser().parse_args(argv)
    level = logging.DEBUG if args.verbose else logging.INFO
    logging.basicConfig(level=level, format="%(levelname)s %(name)s %(message)s")
    for noisy in ("onnx_ir", "onnxscript", "torch.onnx", "torch.export"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and args.run is not _run:
        print("error: torchrun is for `run` alone; start this command by itself", file=sys.stderr)
        return 1
    try:
        with stop_at_once():
            return int(args.run(args))
    except EndoClipError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        told = str(stop) or "nothing that was finished is lost"
        print(f"\nstopped: {told}; the same command resumes", file=sys.stderr)
        return stop.exit_code if isinstance(stop, Stopped) else 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__.splitlines()[0])
    parser.add_argument("--verbose", action="store_true", help="debug messages")
    commands = parser.add_subparsers(required=True, metavar="command")
    run = commands.add_parser(
        "run",
        aliases=["train"],
        help="raw data or records -> three stages -> ONNX -> bundle -> figures; resumes",
        description="The whole path. What an archive is made of: the recipe's [ingest] table (a "
        "hospital's raw data), --data (frames with an index), --archive (a ready one), or, with "
        "none of these, drawn frames. Stopped or killed, the same command goes on.",
    )
    run.add_argument(
        "--config",
        "--recipe",
        dest="recipe",
        default="default",
        help="name in training/configs or a TOML file (default: default)",
    )
    run.add_argument(
        "--data",
        type=Path,
        help="folder with index.csv and real frames, of which exams are composed; with an [ingest] "
        "table in the recipe, the raw data instead of the table's",
    )
    run.add_argument("--archive", type=Path, help="a ready archive instead of --data")
    run.add_argument(
        "--out", type=Path, help="folder for stages and the bundle (default: runs/<recipe>)"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override, as attunement.lr=1e-4",
    )
    run.set_defaults(run=_run)
    arms = commands.add_parser(
        "arms",
        help="experiments: arms of one recipe over seeds, on one archive; resumes",
        description="Train, pack and evaluate sets of arms that differ in one thing. stages: the "
        "stages added one by one; share: what cleansing keeps; attributes: values corrupted and "
        "dropped, and with --ledger those of an LLM. Writes <out>/<set>.json, which `training "
        "report --experiments` draws.",
    )
    arms.add_argument("--of", choices=("stages", "share", "attributes"), default="stages")
    arms.add_argument("--recipe", default="default", help="as for run (default: default)")
    arms.add_argument("--data", type=Path, help="folder with index.csv and real frames")
    arms.add_argument("--archive", type=Path, help="a ready archive instead of a composed one")
    arms.add_argument("--out", type=Path, default=Path("runs/arms"), help="default: runs/arms")
    arms.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override")
    arms.add_argument(
        "--arm", action="append", metavar="NAME", help='this arm only; repeat it ("+ cleansing")'
    )
    arms.add_argument(
        "--seed", action="append", type=int, metavar="N", help="of weights and batches; repeat it"
    )
    arms.add_argument(
        "--part", choices=("select", "report"), default="select", help="what is measured (select)"
    )
    arms.add_argument("--ledger", type=Path, help="of `training extract`: one more arm")
    arms.set_defaults(run=_arms)
    compose = commands.add_parser("compose", help="compose an archive of exams from real frames")
    compose.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    compose.add_argument("--out", type=Path, required=True, help="new folder for the archive")
    compose.add_argument("--seed", type=int, default=1)
    compose.set_defaults(run=_compose)
    ingest = commands.add_parser(
        "ingest",
        help="a hospital's raw data -> de-identified archive of records; resumes",
        description="Reads exams (folders of images, DICOM or video files, and a report table) "
        "into an archive that training reads. Names, numbers and dates are taken out of the texts, "
        "metadata off the frames; what is left out or marked stands in ledger.jsonl with a reason. "
        "The same command goes on where it was stopped. Settings are the recipe's [ingest] table: "
        "docs/ingestion.md. De-identification is an aid: a person must review the archive.",
    )
    ingest.add_argument("--config", required=True, help="recipe (TOML) with an [ingest] table")
    ingest.add_argument("--out", type=Path, required=True, help="new folder for the archive")
    ingest.add_argument("--data", type=Path, help="folder of the raw data (default: ingest.data)")
    ingest.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override")
    ingest.set_defaults(run=_ingest)
    phantom = commands.add_parser("phantom", help="draw an archive of phantom exams, or raw data")
    phantom.add_argument("--out", type=Path, required=True, help="new folder for the archive")
    phantom.add_argument(
        "--exams", type=int, default=40, help="exams to draw, at least 16 (default 40)"
    )
    phantom.add_argument("--seed", type=int, default=1)
    phantom.add_argument(
        "--raw",
        action="store_true",
        help="a hospital's raw data instead: exam folders, report table with made-up names, "
        "labels and a recipe for `run`",
    )
    phantom.set_defaults(run=_phantom)
    sample = commands.add_parser(
        "sample",
        help="label about 300 frames of each part: a page to do it on, and its file read back",
        description="Prevalence, probabilities and thresholds need some hundred frames that a "
        "person has looked at. Without --read, frames of positive exams are drawn and a page is "
        "written to label them on (it holds the frames: as sensitive as the archive). With --read, "
        "the file saved by that page is put into the archive as labelled_sample.jsonl.",
    )
    sample.add_argument("--archive", type=Path, required=True)
    sample.add_argument(
        "--out", type=Path, default=Path("labels.html"), help="the page (default: labels.html)"
    )
    sample.add_argument("--count", type=int, default=300, help="frames of each part (300)")
    sample.add_argument("--seed", type=int, default=1, help="of the draw (1)")
    sample.add_argument("--read", type=Path, metavar="CSV", help="columns frame,lesion,neoplastic")
    sample.set_defaults(run=_sample)
    from training.extract.command import add_commands

    add_commands(commands, print)
    probe = commands.add_parser(
        "probe", help="shortcut, source, counts-only and no-pixel probes of an archive"
    )
    probe.add_argument("--archive", type=Path, required=True)
    probe.add_argument("--data", type=Path, help="folder with index.csv, for the no-pixel baseline")
    probe.set_defaults(run=_probe)
    change = commands.add_parser(
        "decode-change", help="what DCT-scaled JPEG decoding changes in a bundle's answers"
    )
    change.add_argument("--bundle", type=Path, required=True)
    change.add_argument("--archive", type=Path, required=True, help="gives the split")
    change.add_argument("--data", type=Path, required=True, help="folder with index.csv")
    change.add_argument(
        "--part", choices=("select", "calibrate", "report"), default="calibrate", help="(calibrate)"
    )
    change.set_defaults(run=_decode_change)
    evaluate = commands.add_parser(
        "evaluate",
        help="figures of a bundle on one part, as packing measures them",
        description="Measure a packed bundle through model_store, by the functions that packing "
        "uses: a table, and the figures as JSON. Choose between recipes on `select`. `report` is "
        "for closing figures only: once anything was chosen by it, a published figure of it is "
        "too good, and no other part is left to tell.",
    )
    evaluate.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    evaluate.add_argument("--archive", type=Path, required=True, help="gives split and patients")
    evaluate.add_argument("--data", type=Path, help="folder with index.csv; without it views only")
    evaluate.add_argument(
        "--part",
        choices=("select", "calibrate", "report"),
        default="select",
        help="part of the split (default: select); report is for closing figures only",
    )
    evaluate.add_argument("--out", type=Path, help="JSON file (default: runs/figures-<part>.json)")
    evaluate.set_defaults(run=_evaluate)
    pooling = commands.add_parser(
        "pooling",
        help="unify beside mean, max and gated attention pooling, on a part's patients",
        description="Scores the patients of a part by every way of pooling over the same "
        "embeddings of one bundle. Gated attention (Ilse et al. 2018) is trained on the records "
        "and claims that stage 3 learns from. Writes JSON and prints the table.",
    )
    pooling.add_argument("--bundle", type=Path, required=True, help="bundle folder")
    pooling.add_argument("--archive", type=Path, required=True, help="records and patients")
    pooling.add_argument(
        "--part", choices=("select", "calibrate", "report"), default="select", help="(select)"
    )
    pooling.add_argument(
        "--seed", action="append", type=int, metavar="N", help="of gated pooling (1, 2, 3)"
    )
    pooling.add_argument("--out", type=Path, help="JSON file (default: runs/pooling-<part>.json)")
    pooling.set_defaults(run=_pooling)
    from training.benchmark.command import add_commands as add_benchmark
    from training.evidence.command import add_commands as add_evidence
    from training.fewshot.command import add_command as add_fewshot
    from training.prompts.command import add_command as add_prompts
    from training.reference import add_command as add_reference
    from training.report.command import add_command
    from training.scoring.command import add_command as add_score
    from training.supervised.command import add_command as add_supervised

    add_fewshot(commands)
    add_command(commands)
    add_score(commands)
    add_benchmark(commands)
    add_prompts(commands)
    add_supervised(commands)
    add_evidence(commands)
    add_reference(commands)
    return parser


def _run(args: argparse.Namespace) -> int:
    from training.config import load
    from training.run import run

    start = time.monotonic()
    name = args.recipe
    drawn = args.data is None and args.archive is None
    path = _recipe_path("smoke" if drawn and name == "default" else name)
    recipe = load(path, args.set)
    if drawn and recipe.ingest is None:
        print(
            f"no DATA given: training the recipe {recipe.name} on drawn frames; "
            "its scores mean nothing on real ones",
            flush=True,
        )
    out = args.out or Path("runs") / recipe.name
    own = None if path.parent == CONFIGS else path
    bundle = run(recipe, out, path=own, data=args.data, archive=args.archive)
    if bundle is None:  # a rank that trained along
        return 0
    print(f"bundle: {bundle}  ({(time.monotonic() - start) / 60:.1f} min)")
    print((bundle / "MODEL_CARD.md").read_text("utf-8").split("## Operating points")[0])
    print(f"look at it: {out / 'report.html'}\nserve it: make serve BUNDLE={bundle}")
    return 0


def _arms(args: argparse.Namespace) -> int:
    from training.archives import archive_of_run
    from training.arms import run_arms
    from training.config import load

    path = _recipe_path(args.recipe)
    archive = args.archive or archive_of_run(args.data, args.out, load(path, args.set).seed)
    table = run_arms(
        args.of,
        path,
        args.set,
        archive,
        args.data,
        args.out,
        seeds=args.seed or [1],
        part=args.part,
        names=args.arm or (),
        ledger=args.ledger,
    )
    print(table)
    print(f"figures: {args.out / args.of}.json")
    return 0


def _recipe_path(name: str) -> Path:
    return Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"


def _compose(args: argparse.Namespace) -> int:
    from training.archives import make_archive

    make_archive(args.data, args.out, args.seed)
    print(f"archive: {args.out}")
    return 0


def _ingest(args: argparse.Namespace) -> int:
    from training.archives import ingested_archive
    from training.config import load
    from training.errors import ConfigError
    from training.ingest.config import located

    path = _recipe_path(args.config)
    config = load(path, args.set).ingest
    if config is None:
        raise ConfigError(f"{path.name}: expected a table [ingest], found none")
    ingested_archive(located(config, path.resolve().parent), args.data, args.out)
    print(f"archive: {args.out}  (review it before anyone trains on it: docs/ingestion.md)")
    return 0


def _phantom(args: argparse.Namespace) -> int:
    from training.archives import make_archive
    from training.phantom_hospital import write_hospital

    if args.raw:
        recipe = write_hospital(args.out, args.exams, args.seed)
        print(f"raw data: {args.out}\n  python -m training run --config {recipe}")
        return 0
    make_archive(None, args.out, args.seed, exams=args.exams)
    print(f"archive: {args.out}")
    return 0


def _sample(args: argparse.Namespace) -> int:
    from training.labelling import read_sheet, write_sheet

    if args.read:
        print(f"labels in the archive: {read_sheet(args.archive, args.read)}")
        return 0
    count = write_sheet(args.archive, args.out, args.count, args.seed)
    print(f"{count} frames to label: open {args.out}, save labels.csv, then")
    print(f"  python -m training sample --archive {args.archive} --read labels.csv")
    return 0


def _probe(args: argparse.Namespace) -> int:
    from training.probes import report_probes

    print(report_probes(args.archive, args.data))
    return 0


def _decode_change(args: argparse.Namespace) -> int:
    from training.decode_change import decode_change

    print(json.dumps(decode_change(args.bundle, args.archive, args.data, args.part), indent=1))
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.card_figures import figures_text
    from training.figures import part_figures
    from training.runs import write_json

    encoder = Encoder(Bundle.open(args.bundle))
    found = part_figures(encoder, args.archive, args.data, args.part)
    out = args.out or Path("runs") / f"figures-{args.part}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, found)
    print(figures_text(found))
    print(f"figures: {out}")
    return 0


def _pooling(args: argparse.Namespace) -> int:
    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.pooling import pooling_figures, pooling_table
    from training.runs import commit, write_json

    encoder = Encoder(Bundle.open(args.bundle))
    found = pooling_figures(encoder, args.archive, args.part, args.seed or (1, 2, 3))
    out = args.out or Path("runs") / f"pooling-{args.part}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {"bundle": args.bundle.name, "commit": commit()} | found)
    print(pooling_table(found))
    print(f"figures: {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
