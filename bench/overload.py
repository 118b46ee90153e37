"""What three times the sustainable load does to accepted work, to memory, and to the refused.

    python -m bench.overload --seconds 60          (the service is started, and stopped)

Phases against one process: closed loop for the sustainable rate (the peak), open loop at three
times that from clients that do not care, and as many callers that come back when they are told to
(`Retry-After`), once all from one address and once each from its own (Linux). Accepted work is
given per second of the *server's* processor time as well, since on two cores whoever sends takes
from whoever answers; the ratio of two phases of one run is then hardly moved by what else the
machine does. Ends with 1 when a target is missed.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count

import httpx

from bench.frames import enlarged
from bench.hostile import form
from bench.served import Served, served

__all__ = ["Phase", "closed", "opened"]

# Over the stated queue time: the frames of the request itself, and the machine's other work.
_OWN_S = 2.0
_PATH = "/v1/polyp-detection"
# What may be in memory beyond what is there at the sustainable rate: the files of the most frames
# that are pending by default, and what a connection holds.
_QUEUE_MIB = 1024 * 80 / 1024
_CALLER_MIB = 64 / 1024
# A process of its own, as Prometheus is: what sends the load would be slow to notice an answer.
_SCRAPER = """
import http.client, sys, time
line = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=60)
while True:
    began = time.perf_counter()
    line.request("GET", "/metrics")
    line.getresponse().read()
    print(time.perf_counter() - began, flush=True)
    time.sleep(0.25)
