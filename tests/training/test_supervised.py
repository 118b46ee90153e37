"""The supervised ceiling learns what can be seen, and stands beside zero-shot on the same items."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from tests.tiny_bundle import build_tiny_bundle
from tests.training.colour_archive import write_archive
from training.__main__ import main
from training.config import load
from training.errors import ArchiveRefused
from training.evaluate import TASKS, frame_margins, truth
from training.items import Item, embed
from training.metrics import auroc
from training.protocol import archive_items
from training.supervised.ceiling import (
    Settings,
    _chances,
    _labels,
    ceiling_figures,
    train_ceiling,
)

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archive(tmp_path_factory.mktemp("colours"), ("train", "select"))


def test_every_class_of_every_task_is_drawn_alike(archive: Path) -> None:
    items = archive_items(archive, "train")
    labels, known = _labels(items)
    chances = _chances(labels, known)
    assert chances.sum() == pytest.approx(1.0)
    positive, told = truth("polyp_detection", items)
    # A neoplastic view counts for two of the four classes, a background view for one.
    assert chances[told & ~positive].sum() == pytest.approx(0.25)
    assert chances[positive].sum() == pytest.approx(0.75)


def test_whole_frames_of_the_data_teach_malignancy_alone(archive: Path) -> None:
    views = archive_items(archive, "train")
    frames = [replace(item, kind="frame") for item in views]
    _, known = _labels([*views, *frames])
    assert known[: len(views), 0].all()
    assert not known[len(views) :, 0].any()
    assert known[: len(views), 1].tolist() == known[len(views) :, 1].tolist()


def test_one_class_is_refused(archive: Path) -> None:
    only = [item for item in archive_items(archive, "train") if item.polyp]
    with pytest.raises(ArchiveRefused, match=r"polyp_detection: .* both classes"):
        train_ceiling(only, load(CONFIGS / "smoke.toml").model, Settings(epochs=0.1))


def test_figures_are_those_of_the_scores_and_the_bundle(archive: Path, tmp_path: Path) -> None:
    encoder = Encoder(Bundle.open(build_tiny_bundle(tmp_path / "b")))
    items: list[Item] = archive_items(archive, "select")
    found = embed(encoder, items)
    logits = np.random.default_rng(0).normal(size=(len(items), len(TASKS)))
    figures = ceiling_figures(items, logits, (encoder, found))
    for k, task in enumerate(TASKS):
        y, known = truth(task, items)
        rows = [i for i, item in enumerate(items) if item.kind == "view" and known[i]]
        one = figures["view"][task]
        assert one["items"] == len(rows)
        assert one["supervised"]["auroc"] == auroc(y[rows], logits[rows, k])
        assert one["zero_shot"]["auroc"] == auroc(
            y[rows], frame_margins(encoder, task, found)[rows]
        )
        told = one["lead"]
        assert told["value"] == one["zero_shot"]["auroc"] - one["supervised"]["auroc"]
        assert told["low"] <= told["value"] <= told["high"]


@pytest.mark.slow
def test_the_command_learns_colours(
    archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, out = tmp_path / "r.toml", tmp_path / "s.json"
    # Random towers learn nothing in a minute; ImageNet's tell red from pink at once.
    recipe.write_text((CONFIGS / "default.toml").read_text())
    command = ["supervised", "--archive", str(archive), "--epochs", "2", "--out", str(out)]
    assert (
        main(
            [*command, "--recipe", str(recipe), "--bundle", str(build_tiny_bundle(tmp_path / "b"))]
        )
        == 0
    )
    told = json.loads(out.read_text())
    assert told["figures"]["view"]["polyp_detection"]["supervised"]["auroc"] > 0.9
    assert "| view (" in capsys.readouterr().out
