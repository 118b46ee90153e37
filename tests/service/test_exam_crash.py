"""The service is killed while frames come in: what it had answered is there when it is back."""

import hashlib
import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.audit import read_log
from tests.service.conftest import as_form, command, image
from tests.service.postgres import missing, postgres

# `make test` kills three times, EXAM_KILLS=50 as often as the claim in docs/service.md.
KILLS = int(os.environ.get("EXAM_KILLS", "3"))
SENDERS = 3


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.slow)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield str(tmp_path / "exams.sqlite3")
    elif reason := missing():
        pytest.skip(reason)
    else:
        with postgres() as url:
            yield url


class Service:
    """The real command, which can be killed."""

    def __init__(self, **settings: Any) -> None:
        self.process = subprocess.Popen(**command(port=0, encode_threads=1, **settings))  # type: ignore[call-overload]
        banner = self.process.stdout.readline()
        found = re.search(r"http://[^ ]+", banner)
        assert found, banner + self.process.stderr.read()
        # The port listens before the app is up; the first request waits.
        self.client = httpx.Client(base_url=found[0], timeout=60)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()
        self.client.close()


def picture(frame_id: str) -> bytes:
    """A frame's file, by its sender and number."""
    sender, number = map(int, frame_id.split("-"))
    return image((190 + number % 60, 20 + sender * 20, 20 + number % 50))


def send(service: Service, exam: str, sender: int, answered: dict[str, Any]) -> None:
    """Send frames, each with its own picture, until the service is gone."""
    number = len(answered)
    while True:
        frame_id = f"{sender}-{number}"
        told = {"frames": [{"frame_id": frame_id}]}
        try:
            answer = service.client.post(
                f"/v1/exams/{exam}/frames", **as_form([picture(frame_id)], told)
            )
        except httpx.TransportError:
            return
        assert answer.status_code == 200, answer.text
        answered[frame_id] = answer.json()["frames"][0]
        number += 1


def test_nothing_that_was_answered_is_lost(bundle: Path, store: str, tmp_path: Path) -> None:
    log = tmp_path / "audit.jsonl"
    settings = {"bundle": bundle, "exam_store": store, "audit_log": log}
    rng = random.Random(20261129)
    answered: list[dict[str, Any]] = [{} for _ in range(SENDERS)]
    exam = "killed"
    for _ in range(KILLS):
        service = Service(**settings)
        assert service.client.post("/v1/exams", json={"exam_id": exam}).status_code in (200, 201)
        before = sum(map(len, answered))
        threads = [
            threading.Thread(target=send, args=(service, exam, place, told))
            for place, told in enumerate(answered)
        ]
        for thread in threads:
            thread.start()
        while sum(map(len, answered)) == before:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.3))
        service.kill()
        for thread in threads:
            thread.join()
    service = Service(**settings)
    result = service.client.get(f"/v1/exams/{exam}").json()
    check(result, answered)
    # The close is killed as well: either it was answered, or it can be done again.
    final = service.client.post(f"/v1/exams/{exam}/close").json()
    service.kill()
    service = Service(**settings)
    again = service.client.post(f"/v1/exams/{exam}/close").json()
    service.kill()
    assert again | {"request_id": ""} == final | {"request_id": ""}
    check(final, answered)
    told = {entry["file"] for entry in read_log(log) if entry["event"] == "frame"}
    frames = final["results"][0]["patient"]["frames"]
    assert {hashlib.sha256(picture(one["frame_id"])).hexdigest() for one in frames} <= told


def check(result: dict[str, Any], answered: list[dict[str, Any]]) -> None:
    promised = {name: told for each in answered for name, told in each.items()}
    assert len(promised) >= KILLS
    for task in result["results"]:
        kept = {frame["frame_id"]: frame for frame in task["patient"]["frames"]}
        assert promised.keys() <= kept.keys()
        for name, told in promised.items():
            probability = told["results"][task["task"]]["probability"]
            assert kept[name]["probability"] == pytest.approx(probability, abs=1e-6)
    # Beyond what was answered there is at most what each sender had on its way when it was killed.
    assert result["revision"] <= len(promised) + SENDERS * KILLS
