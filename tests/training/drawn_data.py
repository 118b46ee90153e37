"""A data folder of coloured frames with an index, and its archive: all that evidence reads."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_bundle import PINK, RED
from tests.training.colour_archive import write_archive
from training.sources import write_source_split

WIDTH, HEIGHT = 240, 200
BOX = (30, 60, 90, 120)
COLUMNS = [
    "file",
    "kind",
    "source_dataset",
    "label",
    "histology",
    "group_id",
    "polyp_area_frac",
    "boxes",
    "width",
    "height",
    "note",
]


def write_data(folder: Path, measured: str = "select") -> tuple[Path, Path]:
    """Write ``data`` and ``archive`` of ``calibrate`` and one part more: red polyps on pink."""
    data, archive = folder / "data", folder / "archive"
    rows: list[dict[str, object]] = []
    parts: dict[str, str] = {}
    rng = np.random.default_rng(3)

    def frame(name: str, source: str, group: str, label: str, note: str, **told: object) -> None:
        path = data / "frames" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.tile(np.array(PINK, np.float64), (HEIGHT, WIDTH, 1))
        if label == "polyp":
            x0, y0, x1, y1 = BOX
            pixels[y0:y1, x0:x1] = RED
            told |= {"boxes": f"polyp:{x0},{y0},{x1},{y1}", "polyp_area_frac": 0.07}
        pixels = pixels + rng.normal(0, 3, pixels.shape)
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(path, quality=95)
        rows.append(
            dict.fromkeys(COLUMNS, "")
            | {"file": f"frames/{path.name}", "kind": "frame", "source_dataset": source}
            | {"label": label, "group_id": group, "width": WIDTH, "height": HEIGHT, "note": note}
            | told
        )

    for part in (measured, "calibrate"):
        for i in range(6):
            histology = ("neoplastic", "non-neoplastic")[i % 2]
            group = f"bkai_{part}{i}"
            parts[group] = part
            frame(group, "BKAI-IGH NeoPolyp-Small", group, "polyp", "", histology=histology)
        parts[f"cvc_{part}"] = part
        for i in range(15):
            name = f"cvc_{int(part == measured)}{i:02d}"
            frame(name, "CVC-ClinicDB", f"cvc_{part}", "polyp", "")
    for i in range(4):
        frame(f"n{i}", "Nerthus", f"nerthus{i}", "normal", "BBPS=3; label derived from BBPS")
        frame(f"s{i}", "Nerthus", f"nerthus{i}", "non-informative", "BBPS=0; label derived")
        frame(f"gl_{i:03d}", "Gastrolab sample video", "clip", "normal", "video frame")
    with (data / "index.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    write_archive(archive, (measured, "calibrate"))
    write_source_split(archive / "source_split.json", parts)
    _measured(archive / "views" / "views.jsonl")
    return data, archive


def _measured(path: Path) -> None:
    """Give the archive's views what a composed archive has measured."""
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    for i, row in enumerate(rows):
        row |= {"side": 100.0, "cover": 1.0, "small": i % 2 == 0, "flat": False, "attributes": {}}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
