"""SIGTERM, as an operator sends it to the real process."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from service.__main__ import LOST
from tests.service.conftest import command, image, problem_of
from tests.service.test_operations import figures
from tests.waiting import PATIENCE_S, wait_until

PNG = {"Content-Type": "image/png"}


@dataclass
class Process:
    """A running service, and a thread pool to ask it from."""

    popen: "subprocess.Popen[str]"
    client: httpx.Client
    threads: ThreadPoolExecutor
    heavy: bytes

    def exam(self, frames: int) -> httpx.Response:
        parts = [("frames", ("x", self.heavy))] * frames
        with httpx.Client(base_url=self.client.base_url, timeout=90) as client:
            return client.post("/v1/malignancy", files=parts)

    def until_busy(self) -> None:
        wait_until(lambda: figures(self.client)[("endoclip_pending_frames",)])

    def until_told(self) -> None:
        """The signal has reached it."""
        wait_until(lambda: self.client.get("/readyz").status_code == 503)

    def ended(self) -> int:
        """Exit code; the log must hold no traceback."""
        _, log = self.popen.communicate(timeout=PATIENCE_S)
        assert "Traceback" not in log
        return self.popen.returncode


@contextmanager
def started(**settings: object) -> Iterator[Process]:
    settings = {"port": 0, "decode_threads": 1} | settings
    with subprocess.Popen(**command(**settings)) as popen:  # type: ignore[call-overload]
        url = re.search(r"http://127\.0\.0\.1:\d+", popen.stdout.readline())[0]  # type: ignore[index]
        try:
            with httpx.Client(base_url=url, timeout=60) as client, ThreadPoolExecutor(4) as threads:
                assert client.get("/readyz").status_code == 200
                yield Process(popen, client, threads, image(size=(2000, 2000)))
        finally:
            popen.kill()


def test_work_under_way_is_finished_while_new_work_is_refused(bundle: Path) -> None:
    with started(bundle=bundle, grace_s=120) as process:
        asked = process.threads.submit(process.exam, 20)
        process.until_busy()
        process.popen.send_signal(signal.SIGTERM)
        process.until_told()
        refused = process.client.post("/v1/malignancy", content=image(), headers=PNG)
        unready = process.client.get("/readyz")
        alive = process.client.get("/healthz")
        for answer in (refused, unready):
            problem_of(answer, 503, "shutting_down")
            assert int(answer.headers["retry-after"]) > 0
        assert alive.status_code == 200
        assert not asked.done()
        assert asked.result().json()["patients"][0]["frames_scored"] == 20
        assert process.ended() == 0


def test_work_that_outlasts_the_grace_is_answered_503_and_the_exit_code_is_0(bundle: Path) -> None:
    with started(bundle=bundle, grace_s=3) as process:
        asked = process.threads.submit(process.exam, 80)
        process.until_busy()
        process.popen.send_signal(signal.SIGTERM)
        answer = asked.result()
        problem_of(answer, 503, "shutting_down")
        assert process.ended() == 0


def test_idle_service_listens_while_it_drains(bundle: Path) -> None:
    with started(bundle=bundle, drain_s=3) as process:
        process.popen.send_signal(signal.SIGTERM)
        began = time.monotonic()
        process.until_told()
        with httpx.Client(base_url=process.client.base_url, timeout=30) as other:
            problem_of(other.get("/readyz"), 503, "shutting_down")
        assert process.ended() == 0
        assert time.monotonic() - began > 2.5


def test_second_signal_does_not_wait(bundle: Path) -> None:
    with started(bundle=bundle, drain_s=300) as process:
        process.popen.send_signal(signal.SIGTERM)
        problem_of(process.client.get("/readyz"), 503, "shutting_down")
        process.popen.send_signal(signal.SIGTERM)
        assert process.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_idle_service_ends_at_once(bundle: Path, number: signal.Signals) -> None:
    with started(bundle=bundle) as process:
        process.popen.send_signal(number)
        assert process.ended() == 0


# The real process with a worker that something happens to as soon as it is up.
SPOILED = """
import ctypes, sys, threading, time
import service.engine, service.server
from service import __main__ as program

service.engine._STUCK_S = 0.5
service.server._SECOND_LOOK_S = 0.5
create = program.create_app

def spoil(app):
    engine = app.state.engine
    while not engine.ready:
        time.sleep(0.01)
    if sys.argv[1] == "stuck":
        engine._batcher._lanes["frames"] = service.batching.Lane(lambda _: time.sleep(1000), 1)
    else:
        for thread in engine._batcher._threads:
            ident = ctypes.c_ulong(thread.ident)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ident, ctypes.py_object(SystemExit))

def create_app(settings):
    app = create(settings)
    threading.Thread(target=spoil, args=(app,), daemon=True).start()
    return app

program.create_app = create_app
program.leave(program.main([]))
"""


@pytest.mark.parametrize("what", ["dead", "stuck"])
def test_service_whose_worker_is_lost_ends_for_its_supervisor(bundle: Path, what: str) -> None:
    settings = {"bundle": bundle, "port": 0, "health_interval_s": 0.2, "grace_s": 60}
    run = command(**settings) | {"args": [sys.executable, "-c", SPOILED, what]}
    done = subprocess.run(**run, timeout=PATIENCE_S, check=False)  # type: ignore[call-overload]
    assert done.returncode == LOST, done.stderr
    events = [json.loads(line) for line in done.stderr.splitlines()]
    told = [event for event in events if event["event"] == "lost"]
    assert [event["reason"] for event in told] == [f"worker_{what}"]
    assert told[0]["level"] == "critical"
