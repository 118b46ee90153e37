"""The simulator behind docs/capacity.md agrees with queueing theory; its tables are its own."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest

from bench import capacity
from bench.capacity_plan import Plan, read_times
from bench.queues import Loop, Room, Servers, waits

BATCHES = 20


def agrees(found: Sequence[float], theory: float) -> bool:
    """Whether the mean is theory's within four standard errors, which may be 5 % of it at most.

    Waits of neighbours are alike, so the error is that of the means of long batches.
    """
    size = len(found) // BATCHES
    means = [fmean(found[n * size : (n + 1) * size]) for n in range(BATCHES)]
    error = stdev(means) / math.sqrt(BATCHES)
    return error < 0.05 * theory and abs(fmean(means) - theory) < 4 * error


def poisson(rate: float, jobs: int, random: Random) -> Iterator[float]:
    time = 0.0
    for _ in range(jobs):
        time += random.expovariate(rate)
        yield time


def m_d_1(load: float) -> float:
    """Mean wait in units of the service time."""
    return load / (2 * (1 - load))


def erlang_c(servers: int, load: float) -> float:
    """Probability that a job of M/M/c waits; `load` is of each server."""
    offered = servers * load
    busy = offered**servers / math.factorial(servers) / (1 - load)
    return busy / (sum(offered**k / math.factorial(k) for k in range(servers)) + busy)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_with_fixed_work_waits_as_m_d_1(load: float):
    found = waits(((at, 1.0) for at in poisson(load, 60_000, Random(1))), 1)
    assert agrees(found, m_d_1(load))


@pytest.mark.parametrize(("servers", "load"), [(1, 0.6), (2, 0.7), (4, 0.7)])
def test_servers_with_exponential_work_wait_as_m_m_c(servers: int, load: float):
    random = Random(2)
    arrivals = poisson(servers * load, 60_000, random)
    found = waits(((at, random.expovariate(1)) for at in arrivals), servers)
    waiting, spare = erlang_c(servers, load), servers * (1 - load)
    assert agrees([float(wait > 0) for wait in found], waiting)
    assert agrees(found, waiting / spare)
    # P(W > t) = C exp(-(c mu - lambda) t)
    p99 = math.log(waiting / 0.01) / spare
    assert capacity.quantile(found, 0.99) == pytest.approx(p99, rel=0.15)


def test_comparison_with_theory_can_fail():
    random = Random(3)
    found = waits(((at, random.expovariate(1)) for at in poisson(0.6, 60_000, random)), 1)
    assert agrees(found, 2 * m_d_1(0.6))
    assert not agrees(found, m_d_1(0.6))
    assert not agrees(found, 2 * m_d_1(0.5))
    assert not agrees(found[:400], 2 * m_d_1(0.6))


def rooms(service: float, starts: list[float], servers: int = 1, frames: int = 10) -> list[Room]:
    loop = Loop()
    row = Servers(loop, servers)
    made = [
        Room(loop, row, ((start + 0.04 * n,) * 2 for n in range(frames)), lambda: service)
        for start in starts
    ]
    loop.run()
    return made


def test_a_room_alone_is_answered_after_its_frames_work():
    [room] = rooms(0.01, [0.0])
    assert room.delays == pytest.approx([0.01] * 10)
    assert room.dropped == 0


def test_two_rooms_at_one_moment_wait_for_each_other_only_where_there_is_one_core():
    assert rooms(0.01, [0.0, 0.0])[1].delays == pytest.approx([0.02] * 10)
    assert rooms(0.01, [0.0, 0.0], servers=2)[1].delays == pytest.approx([0.01] * 10)


def test_of_the_frames_that_come_meanwhile_the_newest_is_answered():
    # Due at 0, 40, ... 360 ms, each takes 105: answered are 0, 80 (begun at 105), 200, 280, 360.
    [room] = rooms(0.105, [0.0])
    assert room.delays == pytest.approx([0.105, 0.13, 0.115, 0.14, 0.165])
    assert room.dropped == 10 - len(room.delays)


def test_delay_of_an_overloaded_room_is_bounded_by_two_turns():
    made = rooms(0.03, [0.001 * n for n in range(8)], frames=500)
    turn = 8 * 0.03
    assert max(delay for room in made for delay in room.delays) <= 2 * turn
    assert sum(room.dropped for room in made) > 1000


def test_measured_times_are_read_and_bad_ones_named(tmp_path: Path):
    file = tmp_path / "times.txt"
    file.write_text("# ms a frame\n9.5\n10\n", encoding="utf-8")
    assert read_times(file) == [0.0095, 0.01]
    for text, said in (("", "no times"), ("9\nfast\n", "line 2"), ("-1\n", "line 1"), ("nan", "1")):
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=said):
            read_times(file)


def test_what_the_document_states_is_what_the_command_writes():
    plan = Plan()
    text = capacity.DOCUMENT.read_text(encoding="utf-8")
    assert "\n".join(capacity.exam_table(plan)) in text
    row = capacity.room_row(plan, cores=1, rooms=2)
    assert f"| {' | '.join(map(str, row))} |" in text


def test_times_of_ones_own_replace_the_frame_and_not_the_request():
    plan = Plan.of_times([0.004, 0.006])
    assert plan.exam_s(100) == pytest.approx(0.5035)
    assert plan.lone() == pytest.approx([0.0075, 0.0095])
    shipped = Plan().lone()
    assert fmean(shipped) == pytest.approx(0.01287)
    assert max(shipped) > 1.1 * fmean(shipped)


def test_the_price_is_a_factor_of_the_cost():
    assert Plan(price=0.1).cost(3600) == pytest.approx(0.1)


@pytest.mark.parametrize(
    "wrong",
    [["--rooms", "0"], ["--price", "-1"], ["--times", "not-there"], ["--write", "--price", "1"]],
)
def test_what_cannot_be_planned_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        capacity.main(wrong)
    assert "error: " in capsys.readouterr().err
