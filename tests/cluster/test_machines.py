"""What a cluster must do beyond the single process: change while it is asked, lose a machine."""

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.cluster import Clustered
from bench.mixed import Mix, Tally, send_all
from bench.pool import large_frames, small_frames
from bench.reference import Reference
from service.settings import newest_bundle
from tests.clients.test_conformance import check
from tests.cluster.conftest import Answering, digest_of, figures
from tests.service.conftest import as_form, image
from tests.service.postgres import exams_in, missing, postgres

TASK = "/v1/polyp-detection"
FRAMES = [*small_frames(24), *large_frames(1)]


@contextmanager
def repeated(*steps: Callable[[], object]) -> Iterator[None]:
    """Do each step again and again, each in a thread of its own; the first error is raised."""
    done, errors = threading.Event(), []

    def repeat(step: Callable[[], object]) -> None:
        try:
            while not done.is_set():
                step()
        except BaseException as error:
            errors.append(error)
            done.set()

    threads = [threading.Thread(target=repeat, args=(step,)) for step in steps]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join(60)
    for error in errors:
        raise error


def waited(holds: Callable[[], bool], at_most_s: float = 120) -> None:
    """Wait for what a slow machine takes longer for; fails where it never comes."""
    until = time.monotonic() + at_most_s
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.1)


def test_mixed_requests_at_once_are_answered_as_their_frames_alone(
    shipped: Clustered, reference: Reference
) -> None:
    mix = Mix(reference, FRAMES, seed=7, long=0.007)
    tally = Tally()
    asyncio.run(send_all(shipped.url, mix.request, iter(range(150)), 8, tally))
    assert tally.wrong == []
    assert tally.requests == 150
    assert tally.statuses[200] > 100
    assert shipped.failures() == []


def test_kit_finds_the_contract_kept(shipped: Clustered) -> None:
    done = check(shipped.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAIL  " not in done.stdout
    assert done.stdout.count("pass  ") >= 20


def test_every_replica_has_its_figures_scraped(shipped: Clustered) -> None:
    until = time.monotonic() + 120
    while True:
        with httpx.Client(base_url=shipped.url, timeout=60) as client:
            client.post(TASK, **as_form([FRAMES[0].data]))
        lines = figures(shipped)
        replicas = {
            deployment: {
                line.partition('replica="')[2].partition('"')[0]
                for line in lines
                if line.startswith(f"ray_endoclip_{name}{{") and f'"{deployment}"' in line
            }
            for deployment, name in (("ingress", "ready"), ("encoder", "batch_frames_count"))
        }
        if all(len(found) == 2 for found in replicas.values()):
            break
        assert time.monotonic() < until, (replicas, [x for x in lines if "endoclip" in x][:5])
        time.sleep(1)
    assert any(line.startswith("ray_endoclip_requests_total{") for line in lines)


def test_bundle_is_exchanged_under_load_and_no_request_fails(
    server: Answering, cluster: Clustered, bundle: Path
) -> None:
    old, new = digest_of(bundle), digest_of(newest_bundle())
    seen: list[tuple[float, int, str]] = []
    form = as_form([FRAMES[0].data])

    def ask() -> None:
        with httpx.Client(base_url=cluster.url, timeout=60) as client:
            began = time.monotonic()
            answer = client.post(TASK, **form)
            digest = answer.json().get("model", {}).get("digest", "")
            seen.append((began, answer.status_code, digest))

    def asked_since(moment: float) -> list[str]:
        return [digest for began, _, digest in list(seen) if began > moment]

    with repeated(ask, ask, ask):
        waited(lambda: len(seen) > 5)
        cluster.deploy(bundle=new)
        exchanged = time.monotonic()
        waited(lambda: len(asked_since(exchanged)) > 5)
    assert {status for _, status, _ in seen} == {200}
    assert {digest for _, _, digest in seen} == {old, new}
    assert set(asked_since(exchanged)) == {new}


def test_bundle_that_is_not_there_changes_nothing(shipped: Clustered) -> None:
    before = shipped.processes("ingress"), shipped.processes("encoder")
    shipped.deploy(bundle="sha256:" + "0" * 64)
    assert (shipped.processes("ingress"), shipped.processes("encoder")) == before
    with httpx.Client(base_url=shipped.url, timeout=60) as client:
        answer = client.post(TASK, **as_form([FRAMES[0].data])).raise_for_status()
    assert answer.json()["model"]["digest"] == digest_of(newest_bundle())
    shipped.deploy(bundle=digest_of(newest_bundle()))


class Caller:
    """Sends again what was refused or lost, and remembers what was said."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.seen: Counter[object] = Counter()
        self.acknowledged: list[str] = []
        self._number = itertools.count()

    def send(self, path: str, **request: Any) -> dict[str, Any]:
        while True:
            try:
                answer = httpx.post(self.url + path, timeout=60, **request)
            except httpx.TransportError:
                self.seen["lost"] += 1
            else:
                self.seen[answer.status_code] += 1
                if answer.is_success:
                    document: dict[str, Any] = answer.json()
                    return document
                assert answer.status_code == 503, answer.text
                assert int(answer.headers["retry-after"]) >= 1
            time.sleep(0.1)

    def ask(self) -> None:
        self.send(TASK, **as_form([image()]))

    def add_to(self, exam: str) -> None:
        number = next(self._number)
        colour = (200 - number % 50, 90 + number // 50, 80)
        frames = as_form([image(colour)], {"frames": [{"frame_id": str(number)}]})
        self.send(f"/v1/exams/{exam}/frames", **frames)
        self.acknowledged.append(str(number))


@pytest.fixture(params=["sqlite" if missing() else "postgres"])
def store(request: pytest.FixtureRequest, cluster: Clustered, bundle: Path) -> Iterator[None]:
    """Exams where a cluster has them, in PostgreSQL; in a file where there is no server."""
    with ExitStack() as closing:
        url = closing.enter_context(postgres()) if request.param == "postgres" else None
        cluster.deploy(bundle=digest_of(bundle), exam_store=url)
        yield
        assert url is None or exams_in(url) >= 2


@pytest.mark.usefixtures("store")
def test_machine_that_dies_costs_no_acknowledged_frame_and_no_caller_more_than_a_retry(
    cluster: Clustered,
) -> None:
    callers = [Caller(cluster.url) for _ in range(4)]
    exams = [callers[i].send("/v1/exams", json={})["exam_id"] for i in (0, 1)]
    steps = [
        lambda: callers[0].add_to(exams[0]),
        lambda: callers[1].add_to(exams[1]),
        callers[2].ask,
        callers[3].ask,
    ]
    with repeated(*steps):
        waited(lambda: all(caller.seen[200] > 5 for caller in callers))
        cluster.kill_machine()
        time.sleep(8)  # it is noticed, and what was out at it is asked again
        after = [caller.seen[200] for caller in callers]
        waited(lambda: all(one.seen[200] > was for one, was in zip(callers, after, strict=True)))
    assert len(cluster.processes("ingress")) == 1
    for caller in callers:
        assert set(caller.seen) <= {200, 201, 503, "lost"}, caller.seen
    for caller, exam in zip(callers, exams, strict=False):
        result = httpx.get(f"{cluster.url}/v1/exams/{exam}", timeout=60).json()
        kept = {frame["frame_id"] for frame in result["results"][0]["patient"]["frames"]}
        assert kept >= set(caller.acknowledged)
        assert len(caller.acknowledged) > 6
