"""Writes the tokenizer.json of a bundle from the files that open_clip's tokenizers are built on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Literal

import regex
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from training.errors import ConfigError

__all__ = ["write_tokenizer"]

# The pattern and the vocabulary's order are those of open_clip.tokenizer.SimpleTokenizer, without
# its alternative for literal `<start_of_text>`: in a caller's sentence that is text, not a mark.
_CLIP_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_CLIP_LETTER, _CLIP_NUMBER, _CLIP_OTHER = r"[\p{L}]", r"[\p{N}]", r"[^\s\p{L}\p{N}]"
_CLIP_MERGES = slice(1, 49152 - 256 - 2 + 1)
_CLIP_MARKS = ("<start_of_text>", "<end_of_text>")


def write_tokenizer(kind: Literal["bert", "clip"], source: Path, out: Path) -> Path:
    """Write a tokenizer.json that `model_store.tokenizer.Tokenizer` opens.

    Args:
        kind: `bert` takes a Hugging Face folder with tokenizer.json; `clip` takes open_clip's
            bpe_simple_vocab_16e6.txt.gz.
        source: that folder or file.
        out: file to write.

    Returns:
        `out`.

    Raises:
        ConfigError: the source does not hold what the kind needs.
    """
    out.write_text(_bert(source) if kind == "bert" else _clip(source), encoding="utf-8")
    return out


def _bert(folder: Path) -> str:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ConfigError(f"expected tokenizer.json in {folder.name}; found none")
    table = json.loads(path.read_text(encoding="utf-8"))
    # Cutting and padding belong to the bundle's text contract; two owners would disagree one day.
    table["truncation"] = table["padding"] = None
    return json.dumps(table, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def _clip(path: Path) -> str:
    try:
        lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[_CLIP_MERGES]
    except OSError as error:
        raise ConfigError(f"expected open_clip's gzipped merges at {path.name}: {error}") from error
    merges = [(left, right) for left, right in (line.split() for line in lines)]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    words += [left + right for left, right in merges]
    words += _CLIP_MARKS
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocabulary, merges, end_of_word_suffix="</w>"))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_clip_pattern()), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    start, end = _CLIP_MARKS
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(mark, vocabulary[mark]) for mark in _CLIP_MARKS],
    )
    backend.decoder = decoders.ByteLevel()
    return str(backend.to_str())


def _clip_pattern() -> str:
    """The splitting pattern with its classes written out as ranges of code points.

    The two regular-expression engines know different versions of Unicode: 1,499 letters of the
    `regex` module that open_clip uses are unassigned in that of `tokenizers`.
    """
    letter, number, other = map(_ranges, (_CLIP_LETTER, _CLIP_NUMBER, _CLIP_OTHER))
    return f"{_CLIP_ENDINGS}|[{letter}]+|[{number}]|[{other}]+"


def _ranges(character_class: str) -> str:
    """All code points that a class matches, as the ranges inside a pair of brackets."""
    # Ignoring case, as open_clip does: that makes U+0345 a letter.
    run = regex.compile(f"{character_class}+", regex.IGNORECASE)
    found = []
    for low, high in ((0x0, 0xD800), (0xE000, 0x110000)):
        text = "".join(map(chr, range(low, high)))
        spans = (match.span() for match in run.finditer(text))
        found += [rf"\x{{{low + a:x}}}-\x{{{low + b - 1:x}}}" for a, b in spans]
    return "".join(found)


def _byte_letters() -> list[str]:
    """The printable letter of each of the 256 bytes, in the order of CLIP's vocabulary."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    plain += range(ord("®"), ord("ÿ") + 1)
    shifted = [chr(256 + index) for index in range(256 - len(plain))]
    return [chr(byte) for byte in plain] + shifted
