"""A named task's answer as a FHIR R4 bundle, after HL7's mapping of DICOM SR (dicom-sr).

For each patient a DiagnosticReport, an Observation of the patient and one of each frame (a
measurement group of TID 1500 each); the algorithm as a Device; a Provenance of it all. Patients are
named by the caller's pseudonym alone, as an identifier; nothing of a DICOM header is in here.
Ids are made from the answer itself, so the same answer gives the same bundle, and no two answers
share one, whatever ids their callers gave them.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from service import jsonio
from service.concepts import COLONOSCOPY, DECISIONS, IMAGE_QUALITY, REASONS, SYSTEMS, TASKS, Concept

__all__ = ["bundle_of", "bundle_of_exam", "documents_of"]

Resource = dict[str, Any]
_TERMS = "http://terminology.hl7.org/CodeSystem"
_NAMES = uuid.UUID("6f1e6a3c-3a5e-5b5c-9f8e-2f6f6c7c6c11")
_UNITS = {"system": SYSTEMS["UCUM"], "code": "1"}


def bundle_of(document: Mapping[str, Any]) -> Resource:
    """Make the bundle of one answer.

    Args:
        document: answer of a named task, request id included.

    Returns:
        A Bundle of type `collection`, as JSON.
    """
    return _bundle("request", document["request_id"], [document])


def bundle_of_exam(exam: Mapping[str, Any]) -> Resource:
    """Make the bundle of an exam's result; the same result gives the same ids.

    Args:
        exam: answer of an exam, with one result for each of its tasks.

    Returns:
        A Bundle of type `collection`, as JSON.
    """
    results = documents_of(exam)
    return _bundle("exam", results[0]["request_id"], results)


def documents_of(exam: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Give an exam's results as answers of one task each; named by the exam and its revision.

    Args:
        exam: answer of an exam.
    """
    name = f"{exam['exam_id']}/{exam['revision']}"
    common = {"request_id": name} | {
        key: exam[key] for key in ("model", "intended_use", "device", "created_at")
    }
    return [{**common, **one, "patients": [one["patient"]]} for one in exam["results"]]


def _bundle(kind: str, name: str, documents: Sequence[Mapping[str, Any]]) -> Resource:
    made = datetime.now(UTC).isoformat(timespec="seconds")
    entries = []
    for document in documents:
        place = f"{kind}/{hashlib.sha256(jsonio.write(document)).hexdigest()}/{document['task']}"
        device = _entry("device", place, _device(document))
        told: list[Resource] = []
        for patient in document["patients"]:
            told += _patient(document, patient, made, device["fullUrl"], place)
        targets = [{"reference": one["fullUrl"]} for one in told]
        provenance = _provenance(document, made, targets, device["fullUrl"])
        entries += [device, *told, _entry("provenance", place, provenance)]
    return {
        "resourceType": "Bundle",
        "type": "collection",
        "identifier": {"system": f"urn:endo-clip:{kind}", "value": name},
        "timestamp": made,
        "entry": entries,
    }


def _patient(
    document: Mapping[str, Any], patient: Mapping[str, Any], made: str, device: str, place: str
) -> list[Resource]:
    place = f"{place}/{patient['patient_id']}"
    subject = {
        "type": "Patient",
        "identifier": {"system": "urn:endo-clip:pseudonym", "value": patient["patient_id"]},
    }
    common = {"subject": subject, "device": {"reference": device}, "issued": made}
    frames = [
        _entry("frame", f"{place}/{one['frame_id']}", _observation(document, one) | common)
        for one in patient["frames"]
    ]
    members = [{"reference": one["fullUrl"]} for one in frames]
    whole = _observation(document, patient) | common | {"hasMember": members}
    observation = _entry("patient", place, whole)
    report = {
        "resourceType": "DiagnosticReport",
        "status": "preliminary",
        "category": [_concept(Concept("IMG", "", "Diagnostic Imaging"), f"{_TERMS}/v2-0074")],
        "code": _concept(COLONOSCOPY),
        "subject": subject,
        "issued": made,
        "result": [{"reference": observation["fullUrl"]}],
        "conclusion": _conclusion(document, patient),
    }
    return [observation, *frames, _entry("report", place, report)]


