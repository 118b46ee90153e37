"""A named task's answer as a DICOM structured report: Comprehensive SR by template TID 1500.

One measurement group says what the patient's score is and on which images it rests, one for each
scored image says its own, and those that the quality gate set aside say why. Each names the
algorithm with version, digest and operating point. The report belongs to the study of its images:
it takes over their patient and study modules, so unlike every other answer it holds whose images
they are. It is preliminary and not verified, whatever the score.

The same images scored in the same way (bundle, operating point, device profile) give the same SOP
instance UID, so that storing a report twice makes one.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any

import highdicom as hd
from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ComprehensiveSR,
    DeviceObserverIdentifyingAttributes,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset

from model_store.dicom import DicomFrame
from service import __version__
from service.concepts import COLONOSCOPY, DECISIONS, IMAGE_QUALITY, REASONS, TASKS, Concept
from service.forms import FrameIn
from service.report_sources import read_sources

__all__ = ["write_report"]

_DEVICE = CodedConcept("121007", "DCM", "Device")
_UNITS = CodedConcept("1", "UCUM", "no units")
_ENGLISH = CodedConcept("en", "RFC5646", "English")
_SERIES_NUMBER = 9001


def write_report(
    document: Mapping[str, Any], frames: Sequence[FrameIn], device: str | None
) -> bytes:
    """Write the report.

    Args:
        document: answer of a named task, of one patient.
        frames: those of the answer, in order, from DICOM files.
        device: profile that cropped them, if one was named.

    Returns:
        A DICOM file.

    Raises:
        InvalidRequest: as `read_sources`; of what the files hold nothing else can stand against a
            report, so any other error is our own.
    """
    sources = read_sources(frames)
    evidence = list({one.SOPInstanceUID: one for one in sources}.values())
    document = {**document, "device": device}
    report_uid = _uid("report", *_named(frames, sources), document)
    groups = list(_groups(document, frames, sources, report_uid))
    return _written(document, evidence, groups, report_uid)


def _written(
    document: Mapping[str, Any],
    evidence: Sequence[Dataset],
    groups: Sequence[MeasurementsAndQualitativeEvaluations],
    report_uid: str,
) -> bytes:
    report = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=_observer(document)),
        procedure_reported=_coded(COLONOSCOPY),
        imaging_measurements=groups,
        language_of_content_item_and_descendants=hd.sr.LanguageOfContentItemAndDescendants(
            _ENGLISH
        ),
        referenced_images=evidence,
    )
    made = ComprehensiveSR(
        evidence=evidence,
        content=report[0],
        series_instance_uid=_uid("series", evidence[0].StudyInstanceUID, document),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=report_uid,
        instance_number=1,
        manufacturer="Endo-CLIP",
        manufacturer_model_name=document["model"]["name"],
        software_versions=f"{document['model']['version']} (service {__version__})",
        device_serial_number=document["model"]["digest"][-16:],
        series_description=f"Endo-CLIP {document['task']}, research use only",
        is_complete=True,
        is_final=False,
        is_verified=False,
        performed_procedure_codes=[_coded(COLONOSCOPY)],
    )
    out = BytesIO()
    made.save_as(out)
    return out.getvalue()


def _groups(
    document: Mapping[str, Any],
    frames: Sequence[FrameIn],
    sources: Sequence[Dataset],
    report_uid: str,
) -> Iterator[MeasurementsAndQualitativeEvaluations]:
    patient = document["patients"][0]
    images = [_image(frame, source) for frame, source in zip(frames, sources, strict=True)]
    scored = [
        image
        for image, one in zip(images, patient["frames"], strict=True)
        if one["status"] == "scored"
    ]
    told = [("patient", patient, scored)] if scored else []
    told += [
        (f"frame {one['frame_id']}", one, [image])
        for image, one in zip(images, patient["frames"], strict=True)
        if one["status"] != "rejected"
    ]
    for number, (name, one, of) in enumerate(told):
        uid = _uid("group", report_uid, name)
        yield _group(
            document, TrackingIdentifier(uid=uid, identifier=name), one, of, in_full=number == 0
        )


def _group(
    document: Mapping[str, Any],
    tracking: TrackingIdentifier,
    told: Mapping[str, Any],
    images: Sequence[SourceImageForMeasurementGroup],
    *,
    in_full: bool,
) -> MeasurementsAndQualitativeEvaluations:
    concepts = TASKS[document["task"]]
    measurements, evaluations = [], []
    if told["status"] == "scored":
        probability = float(f"{told['probability']:.6g}")  # a DS has 16 characters
        measurements.append(Measurement(_coded(concepts.probability), probability, _UNITS))
        evaluations.append(
            QualitativeEvaluation(_coded(concepts.question), _coded(DECISIONS[told["decision"]]))
        )
    else:
        reason = REASONS[told["reason"]]
        evaluations.append(QualitativeEvaluation(_coded(IMAGE_QUALITY), _coded(reason)))
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=tracking,
        finding_type=_coded(concepts.finding),
        algorithm_id=_algorithm(document, in_full=in_full),
        measurements=measurements or None,
        qualitative_evaluations=evaluations,
        source_images=images,
    )


def _image(frame: FrameIn, source: Dataset) -> SourceImageForMeasurementGroup:
    numbers = None
    if isinstance(frame.dicom, DicomFrame) and frame.dicom.header.frames > 1:
        numbers = [frame.dicom.number]
    return SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID, numbers)


def _algorithm(document: Mapping[str, Any], *, in_full: bool) -> AlgorithmIdentification:
    """Name the algorithm; what is the same for all images is said once, in the first group."""
    model, point = document["model"], document["operating_point"]
    parameters = [f"digest: {model['digest']}", f"operating point: {point['name']}"]
    if document["device"]:
        parameters.append(f"device profile: {document['device']}")
    if "site_profile" in document:
        parameters.append(f"site profile: {document['site_profile']['digest']}")
    if in_full:
        parameters += [
            f"execution provider: {model['execution_provider']}",
            f"threshold of a frame: {point['frame_threshold']:.6g}",
            f"threshold of a patient: {point['patient_threshold']:.6g}",
            f"request: {document['request_id']}",
            *(f"{label}: {text}" for label, text in document["label_definitions"].items()),
            f"intended use: {document['intended_use']}",
        ]
    return AlgorithmIdentification(
        name=f"Endo-CLIP {model['name']}", version=model["version"], parameters=parameters
    )


def _observer(document: Mapping[str, Any]) -> ObserverContext:
    model = document["model"]
    identity = DeviceObserverIdentifyingAttributes(
        uid=_uid("device", model["digest"]),
        name="Endo-CLIP",
        manufacturer_name="Endo-CLIP",
        model_name=model["name"],
        serial_number=model["digest"],
    )
    return ObserverContext(_DEVICE, identity)


def _named(frames: Sequence[FrameIn], sources: Sequence[Dataset]) -> Iterator[str]:
    for frame, source in zip(frames, sources, strict=True):
        number = frame.dicom.number if isinstance(frame.dicom, DicomFrame) else 1
        yield f"{source.SOPInstanceUID}#{number}"


def _uid(*parts: Any) -> str:
    """Make a UID from what it names, the same each time: 2.25 and 128 bits of a digest."""
    text = "\n".join(_words(part) for part in parts)
    return f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}"


def _words(part: Any) -> str:
    if not isinstance(part, Mapping):
        return str(part)
    profile = part.get("site_profile") or {}
    point = part["operating_point"]["name"]
    words = f"{part['task']} {point} {part['model']['digest']} {profile.get('digest')}"
    return f"{words} {part['device']}" if part["device"] else words


def _coded(concept: Concept) -> CodedConcept:
    return CodedConcept(concept.code, concept.scheme, concept.meaning)