"""


@dataclass
class Phase:
    """One phase, as it was seen from outside.

    Attributes:
        seconds: it took.
        cpu_s: of the server.
        frames: of requests answered 200.
        statuses: HTTP status → requests.
        latencies_s: of requests answered 200.
        retry_after_s: as the refused were told.
        came_back: requests sent after having waited as told, and how many of them were let in.
        rss_mib: the most that was seen.
        scrapes_s: times of `/metrics`, asked four times a second.
    """

    seconds: float = 0.0
    cpu_s: float = 0.0
    frames: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    latencies_s: list[float] = field(default_factory=list)
    retry_after_s: Counter[int] = field(default_factory=Counter)
    came_back: Counter[bool] = field(default_factory=Counter)
    rss_mib: float = 0.0
    scrapes_s: list[float] = field(default_factory=list)

    @property
    def p99_s(self) -> float:
        """Of accepted requests."""
        return _quantile(self.latencies_s, 0.99)

    def row(self, name: str) -> str:
        """One line of the table."""
        told = sorted(self.retry_after_s.elements()) or [0]
        back = sum(self.came_back.values())
        share = f"{self.came_back[True] / back:.0%} of {back}" if back else "-"
        return (
            f"| {name} | {self.frames / self.seconds:.1f} | {self.frames / self.cpu_s:.1f} | "
            f"{self.p99_s:.2f} | {dict(sorted(self.statuses.items()))} | "
            f"{told[0]}, {told[len(told) // 2]}, {told[-1]} | {share} | {self.rss_mib:.0f} | "
            f"{', '.join(f'{1000 * _quantile(self.scrapes_s, q):.0f}' for q in (0.5, 0.9, 1))} |"
        )


def _quantile(values: list[float], share: float) -> float:
    ranked = sorted(values) or [0.0]
    return ranked[int(share * (len(ranked) - 1))]


class _Load:
    """Sends exams of a few frames, and notes what became of them."""

    def __init__(self, up: Served, client: httpx.AsyncClient, frames: int) -> None:
        self._images = enlarged((1280, 1024))
        self._client, self._frames, self._numbers = client, frames, count()
        self.up, self.phase = up, Phase()

    def exam(self) -> tuple[dict[str, str], bytes]:
        """Make the next one: no two are of one length, as with real ones."""
        number = next(self._numbers)
        images = (self._images[(number + at) % len(self._images)] for at in range(self._frames))
        return form(*images, request="{}" + " " * (number % 4096))

    async def send(
        self,
        exam: tuple[dict[str, str], bytes],
        client: httpx.AsyncClient | None = None,
        *,
        came_back: bool = False,
    ) -> int:
        """Send one; gives the seconds to wait for if it was refused, else 0."""
        (headers, body), began = exam, time.monotonic()
        try:
            answer = await (client or self._client).post(_PATH, content=body, headers=headers)
        except httpx.HTTPError:
            self.phase.statuses[0] += 1
            return 1
        accepted = answer.status_code == 200
        self.phase.statuses[answer.status_code] += 1
        if came_back:
            self.phase.came_back[accepted] += 1
        if accepted:
            self.phase.frames += self._frames
            self.phase.latencies_s.append(time.monotonic() - began)
            return 0
        told = int(answer.headers.get("retry-after", "0"))
        self.phase.retry_after_s[told] += 1
        return told

    async def over(self, *senders: object) -> Phase:
        """Measure until the senders are done."""
        self.phase, before = Phase(), self.up.state()
        looking = asyncio.create_task(self._look())
        command = [sys.executable, "-c", _SCRAPER, self.up.url.rpartition(":")[2]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as scraper:
            try:
                await asyncio.gather(*senders)  # type: ignore[call-overload]
            finally:
                scraper.terminate()  # or whatever went wrong would wait for it for ever
            told = scraper.communicate()[0].split()
        self.phase.scrapes_s = [float(one) for one in told]
        looking.cancel()
        after = self.up.state()
        self.phase.seconds = after.at_s - before.at_s
        self.phase.cpu_s = after.cpu_s - before.cpu_s
        return self.phase

    async def _look(self) -> None:
        while True:
            self.phase.rss_mib = max(self.phase.rss_mib, self.up.state().rss_mib)
            await asyncio.sleep(0.1)


async def closed(
    load: _Load, callers: int, seconds: float, *, obey: bool = False, apart: bool = False
) -> Phase:
    """Keep callers busy: each sends when it has its answer.

    Args:
        load: what they send.
        callers: how many.
        seconds: for how long.
        obey: whether one that is refused sends the same again when it was told to; else soon.
        apart: whether each has an address of its own.
    """
    end = time.monotonic() + seconds

    async def caller(client: httpx.AsyncClient | None) -> None:
        told, exam = 0, load.exam()
        while time.monotonic() < end:
            told = await load.send(exam, client, came_back=obey and told > 0)
            if told:
                await asyncio.sleep(min(told, max(end - time.monotonic(), 0)) if obey else 0.05)
            if not (told and obey):
                exam = load.exam()

    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(_client(load.up, number)) if apart else None
            for number in range(callers)
        ]
        return await load.over(*(caller(client) for client in clients))


def _client(up: Served, number: int) -> httpx.AsyncClient:
    address = f"127.1.{number // 250}.{number % 250 + 1}"
    transport = httpx.AsyncHTTPTransport(local_address=address, verify=False)
    return httpx.AsyncClient(base_url=up.url, timeout=300, transport=transport)


async def opened(load: _Load, rate: float, seconds: float) -> Phase:
    """Send at a constant rate, whatever is answered."""

    async def send_all() -> None:
        start, tasks = time.monotonic(), []
        for number in range(max(1, round(rate * seconds))):
            await asyncio.sleep(max(start + number / rate - time.monotonic(), 0))
            tasks.append(asyncio.create_task(load.send(load.exam())))
        await asyncio.gather(*tasks)

    return await load.over(send_all())


async def measure(up: Served, seconds: float, frames: int, queue_s: float) -> list[str]:
    """Run the phases and print their table; gives the targets that were missed."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    async with httpx.AsyncClient(base_url=up.url, timeout=300, limits=limits) as client:
        load = _Load(up, client, frames)
        await closed(load, 4, seconds / 6)  # warm
        peak = await closed(load, 4, seconds / 2)
        rate = 3 * peak.frames / frames / peak.seconds
        flood = await opened(load, rate, seconds)
        # As many as keep three times the queue's work here, were they let in.
        callers = max(12, round(rate * queue_s))
        obeyed = {
            where: await closed(load, callers, seconds, obey=True, apart=where != "one address")
            for where in ("one address", "as many addresses")
        }
    say("| load | frames/s | frames/server CPU s | p99 of accepted, s | statuses | Retry-After least, median, most, s | came back, let in | RSS, MiB | /metrics p50, p90, most, ms |")  # fmt: skip # noqa: E501
    say("|---|---|---|---|---|---|---|---|---|")
    say(peak.row("sustainable, 4 callers"))
    say(flood.row(f"open loop, {rate:.1f} requests/s"))
    for where, phase in obeyed.items():
        say(phase.row(f"{callers} callers that obey, {where}"))
    found = list(missed(peak, flood, queue_s, callers))
    for phase in obeyed.values():
        found += missed(peak, phase, queue_s, callers)
        if phase.came_back.total() and phase.came_back[True] <= phase.came_back[False]:
            found.append("most who came back when they were told to were refused again")
    return found


def missed(peak: Phase, over: Phase, queue_s: float, callers: int) -> list[str]:
    """Give the targets that an overloaded phase missed."""
    kept = (over.frames / over.cpu_s) / (peak.frames / peak.cpu_s)
    found = []
    if kept < 0.9:
        found.append(f"accepted work per server CPU second is {kept:.0%} of the peak's")
    if over.p99_s > queue_s + max(_OWN_S, 2 * peak.p99_s):
        found.append(f"p99 of accepted {over.p99_s:.1f} s, over the queue time of {queue_s:.0f} s")
    if unexpected := {status for status in over.statuses if status not in (200, 503)}:
        found.append(f"statuses {unexpected}")
    if over.rss_mib > peak.rss_mib + _QUEUE_MIB + callers * _CALLER_MIB:
        found.append(f"memory rose from {peak.rss_mib:.0f} to {over.rss_mib:.0f} MiB")
    return found


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Measure, and say what was missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="of each overloaded phase")
    parser.add_argument("--frames", type=int, default=10, help="of each request")
    parser.add_argument("--queue", type=float, default=10.0, help="ENDOCLIP_MAX_QUEUE_S")
    args = parser.parse_args()
    with served(max_queue_s=args.queue) as up:
        faults = asyncio.run(measure(up, args.seconds, args.frames, args.queue))
        faults += up.failures()[:20]
    say("\n".join(faults) or "all targets met")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
