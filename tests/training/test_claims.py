"""Evaluation prompts share no sentence with what training reads."""

import re
from functools import cache

import numpy as np
import pytest

from training.claims import OPINIONS, PRESENCE, opinion_sentence, without_number
from training.label_texts import label_sets
from training.report_text import LesionFacts, write_report
from training.sentences import sentences


def plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower()).strip()


@cache
def training_sentences() -> frozenset[str]:
    """Class sentences, and those of 300 composed reports, as ``plain`` leaves them."""
    told = {plain(s) for group in (*PRESENCE, *OPINIONS) for s in group}
    rng = np.random.default_rng(0)
    for i in range(300):
        values = {
            "size_band": "<=5",
            "colour": "red",
            "surface_texture": "smooth",
            "margin": "indistinct",
        }
        facts = [LesionFacts(values, ("neoplastic", "non-neoplastic")[i % 2])] * (i % 3)
        told |= {plain(s.text) for s in sentences(write_report(facts, rng).text)}
    return frozenset(told)


@pytest.mark.parametrize("impression", [True, False])
def test_prompts_share_no_sentence_with_claims_or_reports(impression: bool) -> None:
    prompts = {
        plain(p) for s in label_sets(impression) for label in s.labels for p in label.prompts
    }
    told = training_sentences()
    assert len(told) > 300
    assert not prompts & told
    assert not any(prompt in text for prompt in prompts for text in told)


def test_withheld_prompts_name_no_histology() -> None:
    (malignancy,) = [s for s in label_sets(False) if s.name == "malignancy"]
    for label in malignancy.labels:
        for prompt in label.prompts:
            assert not re.search(r"neoplas|adenom|hyperplas|cancer|malign|benign", prompt)


def test_a_lesions_number_is_cut() -> None:
    assert without_number("Lesion 2: looks adenomatous.") == "Lesion looks adenomatous."
    assert without_number("Polyp 11 is red, 8 mm.") == "Polyp is red, 8 mm."


def test_opinion_sentences_come_from_report_and_standard_wordings() -> None:
    rng = np.random.default_rng(0)
    found = {opinion_sentence(0, "Told so.", rng) for _ in range(100)}
    assert "Told so." in found
    assert found - {"Told so."} <= set(OPINIONS[0])
