"""Scores of an archive: the same as one frame at a time, every frame accounted for, streamed."""

import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.errors import BundleError
from model_store.images import decode
from model_store.patient import score_patient
from model_store.quality import QualityLimits, assess
from tests.tiny_bundle import PINK, RED, frame_jpeg, frame_png
from tests.training.scored_archive import coloured, dark_gate_bundle, write_records
from training import frame_files
from training.errors import ArchiveRefused, ConfigError, ScoringStopped, StaleInput
from training.records import Record, read, write_jsonl
from training.runs import stamp_of
from training.scoring import parts as parts_module
from training.scoring.models import PackedBundle
from training.scoring.parts import PartScorer, part_files, part_sizes, write_plan
from training.scoring.scores import read_scores, score_archive


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dark_gate_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_module, "PART_FRAMES", 16)


def table(folder: Path, name: str = "frames") -> pa.Table:
    return pa.concat_tables(read_scores(folder, table=name))


def rows(folder: Path, name: str = "frames") -> list[dict[str, Any]]:
    return table(folder, name).to_pylist()


def scored(out: Path, archive: Path, bundle: Path, **options: Any) -> Path:
    found = read(archive)
    options = {"workers": 1} | options
    return score_archive(out, found.path, found.records, PackedBundle.open(bundle), **options)


def naive(bundle: Path, record: Record) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """One frame at a time, then the record: what the service would answer."""
    encoder = Encoder(Bundle.open(bundle), threads=1)
    limits = QualityLimits.of(encoder.bundle.manifest.quality_gate)
    frames, embeddings = [], []
    for path in record.frames:
        pixels = decode(path.read_bytes(), encoder.bundle.manifest.input)
        reason = assess(pixels, limits)
        frames.append({"reason": None if reason is None else str(reason)})
        if reason is None:
            embeddings.append(encoder.encode_images(pixels[None])[0])
    whole = {"frames": len(frames), "frames_scored": len(embeddings)}
    for task, calibration in encoder.bundle.calibrations.items():
        label_set, point = encoder.bundle.label_set(task), calibration.operating_points["balanced"]
        found = score_patient(
            encoder,
            label_set,
            encoder.class_embeddings(label_set),
            calibration,
            np.stack(embeddings),
        )
        assert found.probability is not None
        assert found.frame_probability is not None
        values = iter(found.frame_probability)
        for frame in frames:
            p = next(values) if frame["reason"] is None else None
            frame[f"{task}_probability"] = p
            frame[f"{task}_decision"] = None if p is None else str(point.decide_frame(p))
        whole[f"{task}_probability"] = found.probability
        decision = point.decide_patient(found.probability, len(embeddings))
        whole[f"{task}_decision"] = str(decision)
    return frames, whole


def close(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    return all(
        found[key] == (pytest.approx(value, abs=1e-6) if isinstance(value, float) else value)
        for key, value in expected.items()
    )


@pytest.mark.usefixtures("small_parts")
def test_scores_are_those_of_one_frame_at_a_time(tmp_path: Path, bundle: Path) -> None:
    archive = write_records(tmp_path / "a", coloured(5, 7))
    out = scored(tmp_path / "out", archive, bundle)
    frames, whole = rows(out), rows(out, "records")
    assert len(part_files(out, "frames")) == 2
    records = read(archive).records
    assert [f["record_id"] for f in frames] == [r.record_id for r in records for _ in r.frames]
    for i, record in enumerate(records):
        expected, answer = naive(bundle, record)
        assert all(close(*pair) for pair in zip(frames[i * 7 :][:7], expected, strict=True))
        assert close(whole[i], answer | {"record_id": record.record_id})
    reasons = stamp_of(out)["figures"]["reasons"]
    assert reasons == {"scored": 32, "dark": 3}
    assert {f["malignancy_decision"] for f in frames} >= {"positive", "negative", None}


def test_every_row_and_file_names_the_model(tmp_path: Path, bundle: Path) -> None:
    out = scored(tmp_path / "out", write_records(tmp_path / "a", coloured(2, 3)), bundle)
    digest = Bundle.open(bundle).digest
    for name in ("frames", "records"):
        assert set(table(out, name)["model"].to_pylist()) == {digest}
        for path in part_files(out, name):
            assert pq.read_schema(path).metadata[b"model"] == digest.encode()
            assert pa.types.is_dictionary(pq.read_schema(path).field("model").type)


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda path: path.write_bytes(b""), "empty"),
        (lambda path: path.write_bytes(frame_jpeg(RED)[:300]), "image_truncated"),
        (lambda path: path.write_bytes(b"no picture"), "unsupported_format"),
        (lambda path: path.unlink(), "missing"),
    ],
)
def test_a_frame_that_cannot_be_read_has_a_row_and_costs_no_other(
    tmp_path: Path, bundle: Path, spoil: Callable[[Path], object], word: str
) -> None:
    archive = write_records(tmp_path / "a", {"e1": [frame_png(RED), frame_png(RED), b""]})
    (archive / "frames/e1/0002.png").write_bytes(frame_png(PINK))
    spoil(archive / "frames/e1/0001.png")
    records = read(archive, check_frames=False).records
    model = PackedBundle.open(bundle)
    out = score_archive(tmp_path / "out", archive, records, model, workers=1)
    found = rows(out)
    assert [(f["reason"], f["error"]) for f in found] == [
        (None, None),
        ("unreadable", word),
        (None, None),
    ]
    assert found[1]["malignancy_probability"] is None
    assert found[0]["malignancy_probability"] > 0.5 > found[2]["malignancy_probability"]
    assert rows(out, "records")[0]["frames_scored"] == 2
    assert stamp_of(out)["figures"]["reasons"]["unreadable"] == 1


