"""Probes for shortcuts: what can be told without looking at what the model should look at.

    python -m training probe --archive runs/archive --data ../shared/data/colonoscopy/dev

Every figure is an AUROC from models that never saw the tested source groups.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from training.attributes import strip_impression, strip_pathology
from training.errors import ArchiveRefused
from training.items import Item
from training.metrics import auroc, stratified_auroc
from training.patients import Patient, patients, plan_rows
from training.records import PARTS, Record, read, read_truth
from training.sources import DevItem, dev_items, read_split
from training.viewpool import COVARIATES, covariates

__all__ = [
    "NoPixel",
    "NoPixelBaseline",
    "ProbeReport",
    "ShortcutProbe",
    "SourceProbe",
    "counts_probe",
    "item_baseline",
    "no_pixel_baseline",
    "report_probes",
    "run_probes",
    "shortcut_probe",
    "source_probe",
    "write_report",
]

SHORTCUT_LIMIT = 0.60
COUNTS_RANGE = (0.45, 0.55)


@dataclass(frozen=True)
class ShortcutProbe:
    """Lesion against background frames, told by geometry and brightness alone.

    Attributes:
        auroc: all covariates together, grouped cross-validation.
        single: AUROC of each covariate alone, folded to >= 0.5.
        by_source: as ``auroc`` within each source.
        frames: number of frames.
        within_limit: ``auroc`` is at most 0.60.
    """

    auroc: float
    single: dict[str, float]
    by_source: dict[str, float]
    frames: int
    within_limit: bool


@dataclass(frozen=True)
class SourceProbe:
    """The source of an exam, told from its report by word n-grams.

    Attributes:
        full: macro AUROC (one against rest) from the whole report.
        findings: the same with opinions and pathology stripped, chance 0.5.
        records: number of reports.
    """

    full: float
    findings: float
    records: int


@dataclass(frozen=True)
class NoPixelBaseline:
    """Neoplastic against non-neoplastic BKAI images without a pixel.

    Attributes:
        dimensions: AUROC of file dimensions alone.
        area: AUROC of the lesion's area share alone.
        both: AUROC of both.
        within: AUROC of the area share within each dimension stratum, weighted by pairs.
        items: number of images tested.
    """

    dimensions: float
    area: float
    both: float
    within: float
    items: int


@dataclass(frozen=True)
class ProbeReport:
    """All probes of an archive."""

    shortcut: ShortcutProbe
    source: SourceProbe
    counts: dict[str, float]
    no_pixel: dict[str, NoPixelBaseline]


def run_probes(archive: Path, data: Path | None = None) -> ProbeReport:
    """Run every probe.

    Args:
        archive: a composed or phantom archive.
        data: folder of index.csv for the no-pixel baselines; None skips them.
    """
    found = read(archive)
    counts = {}
    for part in ("calibrate", "report"):
        counts[part] = counts_probe(patients(archive, part))
    no_pixel = {}
    if data is not None:
        parts = read_split(archive / "source_split.json")
        train = dev_items(data, parts, "train")
        no_pixel = {
            kind: no_pixel_baseline(train, dev_items(data, parts, "report"), kind)
            for kind in ("frame", "crop")
        }
    return ProbeReport(
        shortcut_probe(archive), source_probe(found.records, read_truth(archive)), counts, no_pixel
    )


def report_probes(archive: Path, data: Path | None = None) -> str:
    """Run every probe, write ``probes.json`` into the archive and return the figures as text."""
    report = run_probes(archive, data)
    write_report(report, archive / "probes.json")
    shortcut, source = report.shortcut, report.source
    lines = [
        f"shortcut, lesion vs background: {shortcut.auroc:.3f} of at most {SHORTCUT_LIMIT:.2f}"
        f" ({shortcut.frames} frames)",
        *(f"  {name} alone: {value:.3f}" for name, value in shortcut.single.items()),
        *(f"  within {name}: {value:.3f}" for name, value in shortcut.by_source.items()),
        f"source from the report: {source.full:.3f}; without opinions: {source.findings:.3f}"
        f" ({source.records} reports)",
        *(
            f"counts only, patients of {part}: {value:.3f} (0.45-0.55)"
            for part, value in report.counts.items()
        ),
        *(
            f"histology without a pixel, {kind}s: dimensions {base.dimensions:.3f}, area "
            f"{base.area:.3f}, both {base.both:.3f}, area within dimensions {base.within:.3f}"
            f" ({base.items} items)"
            for kind, base in report.no_pixel.items()
        ),
    ]
    return "\n".join(lines)


def write_report(report: ProbeReport, path: Path) -> None:
    """Write the figures as JSON."""
    path.write_text(json.dumps(_plain(asdict(report)), indent=1) + "\n", encoding="utf-8")


def shortcut_probe(archive: Path, most: int = 8000) -> ShortcutProbe:
    """Try to tell lesion from background frames without looking at them.

    Args:
        archive: archive with truth.
        most: frames used at most, evenly from all records.
    """
    rows = [
        frame
        for truth in read_truth(archive).values()
        for frame in truth["frames"]
        if frame["kind"] != "non_informative"
    ]
    # Drawn frames have a geometry of their own; they count only where there is nothing else.
    rows = [row for row in rows if row["source"] != "phantom"] or rows
    rows = rows[:: max(1, len(rows) // most)]
    table = np.array(
        [
            covariates(
                (archive / row["file"]).read_bytes(), row.get("side", 256), row.get("aspect", 1.0)
            )
            for row in rows
        ]
    )
    truth = np.array([row["kind"] == "lesion" for row in rows], dtype=int)
    groups = np.array([row["group"] for row in rows])
    sources = np.array([row["source"] for row in rows])
    together = _grouped_auroc(table, truth, groups)
    single = {name: _folded(auroc(truth == 1, table[:, i])) for i, name in enumerate(COVARIATES)}
    by_source = {
        str(name): _grouped_auroc(
            table[sources == name], truth[sources == name], groups[sources == name]
        )
        for name in np.unique(sources)
    }
    return ShortcutProbe(together, single, by_source, len(rows), together <= SHORTCUT_LIMIT)


def source_probe(records: list[Record], truth: dict[str, dict[str, Any]]) -> SourceProbe:
    """Try to tell the source from the report; only exams with lesions, phantoms left out."""
    kept = [
        r
        for r in records
        if truth[r.record_id]["lesions"] and truth[r.record_id]["source"] != "phantom"
    ]
    sources = np.array([truth[r.record_id]["source"] for r in kept])
    groups = np.array([truth[r.record_id]["lesions"][0]["group"] for r in kept])
    full = _text_auroc([strip_pathology(r.report) for r in kept], sources, groups)
    findings = _text_auroc(
        [strip_impression(strip_pathology(r.report)) for r in kept], sources, groups
    )
    return SourceProbe(full, findings, len(kept))


def counts_probe(found: list[Patient]) -> float:
    """Try to tell positive patients by counts alone; must stay between 0.45 and 0.55.

    Grouped by plan pair, so that a pair is never split between training and testing.
    """
    table = plan_rows(found)
    groups = np.array([f"{p.seed}/{p.pair}" for p in found])
    return _grouped_auroc(np.array(table["x"]), np.array(table["y"])[:, 0].astype(int), groups)


class NoPixel:
    """Tells histology from the size of the file and the lesion's share of the frame, no pixel."""

    def __init__(
        self, train: Sequence[DevItem], kind: str = "frame", use: Sequence[str] = ("dims", "area")
    ) -> None:
        """Fit.

        Args:
            train: items whose statistics may be used.
            kind: frame or crop, which of them are used.
            use: dims, area or both.

        Raises:
            ArchiveRefused: the items do not hold both kinds of histology.
        """
        kept = [item for item in train if item.kind == kind and _told(item)]
        truth = np.array([item.histology == "neoplastic" for item in kept], dtype=int)
        if len(np.unique(truth)) < 2:
            raise ArchiveRefused(f"expected {kind}s of both histologies, found {len(kept)}")
        self._use = tuple(use)
        dims = [item.dims for item in kept]
        area = _areas(kept, train)
        known = area[np.isfinite(area)]
        self._middle = float(np.median(known)) if len(known) else 0.0
        self._sizes = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
        self._sizes.fit(np.array(dims)[:, None])
        self._model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        self._model.fit(self._table(dims, area), truth)

    def scores(self, dims: Sequence[str], area: np.ndarray) -> np.ndarray:
        """Score items.

        Args:
            dims: width x height of the frames.
            area: lesion's share of the frame, 0-1; NaN where it is not known.

        Returns:
            (n,), larger where neoplastic is more likely.
        """
        return np.asarray(self._model.decision_function(self._table(dims, area)))

    def _table(self, dims: Sequence[str], area: np.ndarray) -> np.ndarray:
        filled = np.where(np.isfinite(area), area, self._middle)
        columns = {
            "dims": self._sizes.transform(np.array(dims)[:, None]),
            "area": np.log(np.maximum(filled, 1e-4))[:, None],
        }
        return np.hstack([columns[name] for name in self._use])