def _observation(document: Mapping[str, Any], told: Mapping[str, Any]) -> Resource:
    concepts = TASKS[document["task"]]
    point = document["operating_point"]
    is_frame = "frame_id" in told
    threshold = point["frame_threshold" if is_frame or _rests_on_one(told) else "patient_threshold"]
    found: Resource = {
        "resourceType": "Observation",
        "status": "preliminary",
        "category": [_concept(Concept("imaging", "", "Imaging"), f"{_TERMS}/observation-category")],
        "code": _concept(concepts.question, more=concepts.finding),
    }
    if is_frame:
        found["identifier"] = [{"system": "urn:endo-clip:frame", "value": told["frame_id"]}]
    if "captured_at" in told:
        found["effectiveInstant"] = told["captured_at"]
    if told["status"] != "scored":
        return found | {"dataAbsentReason": _absent(told)}
    return found | {
        "valueCodeableConcept": _concept(DECISIONS[told["decision"]]),
        "component": [
            {
                "code": _concept(concepts.probability),
                "valueQuantity": {"value": told["probability"], **_UNITS},
                # What is usual lies below: a program must not take a low probability for abnormal.
                "referenceRange": [
                    {
                        "high": {"value": threshold, **_UNITS},
                        "text": f"positive at or above the threshold of {point['name']}",
                    }
                ],
            }
        ],
    }


def _rests_on_one(patient: Mapping[str, Any]) -> bool:
    """Whether one scored frame is all there is; a file that an exam has twice counts once."""
    scored = [one for one in patient["frames"] if one["status"] == "scored"]
    return sum("duplicate_of" not in one for one in scored) == 1


def _absent(told: Mapping[str, Any]) -> Resource:
    """Say why there is no value: set aside by the quality gate, or not readable."""
    if "reason" in told:
        why = _coding(REASONS[told["reason"]], None)
        text = IMAGE_QUALITY.meaning
    else:
        why = {"system": SYSTEMS["99ENDOCLIP"], "code": told.get("error", {}).get("code", "none")}
        text = "No frame could be scored" if "frames" in told else "The frame could not be read"
    code = "not-performed" if "reason" in told else "error"
    standard = {"system": f"{_TERMS}/data-absent-reason", "code": code}
    return {"coding": [standard, why], "text": text}


def _device(document: Mapping[str, Any]) -> Resource:
    model = document["model"]
    definitions = "; ".join(f"{k}: {v}" for k, v in document["label_definitions"].items())
    return {
        "resourceType": "Device",
        "identifier": [{"system": "urn:endo-clip:bundle", "value": model["digest"]}],
        "deviceName": [{"name": f"Endo-CLIP {model['name']}", "type": "model-name"}],
        "version": [{"value": model["version"]}],
        "note": [{"text": document["intended_use"]}, {"text": definitions or "no definitions"}],
    }


def _provenance(
    document: Mapping[str, Any], made: str, targets: Sequence[Resource], device: str
) -> Resource:
    performer = Concept("performer", "", "Performer")
    profile = document.get("site_profile")
    sources = [
        ("urn:endo-clip:bundle", document["model"]["digest"]),
        ("urn:endo-clip:request", document["request_id"]),
        *([("urn:endo-clip:site-profile", profile["digest"])] if profile else []),
    ]
    return {
        "resourceType": "Provenance",
        "target": list(targets),
        "recorded": made,
        "agent": [
            {
                "type": _concept(performer, f"{_TERMS}/provenance-participant-type"),
                "who": {"reference": device},
            }
        ],
        "entity": [
            {"role": "source", "what": {"identifier": {"system": system, "value": value}}}
            for system, value in sources
        ],
    }


def _conclusion(document: Mapping[str, Any], patient: Mapping[str, Any]) -> str:
    if patient["status"] != "scored":
        return f"No frame could be scored. {document['intended_use']}"
    return (
        f"{document['labels'][0]}: {patient['decision']}, probability "
        f"{patient['probability']:.3f}, from {patient['frames_scored']} of "
        f"{patient['frames_total']} frames. {document['intended_use']}"
    )


def _entry(kind: str, name: str, resource: Resource) -> Resource:
    one = uuid.uuid5(_NAMES, f"{kind}/{name}")
    return {"fullUrl": f"urn:uuid:{one}", "resource": resource | {"id": str(one)}}


def _concept(
    concept: Concept, system: str | None = None, *, more: Concept | None = None
) -> Resource:
    coding = [_coding(concept, system), *([_coding(more, None)] if more else [])]
    return {"coding": coding, "text": concept.meaning}


def _coding(concept: Concept, system: str | None) -> Resource:
    where = system or SYSTEMS[concept.scheme]
    return {"system": where, "code": concept.code, "display": concept.meaning}
