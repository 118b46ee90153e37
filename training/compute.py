"""The machine of a run, as ``[compute]`` of a recipe asks for it: device, precision, memory, ranks.

Nothing here changes what a run computes, up to rounding; reduced precision rounds visibly and is
therefore part of a stage's key (``training.stages``).
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch

from training.config import ComputeConfig
from training.distributed import Ranks, join_ranks
from training.errors import ConfigError
from training.model import EndoClip

__all__ = ["Machine", "machine_for", "open_machine"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Machine:
    """Where and how a stage trains.

    Attributes:
        device: Of towers and pixels; what merely decides (classes, masks) stays on the CPU.
        precision: ``fp32``, ``bf16`` or ``fp16``: of the towers alone. Embeddings leave them as
            float32, and the losses see nothing else.
        accumulate: Pieces in which this rank's rows are encoded.
        checkpointing: Recompute activations in the backward pass.
        compile: Compile the image tower.
        ranks: The processes of the run.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    precision: str = "fp32"
    accumulate: int = 1
    checkpointing: bool = False
    compile: bool = False
    ranks: Ranks = field(default_factory=Ranks)

    def place(self, model: EndoClip) -> EndoClip:
        """Move a model here and switch on what saves memory and time; names of weights stay."""
        model.to(self.device)
        if self.checkpointing:
            model.clip.visual.set_grad_checkpointing(True)
            text = model.clip.text
            if hasattr(text, "pooler") and not model.text_is_frozen:
                # open_clip calls it by a name that transformers 6 will not know.
                text.transformer.activation_checkpointing_enable()
            elif not model.text_is_frozen:
                text.set_grad_checkpointing(True)
        if self.compile:
            model.clip.visual.compile()
        return model

    def autocast(self) -> AbstractContextManager[None]:
        """Context of a tower's forward pass.

        One a pass: autocast keeps its casts of the weights until the context ends, and casts made
        without a graph would leave the pass after them without gradients.
        """
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.device.type, DTYPES[self.precision])

    def scaler(self) -> torch.amp.GradScaler:
        """Loss scaling for fp16, whose gradients would vanish below 6e-8; else a no-op."""
        return torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")


def machine_for(config: ComputeConfig, ranks: Ranks | None = None) -> Machine:
    """The machine of this process, with Torch's threads set.

    Args:
        config: A recipe's ``[compute]``.
        ranks: The processes of the run; None = this one alone.

    Raises:
        ConfigError: The machine has not what the recipe asks for.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    if config.compile and not shutil.which(os.environ.get("CXX", "g++")):
        raise ConfigError("compute.compile = true: expected a C++ compiler (g++, or CXX=...)")
    return Machine(
        device=_device(config.device),
        precision=config.precision,
        accumulate=config.accumulate,
        checkpointing=config.checkpointing,
        compile=config.compile,
        ranks=ranks or Ranks(),
    )


@contextmanager
def open_machine(config: ComputeConfig) -> Iterator[Machine]:
    """The machine of a run, joined with the other ranks where torchrun started several.

    Followers are dismissed on leaving, or earlier by ``machine.ranks.dismiss()``.

    Raises:
        ConfigError: The machine has not what the recipe asks for.
    """
    ranks = join_ranks(_device(config.device))
    if not ranks.is_first:
        logging.getLogger("training").setLevel(logging.WARNING)
    try:
        yield machine_for(config, ranks)
    finally:
        ranks.dismiss()


def _device(asked: str) -> torch.device:
    if asked == "cpu" or (asked == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError(
            'compute.device = "cuda": expected a CUDA device, found none; use "auto" or "cpu"'
        )
    local, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if local >= found:
        raise ConfigError(
            f"compute.device: expected a CUDA device for each rank, found {found} for rank "
            f"{local} of this machine; lower --nproc_per_node"
        )
    torch.cuda.set_device(local)
    return torch.device("cuda", local)
