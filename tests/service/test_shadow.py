"""A shadow bundle says how it would have decided, and nobody waits for it."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from model_store.bundle import Bundle
from model_store.profile import write_profile
from model_store.quality import QualityLimits
from service import shadow as shadow_module
from tests.dicom_files import VIDEO_ENDOSCOPIC, jpegs
from tests.service.conftest import BETWEEN, BLACK, Running, Serve, as_form, edited, image
from tests.service.test_operations import figures
from tests.service.test_swap import ADMIN, asked
from tests.tiny_bundle import PINK, RED, build_tiny_bundle
from tests.tiny_profile import tiny_profile
from tests.waiting import wait_until

PNG = {"Content-Type": "image/png"}
TASK = "polyp_detection"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The served bundle, one that sees other colours, one that needs more to be sure."""
    root = tmp_path_factory.mktemp("bundles")
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    one = build_tiny_bundle(root / "one", quality_gate=gate)
    build_tiny_bundle(root / "two", quality_gate=gate, version="2.0.0", mean_shift=0.05)

    def strict(calibration: Any) -> None:
        for task in calibration.values():
            for point in task["operating_points"].values():
                point |= {"frame_threshold": 1.0, "patient_threshold": 1.0}
                point |= {"frame_abstain": None, "patient_abstain": None}

    edited(one, root / "strict", "calibration.json", strict)
    return root


@pytest.fixture
def up(serve: Serve, root: Path) -> Iterator[Running]:
    with serve(bundle=root / "one", bundles=root, health_interval_s=3600) as up:
        yield up


def shadowed(up: Running, folder: str) -> None:
    answer = asked(up, "shadow", bundle=folder)
    assert answer.status_code == 200, answer.text
    assert answer.json()["shadow"]["folder"] == folder


def send(up: Running, task: str = "polyp-detection") -> None:
    """Two patients: 4 frames of which one is set aside and one is none; one frame."""
    frames = as_form([image(RED), image(PINK), image(BETWEEN), image(BLACK), b"none"])
    assert up.client.post(f"/v1/{task}", **frames).status_code == 200
    alone = up.client.post(f"/v1/{task}", content=image(BETWEEN), headers=PNG)
    assert alone.status_code == 200


def compared(up: Running, task: str, answers: int) -> dict[str, float]:
    """Wait until so many answers are compared; gives the task's figures."""

    def found() -> dict[str, float]:
        return {
            "_".join(key[0].split("_")[2:]) + "/" + "/".join(k for k in key[1:] if k != task): value
            for key, value in figures(up.client).items()
            if key[0].startswith("endoclip_shadow") and task in key
        }

    wait_until(lambda: found()["answers_total/compared"] == answers)
    return found()


@pytest.mark.parametrize("task", ["polyp-detection", "malignancy"])
def test_bundle_agrees_with_itself_entirely(up: Running, task: str) -> None:
    shadowed(up, "one")
    for _ in range(3):
        send(up, task)
    found = compared(up, task.replace("-", "_"), 6)
    assert found["decisions_total/same/patient"] == 6
    assert found["decisions_total/same/frame"] == 15  # what was no picture is not compared
    assert found["decisions_total/other/patient"] == found["decisions_total/other/frame"] == 0
    # Those that were scored, in one bin: no difference but that of a batch's rounding.
    assert found["score_difference_count/frame"] == 12
    assert found["score_difference_bucket/0.001/frame"] == 12
    told = up.client.get(ADMIN).json()["shadow"]["agreement"][task.replace("-", "_")]
    assert told["patients"] == {"same": 6, "other": 0}
    assert told["compared"] == 6


def test_bundle_that_decides_otherwise_is_found_out(up: Running) -> None:
    shadowed(up, "strict")
    send(up)
    found = compared(up, TASK, 2)
    assert found["decisions_total/other/frame"] > 0
    assert found["decisions_total/same/frame"] > 0  # negative is negative
    assert found["decisions_total/other/patient"] > 0
    assert found["score_difference_bucket/0.001/frame"] == found["score_difference_count/frame"]
    shadowed(up, "two")
    assert compared(up, TASK, 0)["decisions_total/other/frame"] == 0  # begins anew
    send(up)
    found = compared(up, TASK, 2)
    assert found["score_difference_bucket/0.001/frame"] < found["score_difference_count/frame"]
    names = [key for key in figures(up.client) if key[0] == "endoclip_shadow_info"]
    assert [key[-1] for key in names] == ["2.0.0"]
    assert figures(up.client)[names[0]] == 1


