"""Lines of the contract about exams; each opens its own, of an id made here, and deletes it."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from math import isclose
from typing import Any

import httpx
from kit import FRAME, Kit, Skipped, line, need

# Another file of the same picture: what stands behind a JPEG's end is not decoded.
OTHER = FRAME + b"\0"
TIMES = ("2025-03-01T09:30:00Z", "2025-03-01T09:30:01Z")
TASK = "polyp_detection"


class Exam:
    """An exam of a deployment."""

    def __init__(self, kit: Kit, exam_id: str) -> None:
        self.kit, self.exam_id = kit, exam_id
        self.path = f"exams/{exam_id}"

    def open(self, **options: Any) -> httpx.Response:
        """Open it, or find it open."""
        return self.kit.json("exams", {"exam_id": self.exam_id, **options})

    def send(self, frames: dict[str, bytes]) -> httpx.Response:
        """Send frames by their ids, "0" and "1" with a time each."""
        told = [{"frame_id": name, "captured_at": TIMES[int(name)]} for name in frames]
        return self.kit.form(f"{self.path}/frames", list(frames.values()), {"frames": told})

    def result(self, word: str = "") -> dict[str, Any]:
        """Ask for the result, or close."""
        path = f"/v1/{self.path}"
        answer = self.kit.http.post(f"{path}/{word}") if word else self.kit.get(path)
        need(answer.status_code == 200, f"expected 200; found {answer.status_code}")
        document: dict[str, Any] = answer.json()
        return document

    def delete(self) -> int:
        """Remove it; gives the status."""
        return self.kit.http.delete(f"/v1/{self.path}").status_code


@contextmanager
def exam_of(kit: Kit) -> Iterator[Exam]:
    """Open an exam of one task, and remove it."""
    exam = Exam(kit, f"conformance-{secrets.token_hex(8)}")
    answer = exam.open(tasks=[TASK])
    if answer.status_code in (404, 503):
        raise Skipped(f"exams are not kept here: {answer.status_code}")
    try:
        need(answer.status_code == 201, f"expected 201; found {answer.status_code}")
        yield exam
    finally:
        exam.delete()


def patient_of(document: dict[str, Any]) -> dict[str, Any]:
    """The patient of the exam's one task."""
    patient: dict[str, Any] = document["results"][0]["patient"]
    return patient


@line("POST /v1/exams again finds the exam; with other options it is 409 conflict")
def opening(kit: Kit) -> None:
    """So a client may repeat it."""
    with exam_of(kit) as exam:
        status = exam.open(tasks=[TASK]).status_code
        need(status == 200, f"expected 200 for the same options; found {status}")
        kit.problem(exam.open(tasks=["malignancy"]), 409, "conflict")


@line("Frames of an exam in any order, sent again or not, come to one result")
def order(kit: Kit) -> None:
    """And to that of one request with all of them."""
    with exam_of(kit) as one, exam_of(kit) as other:
        one.send({"0": FRAME, "1": OTHER})
        other.send({"1": OTHER})
        for _ in range(2):
            answer = other.send({"0": FRAME, "1": OTHER})
        need(answer.json()["revision"] == 2, "expected a frame sent again to be no new one")
        need(answer.json()["frames"][0]["duplicate"], "expected it told as a duplicate")
        first, second = one.result("close"), other.result("close")
    need(first["results"][0]["segments"] == second["results"][0]["segments"], "expected one result")
    alone = kit.scored("polyp-detection", [FRAME, OTHER])["patients"][0]
    for found in (patient_of(first), patient_of(second)):
        need(
            isclose(found["probability"], alone["probability"], abs_tol=1e-5),
            f"expected {alone['probability']}; found {found['probability']}",
        )


@line("Another image under a frame's id is 409 conflict, and nothing of the request is kept")
def conflict(kit: Kit) -> None:
    """An id is a promise."""
    with exam_of(kit) as exam:
        exam.send({"0": FRAME})
        kit.problem(exam.send({"1": OTHER, "0": OTHER}), 409, "conflict")
        need(exam.result()["revision"] == 1, "expected nothing kept")


@line("A closed exam's result is final and stays; more frames are 409 exam_closed")
def closing(kit: Kit) -> None:
    """Closing again gives the same."""
    own = {"request_id": "", "expires_at": ""}
    with exam_of(kit) as exam:
        exam.send({"0": FRAME})
        so_far = exam.result()
        need((so_far["final"], so_far["revision"]) == (False, 1), "expected a result so far")
        final = exam.result("close")
        need(final["final"] is True, "expected it final")
        for again in (exam.result("close"), exam.result()):
            need(again | own == final | own, "expected the same from then on")
        kit.problem(exam.send({"1": OTHER}), 409, "exam_closed")
        need(exam.send({"0": FRAME}).status_code == 200, "expected a frame it has to be no error")


@line("GET /v1/exams/{id}/report as application/fhir+json is a bundle of the same result")
def report(kit: Kit) -> None:
    """A DiagnosticReport, and the probability in an Observation."""
    with exam_of(kit) as exam:
        exam.send({"0": FRAME})
        final = patient_of(exam.result("close"))
        head = {"Accept": "application/fhir+json"}
        answer = kit.get(f"/v1/{exam.path}/report", headers=head)
    need(answer.headers["content-type"].startswith(head["Accept"]), "expected FHIR")
    found = [entry["resource"] for entry in answer.json()["entry"]]
    need(any(one["resourceType"] == "DiagnosticReport" for one in found), "expected a report")
    values = [part["valueQuantity"]["value"] for one in found for part in one.get("component", ())]
    need(final["probability"] in values, f"expected {final['probability']} among {values}")


@line("DELETE /v1/exams/{id} is 204, and 404 not_found from then on")
def deletion(kit: Kit) -> None:
    """Nobody finds it again."""
    with exam_of(kit) as exam:
        status = exam.delete()
        need(status == 204, f"expected 204; found {status}")
        kit.problem(kit.get(f"/v1/{exam.path}"), 404, "not_found")
