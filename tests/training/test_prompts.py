"""Paraphrases are no training text, and their figures are what a caller's requests would give."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch (extra `train`)")

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.label_sets import LabelSet
from model_store.scoring import cosines
from tests.test_shipped_bundle import newest
from tests.tiny_bundle import build_tiny_bundle
from tests.training.colour_archive import write_archive
from tests.training.test_claims import plain, training_sentences
from training.__main__ import main
from training.evaluate import frame_margins
from training.items import Embedded, embed
from training.label_texts import label_sets
from training.metrics import auroc
from training.prompts.questions import (
    QUESTIONS,
    Facts,
    Question,
    question_figures,
    read_facts,
)
from training.prompts.spread import best_pairs, spread_figures, summary
from training.prompts.wordings import PARAPHRASES
from training.protocol import archive_items, data_items
from training.sources import read_sources, split_sources, write_source_split

DATA = Path(__file__).parents[3] / "shared" / "data" / "colonoscopy" / "dev"
PAIRS = {
    "en": (("red tissue", "pink tissue"), ("pink frame", "red frame"), ("tissue", "frame")),
    "en-GB": (("red tissue", "pink tissue"),),
    "en-US": (("red frame", "white frame"),),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prompts")
    build_tiny_bundle(out / "tiny")
    write_archive(out / "archive", ("select", "calibrate"))
    return out


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(Bundle.open(folder / "tiny"))


@pytest.fixture(scope="module")
def found(folder: Path, encoder: Encoder) -> Embedded:
    return embed(encoder, archive_items(folder / "archive", "select"))


def learned(texts: set[str]) -> set[str]:
    """Those that training reads, or that a label set asks."""
    asked = {
        prompt
        for impression in (True, False)
        for one in label_sets(impression)
        for label in one.labels
        for prompt in label.prompts
    }
    known = training_sentences() | {plain(text) for text in asked}
    return {text for text in texts if plain(text) in known and plain(text)}


@pytest.mark.parametrize("task", sorted(PARAPHRASES))
def test_paraphrases_are_many_and_none_was_learned(task: str) -> None:
    told = PARAPHRASES[task]
    assert list(told) == ["en", "en-GB", "en-US", "de", "zh"]
    assert len(told["en"]) >= 30
    assert len(told["en-GB"]) == len(told["en-US"])
    for side in (0, 1):
        texts = [pair[side] for pairs in told.values() for pair in pairs]
        assert len(set(texts)) == len(texts)
        assert not learned(set(texts))
    questions = {text for one in QUESTIONS for pair in one.pairs for text in pair}
    assert not learned(questions)


def test_guard_against_learned_sentences_can_fail() -> None:
    assert learned({"Colonic polyp present", "no polyps.", "An adenoma seen at colonoscopy"})


def test_spread_is_what_requests_of_a_caller_give(encoder: Encoder, found: Embedded) -> None:
    figures = spread_figures(encoder, "polyp_detection", found, PAIRS, PAIRS["en"][:1])
    assert sorted(figures) == ["scope", "view"]
    told = found.where([item.kind == "view" for item in found.items])
    y = np.array([item.polyp for item in told.items])
    pairs = [pair for pairs in PAIRS.values() for pair in pairs]
    for pair, row in zip(pairs, figures["view"]["pairs"], strict=True):
        labels = [{"label": text, "prompts": [text]} for text in pair]
        classes = encoder.class_embeddings(LabelSet.from_free(labels))
        scores = cosines(told.embeddings, classes).astype(np.float64)
        assert row["auroc"] == pytest.approx(auroc(y, scores[:, 0] - scores[:, 1]), abs=2e-3)
    straight, reverse, _ = (row["auroc"] for row in figures["view"]["pairs"][:3])
    assert straight > 0.9
    assert reverse == pytest.approx(1 - straight, abs=0.01)
    assert figures["view"]["languages"]["en"]["pairs"]["below_half"] >= 1
    ensembles = figures["view"]["ensembles"]
    assert ensembles["bundle"]["lead"] == 0.0
    assert ensembles["chosen"]["auroc"] == pytest.approx(straight, abs=1e-6)
    assert ensembles["en"]["lead"] == ensembles["en"]["auroc"] - ensembles["bundle"]["auroc"]
    british, american = (row["auroc"] for row in figures["view"]["pairs"][3:])
    assert figures["view"]["spelling"] == pytest.approx(abs(british - american))


def test_a_frame_that_the_gate_sets_aside_has_no_say(encoder: Encoder, found: Embedded) -> None:
    spoilt = replace(found, reasons=["dark", *found.reasons[1:]])
    whole, less = (
        spread_figures(encoder, "polyp_detection", one, PAIRS, PAIRS["en"])
        for one in (found, spoilt)
    )
    kind = found.items[0].kind
    assert whole[kind]["negatives"] - less[kind]["negatives"] == 1


def test_best_pairs_leave_the_reversed_one_out(encoder: Encoder, found: Embedded) -> None:
    many = [PAIRS["en"][1]] * 20 + [PAIRS["en"][0]] * 16
    assert best_pairs(encoder, "polyp_detection", found, many) == [PAIRS["en"][0]] * 16


def test_summary_names_the_lowest() -> None:
    told = summary({f"p{i}": i / 100 for i in range(101)})
    assert (told["median"], told["p5"], told["p95"]) == pytest.approx((0.5, 0.05, 0.95))
    assert (told["count"], told["below_half"]) == (101, 50)
    assert [one["text"] for one in told["worst"]] == ["p0", "p1", "p2"]


def test_questions_are_held_against_the_facts(encoder: Encoder, found: Embedded) -> None:
    margins = frame_margins(encoder, "polyp_detection", found)
    pairs = zip(found.items, margins, strict=True)
    facts = {item.path: Facts(area=float(z)) for item, z in pairs if item.polyp}
    graded = Question("red / pink", (("red tissue", "pink tissue"),), lambda f: f.area, graded=True)
    figures = question_figures(encoder, graded, found, facts)
    assert figures["view"]["rank_correlation"] > 0.9
    assert 20 <= min(figures["view"]["high"], figures["view"]["low"]) <= 24
    assert figures["view"]["auroc"] > 0.95
    turned = replace(graded, pairs=(("pink tissue", "red tissue"),))
    below = question_figures(encoder, turned, found, facts)["view"]
    assert below["auroc_high"] < 0.5
    assert question_figures(encoder, graded, found, {}) == {}


def test_each_question_reads_its_own_facts() -> None:
    value = {question.name: question.value for question in QUESTIONS}
    assert value["left / right"](Facts(centre=(0.2, 0.5))) == 1.0
    assert value["left / right"](Facts(centre=(0.8, 0.5))) == 0.0
    assert np.isnan(value["left / right"](Facts(centre=(0.5, 0.1))))
    assert value["upper / lower"](Facts(centre=(0.5, 0.1))) == 1.0
    assert value["several / one"](Facts(lesions=2)) == 1.0
    assert value["several / one"](Facts(lesions=1)) == 0.0
    assert value["red / pale"](Facts(attributes={"colour": "dark-red"})) == 1.0
    assert np.isnan(value["red / pale"](Facts(attributes={"colour": "isochromatic"})))
    assert all(np.isnan(one(Facts())) for one in value.values())


def test_command_writes_figures_page_and_plot_and_makes_them_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, page = folder / "out" / "prompts.json", folder / "out" / "prompts.md"
    command = ["prompts", "--bundle", str(folder / "tiny"), "--archive", str(folder / "archive")]
    command += ["--part", "calibrate", "--cache", str(folder / "cache"), "--out", str(out)]
    assert main(command) == 0
    first = [path.read_bytes() for path in (out, page, page.with_suffix(".svg"))]
    figures = json.loads(out.read_text("utf-8"))
    assert figures["part"] == "calibrate"
    assert set(figures["tasks"]["malignancy"]) == {"scope", "view"}
    text = page.read_text("utf-8")
    assert "chosen on `select`" in text
    assert "Not asked: pedunculated, flat, ulcerated." in text
    assert text in capsys.readouterr().out
    kept = sorted((folder / "cache").iterdir())
    assert len(kept) == 2
    assert main(command) == 0
    assert first == [path.read_bytes() for path in (out, page, page.with_suffix(".svg"))]
    assert sorted((folder / "cache").iterdir()) == kept
    assert main([*command, "--data", str(folder)]) == 1
    assert "expected source_split.json" in capsys.readouterr().err


@pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data/colonoscopy")
def test_shipped_bundle_reads_size_and_survives_plain_words_on_real_frames(tmp_path: Path) -> None:
    write_source_split(tmp_path / "source_split.json", split_sources(read_sources(DATA)))
    (tmp_path / "views").mkdir()
    (tmp_path / "views" / "views.jsonl").write_text("", "utf-8")
    encoder = Encoder(Bundle.open(newest()))
    items = data_items(DATA, tmp_path, "select")
    crops = [item for item in items if item.kind == "crop"][::3]
    found = embed(encoder, [*crops, *(i for i in items if i.kind == "frame")][:130])
    facts = read_facts(tmp_path, DATA, "select")
    assert all(0 < one.area < 1 for one in facts.values())
    assert {one.centre is None for one in facts.values() if one.lesions == 1} == {False}
    size = next(question for question in QUESTIONS if question.name == "large / small")
    assert question_figures(encoder, size, found, facts)["frame"]["auroc"] > 0.8
    told = PARAPHRASES["polyp_detection"]
    figures = spread_figures(encoder, "polyp_detection", found, told, told["en"])
    assert figures["crop"]["languages"]["en"]["pairs"]["median"] > 0.9
