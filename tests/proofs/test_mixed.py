"""Answers do not depend on what else is under way: each is what its frames score alone.

`bench.mixed` draws the requests; `make soak` sends 10,000 of them, of larger frames.
"""

import asyncio
import json
from itertools import combinations
from typing import Any

import httpx
import numpy as np
import pytest

from bench.mixed import Mix, Mixed, Tally, faults, mixed_service, send_all
from bench.pool import large_frames, small_frames
from bench.reference import TOLERANCE, Reference, differences

FRAMES = [*small_frames(24), *large_frames(1)]


@pytest.fixture(scope="module")
def mix(reference: Reference) -> Mix:
    return Mix(reference, FRAMES, seed=7, long=0.007)


def test_500_mixed_requests_at_once_are_answered_as_their_frames_alone(mix: Mix) -> None:
    tally = Tally()
    with mixed_service(max_queue_s=3600, max_pending_frames=100_000) as up:
        asyncio.run(send_all(up.url, mix.request, iter(range(500)), 16, tally))
        assert httpx.get(f"{up.url}/readyz").status_code == 200
        assert up.failures() == []
    assert tally.wrong == []
    assert (tally.requests, tally.frames > 700) == (500, True), str(tally)
    assert tally.statuses[200] > 350
    assert {400, 415, 422} < set(tally.statuses)


def test_requests_are_of_all_tasks_and_forms_and_the_same_each_time(mix: Mix) -> None:
    drawn = [mix.request(number) for number in range(200)]
    kinds = {one.headers.get("Content-Type", "").partition(";")[0] for one in drawn}
    assert {"multipart/form-data", "application/json", "image/jpeg"} <= kinds
    tasks = {one.path.partition("?")[0] for one in drawn}
    names = ("polyp-detection", "malignancy", "zero-shot", "embeddings")
    assert tasks >= {f"/v1/{name}" for name in names}
    assert any(one.in_pieces for one in drawn)
    assert any(one.leaves for one in drawn)
    assert any(one.hurried for one in drawn)
    assert max(one.frames for one in drawn) > 16
    assert mix.request(3).body == drawn[3].body


def test_frames_differ_by_far_more_than_the_tolerance(reference: Reference) -> None:
    rows = [reference.alone(frame.data).embedding for frame in FRAMES]
    assert all(row is not None for row in rows)
    assert min(np.abs(a - b).max() for a, b in combinations(rows, 2)) > 30 * TOLERANCE


def answer_to(request: Mixed, document: Any, request_id: str | None = None) -> httpx.Response:
    headers = {"X-Request-ID": request_id or request.headers["X-Request-ID"]}
    return httpx.Response(200, content=json.dumps(document, default=_plain), headers=headers)


def _plain(value: Any) -> Any:
    if isinstance(value, set):
        return min(value)
    return value.tolist() if isinstance(value, np.ndarray) else float(value)


def test_answer_that_is_mixed_up_is_found_out(mix: Mix) -> None:
    drawn = (mix.request(number) for number in range(1000))
    request = next(
        one
        for one in drawn
        if one.path == "/v1/malignancy"
        and one.status == 200
        and one.expected.get("patients")
        and len(one.expected["patients"][0]["frames"]) > 2
        and b"explain" not in one.body
        and [f["status"] for f in one.expected["patients"][0]["frames"][:2]] == ["scored"] * 2
    )
    document = json.loads(json.dumps(request.expected, default=_plain))
    assert faults(request, answer_to(request, document)) == []
    assert faults(request, answer_to(request, document, "other")) == ["another request's id"]
    frames = document["patients"][0]["frames"]
    for name in ("cosine", "probability"):
        frames[0][name], frames[1][name] = frames[1][name], frames[0][name]
    found = faults(request, answer_to(request, document))
    assert any("/frames/0/cosine" in line for line in found), found


@pytest.mark.parametrize("found", [0.1 + 2 * TOLERANCE, float("nan"), None, "0.1", [0.1, 0.1]])
def test_number_that_is_off_is_found_out(found: Any) -> None:
    assert differences({"a": np.float32(0.1)}, {"a": 0.1}) == []
    assert differences({"a": np.float32(0.1)}, {"a": found}) != []
