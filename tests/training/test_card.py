"""The card says what is true of this bundle: its arm, its towers, its figures."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs scikit-learn (extra `train`)")

from model_store.bundle import Bundle, Manifest
from model_store.encoder import Encoder
from tests.tiny_bundle import build_tiny_bundle, calibrations, label_sets, manifest
from tests.training.colour_archive import write_archive
from training.card import model_card
from training.figures import part_figures


def _card(**extra: str) -> str:
    plain = replace(manifest(), metrics={})
    told = {"archive": "composed", "model": "lite0-minilm", "weights": "packages"} | extra
    return _written(replace(plain, provenance=replace(plain.provenance, extra=told)))


def _written(of: Manifest) -> str:
    return model_card(of, label_sets(), calibrations())


def test_whether_the_label_was_seen_depends_on_the_arm() -> None:
    seen, withheld = _card(impression="in text"), _card(impression="withheld")
    assert "label was seen as text" in seen
    assert "withheld" not in seen
    assert "label was withheld from the text" in withheld
    assert "seen as text" not in withheld
    for card in (seen, withheld):
        assert "label sets how often a lesion is shown" in card


def test_licences_are_those_of_the_towers() -> None:
    lite, clip = _card(), _card(model="vit-b-32", weights="openai")
    assert "Apache-2.0" in lite
    assert "CLIP ViT-B/32" not in lite
    assert "MIT (OpenAI's CLIP)" in clip
    assert "MiniLM" not in clip
    own = _card(model="vit-b-32", weights="our-weights.pt")
    assert "`our-weights.pt`" in own
    assert "MIT (" not in own
    assert "started at random" in _card(weights="none")
    gone_on = _card(weights="bundle endo-clip-lite0 0.3.0 sha256:abc")
    assert "went on from the bundle endo-clip-lite0 0.3.0 sha256:abc" in gone_on
    assert "Apache-2.0" in gone_on
    assert "weight by weight" not in gone_on
    mixed = _card(weights="bundle endo-clip-lite0 0.3.0 sha256:abc", start_share=0.5)
    assert "went on from (share 0.5)" in mixed


def test_a_bundle_of_drawn_frames_claims_nothing() -> None:
    card = _card(archive="phantom")
    assert "mean nothing on real frames" in card
    assert "BKAI" not in card.partition("## Limits")[0]


def test_a_paragraph_is_one_line() -> None:
    for card in (_card(), _card(impression="withheld", archive="ingested")):
        lines = card.splitlines()
        for line, after in pairwise(lines):
            starts = ("|", "- ", "#")
            assert not line or not after or (line.startswith(starts) and after.startswith(starts))


def test_all_figures_stand_in_the_card(tmp_path: Path) -> None:
    encoder = Encoder(Bundle.open(build_tiny_bundle(tmp_path / "tiny")))
    figures = part_figures(encoder, write_archive(tmp_path / "a", ("report",)), None, "report")
    auroc = figures["patients"]["malignancy"]["unify"]["auroc"]
    card = _written(replace(manifest(), metrics=figures))
    assert f"malignancy (1000) | {auroc:.3f}" in card
    assert "| view | malignancy |" in card
    assert "Patients without a lesion (400)" in card
    wrong = {"polyp_1": {"probability": 0.1, "decision": "negative", "right": False}}
    told = figures | {"examples": {"frames": wrong, "patients": {}}}
    assert "wrong side: polyp_1" in _written(replace(manifest(), metrics=told))
