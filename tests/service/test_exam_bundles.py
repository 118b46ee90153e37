"""Exams whose bundle was exchanged: no more frames, and a result that is still that bundle's."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from model_store.bundle import Bundle
from model_store.profile import write_profile
from model_store.quality import QualityLimits
from service.audit import read_log
from service.exams.answers import ExamAnswer
from tests.service.conftest import BETWEEN, BLACK, Running, Serve, as_form, image, problem_of
from tests.service.test_live import refused as unstreamed
from tests.tiny_bundle import PINK, RED, build_tiny_bundle
from tests.tiny_profile import tiny_profile

FRAMES = [image(RED), image(BETWEEN), image(PINK), image(BLACK)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    gate = QualityLimits.open_gate().as_dict() | {"min_lit_share": 0.2}
    build_tiny_bundle(root / "one", quality_gate=gate)
    build_tiny_bundle(root / "two", quality_gate=gate, version="2.0.0", mean_shift=0.05)
    return root


def digest(path: Path) -> str:
    return Bundle.open(path, verify=False).digest


def figures(result: dict[str, Any]) -> Any:
    return [result[key] for key in ("model", "revision", "frames_total", "results")]


def begun(up: Running, exam: str) -> dict[str, Any]:
    """Open an exam with frames; gives its result so far."""
    assert up.client.post("/v1/exams", json={"exam_id": exam}).status_code == 201
    told = {"frames": [{"frame_id": str(number)} for number in range(len(FRAMES))]}
    answer = up.client.post(f"/v1/exams/{exam}/frames", **as_form(FRAMES, told))
    assert answer.status_code == 200, answer.text
    return dict(up.client.get(f"/v1/exams/{exam}").json())


def load(up: Running, folder: str) -> None:
    answer = up.client.post("/v1/admin/models/load", json={"bundle": folder})
    assert answer.status_code == 200, answer.text


def test_result_so_far_stays_readable_and_is_made_final_by_its_own_bundle(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    log = tmp_path / "audit.jsonl"
    store = str(tmp_path / "e.db")
    with serve(bundle=root / "one", bundles=root, exam_store=store, audit_log=log) as up:
        before = begun(up, "e")
        assert before["takes_frames"] is True
        load(up, "two")
        other = begun(up, "other")  # of the same frames, by the other bundle
        assert figures(other) != figures(before)
        so_far = up.client.get("/v1/exams/e").json()
        ExamAnswer.model_validate(so_far)
        assert figures(so_far) == figures(before)
        assert (so_far["state"], so_far["takes_frames"]) == ("open", False)
        assert so_far["model"] == before["model"]
        final = up.client.post("/v1/exams/e/close").json()
        assert (final["final"], final["takes_frames"]) == (True, False)
        assert final["model"]["digest"] == digest(root / "one")
        assert figures(final) == figures(before)
        fhir = up.client.get("/v1/exams/e/report", headers={"Accept": "application/fhir+json"})
        assert digest(root / "one") in fhir.text
    closed = [entry for entry in read_log(log) if entry["event"] == "closed"]
    assert [entry["bundle"] for entry in closed] == [digest(root / "one")]
    with serve(bundle=root / "two", exam_store=store) as up:  # wherever its bundle is by now
        assert figures(up.client.get("/v1/exams/e").json()) == figures(final)


def test_frames_are_refused_with_what_to_do_until_its_bundle_is_served_again(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    with serve(bundle=root / "one", bundles=root, exam_store=str(tmp_path / "e.db")) as up:
        begun(up, "e")
        load(up, "two")
        refused = up.client.post("/v1/exams/e/frames", **as_form([image(RED)]))
        detail = problem_of(refused, 409, "conflict")["detail"]
        assert digest(root / "one") in detail
        assert digest(root / "two") in detail
        assert "read its result so far, close it" in detail
        again = up.client.post("/v1/exams", json={"exam_id": "e"})
        assert "another bundle" in problem_of(again, 409, "conflict")["errors"][0]["detail"]
        unstreamed(up, "e", 409, "conflict")
        load(up, "one")
        assert up.client.get("/v1/exams/e").json()["takes_frames"] is True
        again = up.client.post("/v1/exams/e/frames", **as_form([image((210, 20, 20))]))
        assert again.json()["revision"] == len(FRAMES) + 1


def test_bundle_that_is_gone_or_damaged_is_said_and_may_be_put_back(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    store, bundles = str(tmp_path / "e.db"), tmp_path / "bundles"
    with serve(bundle=root / "one", exam_store=store) as up:
        before = begun(up, "e")
    bundles.mkdir()
    with serve(bundle=root / "two", bundles=bundles, exam_store=store) as up:

        def refused() -> None:
            for answer in (up.client.get("/v1/exams/e"), up.client.post("/v1/exams/e/close")):
                detail = problem_of(answer, 409, "conflict")["detail"]
                assert f"bundle {digest(root / 'one')}, which is neither served" in detail
                assert "Put it back there to read or close the exam, or delete it" in detail

        refused()
        back = shutil.copytree(root / "one", bundles / "back")
        whole = (back / "unify.onnx").read_bytes()
        (back / "unify.onnx").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        refused()
        assert up.client.get("/v1/exams/e").json()["code"] == "conflict"
        (back / "unify.onnx").write_bytes(whole)
        assert figures(up.client.get("/v1/exams/e").json()) == figures(before)
        assert up.client.post("/v1/exams/e/close").json()["state"] == "closed"


def test_exam_under_a_site_profile_that_is_not_in_force_is_said(
    serve: Serve, root: Path, tmp_path: Path
) -> None:
    profile, store = tmp_path / "site-profile.json", str(tmp_path / "e.db")
    profile.write_bytes(write_profile(tiny_profile(Bundle.open(root / "one"))))
    with serve(bundle=root / "one", site_profile=profile, exam_store=store) as up:
        before = begun(up, "e")
    with serve(bundle=root / "one", exam_store=store) as up:
        for answer in (up.client.get("/v1/exams/e"), up.client.post("/v1/exams/e/close")):
            assert "site profile" in problem_of(answer, 409, "conflict")["detail"]
        sent = up.client.post("/v1/exams/e/frames", **as_form([image(RED)]))
        assert "with that profile to go on" in problem_of(sent, 409, "conflict")["detail"]
    with serve(bundle=root / "one", site_profile=profile, exam_store=store) as up:
        assert figures(up.client.get("/v1/exams/e").json()) == figures(before)
