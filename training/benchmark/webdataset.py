"""Frames with known labels as a WebDataset, in the layout that ``clip_benchmark`` reads.

    DIR/test/0.tar …                            <number>.jpg|png|webp and <number>.cls
    DIR/test/nshards.txt                        number of shards
    DIR/classnames.txt                          labels of the task, the positive one first
    DIR/zeroshot_classification_templates.txt   wordings for any model
    DIR/prompts.json                            the bundle's prompts by class name, under the task

Frames are copied byte for byte where ``clip_benchmark`` knows their format. The folder is as
sensitive as what it was made from.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import webdataset

from model_store.errors import ImageRejected
from model_store.images import open_rgb, sniff
from model_store.label_sets import LabelSet
from training.errors import ArchiveRefused, StaleInput
from training.evaluate import truth
from training.frame_files import read_frame
from training.items import Item
from training.runs import write_json

__all__ = ["PROMPTS", "Written", "class_names", "read_webdataset", "write_webdataset"]

PROMPTS = "prompts.json"
TEMPLATES = ("colonoscopy frame, {c}", "an endoscopic picture of the colon: {c}")
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_SHARD = 1000


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        positives: Items of the positive class.
        negatives: Items of the other.
        unreadable: Items left out because they are no usable image.
    """

    positives: int
    negatives: int
    unreadable: int


def class_names(label_set: LabelSet) -> list[str]:
    """Names of the labels in words."""
    return [name.replace("_", " ") for name in label_set.names]


def write_webdataset(out: Path, label_set: LabelSet, items: Sequence[Item]) -> Written:
    """Write the items of which the task's truth is known.

    Args:
        out: New folder.
        label_set: Of a task, with a positive label.
        items: Frames; those without truth are left out.

    Raises:
        StaleInput: There is such a folder already.
        ArchiveRefused: A class has no item.
    """
    if out.exists():
        raise StaleInput(f"{out.name}: expected no such folder, found one")
    y, known = truth(label_set.name, items)
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "test").mkdir(parents=True)
    counts, unreadable = [0, 0], 0
    pattern = (partial / "test" / "%d.tar").as_posix()
    with webdataset.ShardWriter(
        pattern, maxcount=_SHARD, verbose=0, mtime=0.0, encoder=False
    ) as shards:
        for item, positive, told in zip(items, y, known, strict=True):
            if not told:
                continue
            try:
                suffix, data = _picture(read_frame(item.path))
            except (ImageRejected, FileNotFoundError):
                unreadable += 1
                continue
            # The positive label stands first in a label set.
            key, label = f"{sum(counts):06}", str(int(not positive))
            shards.write({"__key__": key, suffix: data, "cls": label.encode()})
            counts[int(not positive)] += 1
    if not all(counts):
        shutil.rmtree(partial)
        raise ArchiveRefused(
            f"expected frames of both classes of {label_set.name}, found {counts[0]} "
            f"{label_set.names[0]} and {counts[1]} {label_set.names[1]}"
        )
    names = class_names(label_set)
    prompts = dict(zip(names, (list(one.prompts) for one in label_set.labels), strict=True))
    write_json(partial / PROMPTS, {label_set.name: prompts})
    shard_count = len(list((partial / "test").glob("*.tar")))
    (partial / "test" / "nshards.txt").write_text(f"{shard_count}\n", "utf-8")
    (partial / "classnames.txt").write_text("\n".join(names) + "\n", "utf-8")
    (partial / "zeroshot_classification_templates.txt").write_text(
        "\n".join(TEMPLATES) + "\n", "utf-8"
    )
    partial.rename(out)
    return Written(counts[0], counts[1], unreadable)


def read_webdataset(folder: Path) -> tuple[str, list[Item]]:
    """The task of a folder that ``write_webdataset`` made, and its items in their order.

    Raises:
        StaleInput: It is none.
    """
    try:
        (task,) = json.loads((folder / PROMPTS).read_text("utf-8"))
        count = int((folder / "test" / "nshards.txt").read_text("utf-8"))
        shards = [folder.resolve() / "test" / f"{i}.tar" for i in range(count)]
        rows = [(shard / name, label) for shard in shards for name, label in _labels(shard)]
    except (OSError, ValueError, tarfile.TarError) as error:
        raise StaleInput(
            f"{folder}: expected a folder that `training webdataset` wrote; {error}"
        ) from error
    judged = task == "malignancy"
    return task, [
        Item(
            path=path,
            kind="webdataset",
            polyp=judged or label == 0,
            neoplastic=label == 0 if judged else None,
            group=path.stem,
            source="",
            dims="",
        )
        for path, label in rows
    ]


def _picture(data: bytes) -> tuple[str, bytes]:
    """Suffix and bytes as they are stored; every picture is opened once.

    Raises:
        ImageRejected: It is no usable image.
    """
    image = open_rgb(data)
    kind = sniff(data)
    if kind in _SUFFIXES:
        return _SUFFIXES[kind], data
    out = io.BytesIO()
    image.save(out, "PNG")
    return "png", out.getvalue()


def _labels(shard: Path) -> list[tuple[str, int]]:
    """Names of a shard's pictures with their classes, in order."""
    with tarfile.open(shard, "r:") as tar:
        members = {member.name: member for member in tar}
        found = []
        for name in members:
            stem, _, suffix = name.rpartition(".")
            if suffix in _SUFFIXES.values():
                stored = tar.extractfile(members[f"{stem}.cls"])
                found.append((name, int(stored.read() if stored else b"")))
    return found
