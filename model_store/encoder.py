"""Runs a bundle's three graphs with onnxruntime: frames, sentences, and frames into one patient.

One encoder may be shared by any number of threads; the runtime's sessions allow concurrent runs.
"""

import ctypes
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from model_store.bundle import Bundle
from model_store.cores import usable_cores
from model_store.errors import (
    BundleCorrupt,
    EncodeFailed,
    OutputNotFinite,
    ProviderUnavailable,
    UnknownLabelSet,
)
from model_store.images import Pixels
from model_store.label_sets import LabelSet
from model_store.scoring import unit_rows
from model_store.tokenizer import Ids, Tokenizer

__all__ = ["CPU", "Encoder", "Floats", "Mask", "Unifier", "trim_memory"]

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

CPU = "CPUExecutionProvider"
# Of the default image tower, on one core: 32 frames at once take 12.9 ms each and 483 MB, 8 frames
# 13.4 ms and 186 MB, one frame 14.3 ms and 107 MB. A GPU has the memory and wants the work.
_CPU_FRAMES, _GPU_FRAMES = 8, 64
_SENTENCES = 32


class Unifier:
    """What scores embeddings that are there already: unify, and the stored class embeddings.

    Args:
        bundle: an opened bundle.
        threads: threads inside one run; None takes the cores this process may use.

    Raises:
        BundleCorrupt: the graph does not load.
    """

    def __init__(self, bundle: Bundle, *, threads: int | None = None) -> None:
        self.bundle = bundle
        self._threads = threads or usable_cores()
        # Unify multiplies a few hundred short rows: on a GPU the copies would cost more than that.
        self._unify = _open_session(bundle.path / "unify.onnx", [CPU], self._threads)

    @property
    def dimension(self) -> int:
        """Width d of an embedding."""
        return self.bundle.manifest.embedding_dim

    def class_embeddings(self, label_set: LabelSet) -> Floats:
        """Give the class embeddings of one of the bundle's label sets, as they are stored.

        Args:
            label_set: of the bundle, with or without its positive label.

        Returns:
            float32 (k, d): mean of each label's prompt embeddings, scaled to length 1.

        Raises:
            UnknownLabelSet: it is not one of the bundle's.
        """
        stored = self._stored(label_set)
        if stored is None:
            raise UnknownLabelSet(label_set.name, self.bundle.label_sets)
        return stored

    def unify(self, frames: Floats, mask: Mask, queries: Floats) -> tuple[Floats, Floats]:
        """Let queries attend to a patient's frames.

        Args:
            frames: float32 (n, d) unit embeddings; n may be 0.
            mask: bool (n,); frames that are False are not seen.
            queries: float32 (k, d) class embeddings.

        Returns:
            (pooled float32 (k, d), attention float32 (k, n) whose rows sum to 1). Without any
            visible frame both are zeros.

        Raises:
            EncodeFailed: the graph did not run, or gave numbers that are not finite.
        """
        if len(frames) == 0:
            return np.zeros_like(queries), np.zeros((len(queries), 0), np.float32)
        feed = {"frames": frames, "mask": mask, "queries": queries}
        pooled, attention = _run(self._unify, ["pooled", "attention"], feed)
        return pooled, attention

    def close(self) -> None:
        """Give the memory of all graphs back; whatever is asked of it afterwards fails."""
        del self._unify
        trim_memory()

    def _stored(self, label_set: LabelSet) -> Floats | None:
        known = self.bundle.label_sets.get(label_set.name)
        if known is None or known.labels != label_set.labels:
            return None
        return self.bundle.class_embeddings[label_set.name]


