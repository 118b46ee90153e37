"""The load generator: what it counts from, that it does not wait, and what it calls a failure."""

import asyncio
from collections.abc import Awaitable, Callable

from bench.load import Address, Call, Run, arrive, form_call, image_call, json_call, saturate

Answer = Callable[[int, bytes], Awaitable[bytes]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def _served(answer: Answer, load: Callable[[Address], Awaitable[Run]]) -> Run:
    """Run a load against a server that answers the n-th request as told."""
    count = 0

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            count += 1
            writer.write(await answer(count, body))
            await writer.drain()

    async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await connection(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(quietly, "127.0.0.1", 0)
    try:
        return await asyncio.wait_for(load(server.sockets[0].getsockname()[:2]), 60)
    finally:
        server.close()


def _call(address: Address) -> Call:
    return json_call({}, 3, address)


def test_requests_become_due_whatever_the_server_does() -> None:
    # A closed loop would never end: no request is answered before all have come.
    everybody = asyncio.Event()

    async def answer(number: int, _body: bytes) -> bytes:
        if number == 20:
            everybody.set()
        await everybody.wait()
        return OK

    run = asyncio.run(_served(answer, lambda at: arrive(at, [_call(at)], 200, 0.1)))
    assert run.statuses == {200: 20}
    assert run.frames == 60


def test_latency_counts_from_when_a_request_was_due() -> None:
    # One connection: while the first request stands, the others cannot even be sent.
    async def answer(number: int, _body: bytes) -> bytes:
        if number == 1:
            await asyncio.sleep(0.5)
        return OK

    run = asyncio.run(_served(answer, lambda at: arrive(at, [_call(at)], 100, 0.2, connections=1)))
    # The last was due 0.19 s after the first, hence waited 0.3 s at least; each saw the stall.
    assert len(run.latencies_s) == 20
    assert min(run.latencies_s) > 0.3
    assert run.latency_ms()["max"] >= 500


def test_saturation_keeps_as_many_requests_under_way_as_there_are_clients() -> None:
    under_way, most = 0, 0

    async def answer(_number: int, _body: bytes) -> bytes:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.01)
        under_way -= 1
        return OK

    run = asyncio.run(_served(answer, lambda at: saturate(at, [_call(at)], 5, 0.5)))
    assert most == 5
    assert run.failed == 0


def test_a_refusal_and_a_broken_connection_are_failures() -> None:
    async def answer(number: int, _body: bytes) -> bytes:
        if number == 1:
            return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
        if number == 2:
            raise ConnectionError
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    run = asyncio.run(_served(answer, lambda at: arrive(at, [_call(at)], 100, 0.03)))
    assert run.statuses == {503: 1, 0: 1, 200: 1}
    assert run.failed == 2
    assert run.answers == [b"ok"]
    assert len(run.latencies_s) == 2


def test_no_answer_in_time_is_a_failure() -> None:
    async def answer(_number: int, _body: bytes) -> bytes:
        await asyncio.sleep(60)
        return OK

    run = asyncio.run(
        _served(answer, lambda at: arrive(at, [_call(at)], 100, 0.05, patience_s=0.2))
    )
    assert run.statuses == {0: 5}
    assert run.latencies_s == []


def test_percentiles_are_latencies_that_were_seen() -> None:
    run = Run(latencies_s=[number / 1000 for number in range(1, 1001)])
    assert run.latency_ms() == {"p50": 501, "p95": 951, "p99": 991, "p99.9": 1000, "max": 1000}


def test_bodies_have_the_length_that_they_declare() -> None:
    at = ("127.0.0.1", 1)
    for call in (image_call(b"x" * 10, at), form_call([b"ab", b"cd"], at), json_call([1], 1, at)):
        head, _, body = call.payload.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
