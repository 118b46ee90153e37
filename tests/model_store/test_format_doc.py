"""FORMAT.md names every file and every field that the code reads, and no other."""

import dataclasses
import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import model_store
from model_store.bundle import FORMAT_VERSION, Bundle
from model_store.label_sets import MAX_LABEL_CHARS, MAX_LABELS, MAX_PROMPT_CHARS, MAX_PROMPTS
from model_store.manifest import (
    OPTIONAL_FILES,
    REQUIRED_FILES,
    FileEntry,
    Manifest,
    Provenance,
)
from model_store.profile import write_profile
from model_store.reference import write_reference
from tests.tiny_profile import CACHE, LINEAR, tiny_profile
from tests.tiny_reference import tiny_reference

PAGE = Path(model_store.__file__).with_name("FORMAT.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", PAGE, re.M | re.S)
    assert found, f"FORMAT.md has no section {title}"
    return found.group(1)


def documented(title: str) -> set[str]:
    return set(re.findall(r"^\| `([^`]+)` \|", section(title), re.M))


def keys(value: Any, skip: int, prefix: str = "") -> set[str]:
    """Keys of a JSON value as the page writes them; `skip` levels of free names are left out."""
    if isinstance(value, list):
        return set().union(*(keys(item, 0, prefix) for item in value))
    if not isinstance(value, dict):
        return set()
    if skip:
        return set().union(*(keys(item, skip - 1, prefix) for item in value.values()))
    found = set()
    for key, item in value.items():
        found.add(prefix + key)
        free = key in ("operating_points",)
        if key not in ("measured", "probability"):
            found |= keys(item, int(free), f"{prefix}{key}/")
    return found


@pytest.mark.parametrize(
    ("title", "kind"),
    [
        ("manifest.json", Manifest),
        ("input", model_store.InputContract),
        ("text", model_store.TextContract),
        ("provenance", Provenance),
        ("files", FileEntry),
    ],
)
def test_page_has_exactly_the_fields_of_the_manifest(title: str, kind: Any) -> None:
    assert documented(title) == {field.name for field in dataclasses.fields(kind)}


def test_page_has_exactly_the_files_of_the_format() -> None:
    own = {"manifest.json", "canaries/*.png"}
    assert documented("Files") == {*REQUIRED_FILES, *OPTIONAL_FILES, *own}


def test_page_has_exactly_the_arrays_of_a_reference() -> None:
    with np.load(BytesIO(write_reference(tiny_reference()))) as arrays:
        assert documented("reference.npz") == set(arrays.files)


@pytest.mark.parametrize(
    ("name", "free_levels"), [("label_sets.json", 1), ("calibration.json", 1), ("canaries.json", 0)]
)
def test_page_has_exactly_the_fields_of_the_other_files(
    tiny: Bundle, name: str, free_levels: int
) -> None:
    value = json.loads((tiny.path / name).read_text(encoding="utf-8"))
    if name == "canaries.json":
        value["patient"] = {}
    assert documented(name) == keys(value, free_levels)


def test_page_has_exactly_the_fields_of_a_site_profile(tiny: Bundle) -> None:
    value = json.loads(write_profile(tiny_profile(tiny, CACHE)))
    linear = json.loads(write_profile(tiny_profile(tiny, LINEAR)))
    task, other = (one.pop("tasks")["polyp_detection"] for one in (value, linear))
    value.pop("provenance")
    task.pop("measured")
    fields = keys(task, 0, "tasks/") | keys({"linear": other["linear"]}, 0, "tasks/")
    wanted = keys(value, 0) | fields | {"tasks", "provenance", "tasks/measured"}
    assert documented("site-profile.json") == wanted


@pytest.mark.parametrize("name", ["image_tower.onnx", "text_tower.onnx", "unify.onnx"])
def test_page_has_the_inputs_and_outputs_of_each_graph(tiny: Bundle, name: str) -> None:
    row = next(line for line in section("Files").splitlines() if line.startswith(f"| `{name}`"))
    graph = onnx.load(tiny.path / name).graph
    for value in (*graph.input, *graph.output):
        assert f"`{value.name}`" in row


def test_page_states_the_limits_and_the_version_of_the_code() -> None:
    assert f"# Bundle format, version {FORMAT_VERSION}" in PAGE
    assert f"to {MAX_LABELS} labels" in PAGE
    assert f"1-{MAX_LABEL_CHARS} characters" in PAGE
    assert f"1-{MAX_PROMPTS} prompts" in PAGE
    assert f"1-{MAX_PROMPT_CHARS} characters" in PAGE


def test_the_comparison_notices_an_undocumented_field() -> None:
    assert keys({"x": {"labels": [{"label": 1, "new": 2}]}}, 1) == {
        "labels",
        "labels/label",
        "labels/new",
    }
