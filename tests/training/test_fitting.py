"""Calibration and figures of a bundle that knows colours, on an archive of colours."""

import dataclasses
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")

from model_store.bundle import Bundle, pack
from model_store.encoder import Encoder
from model_store.patient import score_patient
from model_store.scoring import Decision, unit_rows, write_calibrations
from tests.tiny_bundle import build_tiny_bundle
from tests.training.colour_archive import write_archive
from training.errors import ParityError
from training.evaluate import (
    Patient,
    frame_figures,
    patient_figures,
    score_patients,
    source_figures,
)
from training.figures import part_figures
from training.fitting import fit_calibrations, part_items
from training.items import Embedded, embed
from training.metrics import auroc
from training.patients import patients, plan_rows, read_views
from training.precision_gate import gate_images, gate_prompts
from training.probes import counts_probe
from training.protocol import (
    CALIBRATION_BACKGROUNDS,
    archive_items,
    archive_patients,
    lesion_free_twins,
    presence,
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("colours") / "archive")


@pytest.fixture(scope="module")
def encoder(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    """The tiny bundle, calibrated on the archive."""
    folder = tmp_path_factory.mktemp("bundle")
    draft = Bundle.open(build_tiny_bundle(folder / "draft"))
    plain = Encoder(draft)
    fitted = fit_calibrations(plain, archive, part_items(plain, archive, None, "calibrate"))
    files: dict[str, bytes | Path] = {n: draft.path / n for n in draft.manifest.files}
    files["calibration.json"] = write_calibrations(fitted)
    return Encoder(pack(folder / "calibrated", draft.manifest, files))


@pytest.fixture(scope="module")
def report(encoder: Encoder, archive: Path) -> Embedded:
    return part_items(encoder, archive, None, "report")


def test_twins_have_no_lesion_and_as_many_frames_of_the_same_sources(archive: Path) -> None:
    views, composed = archive_patients(archive, "report", 1)
    twins = lesion_free_twins(archive, "report", composed)
    for one, twin in zip(composed, twins, strict=True):
        assert not twin.positive
        assert not any(views[r].polyp for r in twin.rows)
        assert any(views[r].polyp for r in one.rows)
        assert len(set(twin.rows)) == len(twin.rows) == len(one.rows)
        own = {r for r in one.rows if not views[r].polyp}
        assert own <= set(twin.rows)
        sources = Counter(views[r].source for r in one.rows)
        if max(sources.values()) <= 25:  # windows without a lesion that each source has
            assert sources == Counter(views[r].source for r in twin.rows)
    y = np.repeat([True, False], len(composed))
    n = np.array([float(len(p.rows)) for p in [*composed, *twins]])
    assert auroc(y, n) == 0.5


def test_counts_tell_nothing_about_calibration_patients(archive: Path) -> None:
    found = patients(archive, "calibrate", 3, backgrounds=CALIBRATION_BACKGROUNDS)
    assert 0.45 <= counts_probe(found) <= 0.55
    total = np.array(plan_rows(found)["x"])[:, 1]
    assert total.min() <= 4
    assert total.max() > 35
    assert (total < 8).mean() > 0.15
    _, composed = archive_patients(archive, "calibrate", 3, CALIBRATION_BACKGROUNDS)
    holding, without = presence(archive, "calibrate", composed, 2)
    assert [len(p.rows) for p in holding] == [len(p.rows) for p in without]


def test_the_protocol_of_the_figures_keeps_its_number_of_backgrounds(archive: Path) -> None:
    found = patients(archive, "report", 2)
    backgrounds = [sum(i < 0 for i in p.lesion_of) for p in found]
    assert min(backgrounds) >= 10
    assert max(backgrounds) <= 40
    assert found == patients(read_views(archive), "report", 2)


def test_one_lesion_among_many_normal_frames_is_found_and_normals_never_help(
    encoder: Encoder, report: Embedded
) -> None:
    views = [i for i, item in enumerate(report.items) if item.kind == "view"]
    normal = [i for i in views if report.items[i].polyp is False]
    for task in ("polyp_detection", "malignancy"):
        calibration = encoder.bundle.calibrations[task]
        point = calibration.operating_point("balanced")
        assert calibration.patient.log_n <= 0
        classes = encoder.class_embeddings(encoder.bundle.label_set(task))

        def served(rows: list[int], task: str = task) -> float:
            score = score_patient(
                encoder,
                encoder.bundle.label_set(task),
                encoder.class_embeddings(encoder.bundle.label_set(task)),
                encoder.bundle.calibrations[task],
                report.embeddings[rows],
            )
            assert score.probability is not None
            return score.probability

        reddest = max(views, key=lambda i: float(report.embeddings[i] @ (classes[0] - classes[1])))
        palest = min(normal, key=lambda i: float(report.embeddings[i] @ (classes[0] - classes[1])))
        p = [served([reddest] + [palest] * n) for n in (0, 1, 9, 39, 199)]
        assert all(after <= before + 1e-6 for before, after in pairwise(p))
        assert point.decide_frame(p[0]) is Decision.POSITIVE
        if task == "polyp_detection":
            # 200 frames: of the shipped bundle (tests/test_shipped_bundle.py); colours overlap.
            assert point.decide_patient(p[3], 40) is Decision.POSITIVE
        for n in (2, 40, 512):
            assert point.decide_patient(served([palest] * n), n) is Decision.NEGATIVE


def test_malignancy_is_fitted_on_lesions_and_measured_apart_without(encoder: Encoder) -> None:
    for name, apart in (("malignancy", True), ("polyp_detection", False)):
        for point in encoder.bundle.calibrations[name].operating_points.values():
            for level in ("frame", "patient"):
                assert (f"{level}_no_lesion_specificity" in point.measured) is apart
    # Were normal frames among the negatives, the balanced point would lie between them and all
    # lesions, and call most non-neoplastic ones positive.
    measured = encoder.bundle.calibrations["malignancy"].operating_point("balanced").measured
    assert measured["frame_specificity"] > 0.7
    assert measured["frame_no_lesion_specificity"] > measured["frame_specificity"]


def test_a_patient_of_one_frame_is_that_frame_and_one_of_none_is_abstained_from(
    encoder: Encoder, report: Embedded
) -> None:
    reasons = ["blurred" if i == 0 else None for i in range(len(report.items))]
    gated = dataclasses.replace(report, reasons=reasons)
    rows = [(0,), (1,), (0, 1), (1, 2), (3, 4)]
    told = [Patient(r, i % 2 == 0, False, 0, (str(i),)) for i, r in enumerate(rows)]
    scores = score_patients(encoder, "malignancy", gated, told)
    assert scores.frames.tolist() == [0, 1, 1, 2, 2]
    assert {scores.probability[name][0] for name in ("unify", "mean", "max")} == {0.5}
    single = scores.probability["unify"][1]
    assert scores.probability["unify"][2] == single
    assert scores.probability["mean"][1] == pytest.approx(single)
    assert scores.probability["max"][1] == pytest.approx(single)
    figures = patient_figures(encoder, "malignancy", gated, told)
    assert figures["balanced_abstained"] >= 1 / 5
    positives = [scores.probability["unify"][i] for i in (2, 4)]
    point = encoder.bundle.calibrations["malignancy"].operating_point("balanced")
    found = [
        point.decide_frame(positives[0]) is Decision.POSITIVE,
        point.decide_patient(positives[1], 2) is Decision.POSITIVE,
    ]
    # Of three positive patients one has no scored frame: neither a detection nor left out.
    assert figures["balanced_sensitivity"] == pytest.approx(sum(found) / 3)


def test_figures_of_a_part_are_of_the_served_probability(
    encoder: Encoder, archive: Path, report: Embedded
) -> None:
    figures = part_figures(encoder, archive, None, "report")
    views, composed = archive_patients(archive, "report")
    assert embed(encoder, views[:3]).embeddings == pytest.approx(
        report.pick(views[:3]).embeddings, abs=1e-6
    )
    pooled = report.pick(views)
    task = "malignancy"
    label_set = encoder.bundle.label_set(task)
    classes = encoder.class_embeddings(label_set)
    served = [
        score_patient(
            encoder,
            label_set,
            classes,
            encoder.bundle.calibrations[task],
            pooled.embeddings[list(p.rows)],
        ).probability
        for p in composed[:200]
    ]
    y = np.array([p.positive for p in composed[:200]])
    per_seed = figures["patients"][task]["unify"]["per_seed"]
    assert per_seed[0] == pytest.approx(auroc(y, np.array(served, float)))
    assert figures["patients"][task]["no_lesion"]["balanced_specificity"] > 0.9
    assert "test_sources" not in figures
    for found in figures["patients_by_frames"].values():
        assert list(found) == ["2-7", "8-19", "20-59", "60-202"]


def test_items_of_one_class_and_sources_kept_for_tests_are_reported(
    encoder: Encoder, report: Embedded
) -> None:
    lesions = report.where([bool(item.polyp) and item.kind == "view" for item in report.items])
    frames = [dataclasses.replace(item, kind="frame") for item in lesions.items]
    figures = frame_figures(encoder, dataclasses.replace(lesions, items=frames))["frame"]
    told = figures["one_class"]["polyp_detection"]
    assert "polyp_detection" not in figures
    assert told["measures"] == "sensitivity"
    assert told["low"] < told["value"] < told["high"]
    normal = report.where([item.polyp is False for item in report.items])
    items = [
        dataclasses.replace(
            item, source="A" if i < 20 else "B", polyp=None if i % 5 == 0 else False
        )
        for i, item in enumerate(normal.items)
    ]
    reasons = ["blurred" if i % 10 == 0 else None for i in range(len(items))]
    test = dataclasses.replace(normal, items=items, reasons=reasons)
    found = source_figures(encoder, test, lesions)
    assert set(found["normal"]) == set(found["gate_recall"]) == {"A", "B", "all"}
    assert found["gate_recall"]["A"] | {"low": 0, "high": 0} == {
        "value": 0.5,
        "low": 0,
        "high": 0,
        "items": 4,
    }
    assert found["normal"]["all"]["polyp_detection"]["items"] == 48
    assert found["polyp_frames_against_normal"]["note"] == "cross-source, confounded"
    assert found["polyp_frames_against_normal"]["negatives"] == 48


def test_a_baseline_stands_beside_on_the_same_items(encoder: Encoder, report: Embedded) -> None:
    def constant(items: object) -> np.ndarray:
        return np.zeros(len(items))  # type: ignore[arg-type]

    view = frame_figures(encoder, report, constant)["view"]
    assert view["malignancy"]["no_pixel"]["auroc"] == 0.5
    lead = view["malignancy"]["auroc"] - 0.5
    assert view["malignancy"]["no_pixel"]["lead"] == pytest.approx(lead)
    assert view["malignancy"]["no_pixel"]["lead_low"] < lead
    assert "no_pixel" not in view["polyp_detection"]


def test_the_prompt_gate_measures_the_loss_and_can_fail(encoder: Encoder, report: Embedded) -> None:
    classes = encoder.bundle.class_embeddings
    same = gate_prompts(encoder, [report], classes, classes)
    assert same == {"text_auroc_loss_polyp_detection": 0.0, "text_auroc_loss_malignancy": 0.0}
    reverse = {name: rows[::-1].copy() for name, rows in classes.items()}
    with pytest.raises(ParityError, match="text_auroc_loss_polyp_detection"):
        gate_prompts(encoder, [report], classes, reverse)
    better = gate_prompts(encoder, [report], reverse, classes)
    assert better["text_auroc_loss_polyp_detection"] < 0


def test_the_prompt_gate_does_not_judge_by_a_handful_of_pairs(
    encoder: Encoder, report: Embedded
) -> None:
    y = np.array([item.polyp is True for item in report.items])
    few = np.zeros(len(y), dtype=bool)
    few[[*np.flatnonzero(y)[:10], *np.flatnonzero(~y)[:10]]] = True
    classes = encoder.bundle.class_embeddings
    reverse = {name: rows[::-1].copy() for name, rows in classes.items()}
    found = gate_prompts(encoder, [report.where(few)], classes, reverse)
    assert found["text_auroc_loss_polyp_detection"] > 0.002


def test_the_image_gate_refuses_moved_embeddings_and_lost_pairs(
    encoder: Encoder, report: Embedded
) -> None:
    same = gate_images(encoder, [report], [report])
    assert same.pop("image_cosine_min") == pytest.approx(1.0, abs=1e-6)
    assert set(same.values()) == {0.0}
    turned = report.embeddings @ np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    with pytest.raises(ParityError, match="lower-precision image tower"):
        gate_images(encoder, [report], [dataclasses.replace(report, embeddings=turned)])
    # All within the cosine, and yet what is close to the other class goes over to it.
    no_polyp, polyp = encoder.bundle.class_embeddings["polyp_detection"][[1, 0]]
    away = np.where([item.polyp is True for item in report.items], -0.02, 0.02)[:, None]
    moved = unit_rows(report.embeddings + away * (polyp - no_polyp)).astype(np.float32)
    with pytest.raises(ParityError, match="image_auroc_loss_polyp_detection"):
        gate_images(encoder, [report], [dataclasses.replace(report, embeddings=moved)])


def test_every_figure_is_a_json_value(encoder: Encoder, archive: Path) -> None:
    def walk(value: object) -> None:
        if isinstance(value, dict):
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)
        else:
            assert value is None or isinstance(value, str | int | float)
            assert not isinstance(value, float) or math.isfinite(value)

    walk(part_figures(encoder, archive, None, "select"))
    assert archive_items(archive, "select")