def test_a_record_without_a_frame_to_score_has_no_probability(tmp_path: Path, bundle: Path) -> None:
    archive = write_records(tmp_path / "a", {"e1": [frame_png((4, 2, 2))], "e2": [frame_png(RED)]})
    dark, red = rows(scored(tmp_path / "out", archive, bundle), "records")
    assert (dark["frames"], dark["frames_scored"], dark["malignancy_probability"]) == (1, 0, None)
    assert (red["frames_scored"], red["malignancy_decision"]) == (1, "positive")


@pytest.mark.usefixtures("small_parts")
def test_an_archive_that_goes_away_stops_the_run_instead_of_filling_it_with_unreadable_frames(
    tmp_path: Path, bundle: Path
) -> None:
    archive = write_records(tmp_path / "a", coloured(6, 8))
    found, model = read(archive), PackedBundle.open(bundle)
    archive.rename(tmp_path / "elsewhere")
    with pytest.raises(ArchiveRefused, match=r"cannot be read any more.*same command resumes"):
        score_archive(tmp_path / "out", found.path, found.records, model, workers=1)
    (tmp_path / "elsewhere").rename(archive)
    out = score_archive(tmp_path / "out", found.path, found.records, model, workers=1)
    assert "unreadable" not in stamp_of(out)["figures"]["reasons"]


def test_members_of_a_shard_score_as_files(tmp_path: Path, bundle: Path) -> None:
    archive = write_records(tmp_path / "a", coloured(3, 4))
    plain = rows(scored(tmp_path / "plain", archive, bundle))
    lines = []
    with tarfile.open(archive / "frames" / "0.tar", "w") as tar:
        for record in read(archive).records:
            for frame in record.frames:
                tar.add(frame, frame.relative_to(archive / "frames").as_posix())
            names = [f"frames/0.tar/{f.relative_to(archive / 'frames')}" for f in record.frames]
            told = {"record_id": record.record_id, "patient_id": record.patient_id}
            lines.append(told | {"report": record.report, "frames": names})
    write_jsonl(archive / "records.jsonl", lines)
    sharded = rows(scored(tmp_path / "sharded", archive, bundle))
    assert [f | {"frame": ""} for f in sharded] == [f | {"frame": ""} for f in plain]
    assert sharded[0]["frame"] == "frames/0.tar/e000/0000.png"
    assert frame_files._members.cache_info().currsize == 0  # lists of 874 shards would add up


@pytest.mark.parametrize("kind", ["float16", "float32"])
def test_embeddings_are_those_of_the_encoder_and_null_where_there_is_none(
    tmp_path: Path, bundle: Path, kind: str
) -> None:
    archive = write_records(tmp_path / "a", coloured(1, 10))
    found = table(scored(tmp_path / "out", archive, bundle, embeddings=kind))
    encoder = Encoder(Bundle.open(bundle), threads=1)
    column = found["embedding"].to_pylist()
    assert [c is None for c in column] == [r == "dark" for r in found["reason"].to_pylist()]
    for frame, values in zip(read(archive).records[0].frames, column, strict=True):
        if values is not None:
            pixels = decode(frame.read_bytes(), encoder.bundle.manifest.input)
            expected = encoder.encode_images(pixels[None])[0]
            assert np.asarray(values) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("sizes", [[1], [16], [17, 1], [3] * 20, [40, 1, 1, 15, 2], [5, 4000]])
