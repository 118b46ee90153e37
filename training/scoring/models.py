"""What scores frames, as a description that travels: a worker is sent it and loads the model once.

A description is small and picklable (paths, settings, the digest of what they lead to); ``load``
gives the scorer. Three kinds: a packed bundle through ``model_store`` (the code that serves), a
stage's torch weights with two captions (what cleansing ranks by), and the quality gate alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model_store.bundle import Bundle
from model_store.encoder import Encoder
from model_store.images import InputContract, Pixels
from model_store.patient import PatientScore, score_patient
from model_store.quality import QualityLimits
from model_store.scoring import Calibration
from training.config import ModelConfig, digest
from training.errors import ConfigError, StaleInput
from training.runs import file_digest

__all__ = [
    "WORDS",
    "Columns",
    "Floats",
    "GateOnly",
    "Model",
    "PackedBundle",
    "Scorer",
    "StageWeights",
]

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Columns = dict[str, pa.Array]
WORDS = pa.dictionary(pa.int32(), pa.string())
"""Column type of words that repeat."""
POINT = "balanced"


class Scorer(Protocol):
    """A loaded model.

    Attributes:
        contract: How a frame becomes its input.
        limits: Of the quality gate.
        dimension: Width d of an embedding; 0 where it makes none.
        scores_set_aside: It scores frames that the gate set aside as well.
    """

    contract: InputContract
    limits: QualityLimits
    dimension: int
    scores_set_aside: bool

    def encode(self, pixels: Pixels) -> Floats:
        """Encode frames: uint8 (n, s, s, 3) -> float32 (n, d), unit rows."""

    def score(
        self, records: Sequence[range], embeddings: Floats, scored: Bools
    ) -> tuple[Columns, Columns]:
        """Score the frames of whole records.

        Args:
            records: Rows of each record's frames.
            embeddings: (n, d); rows that are not ``scored`` mean nothing.
            scored: (n,) frames that were encoded.

        Returns:
            Columns with a value per frame, and columns with a value per record; null where
            nothing was scored.
        """


class Model(Protocol):
    """A description of a model; picklable.

    Attributes:
        digest: ``sha256:...`` of everything the scores depend on.
        title: What it is, for a person.
    """

    @property
    def digest(self) -> str:
        """Digest of everything the scores depend on."""

    @property
    def title(self) -> str:
        """What it is, for a person."""

    def load(self, threads: int | None) -> Scorer:
        """Load it; ``threads`` at most are used inside one run, None = as many as there are."""


@dataclass(frozen=True)
class PackedBundle:
    """A packed bundle: per frame and record what the service would answer at the balanced point.

    Attributes:
        path: Its folder.
        digest: Of its manifest, which holds every file's digest.
        title: Name and version.
    """

    path: Path
    digest: str
    title: str

    @classmethod
    def open(cls, path: Path) -> PackedBundle:
        """Verify a bundle, once; workers then only compare the digest.

        Raises:
            BundleError: It is missing, damaged or of another format.
        """
        bundle = Bundle.open(path)
        title = f"bundle {bundle.manifest.name} {bundle.manifest.version}"
        return cls(path.resolve(), bundle.digest, title)

    def load(self, threads: int | None) -> Scorer:
        """Open the graphs.

        Raises:
            StaleInput: It is another bundle by now.
        """
        bundle = Bundle.open(self.path, verify=False)
        if bundle.digest != self.digest:
            raise StaleInput(f"{self.path.name}: expected {self.digest}, found {bundle.digest}")
        return _BundleScorer(Encoder(bundle, threads=threads))


class _BundleScorer:
    scores_set_aside = False

    def __init__(self, encoder: Encoder) -> None:
        manifest = encoder.bundle.manifest
        self.contract = manifest.input
        self.limits = QualityLimits.of(manifest.quality_gate)
        self.dimension = encoder.dimension
        self._encoder = encoder

    def encode(self, pixels: Pixels) -> Floats:
        return self._encoder.encode_images(pixels)

    def score(
        self, records: Sequence[range], embeddings: Floats, scored: Bools
    ) -> tuple[Columns, Columns]:
        rows = [np.array([i for i in record if scored[i]], np.int64) for record in records]
        frames: Columns = {}
        whole: Columns = {
            "frames": pa.array([len(record) for record in records], pa.int32()),
            "frames_scored": pa.array([len(some) for some in rows], pa.int32()),
        }
        for task, calibration in self._encoder.bundle.calibrations.items():
            found = [self._patient(task, calibration, embeddings[some]) for some in rows]
            own, all_of_them = _answers(calibration, rows, found, len(scored))
            frames |= {f"{task}_{name}": column for name, column in own.items()}
            whole |= {f"{task}_{name}": column for name, column in all_of_them.items()}
        return frames, whole

    def _patient(
        self, task: str, calibration: Calibration, embeddings: Floats
    ) -> PatientScore | None:
        if not len(embeddings):
            return None
        label_set = self._encoder.bundle.label_set(task)
        classes = self._encoder.class_embeddings(label_set)
        return score_patient(self._encoder, label_set, classes, calibration, embeddings)


def _answers(
    calibration: Calibration,
    rows: Sequence[npt.NDArray[np.int64]],
    found: Sequence[PatientScore | None],
    count: int,
) -> tuple[Columns, Columns]:
    """One task's probabilities and decisions, per frame and per record."""
    point = calibration.operating_point(POINT)
    frame_p: list[float | None] = [None] * count
    frame_d: list[str | None] = [None] * count
    record_p: list[float | None] = []
    record_d: list[str | None] = []
    for some, score in zip(rows, found, strict=True):
        if score is None or score.probability is None or score.frame_probability is None:
            record_p.append(None)
            record_d.append(None)
            continue
        for row, p in zip(some.tolist(), score.frame_probability.tolist(), strict=True):
            frame_p[row] = p
            frame_d[row] = str(point.decide_frame(p))
        record_p.append(score.probability)
        record_d.append(str(point.decide_patient(score.probability, len(some))))
    return (
        {"probability": pa.array(frame_p, pa.float64()), "decision": pa.array(frame_d, WORDS)},
        {"probability": pa.array(record_p, pa.float64()), "decision": pa.array(record_d, WORDS)},
    )


