"""The reference of a bundle: what exams looked like when its thresholds were set.

A sketch, not a data set: of each exam the mean of its frames' embeddings along a few axes, kept
apart by what the bundle decides of a frame, and how many frames that was. An exam is summed up
frame by frame in the same numbers, in constant memory (`Reference.measure`), and
`model_store.drift` compares many of one with many of the other. No frame can be made from it.

What a score says is taken out of the axes (`slopes`), since a different share of polyps must not
look like different images.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from model_store.errors import BundleCorrupt
from model_store.quality import OPTICS

__all__ = ["REFERENCE", "Exam", "Exams", "Reference", "read_reference", "write_reference"]

REFERENCE = "reference.npz"
_MOST_EXAMS, _MOST_AXES = 512, 64
_KEPT = ("image", "margin", "frames")

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Exam:
    """Sums over the frames of one exam; exams add up, and hold nothing of a single frame.

    Attributes:
        image: float64 (2, k), sums along the axes: of frames decided negative, and positive.
        margin: float64 (2,), sums of margins.
        frames: int64 (2,), how many.
        optics: float64 (6,), sums of `quality.OPTICS`; NaN where those of a frame are not known.
    """

    image: Doubles
    margin: Doubles
    frames: npt.NDArray[np.int64]
    optics: Doubles

    def __add__(self, other: Exam) -> Exam:
        return Exam(
            self.image + other.image,
            self.margin + other.margin,
            self.frames + other.frames,
            self.optics + other.optics,
        )


@dataclass(frozen=True, slots=True)
class Exams:
    """Means of e exams.

    Attributes:
        image: float32 (e, 2, k), mean along the axes by decision; zeros where an exam has no frame.
        margin: float32 (e,), mean margin of its frames.
        frames: int32 (e, 2), frames by decision, at least one an exam.
        optics: float32 (e, 6), means of `quality.OPTICS`, NaN where they are not known; None of
            what was read from reference.npz, which has none.
    """

    image: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    frames: npt.NDArray[np.int32]
    optics: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def of(cls, exams: Sequence[Exam]) -> Exams:
        """Collect at least one exam."""
        frames = np.stack([exam.frames for exam in exams])
        image = np.stack([exam.image for exam in exams]) / np.maximum(frames, 1)[:, :, None]
        count = frames.sum(axis=1)
        margin = np.stack([exam.margin.sum() for exam in exams]) / count
        optics = np.stack([exam.optics for exam in exams]) / count[:, None]
        return cls(
            image.astype(np.float32),
            margin.astype(np.float32),
            np.asarray(frames, np.int32),
            optics.astype(np.float32),
        )


@dataclass(frozen=True, slots=True)
class Reference:
    """How to sum up an exam, and the exams that others are compared with.

    Attributes:
        label_set: whose margin decides, one with a positive label.
        threshold: least margin of a frame that is decided positive.
        axes: float32 (k, d), each scaled to deviation 1 over the reference's frames.
        slopes: float32 (k,), what one unit of margin adds along each axis.
        exams: the reference's, each of another patient.
        as_met: whether the share of positive frames is one that was met; false where exams were
            composed or chosen.
        origin: digest of the archive that it was made from.
    """

    label_set: str
    threshold: float
    axes: npt.NDArray[np.float32]
    slopes: npt.NDArray[np.float32]
    exams: Exams
    as_met: bool
    origin: str

    def measure(
        self,
        embeddings: npt.NDArray[np.floating],
        margins: Doubles,
        optics: npt.NDArray[np.floating] | None = None,
    ) -> Exam:
        """Sum up frames of one exam.

        Args:
            embeddings: (n, d) unit rows.
            margins: (n,) of `label_set`, as `scoring.margin` gives them.
            optics: (n, 6) of `quality.examine`, a row of NaN where a frame's are not known; None
                if none is.
        """
        along = np.asarray(embeddings, np.float64) @ self.axes.T.astype(np.float64)
        along -= margins[:, None] * self.slopes
        positive = margins >= self.threshold
        groups = (~positive, positive)
        unknown = np.full(len(OPTICS), np.nan)
        return Exam(
            np.stack([along[group].sum(axis=0) for group in groups]),
            np.array([margins[group].sum() for group in groups]),
            np.array([group.sum() for group in groups]),
            unknown if optics is None else np.asarray(optics, np.float64).sum(axis=0),
        )


def write_reference(reference: Reference) -> bytes:
    """Write reference.npz."""
    arrays: dict[str, Any] = {
        "label_set": np.array(reference.label_set),
        "threshold": np.array(reference.threshold, np.float64),
        "axes": np.asarray(reference.axes, np.float32),
        "slopes": np.asarray(reference.slopes, np.float32),
        "as_met": np.array(reference.as_met),
        "origin": np.array(reference.origin),
    }
    for name in _KEPT:
        arrays[f"exams_{name}"] = getattr(reference.exams, name)
    out = BytesIO()
    # Fixed time stamps, so that equal references are equal files.
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w") as member:
                np.lib.format.write_array(member, arrays[name], allow_pickle=False)
    return out.getvalue()


def read_reference(data: bytes) -> Reference:
    """Read reference.npz.

    Raises:
        BundleCorrupt: not the expected arrays, or numbers without meaning.
    """
    try:
        with np.load(BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleCorrupt(REFERENCE, "an npz of plain arrays", str(error)) from error
    exams, axes = arrays.get("exams_frames", np.empty(0)), arrays.get("axes", np.empty(0))
    e, (k, d) = len(exams) if exams.ndim else 0, axes.shape if axes.ndim == 2 else (0, 0)
    if not (1 <= e <= _MOST_EXAMS and 1 <= k <= _MOST_AXES):
        found = f"{e} and {k}"
        wanted = f"1 to {_MOST_EXAMS} exams along 1 to {_MOST_AXES} axes"
        raise BundleCorrupt(REFERENCE, wanted, found)
    _check_arrays(arrays, e, k, d)
    if int(arrays["exams_frames"].min()) < 0 or not bool(arrays["exams_frames"].sum(axis=1).all()):
        raise BundleCorrupt(f"{REFERENCE}: /exams_frames", "at least one frame an exam", "none")
    return Reference(
        label_set=str(arrays["label_set"]),
        threshold=float(arrays["threshold"]),
        axes=axes,
        slopes=arrays["slopes"],
        exams=Exams(*(arrays[f"exams_{name}"] for name in _KEPT)),
        as_met=bool(arrays["as_met"]),
        origin=str(arrays["origin"]),
    )


def _check_arrays(arrays: Mapping[str, npt.NDArray[Any]], e: int, k: int, d: int) -> None:
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "as_met": ("b", ()),
        "axes": ("f", (k, d)),
        "exams_frames": ("i", (e, 2)),
        "exams_image": ("f", (e, 2, k)),
        "exams_margin": ("f", (e,)),
        "label_set": ("U", ()),
        "origin": ("U", ()),
        "slopes": ("f", (k,)),
        "threshold": ("f", ()),
    }
    if set(arrays) != set(wanted):
        raise BundleCorrupt(REFERENCE, ", ".join(wanted), ", ".join(sorted(arrays)) or "none")
    for name, (kind, shape) in wanted.items():
        found = arrays[name]
        if found.dtype.kind != kind or found.shape != shape:
            told = f"{found.dtype} {found.shape}"
            raise BundleCorrupt(f"{REFERENCE}: /{name}", f"kind {kind} {shape}", told)
        if kind == "f" and not bool(np.isfinite(found).all()):
            raise BundleCorrupt(f"{REFERENCE}: /{name}", "finite numbers", "others")
