"""A patient is scored as written in plain loops, whatever the order of its frames."""

import math

import numpy as np
import pytest

from model_store.encoder import Encoder
from model_store.errors import InvalidInput
from model_store.label_sets import Label, LabelSet
from model_store.patient import heatmap, score_patient
from model_store.scoring import unit_rows
from tests.tiny_bundle import PINK, RED

RNG = np.random.default_rng(11)


def embeddings(encoder: Encoder, *colours: tuple[int, int, int]) -> np.ndarray:
    pixels = np.stack([np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    return encoder.encode_images(pixels)


def random_rows(count: int) -> np.ndarray:
    return unit_rows(RNG.normal(size=(count, 4)).astype(np.float32))


def scored(encoder: Encoder, name: str, rows: np.ndarray, calibrated: bool = True):
    label_set = encoder.bundle.label_set(name)
    calibration = encoder.bundle.calibrations.get(name) if calibrated else None
    return score_patient(encoder, label_set, encoder.class_embeddings(label_set), calibration, rows)


def naive_attention(query: np.ndarray, rows: np.ndarray) -> list[float]:
    weights = [math.exp(14.0 * float(query @ row)) for row in rows]
    return [weight / sum(weights) for weight in weights]


def naive_pool(query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    mixed = sum(w * row for w, row in zip(naive_attention(query, rows), rows, strict=True))
    return mixed / np.linalg.norm(mixed)


@pytest.mark.parametrize("count", [2, 3, 40])
def test_named_task_agrees_with_a_naive_loop(encoder: Encoder, count: int) -> None:
    rows = random_rows(count)
    score = scored(encoder, "malignancy", rows)
    positive, negative = encoder.bundle.class_embeddings["malignancy"]
    for index, row in enumerate(rows):
        z = 10.0 * (float(row @ positive) - float(row @ negative))
        probability = 1 / (1 + math.exp(-0.3 * z))
        assert score.frame_cosines[index] == pytest.approx(
            [row @ positive, row @ negative], abs=1e-6
        )
        assert score.frame_probability[index] == pytest.approx(probability, abs=1e-5)
        assert score.frame_scores[index] == pytest.approx([probability, 1 - probability], abs=1e-5)
    pooled = naive_pool(positive, rows)
    z = 10.0 * (float(pooled @ positive) - float(pooled @ negative))
    probability = 1 / (1 + math.exp(-(0.3 * z + 0.2 - 0.1 * math.log(count))))
    assert score.attention == pytest.approx(naive_attention(positive, rows), abs=1e-5)
    assert score.cosines == pytest.approx([pooled @ positive, pooled @ negative], abs=1e-5)
    assert score.probability == pytest.approx(probability, abs=1e-5)
    assert score.scores == pytest.approx([probability, 1 - probability], abs=1e-5)


def test_set_without_a_positive_label_attends_label_by_label(encoder: Encoder) -> None:
    rows = random_rows(9)
    score = scored(encoder, "colour", rows)
    classes = encoder.bundle.class_embeddings["colour"]
    cosine = [float(naive_pool(query, rows) @ query) for query in classes]
    total = sum(math.exp(10.0 * value) for value in cosine)
    assert score.cosines == pytest.approx(cosine, abs=1e-5)
    assert score.scores == pytest.approx([math.exp(10.0 * v) / total for v in cosine], abs=1e-4)
    for query, weights in zip(classes, score.attention, strict=True):
        assert weights == pytest.approx(naive_attention(query, rows), abs=1e-5)
    assert score.probability is None
    assert score.frame_probability is None


def test_order_of_the_frames_changes_nothing_but_the_order(encoder: Encoder) -> None:
    rows, order = random_rows(12), RNG.permutation(12)
    for name in ("malignancy", "colour"):
        one, other = scored(encoder, name, rows), scored(encoder, name, rows[order])
        assert other.scores == pytest.approx(one.scores, abs=1e-5)
        assert np.abs(one.attention[..., order] - other.attention).max() < 1e-5
        assert np.abs(one.frame_scores[order] - other.frame_scores).max() < 1e-5


@pytest.mark.parametrize("name", ["polyp_detection", "malignancy", "colour"])
def test_patient_of_one_frame_equals_that_frame(encoder: Encoder, name: str) -> None:
    score = scored(encoder, name, random_rows(1))
    assert np.array_equal(score.scores, score.frame_scores[0])
    assert np.array_equal(score.cosines, score.frame_cosines[0])
    assert score.attention.shape == ((3, 1) if name == "colour" else (1,))
    assert (score.attention == 1.0).all()
    if name != "colour":
        assert score.probability == score.frame_probability[0]


@pytest.mark.parametrize("frames", [1, 2, 64, 1000])
def test_attention_sums_to_one(encoder: Encoder, frames: int) -> None:
    rows = random_rows(frames)
    assert scored(encoder, "malignancy", rows).attention.sum() == pytest.approx(1.0, abs=1e-5)
    assert scored(encoder, "colour", rows).attention.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_one_lesion_among_200_normal_frames_is_not_no_polyp(encoder: Encoder) -> None:
    score = scored(encoder, "polyp_detection", embeddings(encoder, *[PINK] * 200, RED))
    assert score.probability > 0.9
    assert score.attention.argmax() == 200


def test_mixed_patient_is_not_benign(encoder: Encoder) -> None:
    score = scored(encoder, "malignancy", embeddings(encoder, RED, PINK, RED, PINK))
    assert score.scores[0] > 0.9
    assert score.attention[[0, 2]].sum() > 0.99


def test_without_calibration_scores_are_the_softmax(encoder: Encoder) -> None:
    score = scored(encoder, "malignancy", random_rows(5), calibrated=False)
    for cosine, found in (
        (score.cosines, score.scores),
        *zip(score.frame_cosines, score.frame_scores, strict=True),
    ):
        total = sum(math.exp(10.0 * value) for value in cosine)
        assert found == pytest.approx([math.exp(10.0 * v) / total for v in cosine], abs=1e-5)
    assert score.probability is None


def test_positive_label_need_not_stand_first(encoder: Encoder) -> None:
    named = encoder.bundle.label_set("malignancy")
    turned = LabelSet("", named.labels[::-1], "malignant")
    rows, classes = random_rows(6), encoder.bundle.class_embeddings["malignancy"]
    calibration = encoder.bundle.calibrations["malignancy"]
    one = score_patient(encoder, named, classes, calibration, rows)
    other = score_patient(encoder, turned, classes[::-1].copy(), calibration, rows)
    assert other.probability == pytest.approx(one.probability, abs=1e-6)
    assert other.scores[::-1] == pytest.approx(one.scores, abs=1e-6)


def test_identical_labels_share_evenly(encoder: Encoder) -> None:
    labels = tuple(Label(str(index), "", ("red",)) for index in range(4))
    classes = np.repeat(encoder.encode_texts(["red"]), 4, axis=0)
    score = score_patient(encoder, LabelSet("", labels), classes, None, random_rows(3))
    assert score.scores == pytest.approx([0.25] * 4)


def test_no_frame_is_an_error(encoder: Encoder) -> None:
    with pytest.raises(InvalidInput, match="at least one frame"):
        scored(encoder, "malignancy", random_rows(0))


def test_heatmap_is_high_where_the_label_is_seen_and_low_elsewhere(encoder: Encoder) -> None:
    pixels = np.full((1, 64, 64, 3), PINK, np.uint8)
    pixels[:, :16, 16:32] = RED
    _, grid = encoder.encode_images_with_grid(pixels)
    found = heatmap(grid[0], encoder.bundle.class_embeddings["polyp_detection"], 0, 10.0)
    assert found.shape == (4, 4)
    assert found[0, 1] > 0.99
    assert np.delete(found.ravel(), 1).max() < 0.01