class Encoder(Unifier):
    """The graphs of one bundle on one execution provider.

    Args:
        bundle: an opened bundle.
        provider: an onnxruntime execution provider, such as `CUDAExecutionProvider`.
        allow_fallback: accept the CPU where the provider cannot be had; `provider` then says so.
        threads: threads inside one run; None takes the cores this process may use.

    Raises:
        ProviderUnavailable: the runtime would use another provider than the one asked for.
        BundleCorrupt: a graph does not load.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        provider: str = CPU,
        allow_fallback: bool = False,
        threads: int | None = None,
    ) -> None:
        super().__init__(bundle, threads=threads)
        self._asked = _available(provider, allow_fallback)
        self._image = self._open("image_tower.onnx")
        self.provider = self._used(self._image, allow_fallback)
        self._text: tuple[Tokenizer, ort.InferenceSession] | None = None
        self._text_lock = Lock()

    @property
    def provider_now(self) -> str:
        """What the image tower runs on now: the runtime falls back by itself when a GPU fails."""
        return str(self._image.get_providers()[0])

    def encode_images(self, pixels: Pixels) -> Floats:
        """Encode frames.

        Args:
            pixels: uint8 (n, size, size, 3), as `images.decode` gives them; n may be 0.

        Returns:
            float32 (n, d), unit rows.

        Raises:
            EncodeFailed: the graph did not run, or gave numbers that are not finite.
        """
        parts = [
            _run(self._image, ["embedding"], {"pixels": part})[0] for part in self._parts(pixels)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def encode_images_with_grid(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """Encode frames, and the places inside them.

        Args:
            pixels: uint8 (n, size, size, 3), n at least 1.

        Returns:
            (embeddings float32 (n, d) with unit rows, grid float32 (n, rows, columns, d)).

        Raises:
            EncodeFailed: the graph did not run, or gave numbers that are not finite.
        """
        outputs = [
            _run(self._image, ["embedding", "grid"], {"pixels": part})
            for part in self._parts(pixels)
        ]
        embeddings, grids = zip(*outputs, strict=True)
        return np.concatenate(embeddings), np.concatenate(grids)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Encode sentences; the first call loads the text tower.

        Args:
            texts: m sentences; m may be 0.

        Returns:
            float32 (m, d), unit rows.

        Raises:
            EncodeFailed: the graph did not run, or gave numbers that are not finite.
        """
        tokenizer, _ = self._text_tower()
        parts = [
            self.encode_tokens(tokenizer.encode(texts[start : start + _SENTENCES])[0])
            for start in range(0, len(texts), _SENTENCES)
        ]
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def tokenize(self, texts: Sequence[str]) -> Ids:
        """Give sentences as ids, all rows of one length whatever the sentences.

        Args:
            texts: m sentences; m may be 0.

        Returns:
            int64 (m, context length), padded.
        """
        tokenizer, _ = self._text_tower()
        contract = tokenizer.contract
        rows = np.full((len(texts), contract.context_length), contract.pad_id, np.int64)
        if texts:
            ids, _ = tokenizer.encode(texts)
            rows[:, : ids.shape[1]] = ids
        return rows

    def encode_tokens(self, ids: Ids) -> Floats:
        """Encode sentences given as ids.

        Args:
            ids: int64 (m, t) as from `tokenize`; m may be 0, padding costs nothing.

        Returns:
            float32 (m, d), unit rows.

        Raises:
            EncodeFailed: the graph did not run, or gave numbers that are not finite.
        """
        tokenizer, session = self._text_tower()
        parts = []
        for start in range(0, len(ids), _SENTENCES):
            rows = ids[start : start + _SENTENCES]
            mask = tokenizer.mask(rows)
            width = int(np.flatnonzero(mask.any(axis=0)).max(initial=0)) + 1
            feed = {"ids": rows[:, :width], "mask": mask[:, :width]}
            parts.append(_run(session, ["embedding"], feed)[0])
        return np.concatenate(parts) if parts else np.empty((0, self.dimension), np.float32)

    def class_embeddings(self, label_set: LabelSet) -> Floats:
        """Give the class embeddings of a label set.

        Args:
            label_set: one of the bundle's (with or without its positive label), whose stored
                embeddings are taken, or a free one, whose prompts are encoded.

        Returns:
            float32 (k, d): mean of each label's prompt embeddings, scaled to length 1.

        Raises:
            EncodeFailed: the text graph did not run.
        """
        stored = self._stored(label_set)
        if stored is not None:
            return stored
        prompts = [prompt for label in label_set.labels for prompt in label.prompts]
        rows = self.encode_texts(prompts)
        ends = np.cumsum([len(label.prompts) for label in label_set.labels])
        means = np.stack([part.mean(axis=0) for part in np.split(rows, ends[:-1])])
        return unit_rows(means).astype(np.float32)

    def _parts(self, pixels: Pixels) -> list[Pixels]:
        step = _CPU_FRAMES if self.provider == CPU else _GPU_FRAMES
        return [pixels[start : start + step] for start in range(0, len(pixels), step)]

    @property
    def text_loaded(self) -> bool:
        """Whether the text tower takes memory now (150 MB in the shipped bundle)."""
        return self._text is not None

    def release_text_tower(self) -> None:
        """Give the text tower's memory back; the next text loads it again, 0.12 s."""
        with self._text_lock:
            self._text = None
        trim_memory()

    def close(self) -> None:
        """Give the memory of all graphs back; whatever is asked of it afterwards fails."""
        del self._image, self._unify
        self.release_text_tower()

    def _text_tower(self) -> tuple[Tokenizer, ort.InferenceSession]:
        # Two requests may bring the first free text at once; the tower must load only once.
        with self._text_lock:
            if self._text is None:
                path = self.bundle.path / "tokenizer.json"
                tokenizer = Tokenizer.open(path, self.bundle.manifest.text)
                self._text = tokenizer, self._open("text_tower.onnx")
            return self._text

    def _open(self, name: str) -> ort.InferenceSession:
        providers = [self._asked] if self._asked == CPU else [self._asked, CPU]
        return _open_session(self.bundle.path / name, providers, self._threads)

    def _used(self, session: ort.InferenceSession, allow_fallback: bool) -> str:
        """Name what the session really runs on: a missing CUDA library only logs a warning."""
        used = str(session.get_providers()[0])
        if used != self._asked and not allow_fallback:
            raise ProviderUnavailable(self._asked, used)
        return used


