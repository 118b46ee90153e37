"""The command `endo-clip`: score a folder of frames, ask what a service serves.

    endo-clip score FOLDER --url http://localhost:8000
    endo-clip study UID --archive http://localhost:8042/dicom-web
    endo-clip explain FRAME --out FOLDER
    endo-clip info

The same as `python -m endo_clip_client`.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from endo_clip_client.archive import Archive
from endo_clip_client.client import Client
from endo_clip_client.command_line import ABOUT, key_of, service_options
from endo_clip_client.conversations import Progress, Scored
from endo_clip_client.errors import ClientError, NeedsKey, NotFound, Unreachable
from endo_clip_client.folders import FolderPatient, as_csv, as_json, as_table, patients_in
from endo_clip_client.heatmaps import MEANING

__all__ = ["main"]

_WRITERS = {"table": as_table, "csv": as_csv, "json": as_json}
_SCORE = """\
Which patients there are:
  pictures in FOLDER itself are one patient, every subfolder with pictures is another. Frames go in
  natural order of their names (img_2 before img_10). JPEG, PNG, WebP, BMP, TIFF, DICOM (.dcm).

What leaves this machine: the pictures, numbered. No name of a file or a folder does. With --shrink,
  EXIF and other metadata stay behind as well.

Examples:
  endo-clip score exams/                                  a table on the screen
  endo-clip score exams/ --format csv --out scores.csv    a row per patient and per frame
  endo-clip score exams/ --task malignancy --operating-point sensitivity_first
  endo-clip score exams/ --shrink                         over a slow line: a few KB a frame
  ENDO_CLIP_KEY=$(cat key) endo-clip score exams/ --url https://scoring.example

Exit code: 0 every patient has an answer; 1 some have none (see the table); 2 none could be asked.
"""
_STUDY = """\
The study's endoscopic, photographic and secondary capture images go to the service as they are,
headers included; what comes back is a DICOM structured report of the same study, preliminary and
not verified. Doing it again stores the same report, not a second one. The archive's user and
password are read from ENDO_CLIP_ARCHIVE_AUTH (user:password).

