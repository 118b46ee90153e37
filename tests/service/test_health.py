"""Each way to be healthy and dead, brought about in the real parts, is told by name."""

import contextlib
import ctypes
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from model_store import bundle as bundle_module
from model_store.bundle import Bundle
from model_store.encoder import Encoder, _open_session
from model_store.errors import ProviderUnavailable
from service import engine as engine_module
from service import health as health_module
from service.health import _Folder
from tests import tiny_bundle
from tests.service.conftest import Running, Serve, image, problem_of
from tests.service.test_operations import figures
from tests.waiting import PATIENCE_S, wait_until

PNG = {"Content-Type": "image/png"}


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    """A bundle of the test's own, to be damaged."""
    return Path(shutil.copytree(bundle, tmp_path / "b"))


@pytest.fixture
def watched(serve: Serve, copied: Path) -> Iterator[Running]:
    """A service that looks after itself often, known to be ready."""
    with serve(bundle=copied, health_interval_s=0.05) as up:
        assert up.client.get("/readyz").status_code == 200
        yield up


def becomes(client: httpx.Client, status: int) -> httpx.Response:
    def asked() -> httpx.Response | None:
        answer = client.get("/readyz")
        return answer if answer.status_code == status else None

    found = wait_until(asked)
    assert found is not None
    return found


def lost(up: Running, reason: str) -> str:
    """Wait until the service is not ready; it must say why, everywhere. Gives the detail."""
    problem = problem_of(becomes(up.client, 503), 503, "not_ready")
    assert problem["reason"] == reason
    found = figures(up.client)
    assert found[("endoclip_ready",)] == 0
    assert found[("endoclip_not_ready", reason)] == 1
    answer = up.client.post("/v1/malignancy", content=image(), headers=PNG)
    assert problem_of(answer, 503, "not_ready")["reason"] == reason
    assert up.client.get("/healthz").status_code == 200
    return str(problem["detail"])


def run_from_now_on(up: Running, graph: bytes, path: Path) -> None:
    """Put another image tower into the memory of a running service, under the same encoder."""
    path.write_bytes(graph)
    session = _open_session(path, ["CPUExecutionProvider"], 1)
    up.app.state.engine.encoder._image = session


def with_nan_weights() -> bytes:
    model = onnx.load_from_string(tiny_bundle.image_tower())
    for initializer in model.graph.initializer:
        values = numpy_helper.to_array(initializer)
        if values.dtype == "float32" and values.size > 1:
            broken = numpy_helper.from_array(values * float("nan"), initializer.name)
            initializer.CopyFrom(broken)
    return bytes(model.SerializeToString())


def test_service_left_alone_stays_ready_and_its_canaries_are_nobodys_frames(
    watched: Running,
) -> None:
    time.sleep(0.5)
    assert watched.client.get("/readyz").status_code == 200
    found = figures(watched.client)
    assert not any(value for key, value in found.items() if key[0] == "endoclip_frames_total")
    assert found[("endoclip_not_ready", "canary_moved")] == 0


def test_weights_that_moved_in_memory_are_noticed_and_so_is_their_return(
    watched: Running, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right = watched.app.state.engine.encoder._image
    run_from_now_on(watched, tiny_bundle.image_tower(mean_shift=0.05), tmp_path / "t.onnx")
    assert "expected canary scores within" in lost(watched, "canary_moved")
    watched.app.state.engine.encoder._image = right
    becomes(watched.client, 200)
    said = [record.getMessage() for record in caplog.records if "readiness" in record.getMessage()]
    assert said[0].startswith("readiness state=lost reason=canary_moved")
    assert said[-1] == "readiness state=regained reason=canary_moved"


def test_weights_that_are_nan_are_noticed_at_once_when_a_request_meets_them(
    serve: Serve, copied: Path, tmp_path: Path
) -> None:
    with serve(bundle=copied, health_interval_s=3600) as up:
        assert up.client.get("/readyz").status_code == 200
        run_from_now_on(up, with_nan_weights(), tmp_path / "t.onnx")
        answer = up.client.post("/v1/malignancy", content=image(), headers=PNG)
        problem_of(answer, 500, "internal")
        assert "finite numbers" in lost(up, "output_not_finite")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_worker_that_died_is_noticed_at_once_and_nobody_waits_for_it(watched: Running) -> None:
    first, *others = watched.app.state.engine._batcher._threads
    # What ends a thread from inside, and is no Exception.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(first.ident), ctypes.py_object(SystemExit)
    )
    with contextlib.suppress(httpx.HTTPError):  # it takes a piece of work to wake it
        for _ in range(1 + len(others)):
            watched.client.post("/v1/malignancy", content=image(), headers=PNG, timeout=30)
    for thread in (first, *others):  # one that has died takes the others with it
        thread.join(PATIENCE_S)
        assert not thread.is_alive()
    assert "worker" in lost(watched, "worker_dead")


class Hung:
    """The runtime's session, which does not come back from a run until it may."""

    def __init__(self, session: Any) -> None:
        self._session, self.may = session, threading.Event()

    def run(self, *arguments: Any) -> Any:
        self.may.wait()
        return self._session.run(*arguments)

    def get_providers(self) -> Any:
        return self._session.get_providers()