def item_baseline(data: Path, archive: Path) -> Callable[[Sequence[Item]], np.ndarray] | None:
    """Make the no-pixel baseline of evaluation items, fitted on the frames of the train part.

    Args:
        data: folder of index.csv.
        archive: gives the split.

    Returns:
        Scores of items by the size of their source frame and their lesion's share of it; None
        where the train part does not hold both kinds of histology.
    """
    parts = read_split(archive / "source_split.json")
    by_part = {part: dev_items(data, parts, part) for part in PARTS}
    try:
        fitted = NoPixel(by_part["train"])
    except ArchiveRefused:
        return None
    shares = {
        item.path.stem: item.area_share
        for items in by_part.values()
        for item in items
        if item.kind == "frame"
    }

    def scores(items: Sequence[Item]) -> np.ndarray:
        area = np.array([shares.get(item.image, np.nan) for item in items])
        return fitted.scores([item.dims for item in items], area)

    return scores


def no_pixel_baseline(train: list[DevItem], test: list[DevItem], kind: str) -> NoPixelBaseline:
    """Tell histology without a pixel, trained on one part and tested on another.

    Args:
        train: items whose statistics may be used.
        test: items to tell.
        kind: frame or crop; crops take the area share of their parent frame.
    """
    kept = [item for item in test if item.kind == kind and _told(item)]
    truth = np.array([item.histology == "neoplastic" for item in kept])
    dims, area = [item.dims for item in kept], _areas(kept, test)
    found = {
        use: auroc(truth, NoPixel(train, kind, use).scores(dims, area))
        for use in (("dims",), ("area",), ("dims", "area"))
    }
    return NoPixelBaseline(
        dimensions=found["dims",],
        area=found["area",],
        both=found["dims", "area"],
        within=stratified_auroc(truth, area, dims),
        items=len(kept),
    )


