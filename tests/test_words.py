"""The documents spell as English dictionaries do, and each term of the field in one way."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_docs import DOCUMENTS, ROOT

# Each term as the documents spell it, and the spellings that are taken for another thing by a
# search or by a reader. CONTRIBUTING.md, Style, has the one word for each thing.
TERMS = {
    "Endo-CLIP": r"EndoCLIP|Endo CLIP|endoCLIP",
    "caecum": r"cec(?:um|al)",
    "classify": r"categori[sz]\w*",
    "colonoscopy": r"coloscop\w+",
    "colour": r"colors?|colored|gray\w*",
    "cross-attention": r"cross attention|crossattention",
    "de-identify": r"deidentif\w+|anonymi[sz]\w+",
    "embedding": r"embeddings? vectors?|feature vectors?",
    "few-shot": r"few shot|fewshot",
    "haemorrhage": r"hemorrhag\w+",
    "heat map": r"heat-?maps?",
    "label set": r"label-sets?|labelsets?|taxonom\w+",
    "labelled": r"labeled|labeling",
    "mucosa": r"mucosae|mucous membrane",
    "non-neoplastic": r"non neoplastic|nonneoplastic",
    "normalise": r"normaliz\w+|recogniz\w+|characteriz\w+",
    "oedema": r"edema\w*",
    "operating point": r"operating-points?|working points?",
    "self-test": r"self test|selftest",
    "tumour": r"tumors?",
    "zero-shot": r"zero shot|zeroshot",
}
# Reports, prompts and paraphrases stand in these as other people write them.
QUOTING = {"extraction.md", "prompts.md"}
READ = [*DOCUMENTS, *(ROOT / "bench").rglob("*.md"), ROOT / "training" / "LOG.md"]
PROSE = [path for path in READ if path.name not in QUOTING]


def prose_of(text: str) -> str:
    """A document without code, links' targets and what stands in quotation marks."""
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`\n]*`|\]\([^)]*\)|<[^>\n]*>", " ", text)
    return re.sub(r"\"[^\"\n]*\"", " ", text)


def misspelt(text: str) -> set[str]:
    """Words of a document that stand for a term and are not the term."""
    prose = prose_of(text)
    return {
        found[0]
        for wrong in TERMS.values()
        for found in re.finditer(rf"\b(?:{wrong})\b", prose, re.IGNORECASE)
        # In capitals it is a standard's own name, as PALETTE COLOR.
        if found[0] not in TERMS and not found[0].isupper()
    }


def test_terms_of_the_field_have_one_spelling():
    assert len(PROSE) >= 30
    found = {str(p.relative_to(ROOT)): misspelt(p.read_text(encoding="utf-8")) for p in PROSE}
    assert {name: words for name, words in found.items() if words} == {}


def test_term_guard_can_fail():
    assert misspelt("A polyp of the Cecum, by zero shot.") == {"Cecum", "zero shot"}
    assert misspelt('`color`, [gray](color.md) and "tumor":\n```\ncecum\n```\n') == {"gray"}


def test_words_are_spelt_as_in_a_dictionary():
    pytest.importorskip("codespell_lib", reason="needs codespell (group `docs`)")
    assert spelling_mistakes(*READ) == ""


def test_spelling_guard_can_fail(tmp_path: Path):
    pytest.importorskip("codespell_lib", reason="needs codespell (group `docs`)")
    document = tmp_path / "a.md"
    document.write_text("A seperate polyp.\n", encoding="utf-8")
    assert "separate" in spelling_mistakes(document)


def spelling_mistakes(*documents: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", "--builtin", "clear,rare", *map(str, documents)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.stderr
    return done.stdout
