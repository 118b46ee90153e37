"""The bundle: the folder that the service loads, written whole or not at all.

FORMAT.md describes every file and field. `Bundle.open` refuses a folder that is damaged,
incomplete, of another format version, or that reaches outside itself, and says what was expected
and what was found. `pack` writes beside the target, checks what it wrote by opening it, and renames
last.
"""

import hashlib
import os
import shutil
import stat
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import numpy.typing as npt

from model_store.canaries import HEAD_LENGTH, Canaries, read_canaries
from model_store.errors import BundleCorrupt, BundleError, BundleNotFound, UnknownLabelSet
from model_store.label_sets import LabelSet, read_label_sets
from model_store.manifest import (
    FORMAT_VERSION,
    MANIFEST,
    REQUIRED_FILES,
    FileEntry,
    Manifest,
    Provenance,
    check_file_name,
)
from model_store.onnx_scan import uses_external_data
from model_store.quality import QualityLimits
from model_store.reference import REFERENCE, Reference, read_reference
from model_store.scoring import Calibration, read_calibrations
from model_store.tokenizer import Tokenizer

__all__ = [
    "FORMAT_VERSION",
    "REQUIRED_FILES",
    "Bundle",
    "FileEntry",
    "Manifest",
    "Provenance",
    "pack",
    "write_class_embeddings",
]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle.

    Attributes:
        path: its folder.
        manifest: its manifest.
        digest: `sha256:` and the hex digest of manifest.json, which holds every file's digest.
        label_sets: by name.
        calibrations: by name of label set; sets without one are scored, never decided.
        class_embeddings: by name of label set, float32 (k, d), unit rows.
        canaries: frames and a sentence, with what they gave when the bundle was packed.
        card: text of MODEL_CARD.md.
        reference: exams to compare others with, or None where the bundle has none.
    """

    path: Path
    manifest: Manifest
    digest: str
    label_sets: Mapping[str, LabelSet]
    calibrations: Mapping[str, Calibration]
    class_embeddings: Mapping[str, npt.NDArray[np.float32]]
    canaries: Canaries
    card: str
    reference: Reference | None = None

    @classmethod
    def open(cls, path: Path, *, verify: bool = True) -> "Bundle":
        """Open a bundle folder.

        Args:
            path: the folder.
            verify: also compare every file with its digest, look for external data in the graphs
                and open the tokenizer; about 0.2 s for 40 MB. The set and the lengths of the files
                are always checked.

        Raises:
            BundleNotFound: no manifest there.
            BundleIncompatible: another format version.
            BundleCorrupt: anything is not as manifest and format say.
        """
        raw = _read_manifest_bytes(path)
        manifest = Manifest.from_json(raw)
        _check_listing(path, manifest)
        if verify:
            _check_digests(path, manifest)
            _check_graphs(path)
            Tokenizer.open(path / "tokenizer.json", manifest.text)
        label_sets = read_label_sets((path / "label_sets.json").read_bytes())
        bundle = cls(
            path=path,
            manifest=manifest,
            digest=f"sha256:{hashlib.sha256(raw).hexdigest()}",
            label_sets=label_sets,
            calibrations=read_calibrations((path / "calibration.json").read_bytes()),
            class_embeddings=_read_class_embeddings(path / "class_embeddings.npz"),
            canaries=read_canaries((path / "canaries.json").read_bytes()),
            card=_read_card(path / "MODEL_CARD.md"),
            reference=read_reference((path / REFERENCE).read_bytes())
            if REFERENCE in manifest.files
            else None,
        )
        _check_references(bundle)
        return bundle

    def verify(self) -> None:
        """Compare the folder with what was opened.

        Raises:
            BundleNotFound, BundleCorrupt: it is gone, or not the same any more.
        """
        found = hashlib.sha256(_read_manifest_bytes(self.path)).hexdigest()
        if self.digest != f"sha256:{found}":
            raise BundleCorrupt(MANIFEST, self.digest, f"sha256:{found}")
        _check_listing(self.path, self.manifest)
        _check_digests(self.path, self.manifest)

    def label_set(self, name: str) -> LabelSet:
        """Look up a label set.

        Raises:
            UnknownLabelSet: carrying the known names.
        """
        try:
            return self.label_sets[name]
        except KeyError:
            raise UnknownLabelSet(name, sorted(self.label_sets)) from None


def pack(out: Path, manifest: Manifest, files: Mapping[str, bytes | Path]) -> Bundle:
    """Write a bundle.

    Args:
        out: folder to make; must not exist.
        manifest: its `files` are replaced by what is packed.
        files: name inside the bundle → content, or the file to copy.

    Returns:
        The bundle, opened and verified.

    Raises:
        BundleError: `out` exists, or what would be written is not a valid bundle; nothing is left
            behind.
    """
    if out.exists() or out.is_symlink():
        raise BundleError(f"expected no file or folder at {out.name}; found one")
    for name in files:
        check_file_name(name)
    with _folder_beside(out) as folder:
        entries = {name: _write(folder / name, content) for name, content in files.items()}
        _write(folder / MANIFEST, replace(manifest, files=entries).to_json())
        Bundle.open(folder)
        _sync_folders(folder)
        folder.rename(out)
        _sync(out.parent)
    return Bundle.open(out, verify=False)


def write_class_embeddings(path: Path, classes: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Write class_embeddings.npz: one float32 (k, d) array per label set."""
    # np.savez stamps the current time; fixed stamps make equal embeddings equal files.
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(classes):
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, np.asarray(classes[name], np.float32))


