"""Which bundles can be served, and which an operator may name.

Only folders directly below the setting `bundles` are named, by their names alone: no path, no
link and nothing hidden is looked at, so a name cannot lead out of there.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from model_store.bundle import Bundle
from model_store.errors import BundleCorrupt, BundleError, BundleNotFound
from model_store.manifest import MANIFEST, Manifest
from model_store.profile import SiteProfile
from model_store.scoring import Calibration
from service.errors import UnknownModel

__all__ = [
    "NAMED_TASKS",
    "OPERATING_POINTS",
    "Found",
    "calibrations_of",
    "find",
    "find_all",
    "find_digest",
    "look",
    "open_bundle",
]

# Path of the endpoint → label set of the bundle that it answers with.
NAMED_TASKS: Mapping[str, str] = {
    "polyp-detection": "polyp_detection",
    "malignancy": "malignancy",
}
OPERATING_POINTS = ("balanced", "sensitivity_first", "specificity_first")
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MAX_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Found:
    """A bundle's folder, as far as its manifest tells; its files are not verified yet."""

    path: Path
    name: str
    version: str
    digest: str

    @classmethod
    def of(cls, bundle: Bundle) -> "Found":
        """Describe an opened bundle."""
        manifest = bundle.manifest
        return cls(bundle.path, manifest.name, manifest.version, bundle.digest)


def open_bundle(path: Path) -> Bundle:
    """Open a bundle, verified, that can answer the named tasks.

    Raises:
        BundleError: it is not one.
    """
    bundle = Bundle.open(path)
    for name in NAMED_TASKS.values():
        label_set, calibration = bundle.label_sets.get(name), bundle.calibrations.get(name)
        if label_set is None or label_set.positive is None or calibration is None:
            raise BundleCorrupt(
                "label_sets.json, calibration.json", f"{name}, with a positive label", "none"
            )
        if set(calibration.operating_points) != set(OPERATING_POINTS):
            raise BundleCorrupt(
                f"calibration.json: /{name}/operating_points",
                ", ".join(OPERATING_POINTS),
                ", ".join(calibration.operating_points) or "none",
            )
    return bundle


def calibrations_of(bundle: Bundle, profile: SiteProfile | None) -> Mapping[str, Calibration]:
    """Give the calibrations that a bundle is served with: the site's, where it has a profile.

    Raises:
        ProfileMismatch: the profile does not belong to the bundle.
    """
    return profile.calibrations(bundle) if profile else bundle.calibrations


def find(root: Path, folder: str) -> Path:
    """Find a folder that an operator names.

    Raises:
        UnknownModel: there is none of that name, or it is not a folder of its own.
    """
    path = root / folder
    if not _FOLDER.fullmatch(folder) or path.is_symlink() or not path.is_dir():
        raise UnknownModel("expected a folder directly below ENDOCLIP_BUNDLES; found none")
    return path


def find_all(root: Path) -> list[Found]:
    """List the first 100 bundles below a folder, by name; what has no readable manifest is none."""
    found: list[Found] = []
    try:
        paths = sorted(root.iterdir())
    except OSError:
        return []
    for path in paths:
        if _FOLDER.fullmatch(path.name) and not path.is_symlink() and len(found) < _MAX_SHOWN:
            try:
                found.append(look(path))
            except (BundleError, OSError):
                continue
    return found


def find_digest(configured: Path, root: Path | None, digest: str) -> Path:
    """Find a bundle by its digest, by manifests alone; opening it is what verifies it.

    Args:
        configured: the bundle of the settings.
        root: folder of bundle folders, if one is set.
        digest: `sha256:...`.

    Raises:
        BundleNotFound: neither of them has it.
        BundleCorrupt, BundleIncompatible: the configured one cannot be read.
    """
    candidates = [look(configured), *(find_all(root) if root else [])]
    for found in candidates:
        if found.digest == digest:
            return found.path
    raise BundleNotFound(digest)


def look(path: Path) -> Found:
    """Read a folder's manifest.

    Raises:
        BundleNotFound: there is none.
        BundleCorrupt, BundleIncompatible: it cannot be read.
    """
    try:
        raw = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise BundleNotFound(path.name) from error
    manifest = Manifest.from_json(raw)
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    return Found(path, manifest.name, manifest.version, digest)
