"""A site profile: what a site's own labelled frames change of a bundle's answers.

`site-profile.json` holds, by label set, a local map from margins to probabilities, thresholds, an
adapter where one was shown to help, and what was measured. It belongs to one bundle, by digest, and
is read without anything but numpy. FORMAT.md describes every field.

Labels are of frames, so only the frame level is measured. A patient's probability follows the
frame's, and its thresholds stay the bundle's: see `SiteProfile.calibrations`.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, log
from typing import Any

import numpy as np

from model_store.adapters import Adapter, CacheAdapter, LinearAdapter
from model_store.bundle import Bundle
from model_store.errors import BundleCorrupt, ProfileMismatch
from model_store.schema import parse_json, read_as, write_json
from model_store.scoring import Calibration, FrameMap, OperatingPoint, PatientMap, sigmoid

__all__ = [
    "PROFILE_VERSION",
    "SITE_NAME",
    "BundleRef",
    "Labels",
    "SitePoint",
    "SiteProfile",
    "SiteTask",
    "read_profile",
    "write_profile",
]

PROFILE_VERSION = 1
SITE_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_FILE = "site-profile.json"


@dataclass(frozen=True, slots=True)
class BundleRef:
    """The bundle that a profile belongs to; the digest decides, the names are for people."""

    name: str
    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Labels:
    """How many labelled frames a task rests on.

    Attributes:
        positive: scored frames of the positive label.
        negative: scored frames of the others.
        patients: distinct patients among them; where none were named, frames.
        set_aside: labelled frames that the quality gate sets aside; they count nowhere else.
    """

    positive: int
    negative: int
    patients: int
    set_aside: int


@dataclass(frozen=True, slots=True)
class SitePoint:
    """An operating point of frames.

    Attributes:
        frame_threshold: lowest probability of a positive frame.
        frame_abstain: probabilities (low, high) between which a frame is not decided, or None.
        measured: what frames that the threshold was not chosen on gave.
    """

    frame_threshold: float
    frame_abstain: tuple[float, float] | None
    measured: dict[str, float]


@dataclass(frozen=True, slots=True)
class SiteTask:
    """What is local about one label set; at most one of the two adapters is there.

    Attributes:
        labels: what it rests on.
        frame: local map of a frame's margin, corrected where there is an adapter.
        operating_points: by name, those of the bundle.
        linear: a linear probe, or None.
        cache: a cache of frames, or None.
        measured: free: figures, each of frames that it was not fitted on.
    """

    labels: Labels
    frame: FrameMap
    operating_points: dict[str, SitePoint]
    linear: LinearAdapter | None
    cache: CacheAdapter | None
    measured: dict[str, Any]

    @property
    def adapter(self) -> Adapter | None:
        """The one that is there, if any."""
        return self.linear or self.cache

    @property
    def adapter_kind(self) -> str | None:
        """`linear`, `cache` or None, as answers name it."""
        return "linear" if self.linear else "cache" if self.cache else None


@dataclass(frozen=True, slots=True)
class _Stored:
    """Shape of site-profile.json."""

    format_version: int
    site: str
    created: str
    bundle: BundleRef
    labels_digest: str
    provenance: dict[str, str]
    tasks: dict[str, SiteTask]


@dataclass(frozen=True, slots=True)
class SiteProfile:
    """A site profile as read.

    Attributes:
        site: its name, 1-64 of `A-Z a-z 0-9 . _ -`.
        created: UTC time, RFC 3339.
        bundle: the one it belongs to.
        labels_digest: of the labels and the pictures they are of.
        provenance: commit and command that made it.
        tasks: by label set.
        digest: `sha256:` and the hex digest of the file; "" before it is written.
    """

    site: str
    created: str
    bundle: BundleRef
    labels_digest: str
    provenance: Mapping[str, str]
    tasks: Mapping[str, SiteTask]
    digest: str = ""

    def calibrations(self, bundle: Bundle) -> dict[str, Calibration]:
        """Give the bundle's calibrations with this profile's in the place of those it holds.

        There are no labels of patients. A bundle's patient map continues its frame map, so the
        local one does what the local frame map does to the bundle's: with `r` the ratio of the
        slopes, a patient's logit L becomes `r * L + intercept - r * (bundle's frame intercept)`,
        and a patient of one frame stays that frame. A patient's thresholds go through the same
        map: without an adapter, patients of two frames or more are decided as by the bundle.
        Moved along with the frame's threshold, which a few dozen frames hardly fix, they cost
        specificity (docs/few-shot.md).

        Raises:
            ProfileMismatch: it belongs to another bundle.
            BundleCorrupt: it does not fit the bundle's label sets, points or width.
        """
        if self.bundle.digest != bundle.digest:
            raise ProfileMismatch(self.site, bundle.digest, self.bundle.digest)
        for name, task in self.tasks.items():
            _check_fit(name, task, bundle)
        return {
            name: _local(base, self.tasks[name]) if name in self.tasks else base
            for name, base in bundle.calibrations.items()
        }


def read_profile(data: bytes, where: str = _FILE) -> SiteProfile:
    """Read site-profile.json.

    Args:
        data: the file's bytes.
        where: how errors name it.

    Raises:
        BundleCorrupt: not the expected JSON, another format version, or a number without meaning.
    """
    value = parse_json(data, where)
    version = value.get("format_version") if isinstance(value, dict) else None
    if version != PROFILE_VERSION:
        raise BundleCorrupt(f"{where}: /format_version", str(PROFILE_VERSION), repr(version))
    stored = read_as(_Stored, value, where)
    if not SITE_NAME.fullmatch(stored.site):
        raise BundleCorrupt(f"{where}: /site", "1 to 64 of A-Z a-z 0-9 . _ -", stored.site[:80])
    if not stored.tasks:
        raise BundleCorrupt(f"{where}: /tasks", "at least one task", "none")
    for name, task in stored.tasks.items():
        _check_task(task, f"{where}: /tasks/{name}")
    return SiteProfile(
        stored.site,
        stored.created,
        stored.bundle,
        stored.labels_digest,
        stored.provenance,
        stored.tasks,
        f"sha256:{hashlib.sha256(data).hexdigest()}",
    )


def write_profile(profile: SiteProfile) -> bytes:
    """Write site-profile.json; what cannot be read back is refused.

    Raises:
        BundleCorrupt: as from `read_profile`.
    """
    data = write_json(
        _Stored(
            PROFILE_VERSION,
            profile.site,
            profile.created,
            profile.bundle,
            profile.labels_digest,
            dict(profile.provenance),
            dict(profile.tasks),
        )
    )
    read_profile(data)
    return data


def _local(base: Calibration, task: SiteTask) -> Calibration:
    ratio = task.frame.slope / base.frame.slope
    offset = task.frame.intercept - ratio * base.frame.intercept
    patient = PatientMap(
        ratio * base.patient.slope,
        ratio * base.patient.intercept + offset,
        ratio * base.patient.log_n,
        ratio * base.patient.shift,
    )

    def moved(probability: float) -> float:
        return float(sigmoid(np.asarray(ratio * _logit(probability) + offset)))

    points = {}
    for name, point in task.operating_points.items():
        was = base.operating_points[name]
        band = was.patient_abstain
        points[name] = OperatingPoint(
            name,
            point.frame_threshold,
            moved(was.patient_threshold),
            point.frame_abstain,
            None if band is None else (moved(band[0]), moved(band[1])),
            point.measured,
        )
    return Calibration(task.frame, patient, points, task.adapter)


def _logit(probability: float) -> float:
    # A threshold may lie at 0 or 1, where every or no frame is positive.
    inside = min(max(probability, 1e-9), 1.0 - 1e-9)
    return log(inside / (1.0 - inside))


def _check_fit(name: str, task: SiteTask, bundle: Bundle) -> None:
    where = f"{_FILE}: /tasks/{name}"
    base = bundle.calibrations.get(name)
    if base is None:
        known = ", ".join(sorted(bundle.calibrations))
        raise BundleCorrupt(where, f"a calibrated label set of the bundle ({known})", name[:80])
    if set(task.operating_points) != set(base.operating_points):
        expected, found = (", ".join(sorted(p.operating_points)) for p in (base, task))
        raise BundleCorrupt(f"{where}/operating_points", expected, found or "none")
    width = bundle.manifest.embedding_dim
    if task.adapter is not None and task.adapter.dimension != width:
        raise BundleCorrupt(where, f"an adapter of width {width}", str(task.adapter.dimension))


def _check_task(task: SiteTask, where: str) -> None:
    if not (task.frame.slope > 0 and isfinite(task.frame.intercept)):
        raise BundleCorrupt(f"{where}/frame", "a slope above 0", str(task.frame.slope))
    for name, point in task.operating_points.items():
        place = f"{where}/operating_points/{name}"
        if not 0.0 <= point.frame_threshold <= 1.0:
            raise BundleCorrupt(f"{place}/frame_threshold", "0 to 1", str(point.frame_threshold))
        band = point.frame_abstain
        if band is not None and not 0.0 <= band[0] <= band[1] <= 1.0:
            raise BundleCorrupt(f"{place}/frame_abstain", "0 <= low <= high <= 1", str(band))
    if task.linear is not None and task.cache is not None:
        raise BundleCorrupt(where, "one adapter at most", "linear and cache")
    if task.cache is not None:
        _check_cache(task.cache, f"{where}/cache")


def _check_cache(cache: CacheAdapter, where: str) -> None:
    if len(set(cache.positive)) != 2 or len(cache.keys) != len(cache.positive):
        raise BundleCorrupt(where, "a flag for each key, both classes", f"{len(cache.keys)} keys")
    if len({len(key) for key in cache.keys}) != 1:
        raise BundleCorrupt(f"{where}/keys", "keys of one width", "several")
    if not np.all(np.abs(np.linalg.norm(np.array(cache.keys), axis=1) - 1.0) < 1e-3):
        raise BundleCorrupt(f"{where}/keys", "unit rows", "rows of another length")
    if not (cache.alpha >= 0 and cache.beta > 0):
        found = f"{cache.alpha:g}, {cache.beta:g}"
        raise BundleCorrupt(where, "alpha of at least 0, beta above 0", found)