@pytest.mark.usefixtures("small_parts")
def test_parts_hold_whole_records_and_every_frame_once(tmp_path: Path, sizes: list[int]) -> None:
    records = [
        Record(f"r{i}", f"p{i}", "x", tuple(tmp_path / f"{i}_{j}.jpg" for j in range(size)))
        for i, size in enumerate(sizes)
    ]
    write_plan(tmp_path / "plan.parquet", tmp_path, records)
    plan = pq.ParquetFile(tmp_path / "plan.parquet")
    groups = [plan.read_row_group(i) for i in range(plan.num_row_groups)]
    assert part_sizes(tmp_path / "plan.parquet") == [group.num_rows for group in groups]
    names = [name for group in groups for name in group["frame"].to_pylist()]
    assert names == [f.name for record in records for f in record.frames]
    ids = [set(group["record_id"].to_pylist()) for group in groups]
    assert sum(len(one) for one in ids) == len(records)
    assert all(group.num_rows >= 16 for group in groups[:-1])


def test_a_finished_folder_is_not_redone_and_of_another_model_or_archive_refused(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_records(tmp_path / "a", coloured(2, 3))
    out = scored(tmp_path / "out", archive, bundle)
    with monkeypatch.context() as patch:
        patch.setattr(PartScorer, "score", None)  # would fail if anything were scored
        assert scored(tmp_path / "out", archive, bundle) == out
    other = dark_gate_bundle(tmp_path / "other", version="1.0.1")
    with pytest.raises(StaleInput, match="out was made with other model;"):
        scored(out, archive, other)
    with pytest.raises(StaleInput, match="other frames;"):
        scored(out, write_records(tmp_path / "b", coloured(2, 4)), bundle)
    with pytest.raises(StaleInput, match="other archive;"):
        scored(out, archive, bundle, key={"archive": "sha256:1"})
    with pytest.raises(StaleInput, match="other embeddings;"):
        scored(out, archive, bundle, embeddings="float16")


def test_unfinished_scores_are_not_read(tmp_path: Path) -> None:
    with pytest.raises(StaleInput, match=r"expected stamp\.json"):
        list(read_scores(tmp_path))


def test_no_frame_to_score_is_an_error_and_leaves_nothing(tmp_path: Path, bundle: Path) -> None:
    archive = write_records(tmp_path / "a", {})
    with pytest.raises(ArchiveRefused, match="a: expected frames to score, found none"):
        scored(tmp_path / "out", archive, bundle)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_damaged_bundle_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    bundle = dark_gate_bundle(tmp_path / "tiny")
    tower = bundle / "image_tower.onnx"
    tower.write_bytes(tower.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"image_tower\.onnx: expected sha256"):
        scored(tmp_path / "out", write_records(tmp_path / "a", coloured(1, 1)), bundle)
    assert not list(tmp_path.glob("out*"))


def test_a_bundle_exchanged_after_it_was_opened_is_refused(tmp_path: Path) -> None:
    archive = write_records(tmp_path / "a", coloured(1, 1))
    model = PackedBundle.open(dark_gate_bundle(tmp_path / "tiny"))
    (tmp_path / "tiny").rename(tmp_path / "old")
    dark_gate_bundle(tmp_path / "tiny", version="9.0.0")
    with pytest.raises(StaleInput, match="tiny: expected sha256"):
        score_archive(tmp_path / "out", archive, read(archive).records, model, workers=1)


def test_a_try_that_scored_nothing_does_not_stand_in_the_way_of_another_model(
    tmp_path: Path, bundle: Path
) -> None:
    archive = write_records(tmp_path / "a", coloured(1, 1))
    model = PackedBundle.open(dark_gate_bundle(tmp_path / "tiny"))
    shutil.rmtree(tmp_path / "tiny")
    with pytest.raises(BundleError):
        score_archive(tmp_path / "out", archive, read(archive).records, model, workers=1)
    assert rows(scored(tmp_path / "out", archive, bundle))


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path, bundle: Path) -> None:
    archive = write_records(tmp_path / "a", coloured(1, 1))
    (tmp_path / "file").write_text("in the way", "utf-8")
    with pytest.raises(ScoringStopped, match=r"file.*Not a directory.*same command resumes"):
        scored(tmp_path / "file" / "out", archive, bundle)


@pytest.mark.parametrize("options", [{"engine": "spark"}, {"embeddings": "int8"}, {"workers": -1}])
def test_settings_without_meaning_are_refused(
    tmp_path: Path, bundle: Path, options: dict[str, Any]
) -> None:
    archive = write_records(tmp_path / "a", coloured(1, 1))
    with pytest.raises(ConfigError, match="expected an engine of local, ray"):
        scored(tmp_path / "out", archive, bundle, **options)
