"""The soak finds what it is there to find, and a stop amid mixed requests loses none of them."""

import asyncio

import pytest

from bench.mixed import Mix, mixed_service
from bench.pool import small_frames
from bench.reference import Reference
from bench.served import State
from bench.soak import Soak, drain, soak


def seen(**more: float) -> Soak:
    """A quiet hour: 100 looks at a process whose figures go up by so much in all."""
    states = [
        State(
            float(at),
            at / 2,
            300 + more.get("rss_mib", 0.0) * at / 100,
            20 + int(more.get("descriptors", 0) * at / 100),
            12 + int(more.get("threads", 0) * at / 100),
        )
        for at in range(100)
    ]
    rest = 12, 12 + int(more.get("descriptors", 0))
    latencies = [(float(at), 0.1) for at in range(100)]
    return Soak(states=states, latencies=latencies, at_rest=rest)


def test_quiet_hour_misses_nothing() -> None:
    assert seen().missed() == []
    assert seen(rss_mib=5.0).missed() == []
    assert seen().p99(2) == pytest.approx(0.1)


@pytest.mark.parametrize(("what", "gain"), [("rss_mib", 9.0), ("descriptors", 1), ("threads", 3)])
def test_what_piles_up_is_found_out(what: str, gain: float) -> None:
    assert len(seen(**{what: gain}).missed()) == 1


@pytest.mark.parametrize("status", [500, 502, 503])
def test_answer_that_nothing_explains_is_found_out(status: int) -> None:
    soaked = seen()
    soaked.tally.statuses.update([200, 504, status])
    assert soaked.missed() == [f"unexplained {{{status}: 1}}"]


def test_requests_at_a_rate_and_a_stop_in_the_middle_lose_nothing(reference: Reference) -> None:
    mix = Mix(reference, small_frames(24), seed=3, long=0.005)
    with mixed_service(max_queue_s=3600) as up:
        soaked = asyncio.run(soak(up, mix, 20.0, 2.0))
        assert soaked.tally.requests == 40
        assert soaked.tally.wrong == []
        assert len(soaked.states) >= 2  # a busy machine takes few
        assert soaked.at_rest[1] <= soaked.at_rest[0]
        assert "| wrong answers | 0 |" in soaked.table()
        assert asyncio.run(drain(up, mix)) == []
        assert up.failures() == []
