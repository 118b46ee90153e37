"""Exams of the Python client, against the real service on loopback."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from endo_clip_client import (
    AllFramesRejected,
    AsyncClient,
    Client,
    FrameIn,
    InvalidRequest,
    NotFound,
    Retry,
    Unreachable,
)

from tests.clients.conftest import BUSY, Faults
from tests.service.conftest import BLACK, PINK, RED, Running, Serve, image
from tests.tiny_bundle import build_tiny_bundle

Before = Callable[..., Faults]
QUICK = Retry(attempts=4, first_s=0.01)
BEGAN = datetime(2026, 11, 29, 9, 30, tzinfo=UTC)


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("client") / "exams.sqlite3"
    with serve(exam_store=str(store)) as running:
        yield running


@pytest.fixture
def client(up: Running) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{up.port}", retry=QUICK) as client:
        yield client


def test_an_exam_from_opening_to_deletion(client: Client) -> None:
    exam = client.exam("exam-1", patient_id="p-7", tasks=["polyp_detection"])
    opened = exam.open()
    assert (opened.exam_id, opened.patient_id, opened.state) == ("exam-1", "p-7", "open")
    assert opened.tasks[0].patient.status == "empty"
    assert exam.open().created_at == opened.created_at
    frames = [
        FrameIn(image(RED), "f-1", BEGAN),
        FrameIn(image(BLACK), "f-2", BEGAN + timedelta(seconds=1)),
        FrameIn(b"no image", "f-3"),
    ]
    taken = exam.send(frames, explain=True)
    assert [one.status for one in taken.frames] == ["scored", "abstained", "rejected"]
    assert taken.frames[0].captured_at == BEGAN
    alone = taken.frames[0].results["polyp_detection"]
    assert (alone.decision, alone.heatmap is not None) == ("positive", True)
    assert taken.frames[1].reason == "dark"
    assert taken.frames[2].error is not None
    assert taken.revision == 2
    again = exam.send(frames[:1])
    assert (again.frames[0].duplicate, again.revision) == (True, 2)
    so_far = exam.result()
    assert (so_far.final, so_far.frames_total, so_far.frames_scored) == (False, 2, 1)
    final = exam.close()
    task = final.task("polyp_detection")
    assert (final.state, final.final, task.patient.decision) == ("closed", True, "positive")
    assert task.patient.frames[0].captured_at == BEGAN
    assert (task.segments[0].label, task.segments[0].begin) == ("polyp", BEGAN)
    assert exam.close().document["results"] == final.document["results"]
    with pytest.raises(InvalidRequest, match="exam_closed"):
        exam.send([image(PINK)])
    exam.delete()
    exam.delete()
    with pytest.raises(NotFound):
        exam.result()


def test_frames_of_one_file_count_once(client: Client) -> None:
    exam = client.exam()
    exam.open()
    exam.send([FrameIn(image(RED), "a"), FrameIn(image(RED), "b")])
    first, second = exam.result().task("malignancy").patient.frames
    assert (first.duplicate_of, second.duplicate_of) == (None, "a")


def test_async_exam_gives_the_same(client: Client) -> None:
    async def examine() -> object:
        async with AsyncClient(client.url, retry=QUICK) as other:
            exam = other.exam("exam-async", tasks=("malignancy",))
            await exam.open()
            await exam.send([image(RED), image(PINK)])
            assert client.exam("exam-async").result() == await exam.result()
            final = await exam.close()
            await exam.delete()
            return final.task("malignancy").patient.decision

    assert asyncio.run(examine()) == "positive"


def test_what_breaks_is_sent_again_and_changes_nothing(up: Running, faults: Before) -> None:
    # Of each word the first attempt is lost on the way, at another place each time.
    port = faults(up.port, b"", None, BUSY, None, b"", None, BUSY, None).port
    with Client(f"http://127.0.0.1:{port}", retry=QUICK) as client:
        exam = client.exam("exam-broken", tasks=["malignancy"])
        exam.open()
        assert exam.send([image(RED)]).revision == 1
        assert exam.close().task("malignancy").patient.decision == "positive"
        exam.delete()
    with (
        Client(f"http://127.0.0.1:{faults(up.port, *[b''] * 9).port}", retry=QUICK) as lost,
        pytest.raises(Unreachable),
    ):
        lost.exam().open()


def test_errors_are_those_of_the_contract(client: Client, tmp_path: Path) -> None:
    exam = client.exam("exam-errors", tasks=["malignancy"])
    exam.open()
    with pytest.raises(InvalidRequest, match="/exam_id"):
        client.exam("exam-errors", tasks=["polyp_detection"]).open()
    exam.send([FrameIn(image(RED), "a")])
    with pytest.raises(InvalidRequest, match="conflict"):
        exam.send([FrameIn(image(PINK), "a")])
    with pytest.raises(AllFramesRejected):
        exam.send([b"no image"])
    with pytest.raises(ValueError, match="at least one frame"):
        exam.send([])
    for name in ("..", "a/b", "", "x" * 65):
        with pytest.raises(ValueError, match="exam_id"):
            client.exam(name).open() if name else client.exam(" ")
    with pytest.raises(InvalidRequest, match="unknown_device"):
        client.exam(device="none").open()


def test_frames_are_made_small_by_the_exams_own_device(up: Running) -> None:
    with Client(f"http://127.0.0.1:{up.port}", retry=QUICK, shrink=True) as client:
        client.exam("exam-small", device="full_frame").open()
        taken = client.exam("exam-small").send([image(RED, (640, 480))])
    assert taken.frames[0].status == "scored"


def test_exam_whose_bundle_was_exchanged_is_read_and_closed_by_it(
    serve: Serve, bundle: Path, tmp_path: Path
) -> None:
    build_tiny_bundle(tmp_path / "two", version="2.0.0", mean_shift=0.05)
    store = str(tmp_path / "e.db")
    with serve(exam_store=store) as up, Client(f"http://127.0.0.1:{up.port}") as client:
        exam = client.exam("e")
        exam.open()
        exam.send([image(RED), image(PINK)])
        before = exam.result()
        assert before.takes_frames
    shutil.copytree(bundle, tmp_path / "bundles" / "one")
    settings = {"bundle": tmp_path / "two", "bundles": tmp_path / "bundles"}
    with serve(exam_store=store, **settings) as up, Client(f"http://127.0.0.1:{up.port}") as client:
        exam = client.exam("e")
        so_far = exam.result()
        assert (so_far.state, so_far.takes_frames, so_far.final) == ("open", False, False)
        assert (so_far.model, so_far.tasks) == (before.model, before.tasks)
        with pytest.raises(InvalidRequest, match="takes no more frames") as error:
            exam.send([image(RED)])
        assert (error.value.status, error.value.code) == (409, "conflict")
        final = exam.close()
        assert (final.final, final.model.digest) == (True, before.model.digest)
