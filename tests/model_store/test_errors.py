"""Errors say what was expected and what was found, and survive a trip to another process."""

import pickle

import pytest

from model_store import errors
from model_store.errors import ImageCode

EXAMPLES = [
    errors.ImageRejected(ImageCode.EMPTY, "expected bytes; found none"),
    errors.UnknownLabelSet("nope", ["polyp_detection", "malignancy"]),
    errors.UnknownOperatingPoint("nope", ["balanced"]),
    errors.UnknownDevice("nope", ["full_frame"]),
    errors.BundleNotFound("folder"),
    errors.BundleCorrupt("manifest.json", "10 bytes", "9 bytes"),
    errors.BundleIncompatible(2, (1, 1)),
    errors.ProfileMismatch("site-1", "sha256:a", "sha256:b"),
    errors.SelfTestFailed(0.5, 0.001, "patient malignancy"),
    errors.ProviderUnavailable("CUDAExecutionProvider", "CPUExecutionProvider"),
    errors.LabelSetInvalid("expected 2 labels; found 1"),
    errors.EncodeFailed("expected embedding; the runtime raised"),
    errors.OutputNotFinite("expected finite numbers in embedding; found NaN or infinity"),
]


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_error_survives_pickling_with_its_message_and_attributes(error: Exception) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_every_public_error_is_in_the_drawn_tree() -> None:
    assert errors.__doc__ is not None
    for name in errors.__all__:
        assert name in errors.__doc__


def test_unknown_names_carry_the_known_ones() -> None:
    error = errors.UnknownLabelSet("nope", ["polyp_detection", "malignancy"])
    assert error.known == ("polyp_detection", "malignancy")
    assert "polyp_detection, malignancy" in str(error)


def test_image_codes_are_those_of_the_http_contract() -> None:
    assert {code.value for code in ImageCode} == {
        "image_undecodable",
        "image_truncated",
        "unsupported_format",
        "too_many_pixels",
        "too_many_bytes",
        "too_small",
        "empty",
    }
