"""One result in three dialects: validated by the library, by dcmtk and by dicom3tools."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import httpx
import pydicom
import pytest
from fhir.resources.R4B.bundle import Bundle

from service.concepts import DECISIONS, SYSTEMS, TASKS
from service.dialects import Dialect, asked_for
from tests.dicom_files import VIDEO_ENDOSCOPIC, WHO, data_set, native, written
from tests.service.conftest import (
    BLACK,
    PINK,
    RED,
    Serve,
    as_form,
    edited,
    image,
    problem_of,
)

SR, FHIR = {"Accept": "application/dicom"}, {"Accept": "application/fhir+json"}
STUDY = {"StudyInstanceUID": "1.2.3.4", "SeriesInstanceUID": "1.2.3.4.1"}


def asked(
    client: httpx.Client, accept: Mapping[str, str], frames: list[bytes], **options: Any
) -> httpx.Response:
    answer = client.post("/v1/polyp-detection", headers=accept, **as_form(frames, options))
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == accept["Accept"]
    return answer


# ---- which dialect -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "dialect"),
    [
        ("", Dialect.JSON),
        ("*/*", Dialect.JSON),
        ("text/html, application/xml;q=0.9", Dialect.JSON),
        ("application/fhir+json", Dialect.FHIR),
        ("application/json;q=0.5, application/FHIR+json; charset=utf-8", Dialect.FHIR),
        ("application/dicom;q=0.1, application/json", Dialect.JSON),
        ("application/dicom;q=x", Dialect.JSON),
        ("application/dicom; q=0", Dialect.JSON),
        (";;;,,,", Dialect.JSON),
    ],
)
def test_accept_chooses_and_never_fails(accept: str, dialect: Dialect) -> None:
    assert asked_for(accept) is dialect


def test_what_cannot_be_said_is_refused(client: httpx.Client) -> None:
    def refused(accept: Mapping[str, str], path: str, frames: list[bytes]) -> str:
        answer = client.post(f"/v1/{path}", headers=accept, **as_form(frames))
        return str(problem_of(answer, 422, "invalid_request")["detail"])

    assert "DICOM frames" in refused(SR, "malignancy", [image(RED)])
    assert "DICOM frames" in refused(SR, "malignancy", [native(RED), b"damaged"])
    assert "one study" in refused(SR, "malignancy", [native(RED), native(RED)])
    assert "SeriesInstanceUID" in refused(SR, "malignancy", [native(RED, SeriesInstanceUID="")])
    assert "no other dialect" in refused(FHIR, "embeddings", [image(RED)])


# ---- DICOM SR ------------------------------------------------------------------------------------


def frames_of_a_study() -> list[bytes]:
    film = native(RED, PINK, SOPClassUID=VIDEO_ENDOSCOPIC, **STUDY)
    return [native(RED, **STUDY), native(PINK, **STUDY), native(BLACK, **STUDY), film]


def groups_of(report: pydicom.Dataset) -> dict[str, Any]:
    content = hd.sr.MeasurementReport.from_sequence([report])  # type: ignore[list-item]
    found = {}
    for group in content.get_image_measurement_groups():
        items = group[0].ContentSequence
        name = next(item.TextValue for item in items if "TextValue" in item)
        found[name] = group
    return found


def test_report_says_of_each_image_what_json_says(client: httpx.Client) -> None:
    frames = frames_of_a_study()
    json_answer = client.post("/v1/polyp-detection", **as_form(frames)).json()
    patient = json_answer["patients"][0]
    answer = asked(client, SR, frames)
    report = pydicom.dcmread(BytesIO(answer.content))
    groups = groups_of(report)
    assert list(groups) == ["patient", "frame 0", "frame 1", "frame 2", "frame 3.1", "frame 3.2"]
    concepts = TASKS["polyp_detection"]
    told = {"patient": patient} | {f"frame {one['frame_id']}": one for one in patient["frames"]}
    for name, group in groups.items():
        one = told[name]
        if one["status"] != "scored":
            (evaluation,) = group.get_qualitative_evaluations()
            assert evaluation.value.value == one["reason"] == "dark"
            continue
        (measurement,) = group.get_measurements()
        assert measurement.name.value == concepts.probability.code
        assert measurement.value == pytest.approx(one["probability"], abs=1e-6)
        (evaluation,) = group.get_qualitative_evaluations()
        assert evaluation.value.meaning == DECISIONS[one["decision"]].meaning
    film = groups["frame 3.2"].source_images[0]
    assert film.referenced_sop_class_uid == VIDEO_ENDOSCOPIC
    assert film.referenced_frame_numbers == [2]
    assert len(groups["patient"].source_images) == patient["frames_scored"] == 4
    text = report.to_json()
    for word in (json_answer["model"]["digest"], "tiny", "1.0.0", "Research use only", "balanced"):
        assert word in text


def test_report_joins_the_study_and_is_preliminary(client: httpx.Client) -> None:
    frames = frames_of_a_study()
    source = pydicom.dcmread(BytesIO(frames[0]), stop_before_pixels=True)
    reports = [pydicom.dcmread(BytesIO(asked(client, SR, frames).content)) for _ in range(2)]
    for name in ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "StudyID"):
        assert reports[0][name].value == source[name].value
    assert reports[0].SeriesInstanceUID != source.SeriesInstanceUID
    assert (reports[0].CompletionFlag, reports[0].VerificationFlag) == ("COMPLETE", "UNVERIFIED")
    assert reports[0].PreliminaryFlag == "PRELIMINARY"
    assert reports[0].SOPInstanceUID == reports[1].SOPInstanceUID
    other = asked(client, SR, frames, operating_point="sensitivity_first")
    assert pydicom.dcmread(BytesIO(other.content)).SOPInstanceUID != reports[0].SOPInstanceUID
    evidence = reports[0].CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    named = {one.ReferencedSOPInstanceUID for s in evidence for one in s.ReferencedSOPSequence}
    assert named == {
        pydicom.dcmread(BytesIO(one), stop_before_pixels=True).SOPInstanceUID for one in frames
    }


def test_report_of_a_bare_source_is_written(client: httpx.Client) -> None:
    bare = data_set(bytes(96 * 80 * 3), "1.2.840.10008.1.2.1")
    for name in ("PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
        delattr(bare, name)
    for name in ("AccessionNumber", "ReferringPhysicianName", "StudyID", "Manufacturer"):
        delattr(bare, name)
    report = pydicom.dcmread(BytesIO(asked(client, SR, [written(bare)]).content))
    assert report.PatientName == ""


@pytest.mark.parametrize("tool", ["dsrdump", "dciodvfy"])
def test_report_passes_validators(client: httpx.Client, tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian packages dcmtk and dicom3tools)")
    path = tmp_path / "report.dcm"
    path.write_bytes(asked(client, SR, frames_of_a_study()).content)
    done = subprocess.run(
        [tool, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    faults = [line for line in said.splitlines() if line.lower().startswith(("error", "e:"))]
    assert not faults, said
    if tool == "dsrdump":
        assert "Probability that a polyp is visible" in said


@pytest.mark.parametrize("tool", ["dciodvfy"])
def test_validator_can_fail(client: httpx.Client, tool: str, tmp_path: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed (Debian packages dcmtk and dicom3tools)")
    report = pydicom.dcmread(BytesIO(asked(client, SR, frames_of_a_study()).content))
    del report.CompletionFlag
    report.save_as(tmp_path / "broken.dcm")
    command = [tool, str(tmp_path / "broken.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "Error" in done.stdout + done.stderr


# ---- FHIR ----------------------------------------------------------------------------------------


def resources(document: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    found = (entry["resource"] for entry in document["entry"])
    return [one for one in found if one["resourceType"] == kind]


def test_bundle_is_valid_and_says_what_json_says(client: httpx.Client) -> None:
    frames = [native(RED, **STUDY), image(PINK), image(BLACK), b"damaged"]
    patient = client.post("/v1/polyp-detection", **as_form(frames)).json()["patients"][0]
    answer = asked(client, FHIR, frames, patient_id="p-17")
    document = answer.json()
    Bundle.model_validate_json(answer.content)
    (report,) = resources(document, "DiagnosticReport")
    whole, *each = resources(document, "Observation")
    assert report["subject"]["identifier"]["value"] == "p-17"
    assert report["result"] == [{"reference": document["entry"][1]["fullUrl"]}]
    assert "Research use only" in report["conclusion"]
    value = whole["component"][0]["valueQuantity"]["value"]
    assert value == patient["probability"]
    assert whole["valueCodeableConcept"]["coding"][0]["display"] == "Present"
    assert len(whole["hasMember"]) == len(each) == 4
    assert [("valueCodeableConcept" in one) for one in each] == [True, True, False, False]
    assert each[2]["dataAbsentReason"]["coding"][1]["code"] == "dark"
    assert each[3]["dataAbsentReason"]["coding"][1]["code"] == "unsupported_format"
    (device,) = resources(document, "Device")
    assert device["identifier"][0]["value"].startswith("sha256:")
    (provenance,) = resources(document, "Provenance")
    targets = {one["reference"] for one in provenance["target"]}
    assert targets == {entry["fullUrl"] for entry in document["entry"][1:-1]}
    assert WHO not in answer.text


def test_every_reference_resolves_for_many_patients(client: httpx.Client) -> None:
    from tests.service.conftest import patient

    body = {"patients": [patient(image(RED)), patient(image(BLACK)), patient(b"bad")]}
    answer = client.post("/v1/malignancy", json=body, headers=FHIR)
    Bundle.model_validate_json(answer.content)
    document = answer.json()
    urls = {entry["fullUrl"] for entry in document["entry"]}
    text = json.dumps(document)
    named = {part.split('"')[0] for part in text.split('"reference": "')[1:]}
    assert named <= urls
    assert len(resources(document, "DiagnosticReport")) == 3


def test_no_two_answers_share_an_id(client: httpx.Client) -> None:
    """Whoever stores bundles overwrites what has the same id."""

    def urls(frame: bytes) -> set[str]:
        head = {**FHIR, "X-Request-ID": "always-the-same"}
        answer = client.post("/v1/malignancy", headers=head, **as_form([frame]))
        return {entry["fullUrl"] for entry in answer.json()["entry"]}

    assert urls(image(RED)) == urls(image(RED))
    assert not urls(image(RED)) & urls(image(PINK))


def test_no_two_exams_share_an_id(serve: Serve, tmp_path: Path) -> None:
    found: list[set[str]] = []
    for hospital in ("a", "b"):
        with serve(exam_store=str(tmp_path / hospital)) as up:
            up.client.post("/v1/exams", json={"exam_id": "room-1"})
            document = up.client.get("/v1/exams/room-1", headers=FHIR).json()
            found.append({entry["fullUrl"] for entry in document["entry"]})
    assert not found[0] & found[1]


def test_thresholds_are_those_that_decided(serve: Serve, bundle: Path, tmp_path: Path) -> None:
    def apart(document: dict[str, Any]) -> None:
        document["malignancy"]["operating_points"]["balanced"]["patient_threshold"] = 0.55

    served = edited(bundle, tmp_path / "apart", "calibration.json", apart)
    at = [f"2025-03-01T09:30:0{second}Z" for second in (0, 1)]
    with serve(exam_store=str(tmp_path / "exams.sqlite3"), bundle=served) as up:
        up.client.post("/v1/exams", json={"exam_id": "e", "tasks": ["malignancy"]})
        # One file under two ids: the patient rests on one frame, and is decided as a frame is.
        told = [{"frame_id": f"f{n}", "captured_at": time} for n, time in enumerate(at)]
        form = as_form([image(RED)] * 2, {"frames": told})
        assert up.client.post("/v1/exams/e/frames", **form).json()["revision"] == 2
        point = up.client.get("/v1/exams/e").json()["results"][0]["operating_point"]
        bundle = up.client.get("/v1/exams/e", headers=FHIR)
    Bundle.model_validate_json(bundle.content)
    whole, *frames = resources(bundle.json(), "Observation")
    assert point["frame_threshold"] != point["patient_threshold"]
    for one in (whole, *frames):
        # Above it, what was found is out of the ordinary; on the component that has the number.
        (reference,) = one["component"][0]["referenceRange"]
        assert reference["high"]["value"] == point["frame_threshold"]
        assert "low" not in reference
        assert "referenceRange" not in one
    assert [one["effectiveInstant"] for one in frames] == [f"{time[:-1]}.000Z" for time in at]


def test_exam_gives_its_final_result_as_a_bundle(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "exams.sqlite3")) as up:
        up.client.post("/v1/exams", json={"exam_id": "e", "patient_id": "p-1"})
        up.client.post("/v1/exams/e/frames", **as_form([image(RED), image(PINK), image(BLACK)]))
        final = up.client.post("/v1/exams/e/close").json()
        first, again = (up.client.get("/v1/exams/e", headers=FHIR) for _ in range(2))
        Bundle.model_validate_json(first.content)
        ids = [[entry["fullUrl"] for entry in one.json()["entry"]] for one in (first, again)]
        assert ids[0] == ids[1]
        assert len(set(ids[0])) == len(ids[0])
        reports = resources(first.json(), "DiagnosticReport")
        told = {one["labels"][0]: one["patient"]["decision"] for one in final["results"]}
        assert [one["conclusion"].split(",")[0] for one in reports] == [
            f"{label}: {decision}" for label, decision in told.items()
        ]
        refused = up.client.get("/v1/exams/e", headers=SR)
        assert (
            "keeps nothing of its images" in problem_of(refused, 422, "invalid_request")["detail"]
        )


def test_bundle_guard_can_fail(client: httpx.Client) -> None:
    document = asked(client, FHIR, [image(RED)]).json()
    resources(document, "Observation")[0].pop("status")
    with pytest.raises(ValueError, match="status"):
        Bundle.model_validate(document)


def test_every_concept_is_documented() -> None:
    import service.concepts as concepts

    page = (Path(__file__).parents[2] / "docs" / "dialects.md").read_text("utf-8")
    singles = [one for one in vars(concepts).values() if isinstance(one, concepts.Concept)]
    tasks = [c for one in TASKS.values() for c in (one.finding, one.question, one.probability)]
    wanted = [*singles, *tasks, *concepts.REASONS.values(), *concepts.DECISIONS.values()]
    assert not [
        one for one in wanted if f"| `{one.code}` | {one.scheme} | {one.meaning} |" not in page
    ]
    assert all(uri in page for uri in SYSTEMS.values())
