"""Capacity plan: from measured processor times to live rooms and archived exams, by simulation.

    python -m bench.capacity --write                       # tables and plot of docs/capacity.md
    python -m bench.capacity --times own.txt --price 0.05  # your machine's times, your price
    python -m bench.capacity --measure 400 > own.txt       # frames on this machine

What is measured and what is assumed is `bench.capacity_plan.Plan`, a line each. A run is a function
of its arguments.
The queues are `bench/queues.py`, which tests hold to theory.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import accumulate
from pathlib import Path
from random import Random

from bench.capacity_plan import Plan, measure, read_times
from bench.queues import Loop, Room, Servers, waits
from bench.results import table

__all__ = [
    "BARS_MS",
    "DOCUMENT",
    "Live",
    "exam_table",
    "live",
    "main",
    "plot",
    "quantile",
    "room_row",
]

DOCUMENT = Path(__file__).parents[1] / "docs" / "capacity.md"
BARS_MS = (77, 120)
_MARK = "<!-- written by python -m bench.capacity --write; what stands above the mark stays -->"
# Cores of a replica, and how many rooms each is tried with. Beyond 4 cores the event loop's thread
# (1.69 ms a frame sent alone, bench/RESULTS.md) is more than half busy, which is not simulated.
_ROOMS = {1: (1, 2, 3, 4), 2: (2, 3, 4, 5, 6, 8), 4: (4, 6, 8, 9, 10, 11, 12, 16)}


def quantile(values: Sequence[float], q: float) -> float:
    """Give the smallest value that a share of at least q does not exceed."""
    return sorted(values)[max(math.ceil(q * len(values)) - 1, 0)]


# ---- live ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Live:
    """How rooms fared; delays in seconds."""

    replicas: int
    cores: int
    delays: tuple[float, ...]
    worst_p99: float
    dropped: float

    @property
    def p99(self) -> float:
        """Of all answered frames of all rooms."""
        return quantile(self.delays, 0.99)

    def over(self, bar_ms: float) -> float:
        """Share of answered frames later than the bar."""
        return sum(delay > bar_ms / 1000 for delay in self.delays) / len(self.delays)


@cache
def live(plan: Plan, cores: int, rooms: int) -> Live:
    """Simulate all rooms, so many to a replica of so many cores."""
    lone, made = plan.lone(), list[Room]()
    replicas = math.ceil(plan.rooms / rooms)
    for replica in range(replicas):
        random = Random(f"{plan.seed} {cores} {rooms} {replica}")
        loop = Loop()
        row = Servers(loop, cores)
        here = min(rooms, plan.rooms - replica * rooms)
        work = partial(random.choice, lone)
        made += [Room(loop, row, _frames(plan, random), work) for _ in range(here)]
        loop.run()
    delays = tuple(delay for room in made for delay in room.delays)
    dropped = sum(room.dropped for room in made)
    worst = max(quantile(room.delays, 0.99) for room in made)
    return Live(replicas, cores, delays, worst, dropped / (dropped + len(delays)))


def _frames(plan: Plan, random: Random) -> Iterator[tuple[float, float]]:
    due, last = random.random() / plan.fps, 0.0
    for number in range(round(plan.seconds * plan.fps)):
        at = due + number / plan.fps
        # One connection: a frame does not overtake the one before.
        last = max(last, at + random.uniform(0, plan.network_s))
        yield at, last


def room_row(plan: Plan, cores: int, rooms: int) -> list[object]:
    """Row of the table of live rooms."""
    found = live(plan, cores, rooms)
    mean = sum(plan.lone()) / len(plan.lone())
    over = [f"{found.over(bar):.1%}" for bar in BARS_MS]
    return [
        cores,
        rooms,
        f"{cores / rooms:.2f}",
        f"{rooms * plan.fps * mean / cores:.2f}",
        found.replicas,
        f"{found.replicas * cores:,}",
        f"{found.p99 * 1000:.0f}",
        f"{found.worst_p99 * 1000:.0f}",
        *over,
        f"{found.dropped:.1%}",
    ]


def _room_table(plan: Plan) -> list[str]:
    head = ["cores a replica", "rooms a replica", "cores a room", "work / cores", "replicas"]
    head += ["cores", "p99 ms", "p99 ms of the worst room", "over 77 ms", "over 120 ms", "dropped"]
    return table(head, [room_row(plan, c, n) for c, rooms in _ROOMS.items() for n in rooms])


def _most_rooms(plan: Plan, cores: int) -> int:
    """Find the most rooms of which even the worst holds the first bar and few frames are lost."""
    for rooms in range(1, 4 * cores + 1):
        found = live(plan, cores, rooms)
        if found.worst_p99 > BARS_MS[0] / 1000 or found.dropped > plan.keep:
            return rooms - 1
    return 4 * cores


def _slow_table(plan: Plan) -> list[str]:
    rows = []
    for slow in (1.0, 1.25, 1.5, 2.0, 3.0):
        row: list[object] = [slow]
        for cores in _ROOMS:
            rooms = _most_rooms(replace(plan, slow=slow, rooms=math.ceil(plan.rooms / 4)), cores)
            needed = math.ceil(plan.rooms / rooms) * cores if rooms else 0
            row.append(f"{rooms}: {needed:,}" if rooms else "none")
        rows.append(row)
    return table(
        ["times the processor time", *(f"replicas of {c}, rooms: cores" for c in _ROOMS)], rows
    )


# ---- archive -------------------------------------------------------------------------------------


def _exam_frames(plan: Plan, random: Random) -> int:
    median = math.log(plan.frames) - plan.spread**2 / 2
    return max(1, min(plan.most, round(random.lognormvariate(median, plan.spread))))


def exam_table(plan: Plan) -> list[str]:
    """Lines of the table of what an exam costs."""
    head = ["frames of an exam", "core-seconds", "price of an exam", f"{plan.exams:,} of them"]
    head += ["core-hours of them, paid"]
    rows = []
    for frames in (60, 200, 512):
        work = plan.exam_s(frames)
        paid = work / plan.busy
        rows.append(
            [
                frames,
                f"{work:.2f}",
                f"{plan.cost(paid):.7f}",
                f"{plan.cost(paid) * plan.exams:,.2f}",
                f"{paid * plan.exams / 3600:,.0f}",
            ]
        )
    return table(head, rows)


def _arriving_table(plan: Plan, cores: int = 2, exams: int = 40_000) -> list[str]:
    rows = []
    for factor in (1, 2, 4):
        for replicas in (1, 2, 3, 4, 6):
            random = Random(f"{plan.seed} exams")
            gaps = [random.expovariate(factor * plan.per_hour / 3600) for _ in range(exams)]
            work = [plan.exam_s(_exam_frames(plan, random)) / cores for _ in range(exams)]
            load = sum(work) / replicas / sum(gaps)
            if load >= 1:
                cells = ["without end"] * 3
            else:
                found = waits(zip(accumulate(gaps), work, strict=True), replicas)
                whole = sorted(map(sum, zip(found, work, strict=True)))
                cells = [f"{quantile(whole, q):.1f}" for q in (0.5, 0.99, 0.999)]
            rows.append([f"{factor * plan.per_hour:,.0f}", replicas, f"{load:.2f}", *cells])
    head = ["exams an hour", f"replicas of {cores} cores", "work / cores"]
    return table([*head, "p50 s", "p99 s", "p99.9 s"], rows)


def _backlog_table(plan: Plan) -> list[str]:
    random = Random(f"{plan.seed} backlog")
    work = sum(plan.exam_s(_exam_frames(plan, random)) for _ in range(100_000)) / 100_000
    paid = work * plan.exams / plan.busy
    cores = [(days, math.ceil(paid / 86400 / days)) for days in (1, 7, 30)]
    rows = [[*pair, f"{plan.cost(paid):,.2f}"] for pair in cores]
    return table(["days for the backlog", "cores", "price"], rows)


# ---- what is written -----------------------------------------------------------------------------


def plot(plan: Plan) -> str:
    """Draw the 99th percentile against cores a room, as SVG."""
    left, top, wide, high, most = 52, 16, 440, 220, 200

    def x(cores: float) -> float:
        return left + wide * (cores - 0.2) / 0.85

    def y(milliseconds: float) -> float:
        return top + high * (1 - min(milliseconds, most) / most)

    def text(at_x: float, at_y: float, words: str, anchor: str = "middle") -> str:
        return f'<text x="{at_x:.0f}" y="{at_y:.0f}" text-anchor="{anchor}">{words}</text>'

    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 520 290" '
        'font-family="sans-serif" font-size="12">',
        "<title>99th percentile of delay against cores a room</title>",
        '<rect width="520" height="290" fill="#fff"/>',
        f'<path d="M{left} {top}V{top + high}H{left + wide}" fill="none" stroke="#333"/>',
    ]
    parts += [text(left - 6, y(ms) + 4, str(ms), "end") for ms in (0, 40, 77, 120, 160, 200)]
    parts += [text(x(c / 10), top + high + 16, f"{c / 10:.1f}") for c in range(2, 11, 2)]
    parts += [
        f'<path d="M{left} {y(bar):.0f}h{wide}" stroke="#b00" stroke-dasharray="4 4"/>'
        for bar in BARS_MS
    ]
    parts.append(text(left + wide / 2, top + high + 36, "cores a room; 25 frames/s of 1280x1024"))
    parts.append(text(left + 4, top - 4, "p99 of answered frames, ms; dashed: 77 and 120", "start"))
    for (cores, rooms), colour in zip(
        _ROOMS.items(), ("#0072b2", "#d55e00", "#009e73"), strict=True
    ):
        points = [(x(cores / n), y(live(plan, cores, n).p99 * 1000)) for n in rooms]
        line = "L".join(f"{px:.0f} {py:.0f}" for px, py in points)
        parts.append(f'<path d="M{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
        dots = "".join(f'<circle cx="{px:.0f}" cy="{py:.0f}" r="3"/>' for px, py in points)
        key = text(430, top + 12 + 16 * cores.bit_length(), f"cores a replica: {cores}")
        parts.append(f'<g fill="{colour}">{dots}{key}</g>')
    return "\n".join([*parts, "</svg>", ""])


def _written(plan: Plan) -> str:
    live_rooms = f"{plan.rooms:,} rooms, {plan.fps:g} frames/s, {plan.seconds:g} s each."
    slow = (
        f"Most rooms a replica of which the worst holds {BARS_MS[0]} ms at the 99th percentile and "
        f"at most {plan.keep:.0%} of frames is dropped, and the cores for {plan.rooms:,} rooms "
        "then. A quarter of them is simulated."
    )
    exam = f"At {plan.price} a core-hour, cores {plan.busy:.0%} busy."
    backlog = (
        f"{plan.exams:,} exams of {plan.frames:g} frames in the mean; the sum of their work, "
        "in which there is nothing to simulate."
    )
    sections: list[tuple[str, str, list[str]]] = [
        ("Live rooms", live_rooms, _room_table(plan)),
        ("Rooms a replica, by how slow the cores are", slow, _slow_table(plan)),
        ("An exam", exam, exam_table(plan)),
        ("A backlog", backlog, _backlog_table(plan)),
        (
            "Exams as they end",
            "Each is one request, at random moments (Poisson).",
            _arriving_table(plan),
        ),
    ]
    return "\n".join(
        "\n".join([f"## {title}", "", words, "", *lines, ""]) for title, words, lines in sections
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, keep them with the plot, or measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--times", type=Path, help="measured ms of single frames, one a line")
    parser.add_argument("--price", type=float, default=Plan.price, help="of a core-hour")
    parser.add_argument("--rooms", type=int, default=Plan.rooms)
    parser.add_argument("--write", action="store_true", help="keep tables and plot in docs/")
    parser.add_argument("--measure", type=int, metavar="FRAMES", help="print times of this machine")
    given = parser.parse_args(arguments)
    if given.measure:
        sys.stdout.writelines(f"{one:.2f}\n" for one in measure(given.measure))
        return
    if given.rooms < 1 or not 0 <= given.price < math.inf:
        parser.error("expected at least one room, and a price of 0 or more")
    others = {"price": given.price, "rooms": given.rooms}
    try:
        plan = Plan.of_times(read_times(given.times), **others) if given.times else Plan(**others)
    except (OSError, ValueError) as error:
        parser.error(f"--times: {error}")
    if given.write and plan != Plan():
        parser.error("--write keeps the shipped plan, whose figures the page explains")
    written = _written(plan)
    if given.write:
        above = DOCUMENT.read_text(encoding="utf-8").partition(_MARK)[0]
        DOCUMENT.write_text(f"{above}{_MARK}\n\n{written}", encoding="utf-8")
        DOCUMENT.with_suffix(".svg").write_text(plot(plan), encoding="utf-8")
    else:
        sys.stdout.write(written)


if __name__ == "__main__":
    main()
