"""What was left out or marked, and why: reason codes, and entries that name pseudonyms only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["FATES", "Entry", "Reason"]


class Reason(StrEnum):
    """Why something stands in the ledger."""

    ROW_UNREADABLE = "row_unreadable"
    """A line of the report table cannot be parsed; left out."""
    EXAM_WITHOUT_ID = "exam_without_id"
    """A row has no exam number; left out."""
    PATIENT_WITHOUT_ID = "patient_without_id"
    """A row has no patient number, or "unknown" and the like in its place, so it cannot be kept on
    one side of the split; left out."""
    EXAM_REPEATED = "exam_repeated"
    """A later row has the exam number of an earlier one; the first is kept, this one left out."""
    REPORT_MISSING = "report_missing"
    """Frames lie below the data folder that no row of the table names; left out."""
    REPORT_EMPTY = "report_empty"
    """The report holds no text, or nothing beside pathology; the exam is left out."""
    REPORT_TOO_LONG = "report_too_long"
    """Report or pathology have over 20,000 characters, which no report has; left out."""
    REPORT_LANGUAGE = "report_language"
    """The report is in a language (``detail``) that the recipe does not take."""
    REPORT_WITHOUT_LESION = "report_without_lesion"
    """The report describes no lesion; kept as a polyp-free record."""
    DATE_UNREAD = "date_unread"
    """Cells of the exam's date columns (``count``) hold no date in a known form: a birth date in
    the report would be moved instead of removed, a day without a year removed instead of moved."""
    FRAMES_MISSING = "frames_missing"
    """The exam's folder or file is not there or is empty; left out."""
    FRAMES_NONE_LEFT = "frames_none_left"
    """Every frame of the exam was left out, so the exam is too."""
    FOLDER_SHARED = "folder_shared"
    """The exam's folder or file is another row's as well, or holds the folders of other exams, so
    that whose frames they are is not known; left out."""
    PATH_OUTSIDE = "path_outside"
    """The exam's folder would lie outside the data folder; left out."""
    FILE_UNREADABLE = "file_unreadable"
    """The system cannot read a file (permissions, a damaged disk); left out."""
    NOT_AN_IMAGE = "not_an_image"
    """A file is of no kind that the recipe's ``kind`` reads; left out."""
    IMAGE_TRUNCATED = "image_truncated"
    """An image file ends early; left out."""
    IMAGE_UNDECODABLE = "image_undecodable"
    """An image file is damaged inside or empty; left out."""
    IMAGE_SIZE = "image_size"
    """A picture has too many bytes or pixels, or a side under 64 px after cropping; left out."""
    DICOM_UNREADABLE = "dicom_unreadable"
    """A DICOM file is damaged, or holds no pixels; left out."""
    DICOM_TRANSFER_SYNTAX = "dicom_transfer_syntax"
    """A DICOM file is compressed in a way that no decoder here reads (``detail``: the standard's
    name of it); left out."""
    VIDEO_UNREADABLE = "video_unreadable"
    """A video cannot be opened or holds no picture; left out."""
    VIDEO_DAMAGED = "video_damaged"
    """Parts of a video could not be decoded; what could be is kept."""
    DECODER_CRASHED = "decoder_crashed"
    """A decoder took its process down on this exam, twice; the exam is left out."""
    CROP_PROFILE_MISSING = "crop_profile_missing"
    """No device profile crops these frames (``count``): burned-in text would stay."""
    CROP_OUTSIDE = "crop_outside"
    """The profile's box does not fit the picture; left out."""
    BURNED_IN_TEXT = "burned_in_text"
    """DICOM says that these frames (``count``) hold burned-in text, and no profile crops them."""
    DUPLICATE_EXACT = "duplicate_exact"
    """The same bytes as an earlier frame of the exam (``of``); stored once."""
    SHARED_BY_MANY = "shared_by_many"
    """Pictures (``count``) of the exam occur with many patients (a test card, a black screen):
    kept, but they tie no patients together."""
    LABEL_UNKNOWN = "label_unknown"
    """A row of the labels table names no frame that was kept, or says nothing clear; left out."""
    LABEL_CONTRADICTORY = "label_contradictory"
    """A row of the labels table says neoplastic of a frame without a lesion, or something else than
    an earlier row (``first_line``) of the same frame; left out."""
    IDENTITIES_REMOVED = "identities_removed"
    """How many identities were taken out of the exam's texts, by kind (``removed``)."""


_MARKED = {
    Reason.REPORT_WITHOUT_LESION,
    Reason.DATE_UNREAD,
    Reason.VIDEO_DAMAGED,
    Reason.CROP_PROFILE_MISSING,
    Reason.BURNED_IN_TEXT,
    Reason.SHARED_BY_MANY,
    Reason.IDENTITIES_REMOVED,
}
FATES = ("left_out", "marked")


@dataclass(frozen=True)
class Entry:
    """One line of ``ledger.jsonl``.

    Attributes:
        reason: Why.
        record: Pseudonym of the exam; "" where it has none.
        frame: ``<record>/<position>`` of a frame among the exam's raw ones; "" = the whole exam.
        told: What else there is to say: ``line``, ``first_line``, ``detail``, ``count``, ``of``,
            ``removed``; never an original id, name, file name or text.
        fate: ``left_out`` or ``marked``; "" = what goes with the reason.
    """

    reason: Reason
    record: str = ""
    frame: str = ""
    told: dict[str, Any] | None = None
    fate: str = ""

    def row(self) -> dict[str, Any]:
        """The JSON object of the line."""
        fate = self.fate or FATES[self.reason in _MARKED]
        named = {"record": self.record or None, "frame": self.frame or None}
        return {"reason": self.reason.value, "fate": fate, **named, **(self.told or {})}
