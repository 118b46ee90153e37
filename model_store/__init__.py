"""The bundle format, and all it takes to run a bundle: pixels, tokens, graphs, scores.

Needs numpy, pillow, onnxruntime, tokenizers and ftfy; never torch, and neither of the packages
built on it.
"""

import os

# The runtime reports each session to its maker from version 1.29 on (graph and weight hashes, a
# device id, kept below ~/.cache until they can be sent), unless told otherwise before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from model_store.bundle import FORMAT_VERSION, Bundle, Manifest, Provenance, pack
from model_store.encoder import Encoder
from model_store.errors import (
    BundleCorrupt,
    BundleError,
    BundleIncompatible,
    BundleNotFound,
    EncodeFailed,
    EndoClipError,
    ImageCode,
    ImageRejected,
    InvalidInput,
    LabelSetInvalid,
    ProfileMismatch,
    ProviderUnavailable,
    SelfTestFailed,
    UnknownDevice,
    UnknownLabelSet,
    UnknownOperatingPoint,
)
from model_store.images import ImageLimits, InputContract, decode
from model_store.label_sets import Label, LabelSet
from model_store.patient import PatientScore, heatmap, score_patient
from model_store.profile import SiteProfile, read_profile, write_profile
from model_store.scoring import Calibration, Decision, OperatingPoint
from model_store.selftest import SelfTestReport, self_test
from model_store.tokenizer import TextContract, Tokenizer

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "BundleCorrupt",
    "BundleError",
    "BundleIncompatible",
    "BundleNotFound",
    "Calibration",
    "Decision",
    "EncodeFailed",
    "Encoder",
    "EndoClipError",
    "ImageCode",
    "ImageLimits",
    "ImageRejected",
    "InputContract",
    "InvalidInput",
    "Label",
    "LabelSet",
    "LabelSetInvalid",
    "Manifest",
    "OperatingPoint",
    "PatientScore",
    "ProfileMismatch",
    "Provenance",
    "ProviderUnavailable",
    "SelfTestFailed",
    "SelfTestReport",
    "SiteProfile",
    "TextContract",
    "Tokenizer",
    "UnknownDevice",
    "UnknownLabelSet",
    "UnknownOperatingPoint",
    "decode",
    "heatmap",
    "pack",
    "read_profile",
    "score_patient",
    "self_test",
    "write_profile",
]
