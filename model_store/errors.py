"""Every error a caller of this package may meet, and what each one carries.

    EndoClipError
    ├── InvalidInput                    the caller can put it right
    │   ├── ImageRejected               code (ImageCode), message
    │   ├── LabelSetInvalid             message, pointer into the list of labels
    │   ├── UnknownLabelSet             name, known
    │   ├── UnknownOperatingPoint       name, known
    │   └── UnknownDevice               name, known
    ├── BundleError                     the operator can put it right
    │   ├── BundleNotFound              path
    │   ├── BundleCorrupt               path, expected, actual
    │   ├── BundleIncompatible          found, supported
    │   ├── ProfileMismatch             site, expected, actual
    │   ├── SelfTestFailed              difference, tolerance
    │   └── ProviderUnavailable         asked, got
    └── EncodeFailed                    the runtime raised
        └── OutputNotFinite             it gave NaN or infinity

`service` and `training` add one branch each. Errors know nothing of HTTP. All of them survive
pickling, because a caller may sit in another process.
"""

from collections.abc import Iterable
from enum import StrEnum

__all__ = [
    "BundleCorrupt",
    "BundleError",
    "BundleIncompatible",
    "BundleNotFound",
    "EncodeFailed",
    "EndoClipError",
    "ImageCode",
    "ImageRejected",
    "InvalidInput",
    "LabelSetInvalid",
    "OutputNotFinite",
    "ProfileMismatch",
    "ProviderUnavailable",
    "SelfTestFailed",
    "UnknownDevice",
    "UnknownLabelSet",
    "UnknownOperatingPoint",
]


class ImageCode(StrEnum):
    """Why a frame was turned away; the words are part of the HTTP contract."""

    IMAGE_UNDECODABLE = "image_undecodable"
    """The bytes are of a known format but do not decode."""
    IMAGE_TRUNCATED = "image_truncated"
    """The file ends before its picture does."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """Not JPEG, PNG, WebP, BMP or TIFF, or a pixel type that has no one right 8-bit reading."""
    TOO_MANY_PIXELS = "too_many_pixels"
    """The header announces more pixels than the limit; nothing was decoded."""
    TOO_MANY_BYTES = "too_many_bytes"
    """The file is longer than the limit; nothing was read."""
    TOO_SMALL = "too_small"
    """The shorter side is under the limit."""
    EMPTY = "empty"
    """No bytes at all."""


class EndoClipError(Exception):
    """Root of every error of this project."""


class InvalidInput(EndoClipError):
    """What the caller sent cannot be used; sending something else helps.

    `pointer` says where in it, as RFC 6901 has it, where that is known.
    """

    pointer = ""


class ImageRejected(InvalidInput):
    """One frame cannot be scored; other frames are not touched by it."""

    def __init__(self, code: ImageCode, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code.value}: {self.message}"


class LabelSetInvalid(InvalidInput):
    """A label set breaks a rule: number of labels or prompts, lengths, repeated labels."""

    def __init__(self, message: str, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class _Unknown(InvalidInput):
    """A name that is not among the known ones."""

    kind = "a name"

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = tuple(known)
        super().__init__(name, self.known)

    def __str__(self) -> str:
        return f"expected {self.kind} out of {', '.join(self.known)}; found {self.name!r}"


class UnknownLabelSet(_Unknown):
    """The bundle has no label set of that name."""

    kind = "a label set"


class UnknownOperatingPoint(_Unknown):
    """The bundle has no operating point of that name."""

    kind = "an operating point"


class UnknownDevice(_Unknown):
    """No device profile of that name is set up."""

    kind = "a device"


class BundleError(EndoClipError):
    """The bundle cannot be served as it is."""


class BundleNotFound(BundleError):
    """There is no bundle folder at that path."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path

    def __str__(self) -> str:
        return f"expected a bundle folder with manifest.json at {self.path}; found none"


class BundleCorrupt(BundleError):
    """A part of the bundle is not what its manifest or format says."""

    def __init__(self, path: str, expected: str, actual: str) -> None:
        super().__init__(path, expected, actual)
        self.path = path
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}; found {self.actual}"


class BundleIncompatible(BundleError):
    """The bundle is of a format version this code does not read."""

    def __init__(self, found: object, supported: tuple[int, int]) -> None:
        super().__init__(found, supported)
        self.found = found
        self.supported = supported

    def __str__(self) -> str:
        low, high = self.supported
        return f"expected format_version {low} to {high}; found {self.found!r}"


class ProfileMismatch(BundleError):
    """A site profile belongs to another bundle; one must be made for this bundle."""

    def __init__(self, site: str, expected: str, actual: str) -> None:
        super().__init__(site, expected, actual)
        self.site = site
        self.expected = expected
        self.actual = actual

    def __str__(self) -> str:
        return (
            f"site profile {self.site}: expected one of the bundle {self.expected}; "
            f"found one of {self.actual}"
        )


class SelfTestFailed(BundleError):
    """The canary frames do not score here as they were recorded."""

    def __init__(self, difference: float, tolerance: float, detail: str = "") -> None:
        super().__init__(difference, tolerance, detail)
        self.difference = difference
        self.tolerance = tolerance
        self.detail = detail

    def __str__(self) -> str:
        where = f" ({self.detail})" if self.detail else ""
        return (
            f"expected canary scores within {self.tolerance:g} of the record; "
            f"found a difference of {self.difference:g}{where}"
        )


class ProviderUnavailable(BundleError):
    """The execution provider asked for is not the one the runtime would use."""

    def __init__(self, asked: str, got: str) -> None:
        super().__init__(asked, got)
        self.asked = asked
        self.got = got

    def __str__(self) -> str:
        return f"expected execution provider {self.asked}; found {self.got}"


class EncodeFailed(EndoClipError):
    """A graph did not run, or its output is not finite; the cause is chained."""


class OutputNotFinite(EncodeFailed):
    """A graph ran, and gave numbers that are NaN or infinite."""
