"""Text to token ids, equal to open_clip's tokenizers without needing torch or transformers.

The vocabulary and the splitting rules are data (`tokenizer.json`, the `tokenizers` library's own
format). What that file cannot hold is done here: ftfy, HTML entities and white space, in
open_clip's order, then cutting at the context length.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import ftfy
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer as _Backend

from model_store.errors import BundleCorrupt

__all__ = ["Ids", "TextContract", "Tokenizer", "clean_text"]

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TextContract:
    """How a sentence becomes text tower input; part of the manifest.

    Attributes:
        kind: `bert` keeps the case for the vocabulary's own normaliser, and masks every id equal
            to `pad_id`; `clip` lower-cases first, and masks by length: id 0 is a word there.
        context_length: most tokens a sentence may have, begin and end marks included.
        pad_id: id that fills short rows.
    """

    kind: Literal["bert", "clip"]
    context_length: int
    pad_id: int


class Tokenizer:
    """Encodes sentences; safe to share between threads."""

    def __init__(self, backend: _Backend, contract: TextContract) -> None:
        self._backend = backend
        self.contract = contract

    @classmethod
    def open(cls, path: Path, contract: TextContract) -> "Tokenizer":
        """Open a tokenizer.json.

        Raises:
            BundleCorrupt: the file is not a tokenizer.
        """
        try:
            backend = _Backend.from_str(path.read_text(encoding="utf-8"))
        # The library raises bare Exception for everything, chained here with what it says.
        except Exception as error:
            raise BundleCorrupt(path.name, "a tokenizers file", str(error)) from error
        backend.no_padding()
        backend.enable_truncation(contract.context_length)
        return cls(backend, contract)

    def encode(self, texts: Sequence[str]) -> tuple[Ids, Ids]:
        """Encode sentences.

        Args:
            texts: m sentences, m at least 1.

        Returns:
            (ids, mask), both int64 (m, t), padded to the longest sentence; mask is 1 on tokens and
            0 on padding.
        """
        cleaned = [clean_text(text, self.contract.kind) for text in texts]
        rows = [encoding.ids for encoding in self._backend.encode_batch(cleaned)]
        width = max(len(row) for row in rows)
        ids = np.full((len(rows), width), self.contract.pad_id, np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
        return ids, self.mask(ids)

    def mask(self, ids: Ids) -> Ids:
        """Tell tokens from padding.

        Args:
            ids: int64 (m, t), padded to any length.

        Returns:
            int64 (m, t): 1 on tokens, 0 on padding. `clip` reads padding from the end of a row
            backwards, where the end mark stops it: the padding's id is also a word's.
        """
        told = ids != self.contract.pad_id
        if self.contract.kind == "clip":
            told = np.logical_or.accumulate(told[:, ::-1], axis=1)[:, ::-1]
        return np.asarray(told, np.int64)


def clean_text(text: str, kind: Literal["bert", "clip"]) -> str:
    """Clean a sentence as open_clip does before its tokenizers see it.

    Args:
        text: any string; unpaired surrogates become U+FFFD.
        kind: `clip` lower-cases as well.

    Returns:
        Text with encoding accidents mended, entities resolved (twice: `&amp;lt;` is met in the
        wild), and runs of white space as one space.
    """
    mended = html.unescape(html.unescape(ftfy.fix_text(text)))
    # An entity may bring a surrogate back after ftfy has removed those that were there.
    mended = mended.encode("utf-8", "replace").decode("utf-8")
    single = " ".join(mended.split())
    return single.lower() if kind == "clip" else single
