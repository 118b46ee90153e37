"""Ids do not depend on company or padding, and equal open_clip's where it is installed."""

import random
from pathlib import Path

import numpy as np
import pytest

from model_store.bundle import Bundle
from model_store.errors import BundleCorrupt
from model_store.tokenizer import TextContract, Tokenizer, clean_text

_WORDS = """
a the polyp sessile pedunculated 12 mm 3.5cm it's don't I'LL we're O'Brien red-brown (0-IIa)
Kudo/IIIL NICE-2 adenoma™ café naïve “smart” ‘quotes’ — … &amp; &lt;b&gt; &amp;amp;lt; &nbsp;
&#x1F600; &#55357; 😀 👩‍⚕️ 🇺🇸 日本語 العربية 한국어 ß ſ 'ſ İ ﬁ Ⅳ ½ ² Ω Å ᾳ ꙮ ٣ ௧ 𪛖
sÃ©ance â€œquoteâ€ !!! !? ... #1 _snake_ CamelCase <b> 's 'S ʼn
"""
_INVISIBLE = ("e\u0301", "a\u0345b", "\u200b", "\ufeff", "\x00", "\x1c", "\x85", "\u2028", "\ud800")
WORDS = [*_WORDS.split(), *_INVISIBLE]


def generated(count: int, seed: int = 0) -> list[str]:
    """Sentences of clinical words, entities, accidents of encoding and arbitrary characters."""
    rng = random.Random(seed)

    def letter() -> str:
        ranges = ((32, 127), (0, 0x250), (0x250, 0xD800), (0xE000, 0x20000))
        return chr(rng.randrange(*rng.choice(ranges)))

    def sentence() -> str:
        length = rng.choice([0, 1, 2, 5, 10, 30, 120])
        if rng.random() < 0.2:
            return "".join(letter() for _ in range(length))
        space = rng.choice([" ", " ", "  ", "\n", "", "\t"])
        return space.join(rng.choice(WORDS) for _ in range(length))

    return [sentence() for _ in range(count)]


@pytest.fixture(scope="module")
def tokenizer(tiny: Bundle) -> Tokenizer:
    return Tokenizer.open(tiny.path / "tokenizer.json", tiny.manifest.text)


def test_rows_are_padded_to_the_longest_and_masked(tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer.encode(["red", "red pink tissue", ""])
    assert ids.dtype == mask.dtype == np.int64
    assert ids.tolist() == [[2, 7, 3, 0, 0], [2, 7, 8, 4, 3], [2, 3, 0, 0, 0]]
    assert mask.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]


def test_a_word_with_the_paddings_id_is_a_word_in_clip_and_padding_in_bert(tiny: Bundle) -> None:
    ids = np.array([[2, 7, 0, 3, 0, 0], [2, 3, 0, 0, 0, 0]])
    path, told = tiny.path / "tokenizer.json", {}
    for kind in ("bert", "clip"):
        told[kind] = Tokenizer.open(path, TextContract(kind, 77, 0)).mask(ids).tolist()
    assert told["clip"] == [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]
    assert told["bert"] == [[1, 1, 0, 1, 0, 0], [1, 1, 0, 0, 0, 0]]


def test_ids_do_not_depend_on_the_other_sentences(tokenizer: Tokenizer) -> None:
    texts = generated(200)
    ids, mask = tokenizer.encode(texts)
    for index, text in enumerate(texts):
        alone, _ = tokenizer.encode([text])
        assert ids[index, : alone.shape[1]].tolist() == alone[0].tolist()
        assert mask[index].sum() == alone.shape[1]


def test_too_long_a_sentence_is_cut_and_keeps_its_end_mark(tiny: Bundle) -> None:
    short = Tokenizer.open(tiny.path / "tokenizer.json", TextContract("bert", 5, 0))
    ids, mask = short.encode(["red " * 50])
    assert ids.tolist() == [[2, 7, 7, 7, 3]]
    assert mask.all()


def test_text_is_cleaned_in_open_clips_order() -> None:
    assert clean_text("  “Smart”\n &amp;amp;lt; caf\u00c3\u00a9 ", "bert") == '"Smart" < café'
    assert clean_text("POLYP &LT;5mm", "clip") == "polyp <5mm"


@pytest.mark.parametrize("text", ["\ud800", "&#xD800;", "&#55357;&#56832;", "\udfff red"])
def test_unpaired_surrogates_are_replaced(tokenizer: Tokenizer, text: str) -> None:
    clean_text(text, "bert").encode("utf-8")
    assert tokenizer.encode([text])[0].size


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"version": "1.0"}'])
def test_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(BundleCorrupt, match=r"tokenizer\.json"):
        Tokenizer.open(tmp_path / "tokenizer.json", TextContract("bert", 77, 0))
