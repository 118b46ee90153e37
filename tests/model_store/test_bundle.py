"""A bundle is opened whole or refused by name; it is written whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from model_store.bundle import Bundle, Manifest, pack, write_class_embeddings
from model_store.errors import (
    BundleCorrupt,
    BundleError,
    BundleIncompatible,
    BundleNotFound,
    UnknownLabelSet,
    UnknownOperatingPoint,
)
from model_store.manifest import REQUIRED_FILES, check_file_name
from model_store.onnx_scan import uses_external_data
from tests import tiny_bundle
from tests.tiny_bundle import build_tiny_bundle


@pytest.fixture
def copy(tiny_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_path, tmp_path / "copy"))


def contents(path: Path) -> dict[str, bytes | Path]:
    names = (p for p in path.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in names}


def edit(path: Path, change: Callable[[Any], None]) -> None:
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


def test_opened_bundle_gives_back_what_was_packed(tiny: Bundle) -> None:
    assert replace(tiny.manifest, files={}) == tiny_bundle.manifest()
    assert tuple(tiny.label_sets[s.name] for s in tiny_bundle.label_sets()) == (
        tiny_bundle.label_sets()
    )
    assert tiny.calibrations == tiny_bundle.calibrations()
    assert set(tiny.manifest.files) > set(REQUIRED_FILES)
    assert tiny.card.startswith("# Tiny")


def test_manifest_is_the_same_after_a_round_trip(tiny: Bundle) -> None:
    raw = tiny.manifest.to_json()
    assert Manifest.from_json(raw) == tiny.manifest
    assert raw == (tiny.path / "manifest.json").read_bytes()


def test_digest_is_that_of_the_manifest_and_changes_with_it(tiny: Bundle, tmp_path: Path) -> None:
    other = Bundle.open(build_tiny_bundle(tmp_path / "other", version="1.0.1"))
    assert tiny.digest.startswith("sha256:")
    assert len(tiny.digest) == 7 + 64
    assert other.digest != tiny.digest


def test_equal_contents_make_an_equal_digest(tiny: Bundle, tmp_path: Path) -> None:
    assert Bundle.open(build_tiny_bundle(tmp_path / "again")).digest == tiny.digest


def test_missing_folder_and_folder_without_manifest_are_not_found(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BundleNotFound, match="manifest"):
            Bundle.open(path)


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_one_flipped_byte_is_refused_with_both_digests(copy: Path, name: str) -> None:
    data = bytearray((copy / name).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / name).write_bytes(data)
    with pytest.raises(BundleCorrupt) as caught:
        Bundle.open(copy)
    assert caught.value.path == name
    assert caught.value.expected.startswith("sha256 ")
    assert caught.value.actual.startswith("sha256 ")


@pytest.mark.parametrize("name", REQUIRED_FILES)
def test_missing_file_is_refused_even_without_verifying(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(BundleCorrupt, match="found none") as caught:
        Bundle.open(copy, verify=False)
    assert caught.value.path == name


def test_file_the_manifest_does_not_list_is_refused(copy: Path) -> None:
    (copy / "canaries" / "stowaway.png").write_bytes(b"")
    with pytest.raises(BundleCorrupt) as caught:
        Bundle.open(copy)
    assert caught.value.path == "canaries/stowaway.png"


def test_shorter_file_is_refused_with_both_lengths(copy: Path) -> None:
    whole = (copy / "MODEL_CARD.md").read_bytes()
    (copy / "MODEL_CARD.md").write_bytes(whole[:-1])
    with pytest.raises(BundleCorrupt, match=f"{len(whole)} bytes; found {len(whole) - 1} bytes"):
        Bundle.open(copy, verify=False)


@pytest.mark.parametrize("where", ["MODEL_CARD.md", "canaries", "manifest.json"])
def test_symbolic_link_inside_is_refused(copy: Path, tmp_path: Path, where: str) -> None:
    moved = tmp_path / "outside"
    (copy / where).rename(moved)
    (copy / where).symlink_to(moved)
    with pytest.raises(BundleCorrupt, match="link"):
        Bundle.open(copy)


def test_special_file_inside_is_refused(copy: Path) -> None:
    os.mkfifo(copy / "pipe")
    with pytest.raises(BundleCorrupt, match="special file"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "canaries/../../x.png",
        "canaries\\x.png",
        "./unify.onnx",
        "canaries//x.png",
        "C:/x.png",
        "canaries/a/b.png",
        "canaries/..png/../x.png",
        "",
        "..",
        "weights.bin",
        "canaries/x.txt",
    ],
)
def test_file_name_outside_folder_or_format_is_refused(copy: Path, name: str) -> None:
    def add(manifest: Any) -> None:
        manifest["files"][name] = manifest["files"]["unify.onnx"]

    edit(copy, add)
    with pytest.raises(BundleCorrupt, match="files"):
        Bundle.open(copy)
    with pytest.raises(BundleCorrupt):
        check_file_name(name)


@pytest.mark.parametrize("version", [0, 2, 99])
def test_other_format_version_is_refused_whatever_else_it_holds(copy: Path, version: int) -> None:
    (copy / "manifest.json").write_text(json.dumps({"format_version": version, "new": []}))
    with pytest.raises(BundleIncompatible, match=f"format_version 1 to 1; found {version}"):
        Bundle.open(copy)


@pytest.mark.parametrize("version", ["1", 1.0, True, None])
def test_format_version_of_another_type_is_refused(copy: Path, version: Any) -> None:
    edit(copy, lambda manifest: manifest.update(format_version=version))
    with pytest.raises(BundleCorrupt, match="format_version"):
        Bundle.open(copy)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(extra=1), "unknown extra"),
        (lambda m: m.pop("logit_scale"), "without logit_scale"),
        (lambda m: m["input"].pop("size"), "/input.*without size"),
        (lambda m: m["input"].update(rotate=1), "/input.*unknown rotate"),
        (lambda m: m["input"].update(resize="stretch"), "/input/resize"),
        (lambda m: m["input"].update(size="224"), "/input/size"),
        (lambda m: m["input"].update(mean=[0.5, 0.5]), "/input/mean"),
        (lambda m: m["input"].update(std=[0, 1, 1]), "/input/std"),
        (lambda m: m.update(logit_scale=0), "/logit_scale"),
        (lambda m: m.update(logit_scale=10**400), "/logit_scale.*float can hold"),
        (lambda m: m.update(embedding_dim=True), "/embedding_dim"),
        (lambda m: m.update(name="a/b"), "/name"),
        (lambda m: m.update(name="a\nb"), "/name"),
        (lambda m: m.update(name=".."), "/name"),
        (lambda m: m.update(version=""), "/version"),
        (lambda m: m.update(version="1 0"), "/version"),
        (lambda m: m.update(created="yesterday"), "/created"),
        (lambda m: m.update(created="2025-01-01"), "/created"),
        (lambda m: m.update(created="2025-02-30T00:00:00Z"), "/created"),
        (lambda m: m.update(created="2025-01-01T00:00:00+01:00"), "/created"),
        (lambda m: m.update(intended_use=" "), "/intended_use"),
        (lambda m: m["files"]["unify.onnx"].update(bytes=-1), "unify.onnx"),
        (lambda m: m["files"].pop("unify.onnx"), "unify.onnx"),
        (lambda m: m["provenance"].update(commit=None), "/provenance/commit"),
        (lambda m: m["quality_gate"].update(min_detail=7), "quality_gate.*min_detail"),
        (lambda m: m["quality_gate"].update(min_size=0), "quality_gate.*min_size"),
    ],
)
def test_senseless_manifest_is_refused_naming_the_field(
    copy: Path, change: Callable[[Any], None], named: str
) -> None:
    edit(copy, change)
    with pytest.raises(BundleCorrupt, match=named):
        Bundle.open(copy)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"a": 1, "a": 2}', '{"logit_scale": NaN}', '{"logit_scale": 1e999}', "\0"],
)
def test_manifest_that_is_no_strict_json_object_is_refused(copy: Path, text: str) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(BundleCorrupt, match=r"manifest\.json"):
        Bundle.open(copy)


def repack(copy: Path, tmp_path: Path, **changed: bytes | None) -> Bundle:
    """Pack again with other contents, digests and all: names with two underscores for the dot."""
    files = contents(copy)
    for key, content in changed.items():
        name = key.replace("__", ".")
        del files[name]
        if content is not None:
            files[name] = content
    return pack(tmp_path / "repacked", tiny_bundle.manifest(), files)


def external_tower() -> bytes:
    model = onnx.load_from_string(tiny_bundle.unify())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return bytes(model.SerializeToString())


def embeddings_npz(tmp_path: Path, scale: float = 1.0, dtype: Any = np.float32) -> bytes:
    rows = {s.name: tiny_bundle._classes(s) * scale for s in tiny_bundle.label_sets()}
    np.savez(tmp_path / "x.npz", **{k: v.astype(dtype) for k, v in rows.items()})
    return (tmp_path / "x.npz").read_bytes()


def test_graph_with_external_data_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleCorrupt, match="external data") as caught:
        repack(copy, tmp_path, unify__onnx=external_tower())
    assert caught.value.path == "unify.onnx"


def test_external_data_is_found_inside_sub_graphs_and_attributes() -> None:
    tensor = onnx.TensorProto(data_location=onnx.TensorProto.EXTERNAL)
    inner = onnx.GraphProto()
    inner.node.add().attribute.add().t.CopyFrom(tensor)
    model = onnx.ModelProto()
    model.graph.node.add().attribute.add().g.CopyFrom(inner)
    assert uses_external_data(model.SerializeToString())
    assert not uses_external_data(tiny_bundle.image_tower())
    in_function = onnx.ModelProto()
    in_function.functions.add().node.add().attribute.add().tensors.append(tensor)
    assert uses_external_data(in_function.SerializeToString())


@pytest.mark.parametrize("data", [b"not onnx", b"\x3a\xff\xff\xff\xff", b"\x08" + b"\xff" * 20])
def test_graph_that_is_no_protobuf_is_refused(copy: Path, tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BundleCorrupt, match="ONNX"):
        repack(copy, tmp_path, image_tower__onnx=data)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"tokenizer__json": b"{}"}, "tokenizers file"),
        ({"MODEL_CARD__md": b"# \xff"}, "UTF-8"),
    ],
)
def test_file_that_could_not_be_read_later_is_refused(
    copy: Path, tmp_path: Path, changed: dict[str, bytes], named: str
) -> None:
    with pytest.raises(BundleCorrupt, match=named):
        repack(copy, tmp_path, **changed)


def test_class_embeddings_must_be_plain_unit_rows_of_every_set(copy: Path, tmp_path: Path) -> None:
    for data, named in (
        (embeddings_npz(tmp_path, scale=2.0), "unit rows"),
        (embeddings_npz(tmp_path, scale=float("nan")), "unit rows"),
        (embeddings_npz(tmp_path, dtype=np.float64), "float32"),
        (embeddings_npz(tmp_path, dtype=object), "plain arrays"),
        (b"no archive", "plain arrays"),
    ):
        with pytest.raises(BundleCorrupt, match=named):
            repack(copy, tmp_path, class_embeddings__npz=data)


def test_class_embeddings_of_other_sets_are_refused(copy: Path, tmp_path: Path) -> None:
    write_class_embeddings(tmp_path / "x.npz", {"other": np.eye(2, 4, dtype=np.float32)})
    with pytest.raises(BundleCorrupt, match="found other"):
        repack(copy, tmp_path, class_embeddings__npz=(tmp_path / "x.npz").read_bytes())


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda c: c["malignancy"]["frame"].update(slope=-1), "slope above 0"),
        (lambda c: c["malignancy"]["patient"].update(log_n=0.1), "log_n of at most 0"),
        (lambda c: c["malignancy"]["patient"].update(shift=0.1), "shift of at most 0"),
        (lambda c: c["malignancy"]["patient"].pop("log_n"), "without log_n"),
        (
            lambda c: c["malignancy"]["operating_points"]["balanced"].update(frame_threshold=2),
            "frame_threshold",
        ),
        (
            lambda c: c["malignancy"]["operating_points"]["balanced"].update(
                frame_abstain=[0.6, 0.5]
            ),
            "frame_abstain",
        ),
        (lambda c: c.update(colour=c["malignancy"]), "positive label"),
    ],
)
def test_senseless_calibration_is_refused(
    copy: Path, tmp_path: Path, change: Callable[[Any], None], named: str
) -> None:
    table = json.loads((copy / "calibration.json").read_text())
    change(table)
    with pytest.raises(BundleCorrupt, match=named):
        repack(copy, tmp_path, calibration__json=json.dumps(table).encode())


def test_calibration_of_an_unknown_set_is_refused(copy: Path, tmp_path: Path) -> None:
    table = json.loads((copy / "calibration.json").read_text())
    table["nope"] = table["malignancy"]
    with pytest.raises(BundleCorrupt, match="nope"):
        repack(copy, tmp_path, calibration__json=json.dumps(table).encode())


def test_named_set_whose_positive_label_is_not_first_is_refused(copy: Path, tmp_path: Path) -> None:
    table = json.loads((copy / "label_sets.json").read_text())
    table["malignancy"]["labels"].reverse()
    with pytest.raises(BundleCorrupt, match="malignant first; found benign"):
        repack(copy, tmp_path, label_sets__json=json.dumps(table).encode())


def test_canary_record_and_canary_frames_must_agree(copy: Path, tmp_path: Path) -> None:
    files = contents(copy)
    del files["canaries/polyp.png"]
    with pytest.raises(BundleCorrupt, match="polyp"):
        pack(tmp_path / "fewer", tiny_bundle.manifest(), files)


def test_nothing_is_left_behind_when_packing_fails(copy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shelf"
    files = contents(copy)
    files["unify.onnx"] = b"broken"
    with pytest.raises(BundleCorrupt):
        pack(folder / "bundle", tiny_bundle.manifest(), files)
    assert list(folder.iterdir()) == []


def test_nothing_is_left_behind_when_a_source_cannot_be_read(copy: Path, tmp_path: Path) -> None:
    files = contents(copy) | {"unify.onnx": tmp_path / "nowhere"}
    with pytest.raises(FileNotFoundError):
        pack(tmp_path / "shelf" / "bundle", tiny_bundle.manifest(), files)
    assert list((tmp_path / "shelf").iterdir()) == []


def test_packing_never_overwrites(copy: Path, tmp_path: Path) -> None:
    before = contents(copy)
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    for out in (copy, tmp_path / "file", tmp_path / "dangling"):
        with pytest.raises(BundleError, match="found one"):
            pack(out, tiny_bundle.manifest(), before)
    assert contents(copy) == before


def test_files_are_packed_from_bytes_and_from_paths_alike(copy: Path, tmp_path: Path) -> None:
    files = {name: copy / name for name in contents(copy)}
    assert pack(tmp_path / "b", tiny_bundle.manifest(), files).digest == Bundle.open(copy).digest


def test_a_packed_bundle_can_be_read_by_others(tmp_path: Path) -> None:
    path = build_tiny_bundle(tmp_path / "b")
    assert path.stat().st_mode & 0o755 == 0o755


def test_unknown_names_are_refused_with_the_known_ones(tiny: Bundle) -> None:
    with pytest.raises(UnknownLabelSet) as label_set:
        tiny.label_set("nope")
    assert label_set.value.known == ("colour", "malignancy", "polyp_detection")
    with pytest.raises(UnknownOperatingPoint) as point:
        tiny.calibrations["malignancy"].operating_point("nope")
    assert set(point.value.known) == {"balanced", "sensitivity_first", "specificity_first"}
