"""Sizes and counts: what is too much is refused early, and held nowhere."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest

from tests.service.conftest import Running, Serve, as_form, b64, image, patient, problem_of

PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def small(serve: Serve) -> Iterator[Running]:
    with serve(
        max_body_bytes=2 * MIB,
        max_frame_bytes=100_000,
        max_frames=3,
        max_patients=2,
        max_frame_pixels=100_000,
    ) as up:
        yield up


@pytest.mark.parametrize(
    "kind", ["image/png", "application/json", "multipart/form-data; boundary=b"]
)
def test_declared_length_over_the_cap_is_refused_unread(small: Running, kind: str) -> None:
    headers = {"Content-Type": kind, "Content-Length": str(3 * MIB), "Expect": "100-continue"}
    response = small.client.post("/v1/malignancy", content=bytes(3 * MIB), headers=headers)
    problem_of(response, 413, "payload_too_large")


def test_client_that_waits_for_100_continue_is_refused_without_it(small: Running) -> None:
    head = b"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    head += b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (3 * MIB)
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as wire:
        wire.sendall(head)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_stream_without_a_length_is_cut_at_the_cap(small: Running) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 4096 * MIB:
            sent += 64 * 1024
            yield bytes(64 * 1024)

    # A client that never looks up from sending is cut off; it may miss the answer, not the end.
    with suppress(httpx.WriteError, httpx.ReadError):
        response = small.client.post("/v1/malignancy", content=endless(), headers=JSON)
        problem_of(response, 413, "payload_too_large")
        assert response.headers["connection"] == "close"
    assert sent < 4096 * MIB


def test_client_that_listens_while_it_sends_reads_the_refusal(small: Running) -> None:
    head = b"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as wire:
        wire.sendall(head + b"Content-Length: 1000000000\r\n\r\n" + bytes(100_000))
        answer = b""
        while chunk := wire.recv(65536):
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()
    assert b'"code":"payload_too_large"' in answer


def test_client_that_pauses_while_it_sends_reads_the_refusal_to_its_end(small: Running) -> None:
    head = b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % MIB
    with socket.create_connection(("127.0.0.1", small.port), timeout=60) as wire:
        wire.sendall(head + bytes(MIB // 2))
        time.sleep(2)  # busy with something else, as a loaded client is
        # Closed before all was sent, the connection would be reset here; with some systems the
        # reset overtakes the answer.
        for _ in range(4):
            wire.sendall(bytes(MIB // 8))
            time.sleep(0.1)
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404 ")


def test_body_just_under_the_cap_is_read(small: Running, red: bytes) -> None:
    padded = b" " * (2 * MIB - len(b64(red)) - 200)
    text = b'{"patients": [{"frames": [{"image": "' + b64(red).encode() + b'"}]}]}' + padded
    response = small.client.post("/v1/malignancy", content=text, headers=JSON)
    assert response.status_code == 200


def test_frame_over_its_byte_cap_is_rejected_alone_in_every_form(
    small: Running, red: bytes
) -> None:
    big = red + bytes(100_001)
    answers = [
        small.client.post("/v1/malignancy", **as_form([big, red])),
        small.client.post("/v1/malignancy", json={"patients": [patient(big, red)]}),
    ]
    for answer in answers:
        assert answer.status_code == 200
        frames = answer.json()["patients"][0]["frames"]
        assert frames[0]["error"] == {
            "code": "too_many_bytes",
            "message": f"expected at most 100000 bytes; found {len(big)}",
        }
        assert frames[1]["status"] == "scored"
    alone = small.client.post("/v1/malignancy", content=big, headers=PNG)
    problem = problem_of(alone, 422, "all_frames_rejected")
    assert problem["patients"][0]["frames"][0] == frames[0]


def test_frame_of_exactly_the_byte_cap_is_read(small: Running, red: bytes) -> None:
    exact = red + bytes(100_000 - len(red))  # what follows a PNG's end is not looked at
    for body in (
        as_form([exact]),
        {"json": {"patients": [patient(exact)]}},
        {"content": exact, "headers": PNG},
    ):
        assert small.client.post("/v1/malignancy", **body).status_code == 200


def test_frame_of_too_many_pixels_is_rejected(small: Running, red: bytes) -> None:
    wide = image(size=(1000, 101))
    answer = small.client.post("/v1/malignancy", **as_form([wide, red]))
    frames = answer.json()["patients"][0]["frames"]
    assert frames[0]["error"]["code"] == "too_many_pixels"


def test_more_frames_than_allowed_are_refused(small: Running, red: bytes) -> None:
    for body in (
        as_form([red] * 4),
        {"json": {"patients": [patient(red, red), patient(red, red)]}},
    ):
        problem_of(small.client.post("/v1/malignancy", **body), 413, "payload_too_large")
    assert small.client.post("/v1/malignancy", **as_form([red] * 3)).status_code == 200


def test_more_patients_than_allowed_are_refused(small: Running, red: bytes) -> None:
    document = {"patients": [patient(red)] * 3}
    problem_of(small.client.post("/v1/malignancy", json=document), 413, "payload_too_large")


def test_limits_are_shown_as_set(small: Running) -> None:
    shown = small.client.get("/v1/limits").json()
    assert shown["max_body_bytes"] == 2 * MIB
    assert (shown["max_frame_bytes"], shown["max_frame_pixels"]) == (100_000, 100_000)
    assert (shown["max_frames"], shown["max_patients"]) == (3, 2)
    assert shown["min_side_px"] == 64
    assert (shown["max_texts"], shown["max_labels"], shown["max_prompts"]) == (256, 32, 16)
