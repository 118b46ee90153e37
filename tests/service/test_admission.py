"""What is let in, how long the refused are told to wait, and that nobody is shut out."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import pytest

from service.admission import Admission, Bounds, Permit
from service.errors import Overloaded, PayloadTooLarge
from service.pace import ServiceRate
from service.turns import Turns
from tests.service.conftest import Running, Serve, as_form, image, patient, problem_of
from tests.service.test_operations import figures
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def admission(frames: int = 100, octets: int = MIB, pixels: int = 10**9) -> Admission:
    return Admission(Bounds(frames, octets, pixels, 10.0), Turns(4, 2))


def entered(stack: ExitStack, gate: Admission, client: str, frames: int, pixels: int = 0) -> Permit:
    with ExitStack() as own:  # one that is refused has left
        permit = own.enter_context(gate.enter(client))
        permit.admit(frames, pixels)
        stack.push(own.pop_all())
    return permit


def test_rate_is_work_per_busy_second_and_idle_time_does_not_count() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    assert rate.per_second is None
    for _ in range(3):
        rate.busy(True)
        for _ in range(40):
            clock.now += 0.025
            rate.done(1.0)
        rate.busy(False)
        clock.now += 3600
    assert rate.per_second == pytest.approx(40, rel=0.01)


def test_rate_falls_while_nothing_gets_done() -> None:
    clock = Clock()
    rate = ServiceRate(clock)
    rate.busy(True)
    for _ in range(100):
        clock.now += 0.1
        rate.done(1.0)
    fast = rate.per_second
    clock.now += 20
    assert fast == pytest.approx(10, rel=0.01)
    assert rate.per_second is not None
    assert rate.per_second < 2


def test_client_alone_may_take_all_and_with_work_here_only_what_it_leaves_free() -> None:
    gate = admission(frames=100)
    with ExitStack() as stack:
        entered(stack, gate, "a", 100)
        with pytest.raises(Overloaded):
            entered(stack, gate, "b", 1)
    assert gate.pending() == {"frames": 0, "bytes": 0, "pixels": 0}
    with ExitStack() as stack:
        for _ in range(50):
            entered(stack, gate, "a", 1)
        with pytest.raises(Overloaded):
            entered(stack, gate, "a", 1)
        entered(stack, gate, "b", 50)


def test_clients_that_flood_leave_room_for_the_next() -> None:
    gate = admission(frames=120)
    with ExitStack() as stack:
        held = dict.fromkeys("abc", 0)
        for _ in range(120):
            for client in held:
                with contextlib.suppress(Overloaded):
                    entered(stack, gate, client, 1)
                    held[client] += 1
        assert all(count <= 60 for count in held.values())
        entered(stack, gate, "new", 120 - sum(held.values()))
        assert sum(held.values()) < 120


def paced(stack: ExitStack, frames: int) -> tuple[Admission, Clock]:
    """An admission of 10 frames a second and 10 s; `a` has some frames, 20 of them done."""
    clock = Clock()
    gate = Admission(Bounds(10**6, 10**9, 10**9, 10.0), Turns(4, 2), clock)
    measure(gate, entered(stack, gate, "a", frames), clock, frames=20, each_s=0.1)
    return gate, clock


def test_no_more_is_promised_than_the_rate_allows() -> None:
    with ExitStack() as stack:
        gate, _ = paced(stack, 120)
        assert gate.wait_s() == pytest.approx(10.0, rel=0.01)
        # Frames w that are done in w / 10 + 10 s take w / (w + 100) of the rate: 0.55 and 0.33.
        entered(stack, gate, "b", 50)
        entered(stack, gate, "c", 10)
        with pytest.raises(Overloaded) as refused:
            entered(stack, gate, "d", 20)  # 0.17 more
        # All in turn: `c` is done after 3 s and frees 0.09, `b` after 11.
        assert refused.value.headers["Retry-After"] == "11"
        with pytest.raises(Overloaded), gate.enter("c"):
            pass  # has 0.09, and leaves less than that


def test_request_takes_its_whole_share_until_its_work_is_done() -> None:
    with ExitStack() as stack:
        gate, clock = paced(stack, 120)
        permit = entered(stack, gate, "b", 50)
        measure(gate, permit, clock, frames=49, each_s=0.1)
        with pytest.raises(Overloaded) as refused:
            entered(stack, gate, "c", 20)
        measure(gate, permit, clock, frames=1, each_s=0.1)
        assert permit.is_done
        clock.now += int(refused.value.headers["Retry-After"])
        entered(stack, gate, "c", 20)


def test_alone_a_request_of_any_size_can_be_promised() -> None:
    with ExitStack() as stack:
        gate, _ = paced(stack, 20)
        entered(stack, gate, "b", 100_000)


def test_burst_does_not_pass_because_none_of_it_has_been_read() -> None:
    with ExitStack() as stack:
        gate, _ = paced(stack, 20)
        # Each says that it is of 20 frames, and takes 0.17; a client may hold half.
        burst = [stack.enter_context(gate.enter("a", 1_000_000)) for _ in range(2)]
        with pytest.raises(Overloaded), gate.enter("a", 1_000_000):
            pass
        burst[0].admit(20, 0)
        with pytest.raises(Overloaded):
            burst[1].admit(150, 0)  # more than it said
    assert gate.pending() == {"frames": 0, "bytes": 0, "pixels": 0}
    assert gate._clients == {}


def test_declared_body_that_does_not_come_stands_in_nobodys_way() -> None:
    with ExitStack() as stack:
        gate, clock = paced(stack, 20)
        for number in range(2):  # each of 81 frames, 0.45
            stack.enter_context(gate.enter(f"slow {number}", 4_000_000))
        with pytest.raises(Overloaded), gate.enter("c", 4_000_000):
            pass
        clock.now += 20  # nobody is expected any more
        entered(stack, gate, "b", 20)


def test_single_frame_is_let_in_while_exams_of_many_clients_are_expected() -> None:
    with ExitStack() as stack:
        gate, _ = paced(stack, 20)
        for number in range(10):  # 0.09 each
            entered(stack, gate, f"exam {number}", 10)
        with pytest.raises(Overloaded):
            entered(stack, gate, "late exam", 20)
        assert gate._line
        with pytest.raises(Overloaded), gate.enter("c", 400_000):
            pass  # of 9 frames: there is room, and it is kept
        with gate.enter("d", 40_000) as permit:
            permit.admit(1, 0)


def test_the_refused_are_told_one_time_after_another_each_by_its_clients_own_work() -> None:
    with ExitStack() as stack:
        gate, _ = paced(stack, 120)

        def told(client: str) -> int:
            with pytest.raises(Overloaded) as refused, gate.enter(client, 1_000_000):
                pass
            return int(refused.value.headers["Retry-After"])

        entered(stack, gate, "b", 50)
        # Its own work must be done before `a`, which has 0.55, may have 0.17 more: all 15 s of it,
        # in turn with `b`, whose is done after 10. A refused one is 21 units of work; two clients
        # share 10 a second, of which 8 are promised.
        assert [told("a") for _ in range(3)] == [15, 21, 26]
        assert told("b") == 10
        # A client that asks and asks puts itself off, for so long and not for ever.
        assert max(told("a") for _ in range(50)) == 60
        assert told("b") == 16


def test_work_that_has_had_no_turn_in_time_is_given_up_undone() -> None:
    gate = Admission(Bounds(100, MIB, 10**9, 0.05), Turns(1, 1))

    async def scene() -> None:
        with ExitStack() as stack:
            first, second = (entered(stack, gate, client, 1) for client in "ab")
            async with first.begun_in_time(), first.turn():
                with pytest.raises(Overloaded):
                    async with second.begun_in_time(), second.turn():
                        raise AssertionError
                await asyncio.sleep(0.1)  # has begun: its own time is not bounded
            assert (first.frames_left, second.frames_left) == (0, 1)
            async with second.begun_in_time(), second.turn():
                pass

    asyncio.run(scene())


def measure(gate: Admission, permit: Permit, clock: Clock, frames: int, each_s: float) -> None:
    async def work() -> None:
        for _ in range(frames):
            async with permit.turn():
                clock.now += each_s

    asyncio.run(work())


@pytest.mark.parametrize("kind", ["frames", "bytes", "pixels"])
def test_each_kind_is_bounded_and_what_is_alone_over_a_bound_is_too_large(kind: str) -> None:
    gate = Admission(Bounds(100, 100, 100, 10.0), Turns(4, 2))

    def ask(permit: Permit, amount: int) -> None:
        if kind == "bytes":
            permit.add_bytes(amount)
        else:
            permit.admit(amount, 1) if kind == "frames" else permit.admit(1, amount)

    with ExitStack() as stack:
        first, second = (stack.enter_context(gate.enter(client)) for client in "ab")
        with pytest.raises(PayloadTooLarge, match=f"100 {kind}"):
            ask(first, 101)
        assert gate.pending()[kind] == 0
        ask(first, 60)
        with pytest.raises(Overloaded):
            ask(second, 41)
        ask(second, 40)
        assert gate.pending()[kind] == 100


def test_declared_length_must_be_free_but_is_not_held() -> None:
    gate = admission(octets=1000)
    with gate.enter("a", 900), gate.enter("b", 900):
        assert gate.pending()["bytes"] == 0
    with gate.enter("a", 900) as permit:
        permit.add_bytes(900)
        with pytest.raises(Overloaded), gate.enter("b", 200):
            pass


def slow(serve: Serve, **settings: object) -> contextlib.AbstractContextManager[Running]:
    """A service whose one decode thread has much to do with each frame of `heavy`."""
    return serve(**({"decode_threads": 1, "max_batch": 1} | settings))


def heavy() -> bytes:
    return image(size=(1200, 1200))


@contextlib.contextmanager
def held(up: Running) -> Iterator[None]:
    """Keep the one decode thread busy: what waits goes on waiting, however slow the machine is."""
    over = threading.Event()
    up.app.state.engine._pool.submit(over.wait)
    try:
        yield
    finally:
        over.set()


def flood(up: Running, frames: int) -> int:
    """Send heavy frames from an address of its own; gives the status."""
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=up.client.base_url, timeout=120, transport=transport) as client:
        return client.post("/v1/malignancy", **as_form([heavy()] * frames)).status_code


def test_over_the_bound_every_form_is_refused_at_once_with_a_time_to_come_back(
    serve: Serve,
) -> None:
    settings = {"max_pending_frames": 15, "max_queue_s": 600}
    with slow(serve, **settings) as up, ThreadPoolExecutor(1) as pool:
        with held(up):
            first = pool.submit(flood, up, 10)
            wait_until(lambda: figures(up.client)[("endoclip_pending_frames",)] == 10)
            # Whoever waited for room would wait for ever.
            for task, body in (
                ("malignancy", as_form([image()] * 13)),
                ("malignancy", {"json": {"patients": [patient(*[image()] * 13)]}}),
                ("embeddings", {"json": {"texts": ["red"] * 13}}),
            ):
                answer = up.client.post(f"/v1/{task}", **body)
                problem_of(answer, 503, "overloaded")
                assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert not first.done()
        assert first.result() == 200


def test_single_image_is_refused_before_its_body_when_nothing_is_free(serve: Serve) -> None:
    with slow(serve, max_pending_bytes=300_000) as up:
        head = (
            "POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
            "Content-Length: 250000\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", up.port), timeout=60) as holder:
            holder.sendall(head.encode() + bytes(200_000))
            wait_until(lambda: figures(up.client)[("endoclip_pending_bytes",)] >= 200_000)
            with socket.create_connection(("127.0.0.1", up.port), timeout=60) as second:
                second.sendall(head.encode())
                answer = b"".join(iter(lambda: second.recv(65536), b""))
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"overloaded"' in answer
        wait_until(lambda: not figures(up.client)[("endoclip_pending_bytes",)])


def test_flooding_client_does_not_starve_another(serve: Serve) -> None:
    # What waits is counted, not how long: no machine is too slow or too fast for it.
    with slow(serve, max_queue_s=600) as up, ThreadPoolExecutor(6) as pool:
        pending = ("endoclip_pending_frames",)
        with held(up):
            floods = [pool.submit(flood, up, 6) for _ in range(5)]
            wait_until(lambda: figures(up.client)[pending] == 30)
            light = pool.submit(up.client.post, "/v1/malignancy", content=image(), headers=PNG)
            with httpx.Client(base_url=up.client.base_url, timeout=30) as other:
                wait_until(lambda: figures(other)[pending] == 31)
        assert light.result().status_code == 200
        # In one queue for all, 30 heavy frames would stand before it.
        assert not any(one.done() for one in floods)
        assert figures(up.client)[pending] > 15
        assert [one.result() for one in floods] == [200] * 5


def test_text_alone_is_counted_and_bounded(serve: Serve) -> None:
    with serve(max_pending_frames=10) as up:
        answer = up.client.post("/v1/embeddings", json={"texts": ["red"] * 11})
        assert problem_of(answer, 413, "payload_too_large")["detail"].startswith("A request may")
        assert up.client.post("/v1/embeddings", json={"texts": ["red"] * 10}).status_code == 200
        labels = [{"label": f"l{n}", "prompts": ["red"] * 5} for n in range(2)]
        document = {"labels": labels, "patients": [patient(image())]}
        refused = up.client.post("/v1/zero-shot", content=json.dumps(document), headers=JSON)
        problem_of(refused, 413, "payload_too_large")
        assert figures(up.client)[("endoclip_pending_frames",)] == 0
