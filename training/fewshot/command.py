"""The commands ``python -m training fewshot study`` and ``fewshot profile``."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model_store.encoder import Encoder
    from model_store.profile import SiteProfile
    from training.items import Embedded

__all__ = ["add_command"]

PARTS = ("select", "calibrate", "report")
SHOWN = 10  # names of files that are left out, at most


def add_command(commands: Any) -> None:
    """Add the commands to the subparsers of ``python -m training``."""
    fewshot = commands.add_parser(
        "fewshot",
        help="a bundle and a few labelled frames: what they would add, a site's profile",
        description="study: zero-shot against a linear probe and a Tip-Adapter cache at 1 to 16 "
        "shots a class. profile: local probabilities, thresholds and perhaps an adapter from a "
        "site's own labels, for ENDOCLIP_SITE_PROFILE. More: docs/few-shot.md.",
    )
    kinds = fewshot.add_subparsers(required=True, metavar="study|profile")
    _add_study(kinds)
    _add_profile(kinds)


def _add_study(kinds: Any) -> None:
    study = kinds.add_parser(
        "study",
        help="1, 2, 4, 8, 16 shots a class against zero-shot: table, JSON and plot",
        description="Draws shots from one part (or a labelled CSV) and measures on another, with "
        "intervals over draws and source groups. Penalty, alpha and beta are chosen inside the "
        "shots. `report` is for closing figures only: once anything was chosen by it, a published "
        "figure of it is too good.",
    )
    study.add_argument("--bundle", type=Path, required=True, help="packed bundle")
    study.add_argument("--archive", type=Path, required=True, help="gives the split")
    study.add_argument(
        "--data",
        type=Path,
        help="folder with index.csv: its crops and frames are used; without it the archive's views",
    )
    study.add_argument(
        "--shots",
        default="calibrate",
        help="parts that shots are drawn from, joined by + (calibrate), or a CSV of labels: "
        "file,label[,patient_id]",
    )
    study.add_argument("--images", type=Path, help="folder of the CSV's files (default: the CSV's)")
    study.add_argument(
        "--part", choices=PARTS, default="select", help="what is measured (default: select)"
    )
    study.add_argument("--seeds", type=int, default=5, help="draws of shots, at least 3 (5)")
    study.add_argument(
        "--out",
        type=Path,
        default=Path("runs/fewshot"),
        help="folder of study.json, study.md and study.svg (default: runs/fewshot)",
    )
    study.set_defaults(run=_study)


def _add_profile(kinds: Any) -> None:
    profile = kinds.add_parser(
        "profile",
        help="a site's labelled frames -> site-profile.json, for ENDOCLIP_SITE_PROFILE",
        description="Fits local probabilities and thresholds to a site's labels, and an adapter "
        "only where it is better than zero-shot on frames of held-out patients. Labels are "
        "polyp, no_polyp, malignant, benign, each for its own task; label malignancy on frames "
        "with a lesion. Name patients: without patient_id, frames of one patient are held out "
        "from each other and every figure is too good.",
    )
    profile.add_argument("--bundle", type=Path, required=True, help="packed bundle")
    profile.add_argument(
        "--labels", type=Path, required=True, metavar="CSV", help="file,label[,patient_id]"
    )
    profile.add_argument("--images", type=Path, help="folder of its files (default: the CSV's)")
    profile.add_argument(
        "--site", required=True, help="name that answers show: 1-64 of A-Z a-z 0-9 . _ -"
    )
    profile.add_argument(
        "--sensitivity", type=float, default=0.95, help="least, of sensitivity_first (0.95)"
    )
    profile.add_argument(
        "--specificity", type=float, default=0.95, help="least, of specificity_first (0.95)"
    )
    profile.add_argument(
        "--out", type=Path, default=Path("site-profile.json"), help="(site-profile.json)"
    )
    profile.set_defaults(run=_profile)


def _study(args: argparse.Namespace) -> int:
    """Measure; the heavy imports wait until then."""
    from rich.progress import Progress

    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from training.errors import ConfigError
    from training.fewshot.adapters import ADAPTERS
    from training.fewshot.frames import data_digest
    from training.fewshot.plot import write_plot
    from training.fewshot.study import SHOTS, cells, study, study_text
    from training.runs import commit, write_json

    if args.seeds < 3:
        raise ConfigError(f"expected at least 3 --seeds, found {args.seeds}")
    encoder = Encoder(Bundle.open(args.bundle))
    shots, measured = _shots(args, encoder), _parts(args, encoder, [args.part])
    found = cells(encoder, shots, measured)
    with Progress(transient=True) as bar:
        step = bar.add_task("fitting", total=len(found) * len(ADAPTERS) * len(SHOTS))
        rows = study(found, args.seeds, lambda: bar.advance(step))
    figures = {
        "bundle": _bundle(encoder),
        "created": _now(),
        "commit": commit(),
        "command": _command("study", args),
        "shots_from": args.shots,
        "measured_on": args.part,
        "data": {"shots": data_digest(shots.items), "measured": data_digest(measured.items)},
        "seeds": args.seeds,
        "cells": rows,
    }
    text = study_text(figures)
    args.out.mkdir(parents=True, exist_ok=True)
    write_json(args.out / "study.json", figures)
    (args.out / "study.md").write_text(text + "\n", encoding="utf-8")
    write_plot(figures, args.out / "study.svg")
    _say(f"{text}\n\nfigures: {args.out / 'study.json'}\nplot: {args.out / 'study.svg'}")
    return 0


def _shots(args: argparse.Namespace, encoder: Encoder) -> Embedded:
    from training.errors import ConfigError
    from training.fewshot.labels import embed_labelled, read_labelled

    if args.shots.lower().endswith(".csv"):
        path = Path(args.shots)
        labelled = read_labelled(path, args.images or path.parent, encoder.bundle)
        found, left_out = embed_labelled(encoder, labelled)
        _say_left_out(left_out)
        return found
    parts = args.shots.split("+")
    if not set(parts) <= set(PARTS) or args.part in parts:
        others = [part for part in PARTS if part != args.part]
        raise ConfigError(
            f"--shots: expected parts out of {', '.join(others)} joined by +, or a .csv file; "
            f"found {args.shots!r}"
        )
    return _parts(args, encoder, parts)


def _parts(args: argparse.Namespace, encoder: Encoder, parts: Sequence[str]) -> Embedded:
    from training.items import embed
    from training.protocol import archive_items, data_items

    items = []
    for part in parts:
        if args.data is None:
            items += archive_items(args.archive, part)
        else:
            items += data_items(args.data, args.archive, part)
    return embed(encoder, items)


def _profile(args: argparse.Namespace) -> int:
    """Fit and write; the heavy imports wait until then."""
    from rich.progress import Progress

    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from model_store.profile import SITE_NAME, BundleRef, SiteProfile, write_profile
    from training.errors import ConfigError
    from training.evaluate import TASKS
    from training.fewshot.frames import data_digest
    from training.fewshot.labels import embed_labelled, read_labelled
    from training.fewshot.site import Wanted, fit_tasks
    from training.runs import commit

    if not SITE_NAME.fullmatch(args.site):
        raise ConfigError(f"--site: expected 1-64 of A-Z a-z 0-9 . _ -, found {args.site!r}")
    if args.out.is_dir():
        raise ConfigError(f"--out: expected a file to write, found the folder {args.out}")
    wanted = Wanted(args.sensitivity, args.specificity)
    encoder = Encoder(Bundle.open(args.bundle))
    labelled = read_labelled(args.labels, args.images or args.labels.parent, encoder.bundle)
    found, left_out = embed_labelled(encoder, labelled)
    _say_left_out(left_out)
    with Progress(transient=True) as bar:
        step = bar.add_task("fitting", total=len(TASKS))
        tasks, without = fit_tasks(encoder, found, wanted, lambda: bar.advance(step))
    profile = SiteProfile(
        site=args.site,
        created=_now(),
        bundle=BundleRef(**_bundle(encoder)),
        labels_digest=data_digest(found.items),
        provenance={
            "commit": commit(),
            "command": _command("profile", args),
            "held_out_by": "patient" if labelled.by_patient else "file",
        },
        tasks=tasks,
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = args.out.with_name(args.out.name + ".tmp")
    temporary.write_bytes(write_profile(profile))
    temporary.replace(args.out)
    _say(_profile_text(profile, without))
    _say(f"profile: {args.out}\nserve it: ENDOCLIP_SITE_PROFILE={args.out} (with this bundle)")
    return 0


def _profile_text(profile: SiteProfile, without: Mapping[str, str]) -> str:
    from training.fewshot.site import profile_lines

    lines = list(profile_lines(profile.tasks))
    lines += [f"{task}: left out: {why}" for task, why in without.items()]
    if profile.provenance["held_out_by"] == "file":
        lines.append(
            "No patient is named on some lines: frames of one patient may stand on both sides of "
            "what is held out, and these figures may be too good."
        )
    return "\n".join(lines)


def _say_left_out(left_out: Mapping[str, str]) -> None:
    if left_out:
        _say(f"left out, {len(left_out)} files:")
        for name, why in list(left_out.items())[:SHOWN]:
            _say(f"  {name}: {why}")
        if len(left_out) > SHOWN:
            _say(f"  and {len(left_out) - SHOWN} more")


def _bundle(encoder: Encoder) -> dict[str, str]:
    manifest = encoder.bundle.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "digest": encoder.bundle.digest,
    }


def _command(kind: str, args: argparse.Namespace) -> str:
    given = {key: value for key, value in vars(args).items() if key not in ("run", "verbose")}
    words = [f"--{key}={value}" for key, value in given.items() if value is not None]
    return shlex.join(["python", "-m", "training", "fewshot", kind, *words])


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the command's answer