@dataclass(frozen=True)
class StageWeights:
    """A stage's weights and two captions: per frame the probability of the first caption.

    The pixels are those that training sees: decoded in full, gated at the default limits, brought
    to ``px``. Frames that the gate sets aside are scored too, as cleansing's ledger has them.

    Attributes:
        path: Weights file, written by ``training.model.save_weights``.
        model: The recipe's towers.
        px: Side of the tower input.
        captions: The two sentences that share the probability, positive first.
        weights_digest: Of the file.
    """

    path: Path
    model: ModelConfig
    px: int
    captions: tuple[str, str]
    weights_digest: str

    @classmethod
    def of(cls, path: Path, model: ModelConfig, px: int, captions: Sequence[str]) -> StageWeights:
        """Describe a weights file.

        Raises:
            ConfigError: There is none, or not two captions.
        """
        if not path.is_file():
            raise ConfigError(f"expected a weights file, found none at {path}")
        if len(captions) != 2:
            raise ConfigError(f"expected two captions, found {len(captions)}")
        return cls(path.resolve(), model, px, (captions[0], captions[1]), file_digest(path))

    @cached_property
    def digest(self) -> str:
        """Digest of weights, towers, side, captions and gate."""
        return digest(
            {
                "weights": self.weights_digest,
                "towers": self.model.config,
                "px": self.px,
                "captions": self.captions,
                "gate": QualityLimits().as_dict(),
            }
        )

    @property
    def title(self) -> str:
        """The file and the side of its input."""
        return f"weights {self.path.parent.name}/{self.path.name} at {self.px} px"

    def load(self, threads: int | None) -> Scorer:
        """Build the towers and read the weights.

        Raises:
            StaleInput: The file is another one by now.
            ConfigError: The weights do not fit the recipe's towers.
        """
        if file_digest(self.path) != self.weights_digest:
            raise StaleInput(f"{self.path.name} was changed after scoring began")
        return _CaptionScorer(self, threads)


