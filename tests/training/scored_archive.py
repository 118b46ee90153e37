"""Archives of flat frames for the scoring tests, and what the tiny bundle is to make of them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from model_store.quality import QualityLimits
from tests.tiny_bundle import PASS_ALL, PINK, RED, build_tiny_bundle, frame_png
from training.records import write_jsonl, write_split

BLACK = (4, 2, 2)
SHADES = [tuple(int(p + (r - p) * i / 6) for r, p in zip(RED, PINK, strict=True)) for i in range(7)]


def write_records(folder: Path, records: Mapping[str, Sequence[bytes]]) -> Path:
    """An archive whose records hold these files, all for training."""
    folder.mkdir(parents=True)
    rows = []
    for name, files in records.items():
        (folder / "frames" / name).mkdir(parents=True)
        frames = [f"frames/{name}/{i:04}.png" for i in range(len(files))]
        for frame, data in zip(frames, files, strict=True):
            (folder / frame).write_bytes(data)
        rows.append({"record_id": name, "patient_id": name, "report": "Drawn.", "frames": frames})
    write_jsonl(folder / "records.jsonl", rows)
    write_split(folder / "split.json", dict.fromkeys(records, "train"))
    (folder / "archive.json").write_text(json.dumps({"format": 1, "kind": "ingested"}), "utf-8")
    return folder


def coloured(records: int, frames: int) -> dict[str, list[bytes]]:
    """Records of flat frames between pink and red; every ninth frame is black."""
    pictures = [frame_png(shade) for shade in SHADES]
    dark = frame_png(BLACK)
    return {
        f"e{r:03}": [
            dark if (r * frames + i) % 9 == 8 else pictures[(3 * r + i) % len(pictures)]
            for i in range(frames)
        ]
        for r in range(records)
    }


def dark_gate_bundle(folder: Path, version: str = "1.0.0") -> Path:
    """The tiny bundle; its gate sets black frames aside, and nothing else."""
    limits = replace(QualityLimits(**PASS_ALL), min_lit_share=0.2)
    return build_tiny_bundle(folder, quality_gate=limits.as_dict(), version=version)
