"""Whole answers for the documentation; a test holds them against the answers' models."""

from typing import Any

__all__ = ["EMBEDDINGS", "NAMED_TASK", "PROBLEM", "ZERO_SHOT"]

_HEAD: dict[str, Any] = {
    "request_id": "5af10291f73e98d98b94745fae6d0aa2",
    "task": "malignancy",
    "model": {
        "name": "endo-clip-lite0",
        "version": "1.0.0",
        "digest": "sha256:9f2c…",
        "execution_provider": "CPUExecutionProvider",
    },
    "intended_use": "Research use only. Not a medical device.",
}
_COUNTS: dict[str, Any] = {"frames_total": 3, "frames_scored": 1}
_UNSCORED: list[dict[str, Any]] = [
    {"frame_id": "1", "status": "abstained", "reason": "blurred"},
    {
        "frame_id": "2",
        "status": "rejected",
        "error": {
            "code": "image_truncated",
            "message": "expected a whole JPEG file; found one that ends early",
        },
    },
]
_SCORES: dict[str, Any] = {"scores": {"malignant": 0.97, "benign": 0.03}}
_COSINE: dict[str, Any] = {"cosine": {"malignant": 0.31, "benign": 0.12}}
_PROBABILITY: dict[str, Any] = {"probability": 0.97, **_SCORES, "decision": "positive"}
NAMED_TASK: dict[str, Any] = {
    **_HEAD,
    "labels": ["malignant", "benign"],
    "label_definitions": {
        "malignant": "neoplastic, adenoma included, as judged by endoscopists; not pathology",
        "benign": "not neoplastic, or no lesion",
    },
    "operating_point": {
        "name": "balanced",
        "frame_threshold": 0.41,
        "patient_threshold": 0.52,
        "frame_abstain": [0.38, 0.44],
        "patient_abstain": None,
    },
    "patients": [
        {
            "patient_id": "patient-17",
            "status": "scored",
            **_PROBABILITY,
            **_COUNTS,
            "frames": [
                {"frame_id": "0", "status": "scored", **_PROBABILITY, **_COSINE, "attention": 1.0},
                *_UNSCORED,
            ],
        }
    ],
}
_TOP: dict[str, Any] = {**_SCORES, **_COSINE, "top_label": "malignant", "calibrated": False}
ZERO_SHOT: dict[str, Any] = {
    **_HEAD,
    "task": "zero_shot",
    "labels": ["malignant", "benign"],
    "label_definitions": {},
    "label_set": None,
    "calibrated": False,
    "patients": [
        {
            "patient_id": "patient-17",
            "status": "scored",
            **_TOP,
            **_COUNTS,
            "frames": [
                {
                    "frame_id": "0",
                    "status": "scored",
                    **_TOP,
                    "attention": {"malignant": 1.0, "benign": 1.0},
                },
                *_UNSCORED,
            ],
        }
    ],
}
EMBEDDINGS: dict[str, Any] = {
    **_HEAD,
    "task": "embeddings",
    "dimension": 2,
    "patients": [
        {
            "patient_id": "patient-17",
            "status": "scored",
            **_COUNTS,
            "frames": [
                {"frame_id": "0", "status": "scored", "embedding": [0.6, -0.8]},
                *_UNSCORED,
            ],
        }
    ],
    "texts": [{"index": 0, "embedding": [0.8, 0.6]}],
}
PROBLEM: dict[str, Any] = {
    "type": "urn:endo-clip:problem:invalid_request",
    "title": "The request breaks a rule",
    "status": 422,
    "detail": "request: at /patients/0/frames/1/frame_id: expected distinct ids",
    "code": "invalid_request",
    "request_id": "5af10291f73e98d98b94745fae6d0aa2",
    "pointer": "/patients/0/frames/1/frame_id",
    "errors": [{"pointer": "/patients/0/frames/1/frame_id", "detail": "expected distinct ids"}],
}
