"""The manifest: a bundle's typed description of itself, and the rules for its files' names."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import isfinite
from pathlib import PurePosixPath
from typing import Any

from model_store.errors import BundleCorrupt, BundleIncompatible
from model_store.images import InputContract
from model_store.schema import parse_json, read_as, write_json
from model_store.tokenizer import TextContract

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "OPTIONAL_FILES",
    "REQUIRED_FILES",
    "FileEntry",
    "Manifest",
    "Provenance",
    "check_file_name",
]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
REQUIRED_FILES = (
    "MODEL_CARD.md",
    "calibration.json",
    "canaries.json",
    "class_embeddings.npz",
    "image_tower.onnx",
    "label_sets.json",
    "text_tower.onnx",
    "tokenizer.json",
    "unify.onnx",
)
OPTIONAL_FILES = ("reference.npz",)
# A name is part of a URL, and both stand in log lines and metrics.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}")
_VERSION = re.compile(r"[A-Za-z0-9._+-]{1,64}")
_UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|\+00:00)", re.ASCII)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What one file must be: `sha256` in lower-case hex, and its length in bytes."""

    sha256: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the weights come from.

    Attributes:
        commit: of the code that trained and exported.
        config_digest: of the recipe.
        split_digest: of the split of patients or source groups.
        libraries: name → version.
        parity: largest differences torch against ONNX, by name.
        extra: whatever else is worth keeping: seeds, data, machine.
    """

    commit: str
    config_digest: str
    split_digest: str
    libraries: dict[str, str]
    parity: dict[str, float]
    extra: dict[str, str | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything the numbers depend on that is not a file of its own; fields as in FORMAT.md."""

    name: str
    version: str
    created: str
    intended_use: str
    embedding_dim: int
    logit_scale: float
    attention_scale: float
    input: InputContract
    text: TextContract
    quality_gate: dict[str, float]
    provenance: Provenance
    metrics: dict[str, Any]
    files: dict[str, FileEntry] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read manifest.json.

        Raises:
            BundleIncompatible: another format version.
            BundleCorrupt: unknown, missing or senseless fields, named.
        """
        value = parse_json(data, MANIFEST)
        # The version comes first: a newer format may differ in everything else.
        found = value.get("format_version") if isinstance(value, Mapping) else None
        if type(found) is int and found != FORMAT_VERSION:
            raise BundleIncompatible(found, (FORMAT_VERSION, FORMAT_VERSION))
        manifest = read_as(cls, value, MANIFEST)
        _check_numbers(manifest)
        for name in manifest.files:
            check_file_name(name)
        return manifest

    def to_json(self) -> bytes:
        """Write manifest.json; the digest of a bundle is that of these bytes."""
        return write_json(self)


def check_file_name(name: str) -> None:
    """Refuse a name that is not one of the format's, or that could leave the folder.

    Raises:
        BundleCorrupt: naming the file.
    """
    parts = PurePosixPath(name).parts
    plain = name == "/".join(parts) and not {"..", "/"} & set(parts) and "\\" not in name
    if not plain or ":" in name or "\0" in name:
        raise BundleCorrupt(f"{MANIFEST}: /files", "a path inside the bundle", repr(name))
    is_canary = len(parts) == 2 and parts[0] == "canaries" and name.endswith(".png")
    if name not in (*REQUIRED_FILES, *OPTIONAL_FILES) and not is_canary:
        known = f"{', '.join((*REQUIRED_FILES, *OPTIONAL_FILES))} or canaries/*.png"
        raise BundleCorrupt(f"{MANIFEST}: /files", known, repr(name))


def _check_numbers(manifest: Manifest) -> None:
    rules = {
        "name": (_NAME.fullmatch(manifest.name), "1 to 64 of A-Z a-z 0-9 . _ -, no dot first"),
        "version": (_VERSION.fullmatch(manifest.version), "1 to 64 of A-Z a-z 0-9 . _ + -"),
        "created": (_is_utc_time(manifest.created), "a UTC time of RFC 3339"),
        "intended_use": (manifest.intended_use.strip() != "", "a sentence"),
        "embedding_dim": (manifest.embedding_dim > 0, "at least 1"),
        "logit_scale": (_positive(manifest.logit_scale), "a finite number above 0"),
        "attention_scale": (_positive(manifest.attention_scale), "a finite number above 0"),
        "input/size": (16 <= manifest.input.size <= 4096, "16 to 4096"),
        "input/std": (all(map(_positive, manifest.input.std)), "finite numbers above 0"),
        "input/mean": (all(map(isfinite, manifest.input.mean)), "finite numbers"),
        "text/context_length": (3 <= manifest.text.context_length <= 4096, "3 to 4096"),
        "text/pad_id": (manifest.text.pad_id >= 0, "at least 0"),
    }
    for name, (holds, expected) in rules.items():
        if not holds:
            raise BundleCorrupt(f"{MANIFEST}: /{name}", expected, "something else")


def _is_utc_time(text: str) -> bool:
    try:
        return bool(_UTC_TIME.fullmatch(text)) and datetime.fromisoformat(text) is not None
    except ValueError:
        return False


def _positive(value: float) -> bool:
    return isfinite(value) and value > 0
