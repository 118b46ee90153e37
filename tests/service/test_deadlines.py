"""Requests that take too long: by their own deadline, or because they come in too slowly."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.service.conftest import Running, Serve, as_form, image, problem_of
from tests.service.test_admission import held
from tests.service.test_operations import figures
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}
HEAD = b"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
DROPPED = "endoclip_frames_dropped_total"


@pytest.fixture(scope="module")
def narrow(serve: Serve) -> Iterator[Running]:
    """One decode thread, so that frames wait; clients are given up on after a second."""
    with serve(decode_threads=1, max_batch=1, client_patience_s=1.0) as up:
        yield up


def until_whole(wire: socket.socket) -> bytes:
    """Read a problem document to its end, on a connection that may stay open."""
    answer = b""
    while b"}" not in answer and (chunk := wire.recv(65536)):
        answer += chunk
    return answer


def exam() -> dict[str, object]:
    return as_form([image(size=(1500, 1500))] * 60)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "600001", "1e3", "", "abc", "0x10", "٣"])
def test_deadline_that_is_no_number_of_the_range_is_invalid(
    client: httpx.Client, red: bytes, value: str
) -> None:
    headers = [("Content-Type", "image/png"), ("X-Deadline-Ms", value.encode())]
    response = client.post("/v1/malignancy", content=red, headers=headers)
    problem = problem_of(response, 422, "invalid_request")
    assert "1 to 600000" in problem["detail"]


def test_deadline_sent_twice_is_invalid(client: httpx.Client, red: bytes) -> None:
    headers = [("Content-Type", "image/png"), ("X-Deadline-Ms", "500"), ("X-Deadline-Ms", "500")]
    response = client.post("/v1/malignancy", content=red, headers=headers)
    problem_of(response, 422, "invalid_request")


def test_answer_within_the_deadline_is_the_answer(client: httpx.Client, red: bytes) -> None:
    headers = {**PNG, "X-Deadline-Ms": "600000"}
    assert client.post("/v1/malignancy", content=red, headers=headers).status_code == 200


def test_work_that_does_not_finish_in_time_is_dropped_and_counted(narrow: Running) -> None:
    before = figures(narrow.client)
    with held(narrow):  # it cannot finish, on the fastest machine
        answer = narrow.client.post("/v1/malignancy", **exam(), headers={"X-Deadline-Ms": "500"})
        problem_of(answer, 504, "deadline_exceeded")
        found = figures(narrow.client)
    key = (DROPPED, "deadline_exceeded")
    assert found[key] - before[key] == 60
    assert found[("endoclip_pending_frames",)] == 0
    # What was left of it stands in nobody's way: none of it is decoded any more.
    whole = narrow.client.post("/v1/malignancy", content=image(), headers=PNG)
    assert whole.status_code == 200
    decoded = ("endoclip_phase_seconds_count", "decode")
    assert figures(narrow.client)[decoded] - before[decoded] == 1


def test_deadline_runs_from_the_first_byte_of_the_head(server: Running) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as wire:
        wire.sendall(HEAD[:30])
        time.sleep(0.4)
        picture = image()
        length = b"Content-Length: %d\r\n" % len(picture)
        wire.sendall(HEAD[30:] + length + b"X-Deadline-Ms: 300\r\n\r\n" + picture)
        answer = until_whole(wire)
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b'"code":"deadline_exceeded"' in answer


def test_second_request_of_a_connection_has_its_own_first_byte(narrow: Running) -> None:
    headers = {**PNG, "X-Deadline-Ms": "60000"}
    with httpx.Client(base_url=narrow.client.base_url, timeout=30) as client:
        for _ in range(2):
            answer = client.post("/v1/malignancy", content=image(), headers=headers)
            assert answer.status_code == 200
            time.sleep(0.1)
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
        wire.sendall((head + b"\r\n") * 2 + head + b"Connection: close\r\n\r\n")
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_body_that_does_not_come_ends_at_the_deadline(narrow: Running) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
        wire.sendall(HEAD + b"Content-Length: 1000\r\nX-Deadline-Ms: 200\r\n\r\n")
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 504 ")
    assert b"connection: close" in answer.lower()


def test_body_that_stops_or_trickles_is_too_slow(narrow: Running) -> None:
    for drop in (b"", b"x"):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=0.1) as wire:
            began = time.monotonic()
            wire.sendall(HEAD + b"Content-Length: 100000\r\n\r\n")
            answer = b""
            while not answer and time.monotonic() < began + 10:
                wire.sendall(drop)
                with suppress(TimeoutError):
                    answer = wire.recv(65536)
            wire.settimeout(10)
            answer += until_whole(wire) if b"}" not in answer else b""
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"client_too_slow"' in answer
        assert time.monotonic() - began >= 0.9
    assert figures(narrow.client)[("endoclip_requests_total", "client_too_slow", "malignancy")] == 2
    assert figures(narrow.client)[("endoclip_pending_bytes",)] == 0


def test_head_that_does_not_end_is_too_slow_on_a_new_and_on_a_kept_connection(
    narrow: Running,
) -> None:
    kept = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    for first in (b"", kept):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
            if first:
                wire.sendall(first)
                assert until_whole(wire).startswith(b"HTTP/1.1 200 ")
            wire.sendall(HEAD)
            answer = b"".join(iter(lambda: wire.recv(65536), b""))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 408 Request Timeout")
        assert json.loads(body)["code"] == "client_too_slow"


def test_connection_on_which_nothing_comes_is_closed_without_a_word(narrow: Running) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
        assert wire.recv(65536) == b""


def test_body_that_nobody_waited_for_is_not_taken_for_a_head_that_does_not_end(
    narrow: Running,
) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
        wire.sendall(head + b"Content-Length: 3\r\n\r\n")
        assert until_whole(wire).startswith(b"HTTP/1.1 200 ")
        wire.sendall(b"abc")
        wire.sendall(head + b"\r\n")
        assert until_whole(wire).startswith(b"HTTP/1.1 200 ")
        wire.sendall(head + b"Content-Length: 3\r\n\r\n")
        assert until_whole(wire).startswith(b"HTTP/1.1 200 ")
        wire.sendall(b"abc")
        # Idle it is closed like any other, without a second answer.
        assert wire.recv(65536) == b""


def test_client_that_does_not_read_is_cut_off(narrow: Running) -> None:
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    connections = narrow.server.server_state.connections
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        deaf.connect(("127.0.0.1", narrow.port))
        deaf.sendall(asked * 300)  # more than the buffers of both ends hold
        name, until = deaf.getsockname(), time.monotonic() + 120
        while name not in {one.client for one in list(connections)}:
            assert time.monotonic() < until
        while name in {one.client for one in list(connections)}:
            time.sleep(0.05)
            assert time.monotonic() < until
        read = 0
        with suppress(ConnectionResetError):
            while chunk := deaf.recv(65536):
                read += len(chunk)
    assert read < 300 * len(narrow.client.get("/openapi.json").content)


def test_slow_answer_is_not_the_clients_fault(serve: Serve) -> None:
    # Longer than the patience: it is over once the request has come in.
    frames = [image(size=(1500, 1500))] * 8
    with serve(decode_threads=1, client_patience_s=0.1) as up:
        answer = up.client.post("/v1/malignancy", **as_form(frames), timeout=90)
    assert answer.elapsed.total_seconds() > 0.1
    assert answer.json()["patients"][0]["frames_scored"] == 8


def test_frames_of_a_caller_who_left_are_dropped_and_counted(narrow: Running) -> None:
    before = figures(narrow.client)
    key = (DROPPED, "client_gone")
    request = httpx.Request("POST", "http://x/v1/malignancy", **exam())
    body = request.read()
    head = f"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    head += f"Content-Type: {request.headers['Content-Type']}\r\n\r\n"
    with held(narrow):
        with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as wire:
            wire.sendall(head.encode() + body)
            wait_until(lambda: figures(narrow.client)[("endoclip_pending_frames",)] == 60)
        wait_until(lambda: figures(narrow.client)[key] > before[key])
        found = figures(narrow.client)
    assert found[key] - before[key] == 60
    assert found[("endoclip_pending_frames",)] == 0
    scored = ("endoclip_frames_total", "", "scored")
    assert found[scored] == before[scored]
