"""The Python client, against the real service on loopback."""

import asyncio
import socket
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import endo_clip_client
import httpx
import pytest
from endo_clip_client import (
    AllFramesRejected,
    AsyncClient,
    Busy,
    Client,
    FrameIn,
    FrameUnreadable,
    InvalidRequest,
    Label,
    NeedsKey,
    NotFound,
    PatientIn,
    Progress,
    Retry,
    TimedOut,
    TooSlow,
    UnexpectedAnswer,
    Unreachable,
)
from endo_clip_client.__main__ import main
from endo_clip_client.shrinking import Shrinker
from PIL import Image

from tests.clients.conftest import BUSY, ROOT, Faults
from tests.service.conftest import BLACK, PINK, RED, Running, Serve, image
from tests.service.keys_file import add_key

Before = Callable[..., Faults]
QUICK = Retry(attempts=4, first_s=0.01)


@pytest.fixture(scope="module")
def up(serve: Serve) -> Iterator[Running]:
    with serve() as running:
        yield running


@pytest.fixture
def client(up: Running) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{up.port}", retry=QUICK) as client:
        yield client


def test_patient_is_scored_and_typed(client: Client) -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    frames = [FrameIn(image(RED), "first", when), image(PINK), image(BLACK), b"not an image"]
    answer = client.polyp_detection(frames, patient_id="p-1", operating_point="sensitivity_first")
    patient = answer.patient
    assert (patient.patient_id, patient.status, patient.decision) == ("p-1", "scored", "positive")
    assert [frame.status for frame in patient.frames] == [
        *("scored", "scored", "abstained", "rejected")
    ]
    assert patient.frames[0].frame_id == "first"
    assert patient.frames[2].reason == "dark"
    error = patient.frames[3].error
    assert error is not None
    assert error.code == "unsupported_format"
    assert sum(frame.attention or 0.0 for frame in patient.frames) == pytest.approx(1.0)
    assert answer.model.digest.startswith("sha256:")
    assert answer.operating_point is not None
    assert answer.operating_point.name == "sensitivity_first"
    assert answer.document["task"] == answer.task == "polyp_detection"