def _read_manifest_bytes(path: Path) -> bytes:
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise BundleNotFound(str(path))
    if manifest.is_symlink():
        raise BundleCorrupt(MANIFEST, "a regular file", "a symbolic link")
    return manifest.read_bytes()


def _check_listing(path: Path, manifest: Manifest) -> None:
    """Compare names, kinds and lengths of the files with the manifest."""
    missing = sorted(set(REQUIRED_FILES) - set(manifest.files))
    if missing:
        raise BundleCorrupt(f"{MANIFEST}: /files", ", ".join(REQUIRED_FILES), f"no {missing[0]}")
    found = dict(_walk(path))
    extra = sorted(set(found) - set(manifest.files) - {MANIFEST})
    if extra:
        raise BundleCorrupt(extra[0], "no file that the manifest does not list", "one")
    for name, entry in manifest.files.items():
        if name not in found:
            raise BundleCorrupt(name, "a file", "none")
        if found[name] != entry.bytes:
            raise BundleCorrupt(name, f"{entry.bytes} bytes", f"{found[name]} bytes")


def _walk(path: Path) -> Iterator[tuple[str, int]]:
    """Names and lengths of all files under a folder; anything but files and folders is refused."""
    for folder, folders, names in os.walk(path):
        for entry in (Path(folder) / name for name in (*folders, *names)):
            inside = entry.relative_to(path).as_posix()
            status = entry.lstat()
            if stat.S_ISREG(status.st_mode):
                yield inside, status.st_size
            elif not stat.S_ISDIR(status.st_mode):
                raise BundleCorrupt(inside, "a regular file", "a link or special file")


def _check_digests(path: Path, manifest: Manifest) -> None:
    for name, entry in manifest.files.items():
        with (path / name).open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual != entry.sha256:
            raise BundleCorrupt(name, f"sha256 {entry.sha256}", f"sha256 {actual}")


def _check_graphs(path: Path) -> None:
    for name in REQUIRED_FILES:
        if not name.endswith(".onnx"):
            continue
        try:
            external = uses_external_data((path / name).read_bytes())
        except ValueError as error:
            raise BundleCorrupt(name, "an ONNX model", str(error)) from error
        if external:
            raise BundleCorrupt(name, "all tensors inside the file", "external data")


