"""Label sets: the ordered answers a frame is scored against, each with the sentences that mean it.

Named sets ride in the bundle (`label_sets.json`); free ones come with a zero-shot request. Both
obey the same rules, checked in one place.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from model_store.errors import BundleCorrupt, LabelSetInvalid
from model_store.schema import parse_json, read_as, write_json

__all__ = [
    "MAX_LABELS",
    "MAX_LABEL_CHARS",
    "MAX_PROMPTS",
    "MAX_PROMPT_CHARS",
    "Label",
    "LabelSet",
    "read_label_sets",
    "write_label_sets",
]

MAX_LABELS = 32
MAX_PROMPTS = 16
MAX_LABEL_CHARS = 64
# 77 tokens are what a text tower reads; 512 characters are more than that in any clinical English.
MAX_PROMPT_CHARS = 512


@dataclass(frozen=True, slots=True)
class Label:
    """One answer.

    Attributes:
        label: its name on the wire.
        definition: what it means, in a sentence for the reader of an answer; may be empty.
        prompts: 1-16 sentences whose embeddings, averaged, stand for it.
    """

    label: str
    definition: str
    prompts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelSet:
    """An ordered set of 2-32 labels.

    Attributes:
        name: how a request names it; empty for a free set.
        labels: in the order of every answer, the positive one first where there is one.
        positive: the label whose probability is reported, or None.
    """

    name: str
    labels: tuple[Label, ...]
    positive: str | None = None

    def __post_init__(self) -> None:
        _check_labels(self)
        for index, label in enumerate(self.labels):
            _check_prompts(label, index)

    @property
    def names(self) -> tuple[str, ...]:
        """Label names in order."""
        return tuple(label.label for label in self.labels)

    @property
    def definitions(self) -> dict[str, str]:
        """Definition of each label, in order."""
        return {label.label: label.definition for label in self.labels}

    @property
    def positive_index(self) -> int | None:
        """Index of the positive label, or None."""
        return None if self.positive is None else self.names.index(self.positive)

    @classmethod
    def from_free(cls, labels: Iterable[Mapping[str, Any]]) -> "LabelSet":
        """Build the set of a zero-shot request.

        Args:
            labels: mappings with `label` (str) and `prompts` (strings).

        Returns:
            A set without name, definitions or positive label.

        Raises:
            LabelSetInvalid: naming the rule that is broken, and where.
        """
        return cls("", tuple(_free_label(entry, index) for index, entry in enumerate(labels)))


@dataclass(frozen=True, slots=True)
class _StoredSet:
    """Shape of one entry of label_sets.json."""

    positive: str | None
    labels: tuple[Label, ...]


def read_label_sets(data: bytes, where: str = "label_sets.json") -> dict[str, LabelSet]:
    """Read label_sets.json.

    Raises:
        BundleCorrupt: not the expected JSON, or a set breaks a rule.
    """
    stored = read_as(dict[str, _StoredSet], parse_json(data, where), where)
    sets = {}
    for name, entry in stored.items():
        try:
            sets[name] = LabelSet(name, entry.labels, entry.positive)
        except LabelSetInvalid as error:
            place = f"{where}: /{name}" + (f"/labels{error.pointer}" if error.pointer else "")
            raise BundleCorrupt(place, "a valid label set", str(error)) from error
    return sets


def write_label_sets(sets: Iterable[LabelSet]) -> bytes:
    """Write label_sets.json; label order is kept, set names are sorted."""
    return write_json({item.name: _StoredSet(item.positive, item.labels) for item in sets})


def _free_label(entry: Mapping[str, Any], index: int) -> Label:
    at = f"/{index}"
    if not isinstance(entry, Mapping) or set(entry) != {"label", "prompts"}:
        raise LabelSetInvalid("expected an object of label and prompts", at)
    label, prompts = entry["label"], entry["prompts"]
    if not isinstance(label, str):
        raise LabelSetInvalid("expected a string", f"{at}/label")
    if not isinstance(prompts, list | tuple) or not all(isinstance(one, str) for one in prompts):
        raise LabelSetInvalid("expected a list of strings", f"{at}/prompts")
    return Label(label, "", tuple(prompts))


def _check_labels(label_set: LabelSet) -> None:
    names = label_set.names
    if not 2 <= len(names) <= MAX_LABELS:
        raise LabelSetInvalid(f"expected 2 to {MAX_LABELS} labels; found {len(names)}")
    for index, name in enumerate(names):
        if not name.strip() or len(name) > MAX_LABEL_CHARS:
            raise LabelSetInvalid(
                f"expected a label of 1 to {MAX_LABEL_CHARS} characters; found one of {len(name)}",
                f"/{index}/label",
            )
        if name in names[:index]:
            raise LabelSetInvalid(
                f"expected distinct labels; found that of /{names.index(name)} again",
                f"/{index}/label",
            )
    if label_set.positive is not None and label_set.positive not in names:
        raise LabelSetInvalid(
            f"expected the positive label to be one of {', '.join(names)}; "
            f"found {label_set.positive!r}"
        )


def _check_prompts(label: Label, index: int) -> None:
    at = f"/{index}/prompts"
    count = len(label.prompts)
    if not 1 <= count <= MAX_PROMPTS:
        raise LabelSetInvalid(f"expected 1 to {MAX_PROMPTS} prompts of a label; found {count}", at)
    for number, prompt in enumerate(label.prompts):
        if not prompt.strip() or len(prompt) > MAX_PROMPT_CHARS:
            raise LabelSetInvalid(
                f"expected prompts of 1 to {MAX_PROMPT_CHARS} characters; found {len(prompt)}",
                f"{at}/{number}",
            )
