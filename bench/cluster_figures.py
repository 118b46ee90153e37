"""What the Ray application costs beside the single process, and what more encoders give.

    python -m bench.cluster_figures

Two tables. The cost of a request is processor time of the service's processes, in turns within one
run, so that a busy machine does both the same wrong. The curve is of an encoder that takes a fixed
time and no processor: it shows what routing, admission and turns allow, not what a machine does;
two cores cannot show eight encoders at work.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil

from bench.cluster import FIXED_S, Clustered, clustered, missing
from bench.frames import enlarged
from bench.served import served

__all__ = ["main"]

_PATH = "/v1/polyp-detection"
_SIZE = (1280, 1024)
_ROUNDS, _AT_ONCE = 5, 4
_CURVE_S = 15.0
_CALLERS = 24


def main() -> None:
    """Measure, and write both tables."""
    reason = missing()
    if reason is not None:
        sys.exit(reason)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "exams.sqlite3"
        settings: dict[str, Any] = {"exam_store": store, "max_queue_s": 3600}
        with clustered(nodes=2, **settings) as cluster, served(**settings) as single:
            cluster.deploy(ingresses=1, encoders=1)
            _cost(cluster, single.url, psutil.Process(single.popen.pid))
            _curve(cluster)


def _cost(cluster: Clustered, single_url: str, single: psutil.Process) -> None:
    frames = enlarged(_SIZE)
    print("| request | single process | ingress | encoder | more than the single process |")
    print("|---|---|---|---|---|")
    for name, files, requests in (("a frame", frames[:1], 60), ("32 frames", frames * 16, 6)):
        spent = [0.0, 0.0, 0.0]
        for _ in range(_ROUNDS):
            for url, first in ((single_url, True), (cluster.url, False)):
                before = _cpu(single, cluster)
                _send(url, files[:32], requests)
                for place, (was, now) in enumerate(zip(before, _cpu(single, cluster), strict=True)):
                    spent[place] += (now - was) if first == (place == 0) else 0.0
        alone, ingress, encoder = (1000 * one / (_ROUNDS * requests) for one in spent)
        print(
            f"| {name} | {alone:.1f} ms | {ingress:.1f} ms | {encoder:.1f} ms "
            f"| {(ingress + encoder) / alone - 1:+.0%} |",
            flush=True,
        )


def _cpu(single: psutil.Process, cluster: Clustered) -> list[float]:
    """Processor seconds so far: of the single process, the ingress, the encoder."""
    parts = [single], cluster.processes("ingress"), cluster.processes("encoder")
    return [sum(sum(one.cpu_times()[:2]) for one in processes) for processes in parts]


def _send(url: str, files: Sequence[bytes], requests: int) -> None:
    parts = [("frames", ("frame.jpg", data)) for data in files]

    def send(_: int) -> None:
        client.post(_PATH, files=parts).raise_for_status()

    with httpx.Client(base_url=url, timeout=300) as client, ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(send, range(requests)))


def _curve(cluster: Clustered) -> None:
    print(f"\n| encoders of {1000 * FIXED_S:.0f} ms a frame | frames/s | of what they could |")
    print("|---|---|---|")
    for encoders in (1, 2, 4, 8):
        cluster.deploy(
            ingresses=2, encoders=encoders, application="bench.fixed_encoder:application"
        )
        rate = _rate(cluster.url)
        print(f"| {encoders} | {rate:.1f} | {rate * FIXED_S / encoders:.0%} |", flush=True)


def _rate(url: str) -> float:
    """Frames a second of many callers who each wait for their answer."""
    frame, ended = enlarged((640, 480))[0], threading.Event()

    def call(_: int) -> int:
        answered = 0
        with httpx.Client(base_url=url, timeout=300) as client:
            while not ended.is_set():
                kind = {"Content-Type": "image/jpeg"}
                client.post(_PATH, content=frame, headers=kind).raise_for_status()
                answered += 1
        return answered

    with ThreadPoolExecutor(_CALLERS) as pool:
        began = time.monotonic()
        running = [pool.submit(call, number) for number in range(_CALLERS)]
        time.sleep(_CURVE_S)
        ended.set()
        answered = sum(one.result() for one in running)
        return answered / (time.monotonic() - began)


if __name__ == "__main__":
    main()
