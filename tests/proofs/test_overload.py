"""Many callers at once: what they send is not taken into memory, and what it took is given back."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import httpx
import pytest

from bench.frames import enlarged
from bench.overload import Phase, missed
from bench.served import Served, served
from tests.waiting import wait_until

_CALLERS = 300
_BODY_BYTES = 700_000


@pytest.fixture(scope="module")
def up() -> Iterator[Served]:
    """A process of its own: what others left in its memory would be counted."""
    with served(max_queue_s=600) as one:  # slow or not, the machine is to hold what it is sent
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


@contextmanager
def sending(up: Served) -> Iterator[None]:
    """Be somebody whose request is under way all the time: a body that comes slowly."""
    head = (
        "POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
        "Content-Length: 4000000\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", up.port), timeout=10) as connection:
        connection.sendall(head.encode() + bytes(3_000_000))
        yield


@pytest.mark.parametrize("meanwhile", [nullcontext, sending], ids=["quiet", "in use"])
def test_memory_of_a_busy_time_is_given_back(
    up: Served, meanwhile: Callable[..., AbstractContextManager[None]]
) -> None:
    frames = [("frames", ("x", enlarged((1920, 1080))[0]))] * 100
    with (
        httpx.Client(base_url=up.url, timeout=300) as client,
        meanwhile(up),
    ):
        client.post("/v1/malignancy", files=frames[:1])
        time.sleep(12)
        quiet = up.state().rss_mib
        document = {"texts": [f"{number} polyps" for number in range(20)]}
        assert client.post("/v1/malignancy", files=frames).status_code == 200
        assert client.post("/v1/embeddings", json=document).status_code == 200
        busy = up.state().rss_mib
        # Most of what is left is the text tower, which stays.
        wait_until(lambda: up.state().rss_mib <= (quiet + busy) / 2)
        assert (up.figures()["endoclip_pending_bytes"] > 0) == (meanwhile is sending)


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