def test_worker_that_is_stuck_is_noticed_and_so_is_its_return(
    watched: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_STUCK_S", 0.3)
    engine = watched.app.state.engine
    hung = engine.encoder._image = Hung(engine.encoder._image)
    try:
        assert "no answer" in lost(watched, "worker_stuck")
        assert engine.lost
    finally:
        monkeypatch.setattr(engine_module, "_STUCK_S", PATIENCE_S)  # a busy machine is not stuck
        hung.may.set()
    becomes(watched.client, 200)
    assert not engine.lost


class HungOnce(Hung):
    """A session of which one run does not come back, and all others do."""

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._first = threading.Semaphore(1)

    def run(self, *arguments: Any) -> Any:
        if self._first.acquire(blocking=False):
            return super().run(*arguments)
        return self._session.run(*arguments)


def test_one_worker_that_is_stuck_is_noticed_while_another_answers(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.settings.usable_cores", lambda: 2)
    with serve(health_interval_s=0.05) as up:
        monkeypatch.setattr(engine_module, "_STUCK_S", 0.3)
        engine = up.app.state.engine
        hung = engine.encoder._image = HungOnce(engine.encoder._image)
        try:
            assert "no answer" in lost(up, "worker_stuck")
            stuck_since, size = engine.oldest_batch, engine.bundle.manifest.input.size
            with pytest.raises(TimeoutError):  # though the other worker answers at once
                engine._encode_canaries(np.zeros((2, size, size, 3), np.uint8))
            assert engine.lost
            assert engine.oldest_batch == stuck_since
        finally:
            monkeypatch.setattr(engine_module, "_STUCK_S", PATIENCE_S)
            hung.may.set()
        becomes(up.client, 200)
        assert not engine.lost


def test_provider_that_the_runtime_left_is_noticed(watched: Running) -> None:
    # The state after a GPU failed: the encoder began on CUDA, and the real session runs on the CPU.
    watched.app.state.engine.encoder.provider = "CUDAExecutionProvider"
    detail = lost(watched, "provider_fell_back")
    assert (
        detail == "Expected execution provider CUDAExecutionProvider; found CPUExecutionProvider."
    )


def test_provider_that_cannot_be_had_stops_the_start_unless_falling_back_is_allowed(
    serve: Serve, copied: Path
) -> None:
    wanted = {"bundle": copied, "provider": "CUDAExecutionProvider"}
    with serve(**wanted, allow_cpu_fallback=True) as up:
        if up.app.state.engine.encoder.provider != "CPUExecutionProvider":
            pytest.skip("CUDA can be had on this machine")
        assert up.client.get("/readyz").status_code == 200
        answer = up.client.post("/v1/malignancy", content=image(), headers=PNG).json()
        assert answer["model"]["execution_provider"] == "CPUExecutionProvider"
        assert any("CPUExecutionProvider" in key for key in figures(up.client))
    with pytest.raises(ProviderUnavailable), serve(**wanted):
        pass


@pytest.mark.parametrize("damage", ["flipped", "longer", "gone", "added", "manifest", "replaced"])
def test_bundle_that_changed_on_disk_is_noticed(
    watched: Running, copied: Path, damage: str
) -> None:
    tower = copied / "image_tower.onnx"
    data = bytearray(tower.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
        tower.write_bytes(data)
    elif damage == "longer":
        tower.write_bytes(bytes(data) + b"x")
    elif damage == "gone":
        shutil.rmtree(copied)
    elif damage == "added":
        (copied / "more.bin").write_bytes(b"x")
    elif damage == "manifest":
        text = (copied / "manifest.json").read_text()
        (copied / "manifest.json").write_text(text.replace('"tiny"', '"tinier"'))
    else:
        new = copied.parent / "new"
        new.write_bytes((copied / "unify.onnx").read_bytes())
        new.replace(tower)
    assert "folder has changed" in lost(watched, "bundle_changed")


def test_bundle_that_was_only_touched_is_the_same(watched: Running, copied: Path) -> None:
    for path in copied.rglob("*"):
        path.touch()
    time.sleep(0.4)
    assert watched.client.get("/readyz").status_code == 200


def test_files_are_read_again_only_when_their_entries_changed(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[Path] = []
    verify = bundle_module._check_digests

    def counted(path: Path, manifest: bundle_module.Manifest) -> None:
        reads.append(path)
        verify(path, manifest)

    folder = _Folder(Bundle.open(copied))
    monkeypatch.setattr(bundle_module, "_check_digests", counted)
    for _ in range(3):
        folder.check()
    assert not reads
    (copied / "unify.onnx").touch()
    for _ in range(3):
        folder.check()
    assert len(reads) == 1


def test_bit_that_rots_without_a_trace_in_the_folder_is_found_by_reading_again(
    watched: Running, copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = watched.app.state.engine.health._folder
    entries = folder._entries()
    tower = copied / "text_tower.onnx"
    data = bytearray(tower.read_bytes())
    data[len(data) // 2] ^= 1
    # Below the file system nothing of this is seen; here the entries have to be held as they were.
    monkeypatch.setattr(folder, "_entries", lambda: entries)
    tower.write_bytes(data)
    time.sleep(0.3)
    assert watched.client.get("/readyz").status_code == 200
    monkeypatch.setattr(health_module, "_REREAD_S", 0.1)
    assert "text_tower.onnx" in lost(watched, "bundle_changed")
    data[len(data) // 2] ^= 1
    tower.write_bytes(data)
    becomes(watched.client, 200)


def test_encoder_says_what_it_runs_on_now(bundle: Path) -> None:
    encoder = Encoder(Bundle.open(bundle), threads=1)
    assert encoder.provider_now == encoder.provider == "CPUExecutionProvider"