def trim_memory() -> None:
    """Give the system back what was freed, where the C library can."""
    # glibc keeps freed pages: 343 MB stay resident without this after the text tower, 163 with it.
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def _available(provider: str, allow_fallback: bool) -> str:
    if provider.startswith("CUDA"):
        # The `gpu` extra's libraries lie in site-packages, where the loader does not look.
        ort.preload_dlls()
    known = ort.get_available_providers()
    if provider in known:
        return provider
    if not allow_fallback:
        raise ProviderUnavailable(provider, ", ".join(known))
    return CPU


def _open_session(path: Path, providers: list[str], threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    # Stated, never left to the default: that counts the machine's cores and not the container's.
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Waiting threads sleep: the decoding threads want the same cores. On two busy cores one frame
    # then took 25 ms and half the processor time of the spinning 48 ms.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    # The runtime's exceptions have no public common class.
    except Exception as error:
        raise BundleCorrupt(path.name, "a graph the runtime loads", str(error)) from error


def _run(
    session: ort.InferenceSession, outputs: list[str], feed: Mapping[str, npt.NDArray[Any]]
) -> list[Floats]:
    """Run a graph and look at what it gave; the one place where the runtime's errors turn ours."""
    try:
        arrays: list[Floats] = session.run(outputs, dict(feed))
    except Exception as error:
        raise EncodeFailed(f"expected {', '.join(outputs)}; the runtime raised") from error
    for name, array in zip(outputs, arrays, strict=True):
        if not np.isfinite(array).all():
            raise OutputNotFinite(f"expected finite numbers in {name}; found NaN or infinity")
    return arrays
