"""Scores a bundle's canary frames on this machine, and records them when a bundle is packed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from model_store.bundle import Bundle, Manifest, pack
from model_store.canaries import Canaries, CanaryFrame, write_canaries
from model_store.encoder import Encoder, Floats
from model_store.errors import SelfTestFailed
from model_store.images import decode
from model_store.patient import score_patient

__all__ = ["SelfTestReport", "measure_canaries", "pack_with_canaries", "self_test"]

_HEAD = 8


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """A self-test that held.

    Attributes:
        max_difference: largest difference of any recorded number, at most `tolerance`.
        tolerance: of the bundle.
        compared: how many numbers were compared.
        provider: on which they were computed.
    """

    max_difference: float
    tolerance: float
    compared: int
    provider: str


def self_test(encoder: Encoder) -> SelfTestReport:
    """Compare the canary frames' scores with the record, through the whole path from PNG bytes.

    Raises:
        SelfTestFailed: a difference above the bundle's tolerance, or nothing to compare.
        EncodeFailed: a graph did not run.
    """
    recorded = encoder.bundle.canaries
    if not recorded.frames:
        raise SelfTestFailed(float("inf"), recorded.tolerance, "the bundle has no canary frame")
    folder = encoder.bundle.path
    images = {frame.file: (folder / frame.file).read_bytes() for frame in recorded.frames}
    measured = measure_canaries(encoder, images, recorded.tolerance)
    differences = dict(_differences(recorded, measured))
    worst = max(differences, key=differences.__getitem__)
    # Written so that a NaN fails as well.
    if not differences[worst] <= recorded.tolerance:
        raise SelfTestFailed(differences[worst], recorded.tolerance, worst)
    return SelfTestReport(
        differences[worst], recorded.tolerance, len(differences), encoder.provider
    )


def measure_canaries(
    encoder: Encoder, images: Mapping[str, bytes], tolerance: float = 1e-3
) -> Canaries:
    """Score frames as canaries.

    Args:
        encoder: of the bundle they are for.
        images: `canaries/<name>.png` → PNG bytes, at least one.
        tolerance: to be recorded with them.

    Returns:
        The canaries, in the order of `images`.
    """
    contract = encoder.bundle.manifest.input
    pixels = np.stack([decode(data, contract) for data in images.values()])
    embeddings = encoder.encode_images(pixels)
    singles = [_probabilities(encoder, embeddings[i : i + 1]) for i in range(len(embeddings))]
    frames = tuple(
        CanaryFrame(name, singles[i], tuple(float(x) for x in embeddings[i][:_HEAD]))
        for i, name in enumerate(images)
    )
    return Canaries(tolerance, frames, _probabilities(encoder, embeddings))


def pack_with_canaries(
    out: Path,
    manifest: Manifest,
    files: Mapping[str, bytes | Path],
    images: Mapping[str, bytes],
    *,
    tolerance: float = 1e-3,
) -> Bundle:
    """Pack a bundle whose canaries are measured on the way.

    Args:
        out: folder to make; must not exist.
        manifest: as for `pack`.
        files: as for `pack`, without canaries.json and canary frames.
        images: as for `measure_canaries`.
        tolerance: to be recorded.

    Returns:
        The bundle, which has passed its own self-test.

    Raises:
        BundleError: as `pack`.
    """
    none = write_canaries(Canaries(tolerance, (), {}))
    with TemporaryDirectory() as folder:
        draft = pack(Path(folder) / "draft", manifest, {**files, "canaries.json": none})
        encoder = Encoder(draft)
        canaries = write_canaries(measure_canaries(encoder, images, tolerance))
    bundle = pack(out, manifest, {**files, **images, "canaries.json": canaries})
    self_test(Encoder(bundle))
    return bundle


def _probabilities(encoder: Encoder, embeddings: Floats) -> dict[str, float]:
    """Positive probability of one patient made of all frames, for every calibrated set."""
    found = {}
    for name, calibration in sorted(encoder.bundle.calibrations.items()):
        label_set = encoder.bundle.label_set(name)
        classes = encoder.class_embeddings(label_set)
        score = score_patient(encoder, label_set, classes, calibration, embeddings)
        if score.probability is not None:
            found[name] = score.probability
    return found


def _differences(recorded: Canaries, measured: Canaries) -> Iterator[tuple[str, float]]:
    """Name and size of every difference; what is missing on either side differs infinitely."""
    for old, new in zip(recorded.frames, measured.frames, strict=True):
        yield from _between(old.file, old.probability, new.probability)
        for index, (was, now) in enumerate(
            zip(old.embedding_head, new.embedding_head, strict=False)
        ):
            yield f"{old.file} embedding {index}", abs(was - now)
    yield from _between("patient", recorded.patient, measured.patient)


def _between(
    where: str, old: Mapping[str, float], new: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    for name in sorted(set(old) | set(new)):
        both = name in old and name in new
        yield f"{where} {name}", abs(old[name] - new[name]) if both else float("inf")