Example:
  endo-clip study 1.2.840.1 --archive http://localhost:8042/dicom-web --task malignancy
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: of the command line; the process's when None.

    Returns:
        The exit code.
    """
    args = _parser().parse_args(arguments)
    try:
        with Client(args.url, key=key_of(args), shrink=getattr(args, "shrink", False)) as one:
            return int(args.run(one, args))
    except (ClientError, OSError, ValueError) as error:
        print(f"endo-clip: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("endo-clip: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    common = service_options()
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "endo-clip",
        description="Ask an Endo-CLIP service: is there a polyp, is a lesion neoplastic?",
        epilog=ABOUT,
        formatter_class=layout,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    score = commands.add_parser(
        "score",
        parents=[common],
        help="score the patients of a folder",
        description="Score the patients of a folder.",
        epilog=_SCORE + "\n" + ABOUT,
        formatter_class=layout,
    )
    score.add_argument("folder", type=Path, metavar="FOLDER")
    score.add_argument("--format", choices=sorted(_WRITERS), default="table")
    score.add_argument("--out", type=Path, metavar="FILE", help="write there, not on the screen")
    score.add_argument("--shrink", action="store_true", help="make frames small first (Pillow)")
    score.add_argument(
        "--concurrency", type=int, default=2, metavar="N", help="patients at a time (default: 2)"
    )
    score.set_defaults(run=_score)
    study = commands.add_parser(
        "study",
        parents=[common],
        help="score a study of a PACS and store the report there",
        description="Fetch a study by DICOMweb, score it, store the structured report into it.",
        epilog=_STUDY + "\n" + ABOUT,
        formatter_class=layout,
    )
    study.add_argument("uid", metavar="UID", help="Study Instance UID")
    study.add_argument("--archive", required=True, metavar="URL", help="of its DICOMweb services")
    study.add_argument("--out", type=Path, metavar="FILE", help="write the report, store nothing")
    explain = commands.add_parser(
        "explain",
        parents=[common],
        help="lay heat maps over frames",
        description="Score frames of one patient and lay each one's heat map over it, as PNG.",
        epilog=MEANING + "\n\n" + ABOUT,
        formatter_class=layout,
    )
    explain.add_argument("frames", type=Path, nargs="+", metavar="FRAME")
    explain.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="write NAME.heat.png there"
    )
    explain.set_defaults(run=_explain)
    for parsed in (score, study, explain):
        _add_task_options(parsed)
    study.set_defaults(run=_study)
    info = commands.add_parser(
        "info",
        parents=[common],
        help="show model, tasks, device profiles and limits of a service",
        epilog=ABOUT,
        formatter_class=layout,
    )
    info.set_defaults(run=_info)
    return parser


def _score(client: Client, args: argparse.Namespace) -> int:
    if args.concurrency < 1:
        raise ValueError(f"--concurrency: expected 1 or more; found {args.concurrency}")
    patients = _patients(args.folder)
    sent = [patient.to_send(args.device) for patient in patients]
    results: list[Scored] = []
    show = _bar if sys.stderr.isatty() else None
    for one in client.score_patients(
        args.task,
        sent,
        concurrency=args.concurrency,
        progress=show,
        operating_point=args.operating_point,
    ):
        if isinstance(one.error, NeedsKey | NotFound | Unreachable):
            raise one.error  # the others would meet the same
        results.append(one)
    results.sort(key=lambda one: one.index)
    text = _WRITERS[args.format](results)
    if args.out:
        args.out.write_text(text, encoding="utf-8")
    else:
        print(text, end="")
    _say_about(results)
    return int(any(one.answer is None for one in results))


def _study(client: Client, args: argparse.Namespace) -> int:
    user, _, password = os.environ.get("ENDO_CLIP_ARCHIVE_AUTH", "").partition(":")
    with Archive(args.archive, auth=(user, password) if user else None) as archive:
        images = archive.images(args.uid)
        frames = [archive.fetch(args.uid, one) for one in images]
        report = client.report(
            args.task, frames, operating_point=args.operating_point, device=args.device
        )
        if args.out:
            args.out.write_bytes(report)
            print(f"{len(images)} images scored; the report is in {args.out}")
            return 0
        archive.store(args.uid, [report])
        print(f"{len(images)} images scored; the report is in the archive, in the same study")
    return 0


def _explain(client: Client, args: argparse.Namespace) -> int:
    ask = client.malignancy if args.task == "malignancy" else client.polyp_detection
    answer = ask(
        args.frames, explain=True, device=args.device, operating_point=args.operating_point
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for number, (path, frame) in enumerate(zip(args.frames, answer.patient.frames, strict=True)):
        if frame.heatmap is None:
            print(f"{path}: {frame.status}: {frame.reason or (frame.error and frame.error.code)}")
            continue
        out = args.out / f"{path.stem}.heat.png"
        if out.exists():
            out = args.out / f"{path.stem}.{number}.heat.png"
        out.write_bytes(client.overlay(path, frame.heatmap, device=args.device))
        print(f"{path}: {frame.decision}, probability {frame.probability:.3f}: {out}")
    print(f"endo-clip: {MEANING}", file=sys.stderr)
    return 0


def _add_task_options(parser: argparse.ArgumentParser) -> None:
    tasks = ("polyp-detection", "malignancy")
    parser.add_argument("--task", choices=tasks, default="polyp-detection")
    parser.add_argument(
        "--operating-point",
        choices=("sensitivity_first", "balanced", "specificity_first"),
        help="which threshold decides (default: balanced)",
    )
    parser.add_argument("--device", help="profile that crops the frames: see `endo-clip info`")


def _say_about(results: Sequence[Scored]) -> None:
    """Say beside the figures what they are of; once for each error what to do."""
    answers = [one.answer for one in results if one.answer]
    if answers:
        model, point = answers[0].model, answers[0].operating_point
        name = f", operating point {point.name}" if point else ""
        print(f"{model.name} {model.version}{name}. {answers[0].intended_use}", file=sys.stderr)
    for text in dict.fromkeys(str(one.error) for one in results if one.error):
        print(f"endo-clip: {text}", file=sys.stderr)


def _patients(folder: Path) -> list[FolderPatient]:
    try:
        found = patients_in(folder)
    except NotADirectoryError:
        raise ValueError(f"{folder}: expected a folder of frames; there is none") from None
    if not found:
        raise ValueError(
            f"{folder}: expected pictures (.jpg .png .webp .bmp .tif .dcm) in it or in folders "
            "below; found none"
        )
    return found


def _info(client: Client, _: argparse.Namespace) -> int:
    model, devices, limits = client.model(), client.devices(), client.limits()
    print(f"{model['name']} {model['version']}, {model['digest']}, {model['execution_provider']}")
    print(model["intended_use"])
    print("label sets: " + ", ".join(sorted(model["label_sets"])))
    for task, points in model["operating_points"].items():
        print(f"operating points of {task}: " + ", ".join(sorted(points)))
    for one in devices["devices"]:
        print(f"device {one['name']}: crop {one['crop']}")
    for name, value in limits.items():
        print(f"limit {name}: {value}")
    return 0


def _bar(progress: Progress) -> None:
    done = progress.frames * 30 // max(1, progress.frames_total)
    end = "\n" if progress.patients == progress.patients_total else ""
    bar = "#" * done + "." * (30 - done)
    print(
        f"\r[{bar}] {progress.patients}/{progress.patients_total} patients, "
        f"{progress.frames}/{progress.frames_total} frames",
        end=end,
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
