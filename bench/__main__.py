"""Measures the service beside the limit loop: `make bench`, `make bench-check`.

python -m bench              # the whole table, about 4 minutes
python -m bench --write      # and keep it in bench/RESULTS.md
python -m bench --check      # the held ratios alone; exit code 1 if one fell by more than 15 %
"""

import argparse
import statistics
import sys
from collections.abc import Iterator, Sequence

from bench.limit import LimitLoop
from bench.measure import (
    Throughput,
    latency,
    marginal_cost,
    start_up,
    throughput,
    unify_ms,
)
from bench.results import RESULTS, fallen, machine, read_ratios, table, write_ratios
from bench.server import Server, serving_ours
from model_store.bundle import Bundle
from service.settings import newest_bundle

MIDDLE, LARGE = (1280, 1024), (1920, 1080)
# Frames of a patient, clients. The first three are what is held.
HELD = ((1, 4), (8, 4), (64, 4))
OTHERS = ((1, 1), (1, 16), (8, 1), (8, 16), (64, 1), (64, 16))
COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_MARK = "<!-- written by python -m bench; what stands above the mark stays -->"


def main() -> int:
    """Do what the command line asks; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the table in bench/RESULTS.md")
    parser.add_argument("--check", action="store_true", help="compare with bench/RESULTS.md")
    parser.add_argument("--rounds", type=int, default=3, help="slices of each row")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load in a slice")
    args = parser.parse_args()
    loop = LimitLoop(Bundle.open(newest_bundle()))
    if args.check:
        return check(loop, args.rounds, args.seconds)
    lines = []
    for line in report(loop, args.rounds, args.seconds):
        print(line, flush=True)
        lines.append(line)
    if args.write:
        kept = RESULTS.read_text(encoding="utf-8").partition(_MARK)[0] if RESULTS.exists() else ""
        RESULTS.write_text("\n".join([kept + _MARK, "", *lines, ""]), encoding="utf-8")
    return 0


def check(loop: LimitLoop, rounds: int, seconds: float) -> int:
    """Measure what is held, and compare it with what was recorded."""
    with serving_ours() as server:
        rows = [measure(server, loop, MIDDLE, *case, rounds, seconds) for case in HELD]
    told = fallen(read_ratios(RESULTS.read_text(encoding="utf-8")), ratios_of(rows, loop))
    for line in told or ["no ratio fell by more than 15 %"]:
        print(line)
    return 1 if told else 0


def report(loop: LimitLoop, rounds: int, seconds: float) -> Iterator[str]:
    """Give the table line by line, as it is measured."""
    yield from machine()
    yield "Threads: the limit loop has one per core, with one inside the graph; the service's own."
    yield ""
    ready, start_cpu, resident = start_up(3)
    with serving_ours() as server:
        yield "## Throughput, closed loop"
        yield ""
        head = ["frames", "of a patient", "clients", "frames/s", "server CPU, ms/frame"]
        head += ["limit loop CPU, ms/frame", "**per CPU-second, of the limit**"]
        head += ["raw, of the limit", "generator CPU, ms/frame", "failed"]
        yield from table(head, [])
        held = []
        for size, case in [(s, c) for s in (MIDDLE, LARGE) for c in HELD] + [
            (MIDDLE, c) for c in OTHERS
        ]:
            row = measure(server, loop, size, *case, rounds, seconds)
            if size == MIDDLE and case in HELD:
                held.append(row)
            yield table([], [cells(row)])[2]
        yield ""
        yield from latencies(server, capacity=held[0].per_s)
        yield from costs(server)
        after = server.resident_mib()
    yield from patients(loop)
    yield f"Ready {_seconds(ready)} s after the process's start, {_seconds(start_cpu)} s of "
    yield f"processor time; {resident:.0f} MiB in RAM then, {after:.0f} MiB after all of the above."
    yield ""
    yield from write_ratios(ratios_of(held, loop))


def measure(
    server: Server,
    loop: LimitLoop,
    size: tuple[int, int],
    frames: int,
    clients: int,
    rounds: int,
    seconds: float,
) -> Throughput:
    """Give the slice of the middle ratio."""
    rows = [throughput(server, loop, size, frames, clients, seconds=seconds) for _ in range(rounds)]
    return sorted(rows, key=lambda row: row.of_limit_cpu)[len(rows) // 2]


def cells(row: Throughput) -> list[str]:
    """A row of the table of throughput."""
    return [
        f"{row.size[0]}x{row.size[1]}",
        str(row.frames),
        str(row.clients),
        f"{row.per_s:.1f}",
        f"{row.server_cpu_ms:.2f}",
        f"{row.limit_cpu_ms:.2f}",
        f"**{row.of_limit_cpu:.3f}**",
        f"{row.of_limit_raw:.2f}",
        f"{row.generator_cpu_ms:.2f}",
        str(row.failed),
    ]


def latencies(server: Server, capacity: float) -> Iterator[str]:
    """Open loop: an idle service, a room's video, and 70 % of what it can do."""
    yield "## Latency, open loop, from when a request was due"
    yield ""
    head = ["1280x1024, one frame a request", "requests/s", "requests", "failed"]
    yield from table([*head, "p50, ms", "p95", "p99", "p99.9", "max", "p99/p50"], [])
    cases = {"idle": (4.0, 10.0), "one room's video": (25.0, 10.0), "70 %": (0.7 * capacity, 15.0)}
    for name, (rate, seconds) in cases.items():
        spent = server.cpu_s()
        found = latency(server, MIDDLE, 1, rate, seconds)
        used = (server.cpu_s() - spent) / seconds
        ms = found.ms
        row = [f"{name} ({used:.2f} cores used)", f"{rate:.1f}", found.requests, found.failed]
        row += [*ms.values(), f"{ms['p99'] / ms['p50']:.2f}"]
        yield table([], [row])[2]
    yield ""


def costs(server: Server) -> Iterator[str]:
    """Cost of a request against its frames."""
    points, slope, intercept, residual = marginal_cost(server, MIDDLE, COUNTS, 64)
    yield "## Cost against the frames of a patient (1280x1024, server CPU)"
    yield ""
    yield from table(
        ["frames", *[str(count) for count, _ in points]],
        [["ms a request", *[f"{ms:.0f}" for _, ms in points]]],
    )
    yield ""
    yield (
        f"Line: {slope:.2f} ms a frame + {intercept:.2f} ms a request; largest residual "
        f"{100 * residual:.0f} %."
    )
    yield ""


def patients(loop: LimitLoop) -> Iterator[str]:
    """What pooling costs."""
    thousand, more, fewer = (unify_ms(loop.encoder, count) for count in (1000, 501, 500))
    yield f"Pooling 1,000 frames into a patient: {thousand:.2f} ms; 500: {fewer:.3f}, 501: "
    yield f"{more:.3f} ms: the 501st frame costs its own encoding and {more - fewer:.3f} ms."
    yield ""


def _seconds(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.2f}" for value in values)


def ratios_of(held: Sequence[Throughput], loop: LimitLoop) -> dict[str, float]:
    """Name what is held; higher is better for each."""
    ratios = {
        f"frames per CPU-second of the limit, {row.size[0]}x{row.size[1]}, "
        f"{row.frames} of a patient": row.of_limit_cpu
        for row in held
    }
    encode = statistics.median(row.limit_cpu_ms for row in held)
    ratios["a frame alone over a frame and pooling 500"] = encode / (
        encode + unify_ms(loop.encoder, 500)
    )
    return ratios


if __name__ == "__main__":
    sys.exit(main())
