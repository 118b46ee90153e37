"""The limit loop: the service's decoding and its ONNX graph, and nothing else, on all cores.

No HTTP, no quality gate, no scoring, no queue: each core has a thread that decodes a few frames and
runs the graph on them, with one thread inside. No service on this machine can do more frames.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from threading import Thread

import numpy as np

from bench.frames import SIZES, enlarged
from model_store.bundle import Bundle
from model_store.cores import usable_cores
from model_store.encoder import Encoder
from model_store.images import decode

__all__ = ["LimitLoop", "Work"]

_BATCH = 4


@dataclass(frozen=True)
class Work:
    """Frames that were done, and what they took."""

    frames: int
    wall_s: float
    cpu_s: float

    @property
    def per_cpu_s(self) -> float:
        """Frames per processor second."""
        return self.frames / self.cpu_s

    @property
    def per_s(self) -> float:
        """Frames per second on the clock."""
        return self.frames / self.wall_s


class LimitLoop:
    """The loop over one bundle.

    Attributes:
        encoder: the bundle's graphs, with one thread inside.
    """

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        self._contract = bundle.manifest.input
        self.encoder = Encoder(bundle, threads=1)
        self._threads = threads or usable_cores()
        self.run(enlarged(SIZES[0]), 0.2)  # the first runs are slower

    def run(self, images: Sequence[bytes], seconds: float) -> Work:
        """Keep all cores busy with these frames for a while."""
        counts = [0] * self._threads
        end = time.perf_counter() + seconds

        def core(number: int) -> None:
            frames = cycle(images)
            while time.perf_counter() < end:
                batch = [decode(data, self._contract) for data in islice(frames, _BATCH)]
                self.encoder.encode_images(np.stack(batch))
                counts[number] += len(batch)

        threads = [Thread(target=core, args=(number,)) for number in range(self._threads)]
        wall, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return Work(sum(counts), time.perf_counter() - wall, time.process_time() - cpu)
