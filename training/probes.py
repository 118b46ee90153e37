"""Probes for shortcuts: what can be told without looking at what the model should look at.

    python -m training probe --archive runs/archive --data ../shared/data/colonoscopy/dev

Every figure is an AUROC from models that never saw the tested source groups.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from training.attributes import strip_impression, strip_pathology
from training.patients import Patient, patients, plan_rows
from training.records import Record, read, read_truth
from training.sources import DevItem, dev_items, read_split
from training.viewpool import COVARIATES, covariates

__all__ = [
    "NoPixelBaseline",
    "ProbeReport",
    "ShortcutProbe",
    "SourceProbe",
    "counts_probe",
    "no_pixel_baseline",
    "report_probes",
    "run_probes",
    "shortcut_probe",
    "source_probe",
    "stratified_auroc",
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
    auroc = _grouped_auroc(table, truth, groups)
    single = {name: _folded(roc_auc_score(truth, table[:, i])) for i, name in enumerate(COVARIATES)}
    by_source = {
        str(name): _grouped_auroc(
            table[sources == name], truth[sources == name], groups[sources == name]
        )
        for name in np.unique(sources)
    }
    return ShortcutProbe(auroc, single, by_source, len(rows), auroc <= SHORTCUT_LIMIT)


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


def no_pixel_baseline(train: list[DevItem], test: list[DevItem], kind: str) -> NoPixelBaseline:
    """Tell histology without a pixel, trained on one part and tested on another.

    Args:
        train: items whose statistics may be used.
        test: items to tell.
        kind: frame or crop; crops take the area share of their parent frame.
    """
    shares = {i.path.stem: i.area_share for i in [*train, *test] if i.kind == "frame"}

    def table(items: list[DevItem]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        kept = [
            i
            for i in items
            if i.kind == kind
            and i.label == "polyp"
            and i.histology in ("neoplastic", "non-neoplastic")
        ]
        dims = np.array([[i.dims] for i in kept])
        area = np.log([max(shares.get(i.pair or i.path.stem, i.area_share), 1e-4) for i in kept])
        return dims, area[:, None], np.array([i.histology == "neoplastic" for i in kept], int)

    dims, area, truth = table(train)
    test_dims, test_area, test_truth = table(test)
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(dims)

    def auroc(x: np.ndarray, y: np.ndarray) -> float:
        model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, truth)
        return float(roc_auc_score(test_truth, model.decision_function(y)))

    coded, test_coded = encoder.transform(dims), encoder.transform(test_dims)
    return NoPixelBaseline(
        dimensions=auroc(coded, test_coded),
        area=auroc(area, test_area),
        both=auroc(np.hstack((coded, area)), np.hstack((test_coded, test_area))),
        within=stratified_auroc(test_truth, test_area[:, 0], test_dims[:, 0]),
        items=len(test_truth),
    )


def stratified_auroc(truth: np.ndarray, scores: np.ndarray, strata: np.ndarray) -> float:
    """AUROC within strata, weighted by their number of positive-negative pairs.

    Returns:
        NaN when no stratum holds both classes.
    """
    total, weight = 0.0, 0.0
    for name in np.unique(strata):
        here = strata == name
        pairs = float(truth[here].sum() * (1 - truth[here]).sum())
        if pairs:
            total += pairs * float(roc_auc_score(truth[here], scores[here]))
            weight += pairs
    return total / weight if weight else float("nan")


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
    return float(roc_auc_score(truth, scores))


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
    return float(
        np.mean([roc_auc_score(sources == name, scores[:, i]) for i, name in enumerate(names)])
    )


def _folded(value: float) -> float:
    return float(max(value, 1.0 - value))
