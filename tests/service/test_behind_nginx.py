"""Behind nginx, configured as the project says: the service's words arrive, and stay unwritten."""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.errors import STATUS, ErrorCode
from service.keys import Scope
from service.middleware import fixed_headers
from tests.service.conftest import Running, Serve, as_form, image, patient, problem_of
from tests.service.keys_file import add_key, bearer
from tests.service.nginx import NAME, Nginx, missing, nginx
from tests.service.test_operations import figures
from tests.waiting import wait_until

MIB = 1024 * 1024
PNG = {"Content-Type": "image/png"}

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing() or "-")


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("behind") / "exams.sqlite3"
    with serve(exam_store=str(store), max_body_bytes=8 * MIB) as running:
        yield running


@pytest.fixture(scope="module")
def proxy(up: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    with nginx(tmp_path_factory.mktemp("nginx") / "own", up.port) as found:
        yield found


@pytest.fixture(scope="module")
def client(proxy: Nginx) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=proxy.url, verify=proxy.trust, timeout=60) as found:
        yield found


def connected(proxy: Nginx, receives: int = 0) -> ssl.SSLSocket:
    """A line of one's own; `receives` bytes wait for whoever does not read, where it is set."""
    wire = socket.socket()
    wire.settimeout(60)
    if receives:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    wire.connect(("127.0.0.1", proxy.port))
    return proxy.trust.wrap_socket(wire, server_hostname=NAME)


def test_frames_are_scored_in_all_three_forms(client: httpx.Client, up: Running) -> None:
    frames = [image(), image((4, 4, 4))]
    bodies = (as_form(frames), {"json": {"patients": [patient(*frames)]}})
    for body in (*bodies, {"content": frames[0], "headers": PNG}):
        through, direct = (one.post("/v1/malignancy", **body) for one in (client, up.client))
        assert through.status_code == direct.status_code == 200
        assert through.json()["patients"] == direct.json()["patients"]
        kept = {"date", "x-request-id", "connection", "server", "content-length"}
        assert {n: v for n, v in through.headers.items() if n not in kept} == {
            n: v for n, v in direct.headers.items() if n not in kept
        }


def test_a_body_that_is_too_large_is_refused_by_the_service_and_not_by_a_page(
    client: httpx.Client,
) -> None:
    answer = client.post("/v1/malignancy", content=bytes(9 * MIB), headers=PNG)
    problem_of(answer, 413, "payload_too_large")


def read_slowly(proxy: Nginx, pause: Callable[[], object] = lambda: time.sleep(1)) -> bytes:
    """Ask for an answer of megabytes, and be in no hurry to read it."""
    labels = [{"label": f"{number:064d}", "prompts": ["red"]} for number in range(32)]
    frames = [image(size=(64, 64))] * 400
    request = httpx.Request(
        "POST", proxy.url + "/v1/zero-shot", **as_form(frames, {"labels": labels})
    )
    body = request.read()
    head = f"POST /v1/zero-shot HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n"
    head += "".join(
        f"{name}: {request.headers[name]}\r\n" for name in ("Content-Type", "Content-Length")
    )
    with connected(proxy, receives=4096) as wire:
        wire.sendall(head.encode() + b"\r\n" + body)
        answer = wire.recv(1)
        pause()
        return answer + b"".join(iter(lambda: wire.recv(65536), b""))


def test_bodies_and_answers_touch_no_disk(
    client: httpx.Client, proxy: Nginx, up: Running, tmp_path: Path
) -> None:
    frame = image(size=(1200, 1200)) + b"\0" * 3 * MIB
    before = proxy.spooled()
    assert client.post("/v1/malignancy", content=frame, headers=PNG).status_code == 200
    assert len(read_slowly(proxy)) > MIB
    assert proxy.spooled() == before
    # Each of the two settings is what keeps them off it.
    with nginx(tmp_path / "1", up.port, ("proxy_request_buffering off;", "")) as other:
        before = other.spooled()
        url = f"{other.url}/v1/malignancy"
        assert httpx.post(url, content=frame, headers=PNG, verify=other.trust).status_code == 200
        assert other.spooled() != before
    with nginx(tmp_path / "2", up.port, ("proxy_max_temp_file_size 0;", "")) as other:
        before = other.spooled()
        read_slowly(other, lambda: wait_until(lambda: other.spooled() != before))