def _read_card(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BundleCorrupt(path.name, "text in UTF-8", str(error)) from error


def _read_class_embeddings(path: Path) -> dict[str, npt.NDArray[np.float32]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BundleCorrupt(path.name, "an npz of plain arrays", str(error)) from error
    for name, rows in arrays.items():
        if rows.dtype != np.float32 or rows.ndim != 2:
            found = f"{rows.dtype} {rows.shape}"
            raise BundleCorrupt(f"{path.name}: /{name}", "float32 (k, d)", found)
    return arrays


def _check_references(bundle: Bundle) -> None:
    """Compare the files with each other: every set has its embeddings, every canary its frame."""
    QualityLimits.of(bundle.manifest.quality_gate)
    _same_names("class_embeddings.npz", set(bundle.label_sets), set(bundle.class_embeddings))
    for name, label_set in bundle.label_sets.items():
        if label_set.positive_index not in (None, 0):
            where = f"label_sets.json: /{name}/labels"
            raise BundleCorrupt(where, f"{label_set.positive} first", label_set.names[0])
        rows = bundle.class_embeddings[name]
        shape = (len(label_set.labels), bundle.manifest.embedding_dim)
        where = f"class_embeddings.npz: /{name}"
        if rows.shape != shape:
            raise BundleCorrupt(where, f"shape {shape}", f"shape {rows.shape}")
        # NaN compares false, so this also refuses rows that are not finite.
        if not bool(np.all(np.abs(np.linalg.norm(rows, axis=1) - 1.0) < 1e-3)):
            raise BundleCorrupt(where, "unit rows", "rows of another length")
    for name in bundle.calibrations:
        known = bundle.label_sets.get(name)
        if known is None or known.positive is None:
            raise BundleCorrupt(f"calibration.json: /{name}", "a set with a positive label", "none")
    frames = {name for name in bundle.manifest.files if name.startswith("canaries/")}
    _same_names("canaries.json", frames, {frame.file for frame in bundle.canaries.frames})
    _check_heads(bundle)
    _check_reference(bundle)


def _check_heads(bundle: Bundle) -> None:
    """Refuse a canary whose record would compare less than the format says."""
    length = min(HEAD_LENGTH, bundle.manifest.embedding_dim)
    heads = [(frame.file, frame.embedding_head) for frame in bundle.canaries.frames]
    if bundle.canaries.text is not None:
        heads.append(("text", bundle.canaries.text.embedding_head))
    for name, head in heads:
        if len(head) != length:
            where = f"canaries.json: {name}: embedding_head"
            raise BundleCorrupt(where, f"{length} numbers", str(len(head)))


def _check_reference(bundle: Bundle) -> None:
    """Refuse a reference that was made with another model or for another question."""
    reference = bundle.reference
    if reference is None:
        return
    known = bundle.label_sets.get(reference.label_set)
    if known is None or known.positive is None:
        where = f"{REFERENCE}: /label_set"
        raise BundleCorrupt(where, "a set with a positive label", reference.label_set[:64])
    width = reference.axes.shape[1]
    if width != bundle.manifest.embedding_dim:
        where = f"{REFERENCE}: /axes"
        raise BundleCorrupt(where, f"width {bundle.manifest.embedding_dim}", f"width {width}")


def _same_names(where: str, expected: set[str], found: set[str]) -> None:
    if expected != found:
        raise BundleCorrupt(where, ", ".join(sorted(expected)) or "none", ", ".join(sorted(found)))


@contextmanager
def _folder_beside(out: Path) -> Iterator[Path]:
    """Make a temporary folder on the target's file system, and remove it if it is still there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(mkdtemp(prefix=f".{out.name}.", suffix=".part", dir=out.parent))
    # mkdtemp allows only its owner in; a service usually runs as another user.
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(path: Path, content: bytes | Path) -> FileEntry:
    path.parent.mkdir(exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as out:
        for chunk in _chunks(content):
            out.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        out.flush()
        os.fsync(out.fileno())
    return FileEntry(digest.hexdigest(), size)


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as source:
        while chunk := source.read(_CHUNK):
            yield chunk


def _sync_folders(folder: Path) -> None:
    for inner in folder.iterdir():
        if inner.is_dir():
            _sync(inner)
    _sync(folder)


def _sync(folder: Path) -> None:
    """Make a folder's entries durable before the next step relies on them."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