def test_every_task_is_answered(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    path.write_bytes(image(RED))
    heat = client.malignancy([path, str(path)], explain=True).patient.frames[0].heatmap
    assert heat is not None
    assert len(heat.values) == heat.rows * heat.cols
    labels = [Label("a", ("red tissue",)), Label("b", ("pink tissue",))]
    shot = client.zero_shot([path], labels).patient
    assert shot.top_label == "a"
    assert shot.frames[0].attention_by_label == {"a": 1.0, "b": 1.0}
    assert client.zero_shot([path], "colour").patient.top_label == "red"
    both = client.embeddings([path], ["red tissue", "blue tissue"])
    assert len(both.texts) == 2
    assert len(both.patient.frames[0].embedding) == len(both.texts[0]) == 4


def test_documents_of_the_service(client: Client) -> None:
    client.wait_until_ready(10)
    assert client.model()["name"] == "tiny"
    assert client.devices()["devices"][0]["name"] == "full_frame"
    assert client.limits()["max_frames"] == 512


def test_many_patients_come_one_by_one_and_fail_alone(client: Client) -> None:
    told: list[Progress] = []
    patients = [
        PatientIn([image(RED)], tag="red"),
        PatientIn([b"nothing"], tag="bad"),
        PatientIn([Path("not-there.jpg")], tag="gone"),
        PatientIn([image(PINK), image(PINK)], "p-4", tag="pink"),
    ]
    results = client.score_patients("malignancy", patients, concurrency=2, progress=told.append)
    found = {one.tag: one for one in results}
    assert found["red"].answer is not None
    assert found["red"].answer.patient.decision == "positive"
    assert found["pink"].answer is not None
    assert found["pink"].answer.patient.patient_id == "p-4"
    bad = found["bad"].error
    assert isinstance(bad, AllFramesRejected)
    assert bad.patients[0].frames[0].status == "rejected"
    assert isinstance(found["gone"].error, FrameUnreadable)
    assert told[-1] == Progress(4, 4, 5, 5)


def test_leaving_early_leaves_nothing_running(client: Client) -> None:
    results = client.score_patients("malignancy", [PatientIn([image(RED)])] * 50)
    assert next(results).answer is not None
    results.close()  # type: ignore[attr-defined]


def test_async_client_gives_the_same(up: Running, client: Client) -> None:
    async def ask() -> tuple[object, list[int], Progress]:
        told: list[Progress] = []
        async with AsyncClient(client.url, retry=QUICK) as other:
            await other.wait_until_ready(10)
            one = await other.malignancy([image(RED), image(PINK)], patient_id="p")
            patients = [PatientIn([image(RED)])] * 5
            many = other.score_patients("malignancy", patients, progress=told.append)
            places = [scored.index async for scored in many if scored.answer]
            assert (await other.limits()) == client.limits()
            assert (await other.embeddings(texts=["red"])).texts
            assert (await other.polyp_detection([image(RED)])).patient.decision == "positive"
            assert (await other.zero_shot([image(RED)], "colour")).patient.top_label == "red"
            assert (await other.model())["name"] == "tiny"
            assert (await other.devices())["devices"]
            with pytest.raises(InvalidRequest):
                await other.malignancy([image(RED)], device="no-such")
            return one.patient, places, told[-1]

    patient, places, last = asyncio.run(ask())
    assert patient == client.malignancy([image(RED), image(PINK)], patient_id="p").patient
    assert sorted(places) == [0, 1, 2, 3, 4]
    assert last == Progress(5, 5, 5, 5)


# ---- errors --------------------------------------------------------------------------------------


def test_errors_say_what_to_do(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"(?s)full_frame.*at /device.*What to do.*info") as no:
        client.malignancy([image(RED)], device="no-such")
    assert (no.value.status, no.value.code) == (422, "unknown_device")
    assert no.value.request_id
    with pytest.raises(TooSlow, match="deadline_s"):
        client.malignancy([image(RED)] * 60, deadline_s=0.001)
    with pytest.raises(ValueError, match="at least one frame"):
        client.malignancy([])
    with pytest.raises(FrameUnreadable, match=r"not-there\.jpg.*Nothing was sent"):
        client.malignancy([Path("not-there.jpg")])
    with pytest.raises(FrameUnreadable, match="found int"):
        client.malignancy([7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="expected http"):
        Client("localhost:8000")


def test_key_is_asked_for_and_never_told(serve: Serve, tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    token = add_key(keys)
    with serve(keys=keys) as up:
        url = f"http://127.0.0.1:{up.port}"
        with (
            Client(url, retry=QUICK) as nobody,
            pytest.raises(NeedsKey, match="ENDO_CLIP_KEY"),
        ):
            nobody.limits()
        with Client(url, key="ec_wrong", retry=QUICK) as wrong:
            with pytest.raises(NeedsKey) as no:
                wrong.limits()
            assert "ec_wrong" not in f"{no.value} {wrong!r} {no.value.document}"
        with Client(url, key=token, retry=QUICK) as right:
            assert right.limits()
    with pytest.warns(UserWarning, match="plain http"):
        Client("http://scoring.example", key=token)
    with pytest.raises(ValueError, match="one line"):
        Client(url, key="two\nlines")


def test_another_service_is_told_apart(up: Running, faults: Before) -> None:
    page = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"
    shape = b'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"a": {}}'
    login = b"HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"
    gone = b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nno"
    port = faults(up.port, page, shape, login, gone).port
    for _ in range(4):
        with (
            Client(f"http://127.0.0.1:{port}", retry=QUICK) as client,
            pytest.raises(UnexpectedAnswer, match="What to do"),
        ):
            client.malignancy([image(RED)])
    with Client(f"http://127.0.0.1:{up.port}/v1") as client, pytest.raises(NotFound) as no:
        client.limits()
    assert "without a path" in str(no.value)


# ---- retries -------------------------------------------------------------------------------------


def test_busy_dropped_and_bad_gateway_are_tried_again_under_one_id(
    up: Running, faults: Before
) -> None:
    gateway = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"
    port = faults(up.port, BUSY, b"", gateway)
    with Client(f"http://127.0.0.1:{port.port}", retry=QUICK) as client:
        answer = client.malignancy([image(RED)])
    assert answer.patient.decision == "positive"
    assert len(port.seen) == 4
    assert all(answer.request_id.encode() in head for head in port.seen)


def test_patience_is_bounded(up: Running, faults: Before) -> None:
    port = faults(up.port, *[BUSY] * 9)
    with Client(f"http://127.0.0.1:{port.port}", retry=QUICK) as client, pytest.raises(Busy):
        client.limits()
    assert len(port.seen) == 4
    long = BUSY.replace(b"Retry-After: 0", b"Retry-After: 3600")
    port = faults(up.port, long, long)
    with Client(f"http://127.0.0.1:{port.port}") as client, pytest.raises(Busy) as no:
        client.limits()
    assert len(port.seen) == 1
    assert "proxy" in str(no.value)


def test_silence_and_a_closed_port_are_told_apart(up: Running, faults: Before) -> None:
    port = faults(up.port, *[b""] * 9)
    with (
        Client(f"http://127.0.0.1:{port.port}", retry=QUICK) as client,
        pytest.raises(Unreachable, match="after 4 attempts"),
    ):
        client.limits()
    with Client("http://127.0.0.1:1", retry=Retry(attempts=1)) as client:
        with pytest.raises(Unreachable, match="at the first attempt"):
            client.limits()
        with pytest.raises(Unreachable):
            client.wait_until_ready(0)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}"
        with Client(url, timeout_s=0.2, retry=QUICK) as client, pytest.raises(TimedOut):
            client.limits()


# ---- shrinking -----------------------------------------------------------------------------------


def camera(size: tuple[int, int] = (1280, 1024), **save: object) -> bytes:
    out = BytesIO()
    with Image.open(ROOT / "examples" / "polyp_1.jpg") as frame:
        frame.resize(size).save(out, "JPEG", quality=90, **save)  # type: ignore[arg-type]
    return out.getvalue()


def sent_bytes(client: Client, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    lengths: list[int] = []
    request = httpx.Client.request

    def measured(self: httpx.Client, *args: object, **more: object) -> httpx.Response:
        answer = request(self, *args, **more)  # type: ignore[arg-type]
        lengths.append(int(answer.request.headers.get("content-length", 0)))
        return answer

    monkeypatch.setattr(httpx.Client, "request", measured)
    return lengths


def test_frames_are_made_small_by_the_contract(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Zebrafink"
    big, small = camera(exif=exif), image(RED)
    whole = client.malignancy([big, small]).patient
    with Client(client.url, shrink=True) as other:
        lengths = sent_bytes(other, monkeypatch)
        shrunk = other.malignancy([big, small, b"bad"]).patient
    assert lengths[-1] < len(big) / 4
    assert shrunk.frames[0].probability == pytest.approx(whole.frames[0].probability, abs=0.02)
    assert shrunk.frames[1].scores == whole.frames[1].scores
    assert shrunk.frames[2].status == "rejected"
    with (
        Client(client.url, shrink=True) as other,
        pytest.raises(InvalidRequest, match="full_frame"),
    ):
        other.malignancy([big], device="no-such")


def test_shrinker_keeps_shape_orientation_and_crop() -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "Zebrafink"
    turned = Shrinker(224).shrink(camera((1280, 1024), exif=exif))
    assert b"Zebrafink" not in turned
    assert Image.open(BytesIO(turned)).size == (224, 280)
    assert Image.open(BytesIO(Shrinker(224, (0.5, 0, 1, 1)).shrink(camera()))).size == (448, 358)
    for data in (camera((300, 224)), b"", b"\xff\xd8\xff damaged", bytes(128) + b"DICM"):
        assert Shrinker(224).shrink(data) == data


# ---- the package ---------------------------------------------------------------------------------


def test_package_is_light_typed_and_has_its_command() -> None:
    project = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["dependencies"] == ["httpx>=0.27"]
    assert set(project["project"]["optional-dependencies"]) == {"shrink", "stream", "watch"}
    assert project["project"]["scripts"] == {
        "endo-clip": "endo_clip_client.__main__:main",
        "endo-clip-watch": "endo_clip_client.watch:command",
    }
    assert callable(main)
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["endo_clip_client"]
    assert project["project"]["version"] == endo_clip_client.__version__
