"""Streams of the Python client, against the real service on loopback."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pytest
from endo_clip_client import (
    AsyncClient,
    Client,
    ClientError,
    Exam,
    InvalidRequest,
    Kept,
    NotFound,
    Opened,
    Result,
    Retry,
    TooLarge,
    Unreachable,
)
from PIL import Image

from tests.clients.conftest import BUSY, Faults
from tests.service.conftest import PINK, RED, Running, Serve, image
from tests.waiting import wait_until

Before = Callable[..., Faults]
QUICK = Retry(attempts=4, first_s=0.01)
BEGAN = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("client") / "exams.sqlite3"
    with serve(exam_store=str(store)) as running:
        yield running


@pytest.fixture
def exam(up: Running) -> Iterator[Exam]:
    with Client(f"http://127.0.0.1:{up.port}", retry=QUICK) as client:
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        yield exam


class Cable:
    """A TCP port before a server that can be cut, for as long as is wanted."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.whole = True
        self.connections = 0
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self.whole = False
        for one in self._open:
            with suppress(OSError):  # it has ended by itself
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def close(self) -> None:
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if not self.whole:
                client.close()
                continue
            self.connections += 1
            try:
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        return


def test_frames_in_results_out_and_the_exam_has_them(exam: Exam) -> None:
    with exam.stream(keep_every_ms=0) as stream:
        told = []
        for place, colour in enumerate((RED, PINK, RED)):
            stream.send(image(colour, (96, 80 + place)), BEGAN + timedelta(milliseconds=place))
            for message in stream:
                told.append(message)
                if isinstance(message, Result):
                    break
        stream.finish()
        told += list(stream)
    first = told[0]
    assert isinstance(first, Opened)
    assert (first.revision, first.last_captured_at, first.reconnects) == (0, None, 0)
    results = [one for one in told if isinstance(one, Result)]
    assert [one.captured_at - BEGAN for one in results] == [
        timedelta(milliseconds=n) for n in range(3)
    ]
    assert results[0].frame.results["polyp_detection"].decision == "positive"
    for one in results:
        assert one.service_s is not None
        assert one.latency_s is not None
        assert 0 < one.service_s < one.latency_s < 30
    counts = stream.counts
    assert (counts.sent, counts.answered, counts.replaced, counts.reconnects) == (3, 3, 0, 0)
    # What was seen is kept, whether or not the news of it came before the end.
    wait_until(lambda: exam.result().revision == 3)
    assert [frame.captured_at for frame in exam.close().tasks[0].patient.frames] == [
        one.captured_at for one in results
    ]


def big(place: int = 0) -> bytes:
    """A frame whose decoding takes longer than sending it."""
    out = BytesIO()
    Image.new("RGB", (3000, 2000 + place), RED).save(out, "PNG")
    return out.getvalue()


def test_the_end_waits_for_what_is_to_be_kept(exam: Exam, up: Running) -> None:
    database = up.app.state.exams._store._database
    held = threading.Event()
    with exam.stream(keep_every_ms=0) as stream:
        told = iter(stream)
        assert isinstance(next(told), Opened)
        database._threads.submit(held.wait)  # the one thread that writes
        try:
            stream.send(image(RED), BEGAN)
            assert isinstance(next(told), Result)
            stream.finish()
            # Longer than a stream that does not wait takes to end.
            threading.Timer(0.5, held.set).start()
            assert [type(one) for one in told] == [Kept]
        finally:
            held.set()
    assert exam.close().revision == 1


def test_the_newest_frame_wins_and_every_frame_is_accounted_for(exam: Exam) -> None:
    count, frame = 60, big()
    with exam.stream() as stream:
        for place in range(count):
            stream.send(frame, BEGAN + timedelta(microseconds=place))
        stream.finish()
        results = [one for one in stream if isinstance(one, Result)]
    last = BEGAN + timedelta(microseconds=count - 1)
    assert results[-1].captured_at == last
    counts = stream.counts
    assert counts.dropped is not None
    assert counts.sent == count
    assert counts.answered + counts.replaced + sum(counts.dropped.values()) == count
    assert counts.replaced > 0


