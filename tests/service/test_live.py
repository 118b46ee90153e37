"""Live streams, over a real WebSocket to a real server."""

import json
import socket
import sqlite3
import struct
import time
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from bench.live import Refused, Stream
from service.exams.live import MAX_MESSAGE_BYTES
from service.keys import Scope, change_keys, new_key
from tests.service.conftest import BLACK, Running, Serve, as_form, image
from tests.tiny_bundle import PINK, RED
from tests.waiting import wait_until

NOW = 1_740_821_400_000_000


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("live") / "exams.sqlite3"
    with serve(exam_store=str(store), max_streams=3, max_exam_frames=4) as running:
        yield running


def url_of(up: Running) -> str:
    return f"http://127.0.0.1:{up.port}"


def opened(up: Running) -> str:
    return str(up.client.post("/v1/exams").json()["exam_id"])


def stream(up: Running, exam: str, query: str = "", **headers: str) -> Stream:
    found = Stream(url_of(up), exam, query, list(headers.items()))
    hello = found.receive()
    assert hello is not None
    assert hello["type"] == "open"
    return found


def told(found: Stream) -> dict[str, Any]:
    message = found.receive()
    assert message is not None, found.close_code
    return message


def refused(up: Running, exam: str, status: int, code: str, query: str = "", **h: str) -> None:
    with pytest.raises(Refused) as caught:
        Stream(url_of(up), exam, query, list(h.items()))
    document = json.loads(caught.value.body)
    assert (caught.value.status, document["code"]) == (status, code)


def until(found: Stream, kind: str) -> dict[str, Any]:
    """The next message of a kind; results and the news that they are kept cross one another."""
    while (message := told(found))["type"] != kind:
        assert message["type"] in ("frame", "kept", "full"), message
    return message


def test_frames_are_scored_and_some_are_kept(up: Running) -> None:
    exam = opened(up)
    live = stream(up, exam)
    messages = []
    for place, colour in enumerate((RED, PINK, BLACK, RED)):
        live.send(image(colour, (96, 80 + place)), NOW + place * 400_000)
        while not messages or messages[-1].get("captured_at") != at(place * 400):
            messages.append(told(live))
    while [one["type"] for one in messages].count("kept") < 2:
        messages.append(told(live))
    live.close()
    frames = [one for one in messages if one["type"] == "frame"]
    kept = [one["captured_at"] for one in messages if one["type"] == "kept"]
    assert [one["status"] for one in frames] == ["scored", "scored", "abstained", "scored"]
    assert kept == [at(0), at(1200)]
    assert frames[-1]["dropped"] == {"newer": 0, "overloaded": 0, "rate_limited": 0}
    document = up.client.get(f"/v1/exams/{exam}").json()
    assert document["revision"] == 2
    for task in document["results"]:
        there = {frame["frame_id"]: frame for frame in task["patient"]["frames"]}
        for one in (frames[0], frames[3]):
            probability = one["results"][task["task"]]["probability"]
            assert there[one["frame_id"]]["probability"] == pytest.approx(probability, abs=1e-6)


def at(ms: int) -> str:
    return f"2025-03-01T09:30:{ms // 1000:02}.{ms % 1000:03}Z"


def test_what_is_no_image_is_said_and_the_stream_goes_on(up: Running) -> None:
    live = stream(up, opened(up))
    live.send(b"no image at all", NOW)
    assert told(live)["error"]["code"] == "unsupported_format"
    live.send(image(RED), NOW)
    assert until(live, "frame")["status"] == "scored"
    live.close()


def test_a_broken_connection_is_taken_up_again(up: Running) -> None:
    exam = opened(up)
    live = stream(up, exam)
    live.send(image(RED), NOW)
    assert until(live, "kept")["revision"] == 1
    live.drop()
    again = Stream(url_of(up), exam)
    hello = told(again)
    assert (hello["revision"], hello["last_captured_at"]) == (1, at(0))
    again.send(image(RED), NOW)
    assert until(again, "kept")["revision"] == 1
    again.send(image(PINK), NOW + 1_000_000)
    assert until(again, "kept")["revision"] == 2
    again.close()


def test_who_leaves_has_kept_what_it_saw(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "left.sqlite3")) as up:
        exam = opened(up)
        live = stream(up, exam, "?keep_every_ms=0")
        for place in range(20):
            live.send(image(RED, (96, 80 + place)), NOW + place)
            while told(live)["type"] != "frame":
                pass
        live.drop()
        wait_until(lambda: up.client.get(f"/v1/exams/{exam}").json()["revision"] == 20)


