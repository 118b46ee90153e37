"""Canaries of the count that is asked for, one at the threshold; examples on their right side."""

import logging
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.selftest import measure_canaries
from tests.tiny_bundle import PINK, RED, build_tiny_bundle, frame_jpeg
from training.canary_frames import canary_images
from training.errors import ConfigError
from training.example_check import EXAMPLES, check_examples

TASK = "polyp_detection"


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder(Bundle.open(build_tiny_bundle(tmp_path_factory.mktemp("b") / "tiny")))


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_as_many_canaries_as_asked_for_the_first_near_the_threshold(
    encoder: Encoder, count: int
) -> None:
    images = canary_images(encoder, count, seed=1)
    assert len(images) == count
    p = [frame.probability[TASK] for frame in measure_canaries(encoder, images).frames]
    threshold = encoder.bundle.calibrations[TASK].operating_point("balanced").frame_threshold
    assert abs(p[0] - threshold) < 0.1
    if count > 2:
        assert min(p) < threshold - 0.1
        assert max(p) > threshold + 0.1


def test_the_same_seed_chooses_the_same_canaries(encoder: Encoder) -> None:
    assert canary_images(encoder, 2, seed=4) == canary_images(encoder, 2, seed=4)


def test_a_recipe_without_a_canary_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ConfigError, match="canaries"):
        canary_images(encoder, 0, seed=1)


def _write(folder: Path, swapped: bool) -> Path:
    for i in (1, 2, 3):
        (folder / f"polyp_{i}.jpg").write_bytes(frame_jpeg(PINK if swapped else RED))
        (folder / f"normal_{i}.jpg").write_bytes(frame_jpeg(RED if swapped else PINK))
    return folder


def test_examples_on_their_right_side_pass(encoder: Encoder, tmp_path: Path) -> None:
    found = check_examples(encoder, _write(tmp_path, swapped=False))
    assert len(found["frames"]) == 6
    assert set(found["patients"]) == {"polyp_1 + normal_1", "normal_1 + normal_2 + normal_3"}
    assert all(entry["right"] for level in found.values() for entry in level.values())


def test_examples_on_the_wrong_side_are_recorded_and_warned_of(
    encoder: Encoder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = check_examples(encoder, _write(tmp_path, swapped=True))
    assert not any(entry["right"] for entry in found["frames"].values())
    assert not found["patients"]["normal_1 + normal_2 + normal_3"]["right"]
    assert "polyp_1" in caplog.text


def test_the_examples_of_the_checkout_are_found() -> None:
    assert len(list(EXAMPLES.glob("*.jpg"))) == 6
    assert np.all([path.stat().st_size > 0 for path in EXAMPLES.glob("*.jpg")])