def test_a_broken_line_is_taken_up_again(up: Running) -> None:
    cable = Cable(up.port)
    with Client(f"http://127.0.0.1:{cable.port}", retry=QUICK) as client:
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        with exam.stream(keep_every_ms=0) as stream:
            messages = iter(stream)
            stream.send(image(RED), BEGAN)
            while not isinstance(next(messages), Kept):
                pass
            cable.cut()
            stream.send(image(PINK), BEGAN + timedelta(seconds=1))
            time.sleep(0.3)
            cable.whole = True
            again = next(one for one in messages if isinstance(one, Opened))
            assert (again.reconnects >= 1, again.revision) == (True, 1)
            assert again.last_captured_at == BEGAN
            result = next(one for one in messages if isinstance(one, Result))
            assert result.captured_at == BEGAN + timedelta(seconds=1)
            stream.finish()
            list(messages)
        wait_until(lambda: exam.result().revision == 2)
    cable.close()
    assert cable.connections >= 2


def test_a_service_that_is_started_anew_is_found_again(serve: Serve, tmp_path: Path) -> None:
    store = str(tmp_path / "anew.sqlite3")
    with serve(exam_store=store) as first:
        cable = Cable(first.port)
        client = Client(f"http://127.0.0.1:{cable.port}")
        exam = client.exam(tasks=["polyp_detection"])
        exam.open()
        stream = exam.stream(keep_every_ms=0).__enter__()
        messages = iter(stream)
        stream.send(image(RED), BEGAN)
        assert next(one for one in messages if isinstance(one, Kept)).revision == 1
    with serve(exam_store=store) as second:
        cable.target = second.port
        stream.send(image(PINK), BEGAN + timedelta(seconds=1))
        result = next(one for one in messages if isinstance(one, Result))
        assert result.captured_at == BEGAN + timedelta(seconds=1)
        assert stream.counts.reconnects > 0
        stream.__exit__()
        client.close()
        cable.close()


def test_a_line_that_stays_broken_is_given_up(up: Running) -> None:
    cable = Cable(up.port)
    with Client(f"http://127.0.0.1:{cable.port}", retry=QUICK) as client:
        exam = client.exam()
        exam.open()
        with exam.stream(reconnect_s=0.5) as stream:
            messages = iter(stream)
            assert isinstance(next(messages), Opened)
            cable.cut()
            with pytest.raises(Unreachable, match=r"within 0\.5 s"):
                list(messages)
    cable.close()


def test_a_service_that_is_busy_for_a_moment_is_asked_again(
    up: Running, exam: Exam, faults: Before
) -> None:
    port = faults(up.port, BUSY, BUSY).port
    with (
        Client(f"http://127.0.0.1:{port}") as client,
        client.exam(exam.exam_id).stream() as stream,
    ):
        assert isinstance(next(iter(stream)), Opened)
        assert stream.counts.reconnects == 2


def test_what_is_refused_is_raised(exam: Exam, up: Running) -> None:
    with Client(f"http://127.0.0.1:{up.port}") as client:
        with client.exam("not-there").stream() as stream, pytest.raises(NotFound):
            list(stream)
        with exam.stream(keep_every_ms=-1) as stream, pytest.raises(InvalidRequest, match="keep"):
            list(stream)
    with exam.stream() as stream:
        next(iter(stream))
        with pytest.raises(TooLarge):
            stream.send(bytes(5_000_000))
        with pytest.raises(ValueError, match="time zone"):
            stream.send(image(RED), datetime(2026, 1, 1))
        exam.close()
        stream.send(image(RED), BEGAN)
        with pytest.raises(InvalidRequest, match="exam_closed"):
            list(stream)


def test_leaving_in_the_middle_leaves_nothing_running(exam: Exam) -> None:
    before = threading.active_count()
    with exam.stream() as stream:
        stream.send(image(RED), BEGAN)
        next(iter(stream))
    assert threading.active_count() == before


def test_async_stream_gives_the_same(up: Running) -> None:
    async def watch() -> list[str]:
        async with AsyncClient(f"http://127.0.0.1:{up.port}") as client:
            exam = client.exam(tasks=["malignancy"])
            await exam.open()
            async with exam.stream(keep_every_ms=0) as stream:
                stream.send(image(RED))
                told = []
                async for message in stream:
                    told.append(type(message).__name__)
                    if isinstance(message, Kept):
                        stream.finish()
            assert (await exam.result()).revision == 1
        return told

    assert sorted(asyncio.run(watch())) == ["Kept", "Opened", "Result"]


def test_without_the_library_it_is_said(exam: Exam, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "websockets.asyncio.client", None)
    with exam.stream() as stream, pytest.raises(ClientError, match=r"client\[stream\]"):
        list(stream)