def _told(item: DevItem) -> bool:
    return item.label == "polyp" and item.histology in ("neoplastic", "non-neoplastic")


def _areas(items: Sequence[DevItem], beside: Sequence[DevItem]) -> np.ndarray:
    """Lesion's share of the frame; crops take their parent's, which stands beside them."""
    shares = {item.path.stem: item.area_share for item in beside if item.kind == "frame"}
    return np.array([shares.get(i.pair or i.path.stem, i.area_share) for i in items])


def _plain(value: Any) -> Any:
    """Turn figures that could not be measured (NaN) into null, which JSON knows."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value


def _grouped_auroc(table: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> float:
    folds = min(5, len(np.unique(groups)))
    if folds < 2 or len(np.unique(truth)) < 2:
        return float("nan")
    model = make_pipeline(
        StandardScaler(), LogisticRegression(max_iter=1000, class_weight="balanced")
    )
    scores = cross_val_predict(
        model, table, truth, groups=groups, cv=GroupKFold(folds), method="decision_function"
    )
    return auroc(truth == 1, scores)


def _text_auroc(texts: list[str], sources: np.ndarray, groups: np.ndarray) -> float:
    names = np.unique(sources)
    if len(names) < 2:
        return float("nan")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True),
        LogisticRegression(max_iter=1000, class_weight="balanced"),
    )
    scores = cross_val_predict(
        model,
        np.array(texts),
        sources,
        groups=groups,
        cv=GroupKFold(min(5, len(np.unique(groups)))),
        method="predict_proba",
    )
    return float(np.mean([auroc(sources == name, scores[:, i]) for i, name in enumerate(names)]))


def _folded(value: float) -> float:
    return float(max(value, 1.0 - value))
