"""What `make bench` measures of the service, always beside the limit loop and in the same minute.

Processor time hardly depends on what else runs on the machine; seconds on the clock do. Ratios are
therefore of frames per processor second wherever that says it, and each is taken between two slices
of the limit loop, so that a machine that slows down slows both.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.frames import enlarged
from bench.limit import LimitLoop, Work
from bench.load import Call, Run, arrive, form_call, saturate
from bench.server import Server, serving_ours
from model_store.encoder import Encoder

__all__ = [
    "Latency",
    "Throughput",
    "calls_of",
    "latency",
    "marginal_cost",
    "start_up",
    "throughput",
    "unify_ms",
]

Size = tuple[int, int]
_WARM_S = 0.5


@dataclass(frozen=True)
class Throughput:
    """Frames through HTTP beside those of the limit loop, all per second.

    Attributes:
        size: width and height of the frames.
        frames: of each request's patient.
        clients: requests under way at a time, from as many addresses.
        per_s: through HTTP, by the clock.
        server_cpu_ms: of the server, a frame.
        generator_cpu_ms: of the load generator, a frame.
        limit_cpu_ms: of the limit loop, a frame.
        limit_per_s: of the limit loop, by the clock.
        failed: requests that were not answered 200.
    """

    size: Size
    frames: int
    clients: int
    per_s: float
    server_cpu_ms: float
    generator_cpu_ms: float
    limit_cpu_ms: float
    limit_per_s: float
    failed: int

    @property
    def of_limit_cpu(self) -> float:
        """Frames per server processor second over those of the limit loop."""
        return self.limit_cpu_ms / self.server_cpu_ms

    @property
    def of_limit_raw(self) -> float:
        """Frames per second over those of the limit loop; the generator takes its share."""
        return self.per_s / self.limit_per_s


@dataclass(frozen=True)
class Latency:
    """Latencies of an open loop in ms, from when each request was due."""

    rate: float
    frames: int
    requests: int
    failed: int
    ms: dict[str, float]


def throughput(
    server: Server, loop: LimitLoop, size: Size, frames: int, clients: int, *, seconds: float
) -> Throughput:
    """Saturate a server, between two slices of the limit loop half as long.

    Args:
        server: a running service of ours.
        loop: over the same bundle.
        size: of the frames.
        frames: of each request's patient.
        clients: that send without a pause.
        seconds: of load.
    """
    calls = calls_of(server, size, frames)
    asyncio.run(saturate(server.address, calls, clients, _WARM_S))
    before = loop.run(enlarged(size), seconds / 2)
    spent = server.cpu_s()
    run = asyncio.run(saturate(server.address, calls, clients, seconds))
    spent = server.cpu_s() - spent
    limit = _both(before, loop.run(enlarged(size), seconds / 2))
    return Throughput(
        size,
        frames,
        clients,
        run.frames / run.wall_s,
        1000 * spent / max(run.frames, 1),
        1000 * run.own_cpu_s / max(run.frames, 1),
        1000 / limit.per_cpu_s,
        limit.per_s,
        run.failed,
    )


def latency(server: Server, size: Size, frames: int, rate: float, seconds: float) -> Latency:
    """Send requests of one patient at a constant rate."""
    calls = calls_of(server, size, frames)
    asyncio.run(arrive(server.address, calls, min(rate, 5), 1))
    run = asyncio.run(arrive(server.address, calls, rate, seconds))
    return Latency(rate, frames, sum(run.statuses.values()), run.failed, run.latency_ms())


def marginal_cost(
    server: Server, size: Size, counts: Sequence[int], least_frames: int
) -> tuple[list[tuple[int, float]], float, float, float]:
    """Measure the server's processor time against the frames of a patient.

    Args:
        server: a running service.
        size: of the frames.
        counts: frames of a patient; requests of a count are repeated to `least_frames` frames.
        least_frames: of each count, in all.

    Returns:
        ((frames, CPU ms a request) of each, slope in ms a frame, intercept in ms, the largest
        residual as a share of the fitted value). The line is fitted with the weight of relative
        errors.
    """
    points = []
    for count in counts:
        call = calls_of(server, size, count)[0]
        repeats = max(1, least_frames // count)
        spent = server.cpu_s()
        asyncio.run(_in_turn(server, call, repeats))
        points.append((count, 1000 * (server.cpu_s() - spent) / repeats))
    n, ms = np.array(points).T
    slope, intercept = np.polyfit(n, ms, 1, w=1 / ms)
    residual = float(np.abs(ms / (slope * n + intercept) - 1).max())
    return points, float(slope), float(intercept), residual


def start_up(times: int) -> tuple[list[float], list[float], float]:
    """Start a service a few times.

    Args:
        times: how often.

    Returns:
        (seconds until it was ready, processor seconds until then, MiB in RAM then).
    """
    ready, spent, resident = [], [], 0.0
    for _ in range(times):
        with serving_ours() as server:
            ready.append(server.ready_s)
            spent.append(server.cpu_s())
            resident = server.resident_mib()
    return ready, spent, resident


def unify_ms(encoder: Encoder, frames: int, repeats: int = 30) -> float:
    """Median processor ms of pooling this many frames into a patient, by one query."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(frames, encoder.dimension)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mask, spent = np.ones(frames, bool), []
    for _ in range(repeats):
        began = time.process_time()
        encoder.unify(rows, mask, rows[:1])
        spent.append(time.process_time() - began)
    return 1000 * float(np.median(spent))


def calls_of(server: Server, size: Size, frames: int) -> list[Call]:
    """Requests of one patient each; the n-th begins with the n-th frame."""
    images = enlarged(size)
    starts = range(len(images))
    return [
        form_call([images[(at + k) % len(images)] for k in range(frames)], server.address)
        for at in starts
    ]


async def _in_turn(server: Server, call: Call, repeats: int) -> Run:
    return await saturate(server.address, [call], 1, 600.0, most=repeats)


def _both(one: Work, other: Work) -> Work:
    return Work(one.frames + other.frames, one.wall_s + other.wall_s, one.cpu_s + other.cpu_s)
