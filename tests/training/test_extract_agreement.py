"""How agreement is counted, the labelled sets themselves, and what the rules reach on them."""

import json
import shutil
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from tests.training.chat_server import PROBE, answer, chat_server, lesion
from training.__main__ import main
from training.attributes import ATTRIBUTES
from training.errors import RecordError
from training.extract import labels as module
from training.extract.agreement import Mention, agreement, counts, is_hit
from training.extract.endpoint import Endpoint
from training.extract.evaluation import evaluation, evaluation_table
from training.extract.extraction import Asking
from training.extract.labels import labelled

TEXTS = Path(__file__).resolve().parents[2] / ".." / "shared" / "data" / "text"
NAMES = list(ATTRIBUTES)


def at(value: str, *span: int) -> Mention:
    return Mention(value, ((span[0], span[1]),))


@pytest.mark.parametrize(
    ("span", "hit"),
    [((10, 14), True), ((12, 20), True), ((13, 20), False), ((0, 30), True), ((14, 18), False)],
)
def test_evidence_is_right_when_half_of_the_shorter_span_is_shared(
    span: tuple[int, int], hit: bool
) -> None:
    assert is_hit(at("red", *span), at("red", 10, 14)) is hit
    assert not is_hit(at("pale", *span), at("red", 10, 14))


def test_any_place_of_the_labelled_words_will_do() -> None:
    label = Mention("<=5", ((0, 4), (20, 24)))
    assert is_hit(at("<=5", 20, 24), label)
    assert not is_hit(at("<=5", 10, 14), label)


def test_a_value_of_another_lesion_is_a_miss_and_a_false_alarm() -> None:
    a, b, c = at("red", 0, 3), at("<=5", 5, 9), at("10-19", 20, 25)
    right = [{"colour": a, "size_band": b}, {"size_band": c}]
    wrong = [{"size_band": b}, {"size_band": c, "colour": a}]
    assert counts(right, right).sum(axis=0).tolist() == [3, 3, 3]
    assert counts(wrong, right).sum(axis=0).tolist() == [2, 3, 3]
    assert counts([], right).sum(axis=0).tolist() == [0, 0, 3]
    assert counts(right[::-1], right).sum(axis=0).tolist() == [3, 3, 3]


def test_lesions_are_paired_as_the_best_of_all_pairings() -> None:
    rng = np.random.default_rng(3)

    def lesions(n: int) -> list[dict[str, Mention]]:
        return [
            {k: at(ATTRIBUTES[k][rng.integers(2)], 0, 4) for k in NAMES if rng.random() < 0.6}
            for _ in range(n)
        ]

    for _ in range(40):
        found, told = lesions(3), lesions(3)
        naive = max(
            sum(
                one[k].value == label[k].value
                for one, label in zip(order, told, strict=True)
                for k in one.keys() & label
            )
            for order in permutations(found)
        )
        assert counts(found, told)[:, 0].sum() == naive


def test_figures_count_mentions_only_and_intervals_hold_them() -> None:
    table = np.zeros((40, 9, 3), np.int64)
    table[:30, 0] = (1, 1, 1)
    table[30:36, 0] = (0, 1, 1)
    table[36:, 1] = (0, 1, 0)
    found = agreement(table)
    size, paris, pedicle = (found["attributes"][n] for n in NAMES[:3])  # type: ignore[index]
    assert (size["mentions"], size["precision"], size["recall"]) == (36, 30 / 36, 30 / 36)
    assert size["f1"] == pytest.approx(30 / 36)
    assert size["low"] < 30 / 36 < size["high"]
    assert (paris["precision"], paris["recall"], paris["f1"]) == (0.0, None, 0.0)
    assert (pedicle["precision"], pedicle["f1"], pedicle["low"]) == (None, None, None)
    assert found["micro"]["f1"] == pytest.approx(60 / 76)  # type: ignore[index]
    assert found["macro"]["f1"] == pytest.approx(30 / 36)  # type: ignore[index]
    assert agreement(table) == found


@pytest.mark.parametrize("name", ["known", "blind", "blind2", "blind3"])
def test_each_set_has_sixty_sentences_with_verbatim_evidence(name: str) -> None:
    texts = labelled(name, Path())
    assert len(texts) >= 60
    assert len({t.text for t in texts}) == len(texts)
    for text in texts:
        for told in text.lesions:
            assert set(told) <= set(ATTRIBUTES)
            for attribute, mention in told.items():
                assert mention.value in ATTRIBUTES[attribute], text.name
                assert mention.spans, text.name


def test_every_attribute_is_mentioned_eight_times() -> None:
    told = [les for n in ("known", "blind") for t in labelled(n, Path()) for les in t.lesions]
    assert {n: sum(n in les for les in told) >= 8 for n in NAMES} == dict.fromkeys(NAMES, True)


@pytest.mark.parametrize("name", ["known", "blind", "blind2", "blind3"])
def test_the_rules_reach_what_the_documents_say(name: str, tmp_path: Path) -> None:
    found = evaluation(tmp_path / "l.jsonl", Path("nowhere"))["sets"][name]
    assert found["micro"]["f1"] >= 0.90
    assert all(figure["f1"] >= 0.75 for figure in found["attributes"].values())


def test_the_rules_on_drawn_reports(tmp_path: Path) -> None:
    if not TEXTS.is_dir():
        pytest.skip("../shared/data/text is not here: its 50 labelled reports are not measured")
    figures = evaluation(tmp_path / "l.jsonl", TEXTS)
    assert figures["sets"]["reports"]["texts"] == 50
    assert figures["sets"]["reports"]["micro"]["f1"] >= 0.70
    assert figures["skipped"] == {}


def test_sets_that_are_not_there_are_named(tmp_path: Path) -> None:
    figures = evaluation(tmp_path / "l.jsonl", tmp_path)
    assert list(figures["sets"]) == ["known", "blind", "blind2", "blind3"]
    assert "reports: not measured" in evaluation_table(figures)


def test_labels_that_do_not_fit_their_text_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FOLDER", tmp_path)
    told = {"attributes": {"colour": {"value": "red", "evidence": "red"}}}
    row = {"id": "x", "text": "A reddish polyp.", "lesions": [told]}
    (tmp_path / "known.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RecordError, match=r"known\.jsonl:1: expected verbatim evidence"):
        labelled("known", tmp_path)
    (tmp_path / "t.jsonl").write_text(json.dumps({"F": "A polyp."}) + "\n")
    row = {"file": "t.jsonl", "line": 1, "field": "F", "digest": "sha256:0", "lesions": []}
    (tmp_path / "reports.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(RecordError, match="another text than was labelled"):
        labelled("reports", tmp_path)


def test_a_model_is_measured_alone_and_with_the_rules_behind_it(tmp_path: Path) -> None:
    def model(text: str) -> str:
        if text != PROBE and len(text) % 2:
            return "no answer to speak of"
        return answer(lesion(1)) if "polyp" in text.lower() else answer()

    with chat_server(model) as chat:
        asking = Asking(Endpoint(chat.url, "half"))
        figures = evaluation(tmp_path / "l.jsonl", tmp_path, asking)
        asked = len(chat.reports)
        again = evaluation(tmp_path / "l.jsonl", tmp_path, Asking(Endpoint(chat.url, "half")))
    assert len(chat.reports) == asked
    assert again["sets"] == figures["sets"]
    assert figures["seconds_per_text"] > 0
    assert again["seconds_per_text"] is None
    assert " s a text" not in evaluation_table(again)
    assert figures["extractor"] == "half"
    alone, both = figures["sets"]["blind"]["micro"], figures["with_fallback"]["blind"]["micro"]
    assert alone["f1"] == 0.0
    assert 0.2 < both["f1"] < 0.95
    assert figures["fallbacks"]["not JSON"] > 20
    assert "with the rules where it failed" in evaluation_table(figures)


def test_the_command_prints_the_table_and_writes_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "extraction.json"
    assert main(["extract", "--evaluate", "--out", str(out), "--texts", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for word in ("blind, 72 texts", "size_band", "micro", "macro", "95 % interval", "a text"):
        assert word in said
    figures = json.loads(out.read_text())
    assert set(figures["sets"]["blind"]["micro"]) >= {"f1", "low", "high"}
    assert figures["extractor"] == "rules"
    shutil.rmtree(tmp_path)
