"""What the capacity plan is made for: measured processor times, and what is assumed beside them."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Plan", "measure", "read_times"]

_TIMES = Path(__file__).with_name("capacity_times.txt")


def read_times(path: Path) -> list[float]:
    """Read processor milliseconds of frames, one a line, as seconds; `#` is a comment.

    Raises:
        ValueError: a line is no positive number, or there is none.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if text := line.partition("#")[0].strip():
            try:
                milliseconds = float(text)
            except ValueError:
                milliseconds = math.nan
            if not 0 < milliseconds < math.inf:
                raise ValueError(f"{path}, line {number}: expected milliseconds, found {text!r}")
            found.append(milliseconds / 1000)
    if not found:
        raise ValueError(f"{path} holds no times")
    return found


@dataclass(frozen=True)
class Plan:
    """What is planned for, and with what.

    Attributes:
        frame_s: measured: processor time of one more frame of a patient, 1280x1024.
        request_s: measured: processor time of a request beside its frames.
        times: measured: of single frames; drawn from, scaled to the mean `frame_s`.
        rooms: live rooms.
        fps: frames a second of a room.
        seconds: that each room is simulated for.
        network_s: assumed: a frame arrives 0 to this long after it is due, evenly spread.
        keep: a room's frames that may be dropped, as a share, for a load to count as held.
        exams: archived.
        frames: assumed: mean frames of an exam, log-normal.
        spread: assumed: sigma of that.
        most: frames of an exam at most.
        per_hour: assumed: exams an hour at the peak, when exams are sent as they end.
        price: assumed: of one core for an hour.
        busy: assumed: share of the time that a paid core works, of a backlog.
        slow: factor on all processor times.
        seed: of everything that is drawn.
    """

    frame_s: float = 0.00937
    request_s: float = 0.0035
    times: tuple[float, ...] = tuple(read_times(_TIMES))
    rooms: int = 1000
    fps: float = 25.0
    seconds: float = 8.0
    network_s: float = 0.010
    keep: float = 0.01
    exams: int = 1_000_000
    frames: float = 200.0
    spread: float = 0.45
    most: int = 512
    per_hour: float = 1600.0
    price: float = 0.04
    busy: float = 0.9
    slow: float = 1.0
    seed: int = 20261129

    @classmethod
    def of_times(cls, times: Sequence[float], **others: Any) -> "Plan":
        """Plan with the times of single frames on another machine."""
        return cls(times=tuple(times), frame_s=sum(times) / len(times), **others)

    def lone(self) -> list[float]:
        """Give the processor times of frames sent alone that are drawn from."""
        scale = self.frame_s * len(self.times) / sum(self.times)
        return [self.slow * (scale * one + self.request_s) for one in self.times]

    def exam_s(self, frames: int) -> float:
        """Processor seconds of an exam that is sent as one request."""
        return self.slow * (self.request_s + self.frame_s * frames)

    def cost(self, core_s: float) -> float:
        """Price of core-seconds."""
        return self.price * core_s / 3600


def measure(frames: int) -> Iterator[float]:
    """Processor milliseconds of decoding, quality gate and graph, a frame each, in one thread."""
    import numpy as np

    from bench.frames import enlarged
    from model_store.bundle import Bundle
    from model_store.encoder import Encoder
    from model_store.images import decode
    from model_store.quality import QualityLimits, assess
    from service.settings import newest_bundle

    bundle = Bundle.open(newest_bundle())
    encoder = Encoder(bundle, threads=1)
    limits = QualityLimits.of(bundle.manifest.quality_gate)
    files = enlarged((1280, 1024))
    for number in range(-20, frames):  # the first are slower
        before = time.thread_time()
        pixels = decode(files[number % len(files)], bundle.manifest.input)
        assess(pixels, limits)
        encoder.encode_images(np.stack([pixels]))
        if number >= 0:
            yield (time.thread_time() - before) * 1000
