"""An archive for the tiny bundle: the redder a view, the more it is a neoplastic polyp."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.tiny_bundle import PINK, RED

SOURCES = ("bkai", "kvasir")


def mixed(share: float) -> tuple[int, int, int]:
    """A colour between pink (0) and red (1); the tiny bundle changes its mind at one half."""
    line = np.array(PINK) * (1 - share) + np.array(RED) * share
    return tuple(int(v) for v in np.clip(np.rint(line), 0, 255))  # type: ignore[return-value]


def write_archive(folder: Path, parts: tuple[str, ...] = ("select", "calibrate", "report")) -> Path:
    """Write views/views.jsonl and its frames.

    Each part has 60 background views, and 12 lesions of either histology with three windows and
    one whole-frame view each.
    """
    rng = np.random.default_rng(5)
    rows: list[dict[str, object]] = []

    def view(part: str, name: str, share: float, scope: bool = False, **told: object) -> None:
        path = folder / "frames" / f"{part}_{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 64), mixed(share)).save(path)
        empty = {"lesion_id": None, "histology": None, "weight": 1.0, "dims": "1x1"}
        rows.append(
            empty
            | {"view": path.stem, "file": f"frames/{path.name}", "part": part, "scope": scope}
            | told
        )

    for part in parts:
        for i in range(60):
            told = {"kind": "background", "source": SOURCES[i % 2], "group": f"{part}b{i}"}
            view(part, f"b{i}", rng.normal(0.46, 0.02), scope=i >= 50, **told)
        for middle, histology in ((0.55, "neoplastic"), (0.51, "non-neoplastic")):
            for i in range(12):
                name = f"{histology}{i}"
                told = {"kind": "lesion", "source": SOURCES[i % 2], "histology": histology}
                told |= {"group": f"{part}{name}", "lesion_id": f"{part}{name}|{part}{name}#0"}
                for v in range(4):
                    view(part, f"{name}v{v}", rng.normal(middle, 0.02), scope=v == 3, **told)
    (folder / "views").mkdir()
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "views" / "views.jsonl").write_text(lines, encoding="utf-8")
    return folder