class _CaptionScorer:
    scores_set_aside = True
    limits = QualityLimits()

    def __init__(self, stage: StageWeights, threads: int | None) -> None:
        # Here and not above: a bundle is scored without torch, which costs 5 s and 300 MB a worker.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        import torch

        from training.batches import FrameStore, plain
        from training.model import build, freeze, load_spec

        if threads is not None:
            torch.set_num_threads(threads)
        spec = load_spec(stage.model.config)
        model, tokenize = build(spec, None, pretrained=False)
        _load_fitting(model, stage)
        freeze(model, stage.model.frozen_blocks, stage.model.frozen_text_layers)
        self._model = model.to(memory_format=torch.channels_last).eval()
        self._torch = torch
        # The pixels that training sees, said in one place.
        self.contract = FrameStore(spec.contract).contract
        self._plain = lambda pixels: plain(torch.from_numpy(pixels), spec.contract, stage.px)
        with torch.inference_mode():
            self._captions = model.encode_ids(tokenize(list(stage.captions)))
        self.dimension = int(self._captions.shape[-1])

    def encode(self, pixels: Pixels) -> Floats:
        with self._torch.inference_mode():
            found: Floats = self._model.encode_images(self._plain(pixels)).numpy()
        return found

    def score(
        self, records: Sequence[range], embeddings: Floats, scored: Bools
    ) -> tuple[Columns, Columns]:
        del records  # two captions say nothing of a record
        with self._torch.inference_mode():
            cosines = self._torch.from_numpy(embeddings) @ self._captions.T
            p = self._torch.softmax(self._model.logit_scale * cosines, -1)[:, 0].double().numpy()
        return {"probability": pa.array(p, pa.float64(), mask=~scored)}, {}


def _load_fitting(model: Any, stage: StageWeights) -> None:
    from training.model import load_weights

    try:
        load_weights(model, stage.path)
    except RuntimeError as error:  # other names or shapes, listed at length
        found = " ".join(str(error).split())[:200]
        raise ConfigError(
            f"{stage.path.name}: expected weights of {stage.model.config}, which the recipe names; "
            f"found others: {found}"
        ) from error
    except Exception as error:  # other files: UnpicklingError, EOFError, with advice of torch's
        raise ConfigError(
            f"{stage.path.name}: expected weights of {stage.model.config}, which the recipe names; "
            f"found no weights file ({type(error).__name__})"
        ) from error


@dataclass(frozen=True)
class GateOnly:
    """The quality gate at its default limits, and no model: which frames would be set aside.

    Attributes:
        contract: How a frame becomes the pixels that are judged.
    """

    contract: InputContract

    @property
    def digest(self) -> str:
        """Digest of contract and limits."""
        gate = QualityLimits().as_dict()
        return digest({"contract": dataclasses.asdict(self.contract), "gate": gate})

    @property
    def title(self) -> str:
        """The side of the pixels that are judged."""
        return f"quality gate at {self.contract.size} px"

    def load(self, threads: int | None) -> Scorer:
        """Nothing is loaded."""
        del threads
        return _Gate(self.contract)


class _Gate:
    scores_set_aside = False
    limits = QualityLimits()
    dimension = 0

    def __init__(self, contract: InputContract) -> None:
        self.contract = contract

    def encode(self, pixels: Pixels) -> Floats:
        return np.empty((len(pixels), 0), np.float32)

    def score(
        self, records: Sequence[range], embeddings: Floats, scored: Bools
    ) -> tuple[Columns, Columns]:
        del records, embeddings, scored
        return {}, {}