def test_shadow_ends_when_told_and_when_it_becomes_the_one_that_is_served(up: Running) -> None:
    shadowed(up, "two")
    send(up)
    compared(up, TASK, 2)
    thread = up.app.state.models._shadow._thread
    assert up.client.delete(f"{ADMIN}/shadow").json()["shadow"] is None
    assert not thread.is_alive()
    assert up.client.delete(f"{ADMIN}/shadow").status_code == 200
    shadowed(up, "two")
    assert asked(up, "load", bundle="two").json()["shadow"] is None
    assert figures(up.client)[("endoclip_shadow_info", "", "", "")] == 0
    send(up)


def test_other_tasks_and_refused_requests_are_not_compared(up: Running) -> None:
    shadowed(up, "one")
    labels = {"labels": "colour", "patients": [{"frames": [{"image": "AAAA"}]}]}
    assert up.client.post("/v1/zero-shot", json=labels).status_code == 422
    assert up.client.post("/v1/malignancy", content=b"none", headers=PNG).status_code == 422
    form = as_form([image()], {"labels": "colour"})
    assert up.client.post("/v1/zero-shot", **form).status_code == 200
    send(up)
    compared(up, TASK, 2)
    assert compared(up, "malignancy", 0)["answers_total/failed"] == 0
    assert list(up.client.get(ADMIN).json()["shadow"]["agreement"]) == [TASK]


def test_while_requests_have_work_the_shadow_waits_and_what_does_not_fit_is_dropped(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_module, "_MAX_FRAMES", 12)
    shadowed(up, "one")
    shadow = up.app.state.models._shadow
    held = threading.Event()
    busy, shadow._busy = shadow._busy, lambda: not held.is_set()  # as under load without end
    for _ in range(4):
        send(up)  # 6 frames in two answers
    found = compared(up, TASK, 0)
    assert found["answers_total/dropped"] >= 2
    assert figures(up.client)[("endoclip_shadow_pending_frames",)] <= 12
    held.set()
    shadow._busy = busy
    compared(up, TASK, int(8 - found["answers_total/dropped"]))
    wait_until(lambda: figures(up.client)[("endoclip_shadow_pending_frames",)] == 0)


def test_shadow_sees_that_requests_have_work(up: Running) -> None:
    shadowed(up, "one")
    held = threading.Event()
    engine = up.app.state.engine
    for _ in range(up.app.state.settings.decode_threads):
        engine._pool.submit(held.wait)
    waiting = threading.Thread(target=send, args=(up,))
    waiting.start()
    try:
        wait_until(lambda: figures(up.client)[("endoclip_pending_frames",)] > 0)
        assert up.app.state.models._shadow._busy()
    finally:
        held.set()
        waiting.join()
    wait_until(lambda: not up.app.state.models._shadow._busy())


def test_shadow_that_fails_hurts_nobody_and_its_words_stay_inside(
    up: Running, caplog: pytest.LogCaptureFixture
) -> None:
    shadowed(up, "two")
    shadow = up.app.state.models._shadow
    right, shadow._encoder = shadow._encoder, None  # whatever it is
    send(up)
    wait_until(lambda: figures(up.client)[("endoclip_shadow_answers_total", "failed", TASK)] == 2)
    assert up.client.get("/readyz").status_code == 200
    assert "NoneType" not in caplog.text
    shadow._encoder = right
    send(up)
    compared(up, TASK, 2)


def test_shadow_of_the_served_bundle_uses_the_site_profile_and_of_another_its_own_map(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    path = tmp_path / "site-profile.json"
    path.write_bytes(write_profile(tiny_profile(Bundle.open(root / "one"))))
    with serve(bundle=root / "one", bundles=root, site_profile=path) as up:
        shadowed(up, "one")
        send(up)
        assert compared(up, TASK, 2)["decisions_total/other/frame"] == 0
        shadowed(up, "two")
        send(up)
        assert json.dumps(compared(up, TASK, 2))


def test_frames_of_one_file_are_scored_each_and_its_bytes_counted_once(
    up: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = jpegs(RED, PINK, BLACK, SOPClassUID=VIDEO_ENDOSCOPIC)
    monkeypatch.setattr(shadow_module, "_MAX_BYTES", 2 * len(film))
    shadowed(up, "one")
    assert up.client.post("/v1/polyp-detection", **as_form([film])).status_code == 200
    found = compared(up, TASK, 1)
    assert found["decisions_total/same/frame"] == 3
    assert found["answers_total/dropped"] == 0
