"""A stage's weights score an archive as cleansing does, in one pass over the frames."""

import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

torch = pytest.importorskip("torch", reason="needs torch (extra `train`)")

from model_store.quality import QualityLimits, assess  # noqa: E402
from tests.training.scored_archive import write_records  # noqa: E402
from training.batches import FrameStore, plain  # noqa: E402
from training.cleansing import SENTENCES  # noqa: E402
from training.config import Recipe, load  # noqa: E402
from training.errors import ConfigError, StaleInput  # noqa: E402
from training.exams import start_archive, write_archive  # noqa: E402
from training.model import EndoClip, build, freeze, load_spec, save_weights  # noqa: E402
from training.phantom import draw_exam  # noqa: E402
from training.records import read  # noqa: E402
from training.scoring.models import GateOnly, StageWeights  # noqa: E402
from training.scoring.scores import read_scores, score_archive  # noqa: E402

PX = 64


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(Path(__file__).parents[2] / "training" / "configs" / "smoke.toml")


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "archive"
    start_archive(folder)
    exams = [
        draw_exam(folder, f"e{i}", "train", i, np.random.default_rng((3, i))) for i in range(3)
    ]
    split = {exam.record["patient_id"]: exam.part for exam in exams}
    write_archive(
        folder,
        "phantom",
        [exam.record for exam in exams],
        split,
        [exam.truth for exam in exams],
        [],
    )
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> Path:
    torch.manual_seed(5)
    model, _ = build(load_spec(recipe.model.config), None, pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "weights.pt"
    save_weights(model, path)
    return path


def score_frames(
    model: EndoClip, ids: torch.Tensor, store: FrameStore, paths: list[Path]
) -> np.ndarray:
    """Naive twin: the first sentence's probability, frame by frame."""
    model.eval()
    with torch.inference_mode():
        captions = model.encode_ids(ids)
        images = [model.encode_images(plain(store.get([p]), store.contract, PX)) for p in paths]
        p = [torch.softmax(model.logit_scale * x @ captions.T, -1)[0, 0].item() for x in images]
    return np.array(p)


def set_aside(store: FrameStore, paths: list[Path]) -> list[str | None]:
    """Naive twin: the gate's word, frame by frame."""
    words = [assess(store.get([path])[0].numpy(), QualityLimits()) for path in paths]
    return [None if word is None else str(word) for word in words]


def test_one_pass_gives_what_two_naive_loops_do(
    tmp_path: Path, archive: Path, weights: Path, recipe: Recipe
) -> None:
    records = read(archive).records
    paths = [frame for record in records for frame in record.frames]
    spec = load_spec(recipe.model.config)
    model, tokenize = build(spec, None, pretrained=False)
    model.load_state_dict(torch.load(weights, weights_only=True))
    freeze(model, recipe.model.frozen_blocks, recipe.model.frozen_text_layers)
    model = model.to(memory_format=torch.channels_last)
    store = FrameStore(spec.contract)
    expected = score_frames(model, tokenize(list(SENTENCES)), store, paths)
    reasons = set_aside(store, paths)

    described = StageWeights.of(weights, recipe.model, PX, SENTENCES)
    out = score_archive(tmp_path / "out", archive, records, described, workers=1)
    found = pa.concat_tables(read_scores(out, ["frame", "reason", "probability"]))
    root = archive.resolve()
    assert found["frame"].to_pylist() == [p.relative_to(root).as_posix() for p in paths]
    assert found["reason"].to_pylist() == reasons
    assert any(reasons)
    assert not all(reasons)
    assert np.ptp(expected) > 1e-4
    # Batches of 32 against 64: a float32 softmax of cosines, times a scale of 14.
    assert found["probability"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_the_digest_changes_with_what_the_scores_depend_on(
    tmp_path: Path, weights: Path, recipe: Recipe
) -> None:
    one = StageWeights.of(weights, recipe.model, PX, SENTENCES)
    (tmp_path / "copy.pt").write_bytes(weights.read_bytes())
    (tmp_path / "other.pt").write_bytes(weights.read_bytes() + b" ")
    assert StageWeights.of(tmp_path / "copy.pt", recipe.model, PX, SENTENCES).digest == one.digest
    others = [
        StageWeights.of(tmp_path / "other.pt", recipe.model, PX, SENTENCES),
        StageWeights.of(weights, recipe.model, PX + 32, SENTENCES),
        StageWeights.of(weights, recipe.model, PX, SENTENCES[::-1]),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 4


def test_weights_of_other_towers_are_refused_by_name(
    tmp_path: Path, archive: Path, recipe: Recipe
) -> None:
    for name, content in (("empty.pt", {}), ("odd.pt", {"clip.logit_scale": torch.zeros(3)})):
        torch.save(content, tmp_path / name)
    (tmp_path / "noise.pt").write_bytes(b"no weights at all")
    records = read(archive).records[:1]
    for name in ("empty.pt", "odd.pt", "noise.pt"):
        described = StageWeights.of(tmp_path / name, recipe.model, PX, SENTENCES)
        with pytest.raises(ConfigError, match=rf"{name}: expected weights of lite0-minilm"):
            score_archive(tmp_path / name[:-3], archive, records, described, workers=1)


def test_weights_that_are_missing_or_exchanged_are_refused(
    tmp_path: Path, archive: Path, weights: Path, recipe: Recipe
) -> None:
    with pytest.raises(ConfigError, match="expected a weights file, found none"):
        StageWeights.of(tmp_path / "none.pt", recipe.model, PX, SENTENCES)
    changing = tmp_path / "changing.pt"
    changing.write_bytes(weights.read_bytes())
    described = StageWeights.of(changing, recipe.model, PX, SENTENCES)
    changing.write_bytes(b"others")
    with pytest.raises(StaleInput, match="changed after scoring began"):
        score_archive(tmp_path / "out", archive, read(archive).records, described, workers=1)


def test_the_gate_alone_sets_aside_what_cleansing_does(
    tmp_path: Path, archive: Path, recipe: Recipe
) -> None:
    records = read(archive).records[:2]
    store = FrameStore(load_spec(recipe.model.config).contract)
    gate = GateOnly(store.contract)
    out = score_archive(tmp_path / "out", archive, records, gate, workers=1)
    (found,) = read_scores(out)
    assert found.schema.names == ["frame", "record_id", "reason", "error", "model"]
    assert found["reason"].to_pylist() == set_aside(store, [f for r in records for f in r.frames])


def test_an_unreadable_frame_has_no_probability(
    tmp_path: Path, weights: Path, recipe: Recipe
) -> None:
    archive = write_records(tmp_path / "a", {"e1": [b"", b"no picture"]})
    described = StageWeights.of(weights, recipe.model, PX, SENTENCES)
    out = score_archive(tmp_path / "out", archive, read(archive).records, described, workers=1)
    (found,) = read_scores(out, ["reason", "error", "probability"])
    assert found["reason"].to_pylist() == ["unreadable", "unreadable"]
    assert found["error"].to_pylist() == ["empty", "unsupported_format"]
    assert found["probability"].null_count == 2


def test_a_description_survives_the_way_to_a_worker(weights: Path, recipe: Recipe) -> None:
    described = StageWeights.of(weights, recipe.model, PX, SENTENCES)
    assert pickle.loads(pickle.dumps(described)).digest == described.digest
