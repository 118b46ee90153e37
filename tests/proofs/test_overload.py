"""Many callers at once: what they send is not taken into memory, and what it took is given back."""

import asyncio
import time
from collections.abc import Iterator

import httpx
import pytest

from bench.frames import enlarged
from bench.overload import Phase, missed
from bench.served import Served, served

_CALLERS = 300
_BODY_BYTES = 700_000


@pytest.fixture(scope="module")
def up() -> Iterator[Served]:
    """A process of its own: what others left in its memory would be counted."""
    with served() as one:
        yield one


async def refused(up: Served, seen_mib: list[float]) -> None:
    """Come all at once with a body that is refused, and look at the memory until all know it."""
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % _BODY_BYTES

    async def caller() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", up.port)
        writer.write(head + bytes(_BODY_BYTES))
        line = await reader.readline()
        writer.close()
        return line

    callers = asyncio.gather(*(caller() for _ in range(_CALLERS)))
    while not callers.done():
        seen_mib.append(up.state().rss_mib)
        await asyncio.sleep(0.02)
    assert {line[:12] for line in callers.result()} == {b"HTTP/1.1 404"}


def test_bodies_of_the_refused_are_not_taken_into_memory(up: Served) -> None:
    before, seen = up.state().rss_mib, [0.0]
    asyncio.run(refused(up, seen))
    # With all that the system has for a connection read at once: 250 KiB for each.
    assert max(seen) - before < _CALLERS * 100 / 1024


def test_memory_of_a_busy_time_is_given_back_when_it_is_over(up: Served) -> None:
    frames = [("frames", ("x", enlarged((1920, 1080))[0]))] * 100
    with httpx.Client(base_url=up.url, timeout=300) as client:
        client.post("/v1/malignancy", files=frames[:1])
        time.sleep(8)
        quiet = up.state().rss_mib
        document = {"texts": [f"{number} polyps" for number in range(20)]}
        assert client.post("/v1/malignancy", files=frames).status_code == 200
        assert client.post("/v1/embeddings", json=document).status_code == 200
        busy = up.state().rss_mib
        until = time.monotonic() + 30
        while up.state().rss_mib > (quiet + busy) / 2 and time.monotonic() < until:
            time.sleep(0.2)
    # Most of what is left is the text tower, which stays.
    assert up.state().rss_mib <= (quiet + busy) / 2


PEAK = Phase(10.0, 10.0, 1000, latencies_s=[1.0], rss_mib=200.0)


def test_quiet_overload_misses_nothing() -> None:
    over = Phase(10.0, 10.0, 950, latencies_s=[5.0], rss_mib=270.0)
    assert missed(PEAK, over, 10.0, 100) == []


@pytest.mark.parametrize(
    "over",
    [
        Phase(10.0, 10.0, 850, latencies_s=[5.0], rss_mib=200.0),
        Phase(10.0, 10.0, 1000, latencies_s=[13.0], rss_mib=200.0),
        Phase(10.0, 10.0, 1000, latencies_s=[5.0], rss_mib=300.0),
    ],
)
def test_each_target_of_the_overload_can_be_missed(over: Phase) -> None:
    assert len(missed(PEAK, over, 10.0, 100)) == 1


def test_status_that_is_neither_an_answer_nor_overloaded_is_found_out() -> None:
    over = Phase(10.0, 10.0, 1000, latencies_s=[5.0], rss_mib=200.0)
    over.statuses.update([200, 503, 500])
    assert missed(PEAK, over, 10.0, 100) == ["statuses {500}"]