def test_a_body_reaches_the_service_as_it_comes(serve: Serve, tmp_path: Path) -> None:
    head = f"POST /v1/malignancy HTTP/1.1\r\nHost: {NAME}\r\nContent-Type: image/png\r\n"
    with (
        serve(client_patience_s=5.0) as up,
        nginx(tmp_path / "own", up.port) as proxy,
        connected(proxy) as wire,
    ):
        wire.sendall(f"{head}Content-Length: 300000\r\n\r\n".encode() + bytes(100_000))
        wait_until(lambda: figures(up.client)[("endoclip_pending_bytes",)] >= 90_000)
        # And one that lags behind is given up on there.
        answer = b"".join(iter(lambda: wire.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"client_too_slow"' in answer


def test_overload_is_told_as_the_service_tells_it_also_in_mid_body(
    serve: Serve, tmp_path: Path
) -> None:
    large = {"content": image() + bytes(3 * MIB), "headers": PNG}
    with (
        serve(decode_threads=1, max_pending_bytes=4 * MIB) as up,
        nginx(tmp_path / "own", up.port) as proxy,
        httpx.Client(base_url=proxy.url, verify=proxy.trust, timeout=60) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        held = threading.Event()
        up.app.state.engine._pool.submit(held.wait)  # the one decode thread
        try:
            first = pool.submit(client.post, "/v1/malignancy", **large)
            wait_until(lambda: figures(up.client)[("endoclip_pending_bytes",)] >= 3 * MIB)
            for body in (large, as_form([image() + bytes(3 * MIB)])):
                refused = client.post("/v1/malignancy", **body)
                problem_of(refused, 503, "overloaded")
                assert 1 <= int(refused.headers["retry-after"]) <= 60
        finally:
            held.set()
        assert first.result().status_code == 200


def test_who_asks_through_it_administers_nothing_without_keys(
    client: httpx.Client, up: Running
) -> None:
    assert up.client.get("/v1/admin/models").status_code == 200
    problem_of(client.get("/v1/admin/models"), 403, "forbidden")
    claimed = {"X-Forwarded-For": "127.0.0.1"}
    problem_of(client.get("/v1/admin/models", headers=claimed), 403, "forbidden")


@pytest.mark.parametrize("level", ["crit", "error"])
def test_neither_key_nor_pseudonym_nor_query_is_written(
    serve: Serve, tmp_path: Path, level: str
) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys, Scope.SCORE)
    store = str(tmp_path / "exams.sqlite3")
    as_told = ("error.log crit;", f"error.log {level};")
    with (
        serve(keys=keys, exam_store=store) as up,
        nginx(tmp_path / "own", up.port, as_told) as proxy,
        httpx.Client(base_url=proxy.url, verify=proxy.trust, headers=bearer(token)) as client,
    ):
        query = {"patient_id": "planted-1"}
        png = {"content": image(), "headers": PNG}
        assert client.post("/v1/malignancy", params=query, **png).status_code == 200
        assert client.post("/v1/exams", json={"exam_id": "planted-2"}).status_code == 201
        assert client.post("/v1/exams/planted-2/frames", **png).status_code == 200
        assert client.get("/v1/planted-3").status_code == 404
        offered = {"Sec-WebSocket-Protocol": f"endo-clip, bearer.{token}"}
        head = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
        head |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **offered}
        refused = client.get("/v1/exams/planted-4/stream", headers=head)
        problem_of(refused, 404, "not_found")
        up.server.should_exit = True
        up.thread.join(30)
        away = client.post("/v1/malignancy", params=query, **png)
        problem_of(away, 503, "not_ready")
    # At its end it has written every line.
    lines, text = logged(proxy), proxy.written()
    assert [(one["method"], one["route"], one["status"]) for one in lines] == [
        ("POST", "/v1/malignancy", 200),
        ("POST", "/v1/exams", 201),
        ("POST", "/v1/exams/-/frames", 200),
        ("GET", "-", 404),
        ("GET", "/v1/exams/-/stream", 404),
        ("POST", "/v1/malignancy", 503),
    ]
    assert lines[4]["id"] == refused.headers["x-request-id"]
    assert lines[5]["id"] == away.headers["x-request-id"]
    assert token.split("_", 2)[-1] not in text
    # One level lower it quotes what it could not send on.
    assert ("planted" in text) == (level == "error")


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A service that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def own_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that nginx itself says it, as the service would."""
    document = problem_of(answer, status, code)
    assert document["type"] == f"urn:endo-clip:problem:{code}"
    assert (status, document["title"]) == STATUS[ErrorCode(code)]
    assert "proxy" in document["detail"]
    as_service = fixed_headers(document["request_id"])
    assert {name: answer.headers[name] for name in as_service} == as_service
    return document


def test_a_service_that_is_away_is_told_as_one_that_is_not_ready(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port: int = gone.getsockname()[1]
    with (
        nginx(tmp_path / "own", port) as proxy,
        httpx.Client(base_url=proxy.url, verify=proxy.trust) as client,
    ):
        for given, echoed in (("room-1.7", True), ('"}', False), ("a" * 129, False)):
            answer = client.get("/v1/exams/1", headers={"X-Request-ID": given})
            document = own_problem(answer, 503, "not_ready")
            assert (document["request_id"] == given) == echoed
            assert document["reason"] == "unreachable"
            assert "error" not in document
            assert answer.headers["retry-after"] == "5"
        head = client.head("/v1/models")
        assert (head.status_code, head.content) == (503, b"")
        # Clients of that protocol look for their words here.
        asked = client.post("/v2/models/malignancy/infer", json={})
        document = own_problem(asked, 503, "not_ready")
        assert document["error"] == document["detail"]
    # It is each of these lines that does it.
    with nginx(tmp_path / "2", port, ("error_page 502 503 =503 @problem;", "")) as other:
        page = httpx.get(other.url, verify=other.trust)
        assert (page.status_code, page.headers["content-type"]) == (502, "text/html")


def test_a_service_that_does_not_answer_is_a_deadline(
    silent: socket.socket, tmp_path: Path
) -> None:
    short = ("proxy_read_timeout 610s;", "proxy_read_timeout 1s;")
    with nginx(tmp_path / "own", silent.getsockname()[1], short) as proxy:
        answer = httpx.post(
            f"{proxy.url}/v1/malignancy",
            content=image(),
            headers=PNG,
            verify=proxy.trust,
            timeout=60,
        )
        own_problem(answer, 504, "deadline_exceeded")


def test_a_limit_that_an_installation_adds_speaks_as_the_service_does(
    up: Running, tmp_path: Path
) -> None:
    limit = ("client_max_body_size 0;", "client_max_body_size 1k;")
    with nginx(tmp_path / "own", up.port, limit) as proxy:
        url = f"{proxy.url}/v1/malignancy"
        answer = httpx.post(url, content=bytes(2000), headers=PNG, verify=proxy.trust)
        own_problem(answer, 413, "payload_too_large")


def test_a_request_that_nginx_does_not_pass_on_is_a_problem_document(
    client: httpx.Client, proxy: Nginx
) -> None:
    own_problem(client.get("/" + "a" * 20_000), 400, "malformed_request")
    own_problem(client.get("/", headers={"X-Long": "a" * 40_000}), 400, "malformed_request")
    plain = httpx.get(proxy.url.replace("https", "http"))
    own_problem(plain, 400, "malformed_request")
    own_problem(client.request("TRACE", "/v1/models"), 404, "not_found")
    own_problem(client.get("/problem"), 404, "not_found")
    for line in ("NONSENSE", "GET / HTTP/3.1", "POST / HTTP/1.1\r\nTransfer-Encoding: gzip"):
        with connected(proxy) as wire:
            wire.sendall(f"{line}\r\nHost: {NAME}\r\n\r\n".encode())
            told = b"".join(iter(lambda: wire.recv(65536), b""))
        head, _, body = told.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 "), line
        assert json.loads(body)["code"] == "malformed_request"


def test_every_route_of_the_service_has_a_name_in_the_log(up: Running, tmp_path: Path) -> None:
    paths = up.client.get("/openapi.json").json()["paths"]
    with (
        nginx(tmp_path / "own", up.port) as proxy,
        httpx.Client(base_url=proxy.url, verify=proxy.trust) as client,
    ):
        client.get("/nothing")
        for path in paths:
            client.request("OPTIONS", path.replace("{task}", "malignancy"))
    routes = [one["route"] for one in logged(proxy)]
    assert routes[0] == "-"
    assert "-" not in routes[1:]
    assert len(routes) == len(paths) + 1 >= 15


def logged(proxy: Nginx) -> list[dict[str, Any]]:
    text = (proxy.folder / "access.log").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]
