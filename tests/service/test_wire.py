"""What is no HTTP: refused by the parser, and answered like every other error."""

import json
import logging
import re
import socket

import pytest

from tests.service.conftest import Running, image

POST = b"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def sent(port: int, *pieces: bytes) -> bytes:
    """Send bytes, give all that comes back."""
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        for piece in pieces:
            wire.sendall(piece)
        while chunk := wire.recv(65536):
            answer += chunk
    return answer


def refused(answer: bytes) -> str:
    """Check that an answer is the problem document; gives its request id."""
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.decode("ascii").lower().split("\r\n")
    assert lines[0] == "http/1.1 400 bad request"
    headers = dict(line.split(": ", 1) for line in lines[1:])
    assert headers["content-type"] == "application/problem+json"
    assert int(headers["content-length"]) == len(body)
    assert headers["connection"] == "close"
    assert headers["cache-control"] == "no-store"
    document = json.loads(body)
    assert (document["status"], document["code"]) == (400, "malformed_request")
    assert document["request_id"] == headers["x-request-id"]
    return str(document["request_id"])


@pytest.mark.parametrize(
    "request_bytes",
    [
        POST + b"Content-Length: abc\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        POST + b"Transfer-Encoding: gzip\r\n\r\n",
        POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
        POST + b"Bad Header: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"GET / HTTP/9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"\r\n\r\ngarbage\r\n\r\n",
    ],
)
def test_what_the_parser_refuses_is_a_problem_document(
    server: Running, request_bytes: bytes
) -> None:
    assert re.fullmatch("[0-9a-f]{32}", refused(sent(server.port, request_bytes)))
    assert server.client.get("/healthz").status_code == 200


def test_request_whose_chunks_break_keeps_its_id_and_is_dropped(
    server: Running, caplog: pytest.LogCaptureFixture
) -> None:
    head = POST + b"X-Request-ID: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
    with caplog.at_level(logging.INFO):
        answer = sent(server.port, head + b"3\r\nabc\r\n", b"zz\r\n")
        assert refused(answer) == "mine"
        # The connection's end and the app's last word on it are not in a fixed order.
        assert server.client.get("/healthz").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_garbage_after_a_good_request_ends_the_connection_after_its_answer(
    server: Running,
) -> None:
    picture = image()
    good = POST + b"Content-Length: %d\r\n\r\n" % len(picture) + picture
    answer = sent(server.port, good + b"garbage\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    refused(answer[answer.index(b"HTTP/1.1 400") :])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999999\r\n\r\n", b"200"),
        (b"POST /v1/nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", b"404"),
        (b"garbage\r\n\r\n", b"400"),
    ],
)
def test_bytes_that_nobody_reads_are_not_taken_in_for_ever(
    server: Running, head: bytes, status: bytes
) -> None:
    chunk = b"%x\r\n" % (1 << 20) + bytes(1 << 20) + b"\r\n"
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as wire:
        wire.sendall(head)
        answer = wire.recv(65536)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            # 128 MiB: what is read for the client's sake, and what the system's buffers hold.
            wire.sendall(chunk * 128)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert server.client.get("/healthz").status_code == 200
