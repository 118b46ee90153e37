"""The processes of one run: who encodes which rows, and what they tell each other.

``torchrun`` starts the ranks. Rank 0 runs the whole command; the others follow it: they wait until
rank 0 sends them a stage, train along, and wait again. So only ``training.loop`` knows that there
is more than one process; archives, ledgers, checkpoints, scoring and packing are rank 0's alone.

``torch.nn.parallel.DistributedDataParallel`` is not used, on purpose. It averages gradients of
losses that each rank computes on its own rows, in one backward pass. Our losses are contrasts over
the *whole* batch: every rank computes them on all embeddings, takes back the gradient of its own
rows (in several passes, where memory is short), and the sum over ranks is the gradient. Given up is
the overlap of reduction and backward pass.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from training.errors import ConfigError

__all__ = ["Ranks", "join_ranks", "rank_of_environment"]

WAIT = timedelta(days=30)
"""How long a rank waits for another: scoring an archive takes hours, in which the followers idle.
What dies is noticed at once, by the closed connection and by torchrun."""
BUCKET_BYTES = 64 * 2**20
"""Gradients are reduced in pieces of this size: few messages, little memory."""


class Ranks:
    """The processes of one run; alone, everything is its own answer.

    Attributes:
        rank: This process, from 0.
        count: Number of processes.
        busy: True while all ranks train a stage: then they end together, or torchrun ends them.
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        self.rank = rank
        self.count = count
        self.busy = False

    @property
    def is_first(self) -> bool:
        """Whether this process writes, shows and decides."""
        return self.rank == 0

    def share(self, rows: int, unit: int = 1) -> range:
        """Rows of this rank; the ranks' shares lie one behind the other and cover all rows.

        Args:
            rows: Of the whole batch; need not be divisible.
            unit: Rows that are not torn apart.
        """
        units = -(-rows // unit)
        start, stop = (units * r // self.count * unit for r in (self.rank, self.rank + 1))
        return range(min(start, rows), min(stop, rows))

    def gather(self, own: Tensor, mine: range, rows: int) -> Tensor:
        """Rows of all ranks, (rows, d), from everyone's own, (len(mine), d); without gradient."""
        if self.count == 1:
            return own.detach()
        whole = own.new_zeros(rows, own.shape[1])
        whole[mine.start : mine.stop] = own.detach()
        dist.all_reduce(whole)  # disjoint rows: x + 0 is exact, and uneven shares need no padding
        return whole

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum ``.grad`` over ranks; None stays None where no rank has one (AdamW skips those)."""
        if self.count == 1:
            return
        listed = list(parameters)
        told = torch.tensor([p.grad is not None for p in listed], dtype=torch.int32)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        for bucket in _buckets([p for p, has in zip(listed, told.tolist(), strict=True) if has]):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
            flat = torch.cat([grad.reshape(-1) for grad in grads])
            dist.all_reduce(flat)
            pieces = flat.split([grad.numel() for grad in grads])
            for parameter, grad, piece in zip(bucket, grads, pieces, strict=True):
                parameter.grad = grad.copy_(piece.view_as(grad))

    def agree(self, value: int) -> int:
        """The largest value that any rank gives; all must ask."""
        if self.count == 1:
            return value
        told = torch.tensor([value])
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return int(told)

    def send(self, job: object) -> None:
        """Give the followers something to do (rank 0)."""
        if self.count > 1:
            dist.broadcast_object_list([job], src=0, device=torch.device("cpu"))

    def receive(self) -> Any:
        """Wait for what rank 0 sends; None = nothing more to do."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def dismiss(self) -> None:
        """Let the followers go home (rank 0); this process goes on alone."""
        if self.count == 1:
            return
        if self.is_first and not self.busy:
            self.send(None)
        dist.destroy_process_group()
        self.rank, self.count = 0, 1


def rank_of_environment() -> int:
    """This process's rank as torchrun says it; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))


def join_ranks(device: torch.device) -> Ranks:
    """Meet the other processes that torchrun started; alone where there are none.

    Args:
        device: Of this process's tensors: gloo carries those on the CPU, nccl those on CUDA.

    Raises:
        ConfigError: torchrun's variables are incomplete.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return Ranks()
    _end_with_parent()
    # The optimiser imports it; imported while the group stands, it keeps the group's threads alive
    # beyond the group's end (torch 2.15), and one exit in four then aborted.
    importlib.import_module("torch._dynamo")
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=WAIT)
    except ValueError as error:
        raise ConfigError(f"WORLD_SIZE={count}: start the ranks by torchrun ({error})") from error
    return Ranks(dist.get_rank(), count)


def _end_with_parent() -> None:
    """Be sent SIGTERM when torchrun dies: orphans would write into the folder of the next try."""
    with suppress(OSError, AttributeError):
        pr_set_pdeathsig = 1  # of sys/prctl.h; Linux only
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _buckets(parameters: Sequence[nn.Parameter]) -> Iterable[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        bucket.append(parameter)
        size += parameter.numel() * parameter.element_size()
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket
