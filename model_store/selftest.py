"""Scores a bundle's canary frames on this machine, and records them when a bundle is packed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from model_store.bundle import Bundle, Manifest, pack
from model_store.canaries import (
    HEAD_LENGTH,
    Canaries,
    CanaryFrame,
    CanaryText,
    write_canaries,
)
from model_store.encoder import Encoder, Floats, Unifier
from model_store.errors import EncodeFailed, SelfTestFailed
from model_store.images import Pixels, decode
from model_store.patient import score_patient
from model_store.quality import QualityLimits, assess

__all__ = ["SelfTestReport", "measure_canaries", "pack_with_canaries", "recheck", "self_test"]


@dataclass(frozen=True, slots=True)
class SelfTestReport:
    """A self-test that held.

    Attributes:
        max_difference: largest difference of any recorded number, at most `tolerance`.
        tolerance: of the bundle.
        compared: how many numbers were compared.
        provider: on which they were computed; None where the towers are not in this process.
    """

    max_difference: float
    tolerance: float
    compared: int
    provider: str | None


def self_test(encoder: Encoder) -> SelfTestReport:
    """Compare the canaries with the record: frames from their PNG bytes, and the sentence.

    The whole path is taken: pixels, quality gate, tokens, all three graphs, calibration. Where the
    record has no sentence one of the prompts is encoded all the same.

    Raises:
        SelfTestFailed: a difference above the bundle's tolerance, nothing to compare, or a frame
            that the quality gate sets aside.
        EncodeFailed: a graph did not run.
    """
    recorded = encoder.bundle.canaries
    if not recorded.frames:
        raise SelfTestFailed(float("inf"), recorded.tolerance, "the bundle has no canary frame")
    folder = encoder.bundle.path
    images = {frame.file: (folder / frame.file).read_bytes() for frame in recorded.frames}
    sentence = recorded.text.sentence if recorded.text else None
    loaded = encoder.text_loaded
    measured = measure_canaries(encoder, images, recorded.tolerance, sentence)
    if not loaded:
        # Proven to work; most services never see a free text, and need not hold it for them.
        encoder.release_text_tower()
    return _report(encoder, measured)


def recheck(
    encoder: Unifier, images: Mapping[str, bytes], encode: Callable[[Pixels], Floats]
) -> SelfTestReport:
    """Compare the canaries with the record again, on the way that live frames take.

    Args:
        encoder: which has passed `self_test`; of one whose towers are elsewhere only `encode` is
            asked. The sentence is compared if its text tower is loaded.
        images: as for `measure_canaries`, of all recorded frames.
        encode: frames uint8 (n, size, size, 3) to float32 (n, d), as `Encoder.encode_images`.

    Raises:
        SelfTestFailed, EncodeFailed: as `self_test`.
    """
    recorded = encoder.bundle.canaries
    frames, patient = _frames(encoder, images, recorded.tolerance, encode)
    text = None
    if recorded.text and isinstance(encoder, Encoder) and encoder.text_loaded:
        text = _text(encoder, recorded.text.sentence)
    return _report(encoder, Canaries(recorded.tolerance, frames, patient, text))


def measure_canaries(
    encoder: Encoder,
    images: Mapping[str, bytes],
    tolerance: float = 1e-3,
    sentence: str | None = None,
) -> Canaries:
    """Score frames as canaries, and encode a sentence.

    Args:
        encoder: of the bundle they are for.
        images: `canaries/<name>.png` → PNG bytes, at least one.
        tolerance: to be recorded with them.
        sentence: the first prompt of the bundle when None.

    Returns:
        The canaries, in the order of `images`.

    Raises:
        SelfTestFailed: the quality gate sets a frame aside.
        EncodeFailed: a graph did not run, or gave embeddings of another width.
    """
    frames, patient = _frames(encoder, images, tolerance, encoder.encode_images)
    text = _text(encoder, sentence or _first_prompt(encoder.bundle))
    return Canaries(tolerance, frames, patient, text)


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


def _report(encoder: Unifier, measured: Canaries) -> SelfTestReport:
    recorded = encoder.bundle.canaries
    differences = dict(_differences(recorded, measured))
    worst = max(differences, key=differences.__getitem__)
    # Written so that a NaN fails as well.
    if not differences[worst] <= recorded.tolerance:
        raise SelfTestFailed(differences[worst], recorded.tolerance, worst)
    provider = encoder.provider if isinstance(encoder, Encoder) else None
    return SelfTestReport(differences[worst], recorded.tolerance, len(differences), provider)


def _frames(
    encoder: Unifier,
    images: Mapping[str, bytes],
    tolerance: float,
    encode: Callable[[Pixels], Floats],
) -> tuple[tuple[CanaryFrame, ...], dict[str, float]]:
    """Score each frame alone, and all of them as a patient."""
    pixels = [_passed(encoder, name, data, tolerance) for name, data in images.items()]
    embeddings = encode(np.stack(pixels))
    singles = [_probabilities(encoder, embeddings[i : i + 1]) for i in range(len(embeddings))]
    frames = tuple(
        CanaryFrame(name, singles[i], _head(embeddings[i])) for i, name in enumerate(images)
    )
    return frames, _probabilities(encoder, embeddings)


def _passed(encoder: Unifier, name: str, data: bytes, tolerance: float) -> Pixels:
    """Decode a canary frame, and hold it against the quality gate."""
    manifest = encoder.bundle.manifest
    pixels = decode(data, manifest.input)
    reason = assess(pixels, QualityLimits.of(manifest.quality_gate))
    if reason is not None:
        raise SelfTestFailed(float("inf"), tolerance, f"{name} is set aside as {reason.value}")
    return pixels


def _text(encoder: Encoder, sentence: str) -> CanaryText:
    rows = encoder.encode_texts([sentence])
    if rows.shape != (1, encoder.dimension):
        raise EncodeFailed(
            f"expected a text embedding (1, {encoder.dimension}); found {rows.shape}"
        )
    return CanaryText(sentence, _head(rows[0]))


def _first_prompt(bundle: Bundle) -> str:
    return bundle.label_sets[min(bundle.label_sets)].labels[0].prompts[0]


def _head(embedding: Floats) -> tuple[float, ...]:
    return tuple(float(number) for number in embedding[:HEAD_LENGTH])


def _probabilities(encoder: Unifier, embeddings: Floats) -> dict[str, float]:
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
        yield from _between_heads(old.file, old.embedding_head, new.embedding_head)
    yield from _between("patient", recorded.patient, measured.patient)
    if recorded.text and measured.text:
        yield from _between_heads(
            "text", recorded.text.embedding_head, measured.text.embedding_head
        )


def _between_heads(
    where: str, old: tuple[float, ...], new: tuple[float, ...]
) -> Iterator[tuple[str, float]]:
    for index, (was, now) in enumerate(zip(old, new, strict=True)):
        yield f"{where} embedding {index}", abs(was - now)


def _between(
    where: str, old: Mapping[str, float], new: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    for name in sorted(set(old) | set(new)):
        both = name in old and name in new
        yield f"{where} {name}", abs(old[name] - new[name]) if both else float("inf")
