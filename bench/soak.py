"""Half an hour of good and bad requests at 80 % of what the service can do; what that does to it.

    python -m bench.soak --minutes 30 --plot runs/soak.svg

The capacity is measured first, with the same mix (`bench.mixed`), every answer compared throughout.
Then requests are due at a constant rate, come what may. Memory, file descriptors, threads and
latency are looked at every few seconds; at the end the service is told to stop while requests are
under way, none of which may be lost. Prints one table, draws one picture, and ends with 1 when a
target is missed: a wrong answer, a 5xx without a reason, memory that grows by 2 % after warm-up,
threads that pile up, descriptors that stay open when the callers have left, a request lost in the
stop. Latency is shown by thirds and no
target: it is the machine's as much as the service's.
"""

import argparse
import asyncio
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from bench.mixed import Mix, Mixed, Tally, mixed_service, send, send_all
from bench.pool import large_frames, small_frames
from bench.reference import Reference
from bench.served import Served, State

__all__ = ["Soak", "drain", "soak"]

_LOAD = 0.8
# The allocator and the caches of free label sets fill up first.
_WARM_UP = 0.2
_MOST_GROWTH = 0.02
_AT_ONCE = 64


@dataclass
class Soak:
    """What was seen.

    Attributes:
        rate: requests a second.
        seconds: it took.
        states: of the process, in order.
        latencies: (due at, seconds from due to answered), in the order of the answers.
        tally: of the requests.
        late: requests that were due when too many were under way already.
        at_rest: descriptors before the first request, and when the last caller had left.
    """

    rate: float = 0.0
    seconds: float = 0.0
    states: list[State] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    late: int = 0
    at_rest: tuple[int, int] = (0, 0)

    @property
    def warm(self) -> list[State]:
        """The states after the warm-up."""
        return self.states[int(len(self.states) * _WARM_UP) :]

    @property
    def growth(self) -> float:
        """Memory that the slope through the states after warm-up gains over them, as a share."""
        at = np.array([one.at_s for one in self.warm])
        rss = np.array([one.rss_mib for one in self.warm])
        slope = float(np.polyfit(at - at[0], rss, 1)[0])
        return slope * float(at[-1] - at[0]) / float(np.median(rss))

    def p99(self, part: int) -> float:
        """p99 of latency in a third (0, 1, 2) of the time after warm-up, in seconds."""
        ranked = [took for _, took in sorted(self.latencies)]
        ranked = ranked[int(len(ranked) * _WARM_UP) :]
        third = np.array_split(np.array(ranked), 3)[part]
        return float(np.quantile(third, 0.99)) if len(third) else 0.0

    @property
    def unexplained(self) -> dict[int, int]:
        """Statuses of 500 and more, but 504: that a hurried request asks for, and is looked at."""
        return {one: n for one, n in self.tally.statuses.items() if one >= 500 and one != 504}

    def missed(self) -> list[str]:
        """Give the targets that were missed."""
        first, last = self.warm[0], self.warm[-1]
        found = self.tally.wrong[:20]
        if self.unexplained:
            found.append(f"unexplained {self.unexplained}")
        if self.growth >= _MOST_GROWTH:
            found.append(f"memory grew by {self.growth:.1%} after warm-up")
        if self.at_rest[1] > self.at_rest[0]:
            found.append(
                f"file descriptors at rest rose from {self.at_rest[0]} to {self.at_rest[1]}"
            )
        if last.threads > first.threads:
            found.append(f"threads rose from {first.threads} to {last.threads}")
        return found

    def table(self) -> str:
        """One table of it all."""
        first, last = self.warm[0], self.warm[-1]
        rows = {
            "minutes": f"{self.seconds / 60:.1f}",
            "requests/s": f"{self.rate:.1f} ({_LOAD:.0%} of what was measured first)",
            "requests": str(self.tally),
            "sent late": f"{self.late}",
            "wrong answers": f"{len(self.tally.wrong)}",
            "unexplained 5xx": f"{sum(self.unexplained.values())}",
            "memory, MiB": f"{first.rss_mib:.0f} to {last.rss_mib:.0f}, slope {self.growth:+.2%}",
            "file descriptors": f"{first.descriptors} to {last.descriptors}, one for each caller; "
            f"at rest {self.at_rest[0]} before and {self.at_rest[1]} after",
            "threads": f"{first.threads} to {last.threads}",
            "p99 by thirds, s": ", ".join(f"{self.p99(part):.2f}" for part in range(3))
            + f", drift {self.p99(2) / max(self.p99(0), 1e-9) - 1:+.0%}",
        }
        return "\n".join(["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in rows.items())])


async def soak(up: Served, mix: Mix, rate: float, seconds: float) -> Soak:
    """Send requests at a constant rate, and look at the process meanwhile.

    Args:
        up: the service.
        mix: of requests.
        rate: requests a second.
        seconds: for how long.
    """
    seen, start = Soak(rate=rate), time.monotonic()
    before = await at_rest(up)
    limits = httpx.Limits(max_connections=_AT_ONCE, max_keepalive_connections=_AT_ONCE)
    async with httpx.AsyncClient(base_url=up.url, timeout=300, limits=limits) as client:
        under_way: set[asyncio.Task[None]] = set()

        async def one(request: Mixed, due: float) -> None:
            await send(client, request, seen.tally)
            seen.latencies.append((due - start, time.monotonic() - due))

        async def look() -> None:
            while True:
                seen.states.append(up.state())
                await asyncio.sleep(max(seconds / 600, 0.2))

        looking = asyncio.create_task(look())
        for number in range(max(1, round(rate * seconds))):
            request = mix.request(10_000_000 + number)
            due = start + number / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            seen.late += len(under_way) >= _AT_ONCE
            task = asyncio.create_task(one(request, due))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        await asyncio.gather(*under_way)
        looking.cancel()
    seen.seconds = time.monotonic() - start
    seen.at_rest = before, await at_rest(up)
    return seen


async def at_rest(up: Served) -> int:
    """Give the descriptors that stay open without a caller: the least of some seconds."""
    looks = []
    for _ in range(20):
        looks.append(up.state().descriptors)
        await asyncio.sleep(0.2)
    return min(looks)


async def drain(up: Served, mix: Mix) -> list[str]:
    """Tell the service to stop while requests are under way; gives what was lost or wrong."""
    tally, requests = Tally(), [mix.request(20_000_000 + number) for number in range(200)]
    whole = [one for one in requests if one.status == 200 and not (one.leaves or one.hurried)][:16]
    async with httpx.AsyncClient(base_url=up.url, timeout=120) as client:
        under_way = [asyncio.create_task(send(client, one, tally)) for one in whole]
        until = time.monotonic() + 60
        while not up.figures().get("endoclip_pending_frames") and time.monotonic() < until:
            await asyncio.sleep(0.01)
        up.popen.terminate()
        await asyncio.gather(*under_way)
    # What had not begun may be told that the service stops; nothing may break off.
    wrong = [line for line in tally.wrong if "found 503" not in line]
    code = await asyncio.to_thread(up.popen.wait, 60)
    return wrong + ([f"exit code {code}"] if code else [])


def draw(seen: Soak, path: Path) -> None:
    """Write memory and latency over time as SVG."""
    minutes = [(one.at_s - seen.states[0].at_s) / 60 for one in seen.states]
    panels = (
        ("memory, MiB", list(zip(minutes, (one.rss_mib for one in seen.states), strict=True))),
        ("latency, s", [(at / 60, took) for at, took in sorted(seen.latencies)]),
    )
    parts = []
    for number, (name, points) in enumerate(panels):
        most = max(value for _, value in points) or 1.0
        end = max(at for at, _ in points) or 1.0
        top = 30 + 190 * number
        places = ((60 + 700 * at / end, top + 140 * (1 - value / most)) for at, value in points)
        dots = "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="1"/>' for x, y in places)
        parts.append(
            f'<text x="60" y="{top - 8}">{name}: 0 to {most:.2f} over {end:.1f} minutes</text>'
            f'<path d="M60 {top}v140h700" fill="none" stroke="currentColor"/>{dots}'
        )
    head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 800 400" font-family="sans-serif">'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{head}{''.join(parts)}</svg>\n", "utf-8")


def capacity(up: Served, mix: Mix, requests: int) -> float:
    """Measure how many requests of the mix a second the service answers, asked by eight callers."""
    tally, began = Tally(), 0.0
    for start, count in ((0, requests // 4), (requests, requests)):  # the first is to warm up
        began, numbers = time.monotonic(), iter(range(start, start + count))
        asyncio.run(send_all(up.url, mix.request, numbers, 8, tally))
    return requests / (time.monotonic() - began)


def main() -> int:
    """Soak, drain, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--requests", type=int, default=400, help="to measure the capacity with")
    parser.add_argument("--rate", type=float, help="requests a second, instead of 80 %%")
    parser.add_argument("--plot", type=Path, default=Path("runs/soak.svg"))
    args = parser.parse_args()
    mix = Mix(Reference(), [*small_frames(40), *large_frames(30)], seed=2, long=0.03)
    # At 80 % nothing is to be refused; a burst of exams may wait.
    with mixed_service(max_queue_s=120) as up:
        rate = args.rate or _LOAD * capacity(up, mix, args.requests)
        seen = asyncio.run(soak(up, mix, rate, 60 * args.minutes))
        # What the service says of requests that got no answer.
        faults = seen.missed() + up.told_of(seen.tally.broken[:20])
        faults += asyncio.run(drain(up, mix)) + up.failures()[:20]
    draw(seen, args.plot)
    sys.stdout.write("\n".join([seen.table(), "", *faults, "" if faults else "all targets met\n"]))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
