"""Exams over HTTP: what is sent in whatever order and however often comes to one result."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.exams.answers import ExamAnswer, ExamFramesAnswer
from tests.service.conftest import (
    BLACK,
    ROOT,
    Running,
    Serve,
    as_form,
    b64,
    edited,
    image,
    problem_of,
    refused,
)
from tests.service.postgres import missing, postgres
from tests.tiny_bundle import PINK, RED
from tests.waiting import wait_until

FRAMES = {
    "0": (image(RED), "2025-03-01T09:30:00Z"),
    "1": (image(PINK), "2025-03-01T09:30:01Z"),
    "2": (image(BLACK), "2025-03-01T09:30:02Z"),
    "3": (image(PINK, (90, 80)), "2025-03-01T09:30:09Z"),
    "4": (image((215, 40, 40)), None),
}


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("exams")
    devices = folder / "devices.json"
    devices.write_text(json.dumps({"left-half": [0.0, 0.0, 0.5, 1.0]}))
    with serve(exam_store=str(folder / "exams.sqlite3"), devices=devices) as running:
        yield running


@pytest.fixture
def http(up: Running) -> httpx.Client:
    return up.client


def opened(http: httpx.Client, **body: Any) -> str:
    answer = http.post("/v1/exams", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["exam_id"])


def send(http: httpx.Client, exam: str, *ids: str) -> httpx.Response:
    told = [
        {"frame_id": one} | ({"captured_at": FRAMES[one][1]} if FRAMES[one][1] else {})
        for one in ids
    ]
    form = as_form([FRAMES[one][0] for one in ids], {"frames": told})
    return http.post(f"/v1/exams/{exam}/frames", **form)


def figures(result: dict[str, Any]) -> Any:
    """What an exam comes to, without ids and times of its own."""
    own = {"request_id", "exam_id", "created_at", "changed_at", "expires_at"}
    return {key: value for key, value in result.items() if key not in own}


def close(http: httpx.Client, exam: str) -> dict[str, Any]:
    answer = http.post(f"/v1/exams/{exam}/close")
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_an_exam_from_opening_to_deletion(http: httpx.Client) -> None:
    answer = http.post("/v1/exams", json={"patient_id": "p-1", "operating_point": "balanced"})
    exam = answer.json()["exam_id"]
    where = answer.url.join(answer.headers["location"])
    assert http.get(where).json()["exam_id"] == exam
    assert answer.json()["results"][0]["patient"]["status"] == "empty"

    sent = send(http, exam, "0", "2").json()
    assert sent["revision"] == 2
    assert [frame["status"] for frame in sent["frames"]] == ["scored", "abstained"]
    assert set(sent["frames"][0]["results"]) == {"polyp_detection", "malignancy"}

    ExamFramesAnswer.model_validate(sent)

    so_far = http.get(f"/v1/exams/{exam}").json()
    ExamAnswer.model_validate(so_far)
    assert (so_far["final"], so_far["state"], so_far["revision"]) == (False, "open", 2)
    patient = so_far["results"][0]["patient"]
    assert patient["patient_id"] == "p-1"
    alone = sent["frames"][0]["results"]["polyp_detection"]["probability"]
    assert patient["probability"] == alone  # one scored frame: the patient is that frame

    final = close(http, exam)
    assert (final["final"], final["state"]) == (True, "closed")
    assert http.get(f"/v1/exams/{exam}").json() | {"request_id": ""} == final | {"request_id": ""}
    assert http.delete(f"/v1/exams/{exam}").status_code == 204
    problem_of(http.get(f"/v1/exams/{exam}"), 404, "not_found")
    problem_of(http.delete(f"/v1/exams/{exam}"), 404, "not_found")


def test_a_result_is_that_of_one_request_with_all_frames(http: httpx.Client) -> None:
    exam = opened(http, tasks=["malignancy"])
    for one in FRAMES:
        send(http, exam, one)
    result = close(http, exam)["results"][0]
    whole = http.post("/v1/malignancy", **as_form([data for data, _ in FRAMES.values()])).json()
    patient = whole["patients"][0]
    assert result["patient"]["probability"] == pytest.approx(patient["probability"], abs=1e-6)
    assert result["patient"]["decision"] == patient["decision"]
    assert result["operating_point"] == whole["operating_point"]
    for mine, other in zip(result["patient"]["frames"], patient["frames"], strict=True):
        assert mine["status"] == other["status"]
        for key in ("probability", "attention"):
            assert mine.get(key) == pytest.approx(other.get(key), abs=1e-6)


def test_order_and_repetition_change_nothing(http: httpx.Client) -> None:
    one = opened(http)
    for frame in FRAMES:
        send(http, one, frame)
    other = opened(http)
    send(http, other, "4", "1")
    send(http, other, "1", "3", "2")
    again = send(http, other, "4", "0", "1").json()
    assert [frame["duplicate"] for frame in again["frames"]] == [True, False, True]
    # The same file under another id counts once as well.
    data = FRAMES["1"][0]
    late = as_form([data], {"frames": [{"frame_id": "x", "captured_at": "2025-03-01T10:00:00Z"}]})
    http.post(f"/v1/exams/{other}/frames", **late)
    first, second = close(http, one), close(http, other)
    assert second["revision"] == first["revision"] + 1
    for mine, its in zip(first["results"], second["results"], strict=True):
        (extra,) = [frame for frame in its["patient"]["frames"] if frame["frame_id"] == "x"]
        assert extra["duplicate_of"] == "1"
        its["patient"]["frames"].remove(extra)
        probability = its["patient"].pop("probability")
        assert probability == pytest.approx(mine["patient"].pop("probability"), abs=1e-6)
        ids = [[frame["frame_id"] for frame in r["patient"]["frames"]] for r in (mine, its)]
        assert ids[0] == ids[1] == ["0", "1", "2", "3", "4"]


def test_a_frame_without_an_id_is_known_by_its_content(http: httpx.Client, red: bytes) -> None:
    exam = opened(http)
    headers = {"Content-Type": "image/png"}
    path = f"/v1/exams/{exam}/frames"
    first = http.post(path, content=red, headers=headers).json()
    again = http.post(path, content=red, headers=headers).json()
    assert (first["revision"], again["revision"]) == (1, 1)
    assert again["frames"][0]["duplicate"]
    assert first["frames"][0]["frame_id"] == again["frames"][0]["frame_id"]
    query = {"captured_at": "2025-03-01T09:30:00.5+01:00"}
    later = http.post(path, content=red, headers=headers, params=query).json()
    assert later["revision"] == 2
    assert later["frames"][0]["captured_at"] == "2025-03-01T08:30:00.500Z"


def test_json_form_and_heatmaps(http: httpx.Client, red: bytes) -> None:
    exam = opened(http)
    body = {"frames": [{"frame_id": "a", "image": b64(red)}], "explain": True}
    answer = http.post(f"/v1/exams/{exam}/frames", json=body)
    assert answer.status_code == 200, answer.text
    result = answer.json()["frames"][0]["results"]["malignancy"]
    assert len(result["heatmap"]["values"]) == result["heatmap"]["rows"] * result["heatmap"]["cols"]


def test_another_frame_under_an_id_is_a_conflict_and_nothing_is_kept(http: httpx.Client) -> None:
    exam = opened(http)
    send(http, exam, "0")
    form = as_form([image(BLACK), FRAMES["1"][0]], {"frames": [{"frame_id": "0"}, {}]})
    document = problem_of(http.post(f"/v1/exams/{exam}/frames", **form), 409, "conflict")
    assert document["pointer"] == "/frames/0/frame_id"
    assert http.get(f"/v1/exams/{exam}").json()["revision"] == 1


def test_a_rejected_frame_is_not_kept_and_may_come_again(http: httpx.Client, red: bytes) -> None:
    exam = opened(http)
    path, told = f"/v1/exams/{exam}/frames", {"frames": [{"frame_id": "a"}, {"frame_id": "b"}]}
    answer = http.post(path, **as_form([red[: len(red) // 2], red], told)).json()
    assert [frame["status"] for frame in answer["frames"]] == ["rejected", "scored"]
    assert answer["revision"] == 1
    mended = http.post(path, **as_form([image(PINK)], {"frames": [{"frame_id": "a"}]})).json()
    assert mended["revision"] == 2
    problem = problem_of(http.post(path, **as_form([b"junk"])), 422, "all_frames_rejected")
    assert problem["patients"][0]["frames"][0]["error"]["code"] == "unsupported_format"


def test_a_closed_exam_takes_only_what_it_has(http: httpx.Client) -> None:
    exam = opened(http)
    send(http, exam, "0")
    final = close(http, exam)
    assert close(http, exam) | {"request_id": ""} == final | {"request_id": ""}
    assert send(http, exam, "0").json()["frames"][0]["duplicate"]
    problem_of(send(http, exam, "1"), 409, "exam_closed")
    assert http.get(f"/v1/exams/{exam}").json()["revision"] == 1


def test_opening_again_finds_the_exam_or_a_conflict(http: httpx.Client) -> None:
    body = {"exam_id": "room-1", "device": "left-half", "tasks": ["malignancy"]}
    assert http.post("/v1/exams", json=body).status_code == 201
    assert http.post("/v1/exams", json=body).status_code == 200
    problem_of(http.post("/v1/exams", json={"exam_id": "room-1"}), 409, "conflict")


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({"device": "none"}, "unknown_device", "/device"),
        ({"operating_point": "none"}, "unknown_operating_point", "/operating_point"),
        ({"tasks": []}, "invalid_request", "/tasks"),
        ({"tasks": ["malignancy", "malignancy"]}, "invalid_request", "/tasks"),
        ({"tasks": ["zero_shot"]}, "invalid_request", "/tasks/0"),
        ({"exam_id": "../x"}, "invalid_request", "/exam_id"),
        ({"exam_id": ".."}, "invalid_request", "/exam_id"),
        ({"frames": []}, "invalid_request", "/frames"),
    ],
)
def test_bad_options_are_refused(
    http: httpx.Client, body: dict[str, Any], code: str, pointer: str
) -> None:
    assert problem_of(http.post("/v1/exams", json=body), 422, code)["pointer"] == pointer


def test_no_body_is_all_defaults_and_other_bodies_are_refused(http: httpx.Client) -> None:
    assert http.post("/v1/exams").status_code == 201
    headers = {"Content-Type": "text/plain"}
    refused = http.post("/v1/exams", content=b"{}", headers=headers)
    problem_of(refused, 415, "unsupported_media_type")
    large = {"Content-Type": "application/json"}
    problem_of(
        http.post("/v1/exams", content=b" " * 20_000, headers=large), 413, "payload_too_large"
    )


def test_what_is_not_there_is_not_found(http: httpx.Client, red: bytes) -> None:
    form = as_form([red])
    for answer in (
        http.get("/v1/exams/none"),
        http.post("/v1/exams/none/frames", **form),
        http.post("/v1/exams/none/close"),
        http.delete("/v1/exams/none"),
    ):
        problem_of(answer, 404, "not_found")


def test_segments_are_of_the_frames_that_have_a_time(http: httpx.Client) -> None:
    exam = opened(http, tasks=["polyp_detection"])
    send(http, exam, *FRAMES)
    (result,) = close(http, exam)["results"]
    assert sum(segment["frames"] for segment in result["segments"]) == 3  # 2 is dark, 4 has no time
    assert {segment["label"] for segment in result["segments"]} <= {"polyp", "no_polyp"}
    assert result["segments"][-1]["begin"] == "2025-03-01T09:30:09.000Z"


def test_limits_of_an_exam(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "e.db"), max_exam_frames=2, max_exams=1) as up:
        exam = opened(up.client)
        overloaded = problem_of(up.client.post("/v1/exams"), 503, "overloaded")
        assert overloaded
        problem_of(send(up.client, exam, "0", "1", "3"), 413, "payload_too_large")
        assert up.client.get(f"/v1/exams/{exam}").json()["revision"] == 0
        send(up.client, exam, "0", "1")
        problem_of(send(up.client, exam, "3"), 413, "payload_too_large")
        assert send(up.client, exam, "0").status_code == 200


def test_an_exam_survives_a_restart_and_is_its_bundle_s(
    serve: Serve, bundle: Path, tmp_path: Path
) -> None:
    store = str(tmp_path / "exams.sqlite3")
    with serve(exam_store=store) as up:
        exam, done = opened(up.client), opened(up.client)
        send(up.client, exam, *FRAMES)
        before = up.client.get(f"/v1/exams/{exam}").json()
        final = close(up.client, done)
    with serve(exam_store=store) as up:
        after = up.client.get(f"/v1/exams/{exam}").json()
        assert figures(after) == figures(before)

    def other_card(document: dict[str, Any]) -> None:
        document["malignancy"]["operating_points"]["balanced"]["frame_threshold"] = 0.6
        document["malignancy"]["operating_points"]["balanced"]["frame_abstain"] = None

    another = edited(bundle, tmp_path / "another", "calibration.json", other_card)
    with serve(exam_store=store, bundle=another) as up:
        for answer in (
            up.client.get(f"/v1/exams/{exam}"),
            send(up.client, exam, "0"),
            up.client.post(f"/v1/exams/{exam}/close"),
        ):
            assert "bundle" in problem_of(answer, 409, "conflict")["detail"]
        assert figures(up.client.get(f"/v1/exams/{done}").json()) == figures(final)
        assert up.client.delete(f"/v1/exams/{exam}").status_code == 204


def test_what_is_over_goes_though_nobody_asks_for_exams(serve: Serve, tmp_path: Path) -> None:
    store = tmp_path / "exams.sqlite3"
    with serve(exam_store=str(store)) as up:
        send(up.client, opened(up.client), "0")
    with closing(sqlite3.connect(store)) as database:
        database.execute("UPDATE exams SET changed_us = 0")
        database.commit()
        with serve(exam_store=str(store)):
            counted = "SELECT COUNT(*) FROM exam_frames"
            wait_until(lambda: database.execute(counted).fetchone() == (0,))
        assert database.execute("SELECT COUNT(*) FROM exams").fetchone() == (0,)


def test_a_store_that_cannot_be_opened_is_a_refused_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "ENDOCLIP_EXAM_STORE" in refused(exam_store=tmp_path / "file" / "exams.db")
    assert "ENDOCLIP_EXAM_STORE" in refused(exam_store=ROOT / "README.md")


@pytest.mark.skipif(bool(missing()), reason=missing() or "-")
def test_an_id_that_no_text_of_postgresql_holds_is_no_exam_s(serve: Serve) -> None:
    with postgres() as url, serve(exam_store=url) as up:
        path = "/v1/exams/a%00b"
        for answer in (
            up.client.get(path),
            up.client.post(f"{path}/frames", **as_form([FRAMES["0"][0]])),
            up.client.post(f"{path}/close"),
            up.client.delete(path),
        ):
            problem_of(answer, 404, "not_found")


def test_an_account_whose_home_cannot_be_looked_into_has_no_exams_and_all_else(
    serve: Serve, red: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another account's home gives an error as this does, but not to root.
    monkeypatch.setenv("XDG_STATE_HOME", "/" + "x" * 300)
    with serve() as up:
        assert up.client.post("/v1/malignancy", **as_form([red])).status_code == 200
        answer = up.client.post("/v1/exams")
        assert problem_of(answer, 503, "not_ready")["reason"] == "exam_store"


def test_a_store_that_goes_away_is_503_and_touches_nothing_else(
    serve: Serve, tmp_path: Path, red: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(exam_store=str(tmp_path / "e.db")) as up:
        exam = opened(up.client)
        with closing(sqlite3.connect(tmp_path / "e.db")) as database:
            database.execute("DROP TABLE exam_frames")
        document = problem_of(send(up.client, exam, "0"), 503, "not_ready")
        assert document["reason"] == "exam_store"
        # The caller hears no more, the operator does.
        assert "exam_store state=unavailable reason=SQLITE_ERROR" in caplog.messages
        assert up.client.post("/v1/malignancy", **as_form([red])).status_code == 200
        assert up.client.get("/readyz").status_code == 200
