"""An exam's result in three dialects, of a real server; the structured report read by highdicom."""

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from endo_clip_client import Client, InvalidRequest
from fhir.resources.R4B.bundle import Bundle

from tests.dicom_files import VIDEO_ENDOSCOPIC, WHO, native
from tests.service.conftest import BLACK, PINK, RED, Running, Serve, as_form, image, problem_of
from tests.service.test_dialects import groups_of
from tests.service.test_metrics import scraped

STUDY = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.1"}
FILES = [native(RED, **STUDY), native(PINK, **STUDY), native(BLACK, **STUDY)]


@pytest.fixture(scope="module")
def up(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    store = tmp_path_factory.mktemp("reports") / "exams.sqlite3"
    with serve(exam_store=str(store)) as running:
        yield running


def closed(client: httpx.Client, files: list[bytes], **options: Any) -> tuple[str, Any]:
    exam = client.post("/v1/exams", json=options).json()["exam_id"]
    assert client.post(f"/v1/exams/{exam}/frames", **as_form(files)).status_code == 200
    return exam, client.post(f"/v1/exams/{exam}/close").json()


def report(client: httpx.Client, exam: str, files: list[bytes], task: str) -> httpx.Response:
    return client.post(f"/v1/exams/{exam}/report/{task}", **as_form(files))


@pytest.mark.parametrize("task", ["polyp_detection", "malignancy"])
def test_report_says_what_the_final_result_says(up: Running, task: str) -> None:
    exam, final = closed(up.client, FILES)
    # In another order, with a file that is none of the exam's: known by content alone.
    answer = report(up.client, exam, [*FILES[::-1], native(RED, **STUDY)], task)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/dicom"
    made = pydicom.dcmread(BytesIO(answer.content))
    assert made.StudyInstanceUID == STUDY["StudyInstanceUID"]
    assert str(made.PatientName) == f"{WHO}^Jörg"
    groups = groups_of(made)
    patient = next(one["patient"] for one in final["results"] if one["task"] == task)
    whole = groups["patient"].get_measurements()[0]
    assert whole.value == pytest.approx(patient["probability"], rel=1e-5)
    for frame in patient["frames"]:
        told = groups[f"frame {frame['frame_id']}"]
        if frame["status"] == "scored":
            value = told.get_measurements()[0].value
            assert value == pytest.approx(frame["probability"], rel=1e-5)
        else:
            assert not told.get_measurements()
    again = pydicom.dcmread(BytesIO(report(up.client, exam, FILES, task).content))
    assert again.SOPInstanceUID == made.SOPInstanceUID


def test_report_of_a_multi_frame_file(up: Running) -> None:
    video = native(RED, PINK, SOPClassUID=VIDEO_ENDOSCOPIC, **STUDY)
    exam, final = closed(up.client, [video])
    assert final["frames_total"] == 2
    made = pydicom.dcmread(BytesIO(report(up.client, exam, [video], "malignancy").content))
    assert len(made.CurrentRequestedProcedureEvidenceSequence) == 1


def test_nothing_of_the_header_is_kept_or_echoed(up: Running) -> None:
    exam, _ = closed(up.client, FILES)
    report(up.client, exam, FILES, "malignancy")
    for path in (f"/v1/exams/{exam}", f"/v1/exams/{exam}/report"):
        for accept in ("application/json", "application/fhir+json"):
            assert WHO not in up.client.get(path, headers={"Accept": accept}).text


def test_what_cannot_be_reported_is_said(up: Running) -> None:
    client = up.client
    exam, _ = closed(client, FILES, tasks=["malignancy"])
    missing = problem_of(report(client, exam, FILES[:2], "malignancy"), 422, "invalid_request")
    assert "1 of them" in missing["detail"]
    assert missing["pointer"] == "/frames"
    problem_of(report(client, exam, FILES, "polyp_detection"), 404, "not_found")
    problem_of(report(client, exam, FILES, "no-task"), 404, "not_found")
    problem_of(report(client, "not-there", FILES, "malignancy"), 404, "not_found")
    pictures, _ = closed(client, [image(RED)])
    problem_of(report(client, pictures, [image(RED)], "malignancy"), 422, "invalid_request")
    two = [native(RED, **STUDY), native(PINK, StudyInstanceUID="1.2.3.5")]
    mixed, _ = closed(client, two)
    found = problem_of(report(client, mixed, two, "malignancy"), 422, "invalid_request")
    assert "one study" in found["detail"]
    opened = client.post("/v1/exams").json()["exam_id"]
    client.post(f"/v1/exams/{opened}/frames", **as_form(FILES))
    problem_of(report(client, opened, FILES, "malignancy"), 409, "conflict")
    empty = client.post("/v1/exams").json()["exam_id"]
    client.post(f"/v1/exams/{empty}/close")
    problem_of(report(client, empty, FILES, "malignancy"), 422, "invalid_request")
    asked = client.get(f"/v1/exams/{exam}/report", headers={"Accept": "application/dicom"})
    assert "POST" in problem_of(asked, 422, "invalid_request")["detail"]


def test_who_asks_for_results_is_counted_by_outcome(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "exams.sqlite3")) as up:
        client = up.client
        before = scraped(client)
        exam, _ = closed(client, FILES)
        fhir, dicom = ({"Accept": f"application/{one}"} for one in ("fhir+json", "dicom"))
        for path, headers in (
            (f"/v1/exams/{exam}", {}),
            (f"/v1/exams/{exam}", fhir),
            (f"/v1/exams/{exam}/report", fhir),
            (f"/v1/exams/{exam}/report", dicom),
            ("/v1/exams/not-there/report", {}),
        ):
            client.get(path, headers=headers)
        assert report(client, exam, FILES, "malignancy").status_code == 200
        report(client, exam, FILES[:1], "malignancy")
        report(client, "not-there", FILES, "malignancy")
        client.post("/v1/exams/not-there/frames", **as_form(FILES))
        # A dialect that cannot be written is an outcome as well.
        mixed = [native(RED, **STUDY), native(PINK, StudyInstanceUID="1.2.3.5")]
        client.post("/v1/malignancy", **as_form(mixed), headers=dicom)
        after = scraped(client)
    assert after.keys() == before.keys()
    requests = {key[1:]: n for key, n in after.items() if key[0] == "endoclip_requests_total" and n}
    assert requests == {
        ("ok", "exam_frames"): 1,
        ("not_found", "exam_frames"): 1,
        ("ok", "exam_report"): 4,
        ("invalid_request", "exam_report"): 2,
        ("not_found", "exam_report"): 2,
        ("invalid_request", "malignancy"): 1,
    }
    assert after["endoclip_request_seconds_count", "exam_report"] == 4
    # Of the exam's frames, of four results; nothing of what ended in an error.
    assert after["endoclip_phase_seconds_count", "respond"] == 5


def test_client_files_an_exam_in_all_three(up: Running) -> None:
    with Client(f"http://127.0.0.1:{up.port}") as client:
        exam = client.exam()
        exam.open()
        exam.send(FILES)
        final = exam.close()
        assert b'"final":true' in exam.report("json")
        Bundle.model_validate_json(exam.report("fhir"))
        made = pydicom.dcmread(BytesIO(exam.report("dicom", task="malignancy", files=FILES)))
        assert made.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.33"
        assert final.final
        with pytest.raises(InvalidRequest, match="/frames"):
            exam.report("dicom", task="malignancy", files=FILES[:1])
        with pytest.raises(ValueError, match="files"):
            exam.report("dicom")
