"""Sends requests at a server on this machine, and times them: open loop, or as fast as it answers.

    python -m bench.load --url http://127.0.0.1:8000 --rate 20 --seconds 30
    python -m bench.load --url http://127.0.0.1:8000 --clients 16 --frames 8 --size 1920x1080

*Open loop* (`arrive`): requests become due at a constant rate, whatever the server does, and a
latency counts from when its request was **due**. A server that stands still for a second therefore
shows a second in every request that was due meanwhile, and not in the one that happened to be
under way (coordinated omission). *Closed loop* (`saturate`): each client sends its next request
when it has the answer; that gives the throughput, and its latencies mean nothing.

The generator's own processor time stands beside each figure: on two cores it is taken from the
server.
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from urllib.parse import urlsplit

from bench.frames import SIZES, enlarged

__all__ = ["Address", "Call", "Run", "arrive", "form_call", "image_call", "json_call", "saturate"]

Address = tuple[str, int]
_BOUNDARY = b"endoclip-bench"
_PATH = "/v1/polyp-detection"
_QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


@dataclass(frozen=True)
class Call:
    """A request, ready for the wire.

    Attributes:
        payload: head and body.
        frames: frames that it holds.
    """

    payload: bytes
    frames: int


@dataclass
class Run:
    """What became of the requests of one run.

    Attributes:
        latencies_s: of answered requests, from when they were due (closed loop: sent).
        statuses: HTTP status → requests; 0 is a broken connection or no answer in time.
        frames: frames of requests that were answered 200.
        wall_s: from the first request to the last answer.
        own_cpu_s: processor time of this process meanwhile.
        answers: a few bodies, for those who check them.
    """

    latencies_s: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    frames: int = 0
    wall_s: float = 0.0
    own_cpu_s: float = 0.0
    answers: list[bytes] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """Requests that were not answered 200."""
        return sum(self.statuses.values()) - self.statuses[200]

    def latency_ms(self) -> dict[str, float]:
        """Give p50, p95, p99, p99.9 and max in ms, each a latency that was seen (nearest rank)."""
        ranked = sorted(self.latencies_s)
        if not ranked:
            return dict.fromkeys(_QUANTILES, float("nan"))
        last = len(ranked) - 1
        return {
            name: round(ranked[min(last, int(share * len(ranked)))] * 1000, 2)
            for name, share in _QUANTILES.items()
        }

    def _note(self, call: Call, status: int, body: bytes, latency_s: float) -> None:
        self.statuses[status] += 1
        if status:
            self.latencies_s.append(latency_s)
        if status == 200:
            self.frames += call.frames
            if len(self.answers) < 8:
                self.answers.append(body)


def image_call(image: bytes, address: Address, path: str = _PATH) -> Call:
    """One frame as the body (form 3)."""
    return Call(_head(address, path, "image/jpeg", len(image)) + image, 1)


def form_call(images: Sequence[bytes], address: Address, path: str = _PATH) -> Call:
    """One patient as multipart/form-data (form 1)."""
    parts = (
        b'--%b\r\nContent-Disposition: form-data; name="frames"; filename="%d.jpg"\r\n'
        b"Content-Type: image/jpeg\r\n\r\n%b\r\n" % (_BOUNDARY, number, image)
        for number, image in enumerate(images)
    )
    body = b"".join(parts) + b"--%b--\r\n" % _BOUNDARY
    kind = f"multipart/form-data; boundary={_BOUNDARY.decode()}"
    return Call(_head(address, path, kind, len(body)) + body, len(images))


def json_call(document: object, frames: int, address: Address, path: str = _PATH) -> Call:
    """Any JSON document (form 2, and what other servers want)."""
    body = json.dumps(document).encode()
    return Call(_head(address, path, "application/json", len(body)) + body, frames)


async def arrive(
    address: Address,
    calls: Sequence[Call],
    rate: float,
    seconds: float,
    *,
    connections: int = 256,
    patience_s: float = 60.0,
) -> Run:
    """Send requests at a constant rate.

    Args:
        address: host and port.
        calls: sent in rotation.
        rate: requests a second.
        seconds: for how long; `rate * seconds` requests at least 1.
        connections: open at a time, at most; a request that finds none waits, and that counts.
        patience_s: after its due time a request without an answer counts as failed.

    Returns:
        The run, when the last request is answered or given up.
    """
    pool, loop = _Pool(address, connections), asyncio.get_running_loop()

    async def send_all(run: Run) -> None:
        start = loop.time()
        tasks = []
        for number in range(max(1, round(rate * seconds))):
            due = start + number / rate
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            call = calls[number % len(calls)]
            tasks.append(asyncio.create_task(pool.send(call, run, due, patience_s)))
        await asyncio.gather(*tasks)

    return await _timed(send_all, pool)


async def saturate(
    address: Address,
    calls: Sequence[Call],
    clients: int,
    seconds: float,
    *,
    most: int | None = None,
    patience_s: float = 60.0,
) -> Run:
    """Keep a number of clients busy, each sending as soon as it has its answer.

    Each comes from an address of its own, 127.0.0.2 and so on: the service tells clients apart.

    Args:
        address: host and port.
        calls: sent in rotation.
        clients: requests under way at a time.
        seconds: no request is begun after this.
        most: requests in all, if there is such a bound.
        patience_s: for one answer.

    Returns:
        The run.
    """
    loop, numbers = asyncio.get_running_loop(), count()
    pools = [_Pool(address, 1, f"127.0.0.{2 + number % 250}") for number in range(clients)]

    async def send_all(run: Run) -> None:
        end = loop.time() + seconds

        async def client(pool: _Pool) -> None:
            while (now := loop.time()) < end:
                number = next(numbers)
                if most is not None and number >= most:
                    return
                await pool.send(calls[number % len(calls)], run, now, patience_s)

        await asyncio.gather(*(client(pool) for pool in pools))

    return await _timed(send_all, *pools)


async def _timed(send_all: Callable[[Run], Awaitable[None]], *pools: "_Pool") -> Run:
    run, wall, cpu = Run(), time.perf_counter(), time.process_time()
    await send_all(run)
    run.wall_s, run.own_cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    for pool in pools:
        pool.close()
    return run


class _Pool:
    """Kept-alive connections; one is opened when none is free."""

    def __init__(self, address: Address, most: int, source: str = "127.0.0.1") -> None:
        self._address, self._source = address, (source, 0)
        self._free: deque[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = deque()
        self._room = asyncio.Semaphore(most)

    async def send(self, call: Call, run: Run, due: float, patience_s: float) -> None:
        loop = asyncio.get_running_loop()
        status, body = 0, b""
        try:
            async with asyncio.timeout_at(due + patience_s), self._room:
                status, body = await self._exchange(call)
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        run._note(call, status, body, loop.time() - due)

    def close(self) -> None:
        while self._free:
            self._free.pop()[1].close()

    async def _exchange(self, call: Call) -> tuple[int, bytes]:
        if self._free:
            reader, writer = self._free.pop()
        else:
            reader, writer = await asyncio.open_connection(*self._address, local_addr=self._source)
        try:
            writer.write(call.payload)
            status, body, keep = await _read_answer(reader)
        except BaseException:
            writer.close()
            raise
        if keep:
            self._free.append((reader, writer))
        else:
            writer.close()
        return status, body


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Read status, body, and whether the connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    status = int(head.split(" ", 2)[1])
    fields = dict(line.split(":", 1) for line in head.split("\r\n")[1:] if ":" in line)
    keep = "close" not in fields.get("connection", "")
    if "chunked" in fields.get("transfer-encoding", ""):
        body = b""
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return status, body, keep
    return status, await reader.readexactly(int(fields.get("content-length", "0"))), keep


def _head(address: Address, path: str, kind: str, length: int) -> bytes:
    host, port = address
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


def main() -> None:
    """Load a running service as the command line says, and print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--path", default=_PATH)
    parser.add_argument("--rate", type=float, help="requests a second: open loop")
    parser.add_argument("--clients", type=int, default=4, help="without --rate: closed loop")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--frames", type=int, default=1, help="of each request's patient")
    parser.add_argument("--size", default="1280x1024", choices=[f"{w}x{h}" for w, h in SIZES])
    args = parser.parse_args()
    parts = urlsplit(args.url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    width, height = map(int, args.size.split("x"))
    images = enlarged((width, height))
    calls = [
        form_call([images[(at + k) % len(images)] for k in range(args.frames)], address, args.path)
        for at in range(len(images))
    ]
    run = asyncio.run(
        arrive(address, calls, args.rate, args.seconds)
        if args.rate
        else saturate(address, calls, args.clients, args.seconds)
    )
    told = {
        "statuses": dict(run.statuses),
        "frames_per_s": round(run.frames / run.wall_s, 2),
        "latency_ms" if args.rate else "round_trip_ms": run.latency_ms(),
        "own_cpu_s": round(run.own_cpu_s, 3),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