@pytest.mark.parametrize(
    ("end", "code"), [("the service ends", 1012), ("the client is wrong", 1008)]
)
def test_what_was_seen_is_kept_whoever_ends_it(
    serve: Serve, tmp_path: Path, end: str, code: int
) -> None:
    store = tmp_path / "slow.sqlite3"
    with serve(exam_store=str(store)) as up:
        exam = opened(up)
        live = stream(up, exam, "?keep_every_ms=0")
        # Another writer has the file, so nothing is kept while results go on.
        with closing(sqlite3.connect(store, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for place in range(5):
                live.send(image(RED, (96, 80 + place)), NOW + place)
                assert told(live)["type"] == "frame"
            if end == "the service ends":
                up.app.state.models.refuse()
                live.send(image(RED), NOW + 9)
            else:
                live.send_text("{}")
            time.sleep(0.5)
            other.execute("COMMIT")
            assert [told(live)["type"] for _ in range(6)] == ["kept"] * 5 + ["problem"]
            assert live.receive() is None
            assert live.close_code == code
            assert other.execute("SELECT revision FROM exams").fetchone() == (5,)


def big() -> bytes:
    """A frame whose decoding takes longer than sending it."""
    out = BytesIO()
    Image.new("RGB", (3000, 2000), RED).save(out, "PNG")
    return out.getvalue()


def test_the_newest_frame_wins_and_the_dropped_are_counted(up: Running) -> None:
    live = stream(up, opened(up), "?keep_every_ms=60000")
    frame, count = big(), 40
    for place in range(count):
        live.send(frame, NOW + place)
    found = [until(live, "frame")]
    while found[-1]["captured_at"] != "2025-03-01T09:30:00.000039Z":
        found.append(until(live, "frame"))
    live.close()
    last = found[-1]
    assert last["received"] == count
    assert len(found) + last["dropped"]["newer"] == count
    assert last["dropped"]["newer"] > 0
    times = [one["captured_at"] for one in found]
    assert len(set(times)) == len(times)


def test_an_exam_that_is_full_goes_on_without_keeping(up: Running) -> None:
    exam = opened(up)
    live = stream(up, exam, "?keep_every_ms=0")
    for place in range(4):
        live.send(image(RED, (96, 80 + place)), NOW + place)
        assert until(live, "kept")["revision"] == place + 1
    for place in (4, 5):
        live.send(image(RED, (96, 80 + place)), NOW + place)
        until(live, "full")
    live.close()
    assert up.client.get(f"/v1/exams/{exam}").json()["revision"] == 4


def test_an_exam_that_is_closed_ends_its_stream(up: Running) -> None:
    exam = opened(up)
    live = stream(up, exam)
    assert up.client.post(f"/v1/exams/{exam}/close").status_code == 200
    live.send(image(RED), NOW)
    problem = until(live, "problem")
    assert (problem["type"], problem["code"], problem["status"]) == ("problem", "exam_closed", 409)
    assert live.receive() is None
    assert live.close_code == 1008
    refused(up, exam, 409, "exam_closed")


def test_messages_that_are_none_end_the_stream(up: Running) -> None:
    exam = opened(up)
    live = stream(up, exam)
    live.send_text("{}")
    assert told(live)["code"] == "malformed_request"
    assert live.receive() is None
    live = stream(up, exam)
    live.send(image(RED), struct.unpack(">q", b"\x7f" + b"\xff" * 7)[0])
    assert told(live)["code"] == "malformed_request"
    assert live.receive() is None
    live = stream(up, exam)
    live.send(b"x" * MAX_MESSAGE_BYTES, NOW)
    assert live.receive() is None
    assert live.close_code == 1009


def test_handshakes_are_refused_with_problem_documents(up: Running) -> None:
    exam = opened(up)
    refused(up, "none", 404, "not_found")
    refused(up, f"{exam}/more", 404, "not_found")
    refused(up, exam, 422, "invalid_request", "?keep_every_ms=-1")
    refused(up, exam, 422, "invalid_request", "?keep=1")
    refused(up, exam, 403, "forbidden", origin="https://example.org")
    live = [stream(up, exam) for _ in range(3)]
    refused(up, exam, 503, "overloaded")
    for one in live:
        one.close()


def test_streams_need_a_key_with_its_scope_and_are_held_to_its_rate(
    serve: Serve, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.json"
    slow, token = new_key("room", [Scope.SCORE], frames_per_second=0.01)
    other, foreign = new_key("else", [Scope.METRICS])
    change_keys(keys, lambda _: [slow, other])
    with serve(keys=keys, exam_store=str(tmp_path / "e.db")) as up:
        head = {"Authorization": f"Bearer {token}"}
        # Opening costs the key's only frame of the next hundred seconds.
        exam = up.client.post("/v1/exams", headers=head).json()["exam_id"]
        refused(up, exam, 401, "unauthenticated")
        refused(up, exam, 403, "forbidden", Authorization=f"Bearer {foreign}")
        live = stream(up, exam, **head)
        live.send(image(RED), NOW)
        message = told(live)
        assert (message["type"], message["reason"]) == ("dropped", "rate_limited")
        assert message["dropped"]["rate_limited"] == 1
        live.close()


def test_a_browser_names_its_key_among_the_protocols(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    room, token = new_key("room", [Scope.SCORE])
    other, foreign = new_key("else", [Scope.METRICS])
    change_keys(keys, lambda _: [room, other])
    with serve(keys=keys, exam_store=str(tmp_path / "e.db")) as up:
        head = {"Authorization": f"Bearer {token}"}
        exam = up.client.post("/v1/exams", headers=head).json()["exam_id"]
        page = [("Origin", "https://example.org")]  # whoever has the key may use it anywhere
        for offered in (["endo-clip", f"bearer.{token}"], [f"bearer.{token}", "endo-clip"]):
            live = Stream(url_of(up), exam, "", page, offered)
            assert live.protocol == "endo-clip"
            assert told(live)["type"] == "open"
            live.close()
        for offered, status in (
            (["endo-clip"], 401),
            (["endo-clip", token], 401),
            (["endo-clip", "bearer."], 401),
            (["endo-clip", f"bearer.{token}x"], 401),
            (["endo-clip", f"bearer.{foreign}"], 403),
        ):
            with pytest.raises(Refused) as caught:
                Stream(url_of(up), exam, "", page, offered)
            assert caught.value.status == status, offered
        # One key is looked at, and a header is more than a protocol.
        with pytest.raises(Refused) as caught:
            Stream(url_of(up), exam, "", [("Authorization", "Bearer x")], offered)
        assert caught.value.status == 401
        # A protocol is no header of other requests.
        answer = up.client.get("/v1/models", headers={"Sec-WebSocket-Protocol": f"bearer.{token}"})
        assert answer.status_code == 401


def test_without_keys_no_page_but_the_service_s_own_opens_a_stream(up: Running) -> None:
    exam = opened(up)
    own = f"127.0.0.1:{up.port}"
    stream(up, exam, Origin=f"http://{own}").close()
    handshake = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    handshake["Sec-WebSocket-Key"] = "dGhlIHNhbXBsZSBub25jZQ=="
    # A browser names no port where it is the scheme's own.
    for host in ("[::1]", "[::1]:8000"):
        with socket.create_connection(("127.0.0.1", up.port), timeout=30) as wire:
            head = handshake | {"Host": host, "Origin": f"http://{host}"}
            lines = [f"GET /v1/exams/{exam}/stream HTTP/1.1", *map(": ".join, head.items()), "", ""]
            wire.sendall("\r\n".join(lines).encode())
            assert wire.recv(12) == b"HTTP/1.1 101", host
    for host, origin in (
        (own, "http://example.org"),
        (own, "null"),
        (own, ""),
        (own, f"http://127.0.0.1:{up.port + 1}"),
        (own, f"http://{own}.example.org"),
        # Its name was made to resolve to loopback.
        (f"example.org:{up.port}", f"http://example.org:{up.port}"),
        ("", "http://"),
        ("::1", "http://::1"),
        ("localhost:", "http://localhost"),
    ):
        head = handshake | {"Host": host, "Origin": origin}
        answer = up.client.get(f"/v1/exams/{exam}/stream", headers=head)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (host, origin)


def test_figures_count_live_frames(up: Running) -> None:
    live = stream(up, opened(up))
    before = figure(up.client, 'endoclip_stream_frames_total{fate="answered"}')
    live.send(image(RED), NOW)
    told(live)
    assert figure(up.client, 'endoclip_stream_frames_total{fate="answered"}') == before + 1
    live.close()


def figure(client: httpx.Client, name: str) -> float:
    text = client.get("/metrics").text
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[1])


def test_the_stateless_routes_answer_beside_a_stream(up: Running, red: bytes) -> None:
    live, frame = stream(up, opened(up)), big()
    for place in range(10):
        live.send(frame, NOW + place)
    assert up.client.post("/v1/malignancy", **as_form([red])).status_code == 200
    live.close()


def test_client_that_sends_pings_and_reads_no_answer_is_cut_off(up: Running) -> None:
    deaf = stream(up, opened(up))
    deaf._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    ping = b"\x89\xfd" + bytes(4) + bytes(125)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        deaf._socket.sendall(ping * 500_000)  # 65 MB, of which the system's buffers hold a few
    deaf.drop()
    assert up.client.get("/healthz").status_code == 200
