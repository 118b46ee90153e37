"""One exam: its texts de-identified, its frames made fit and written, and what there is to tell.

What comes out is a fragment: JSON that holds pseudonyms only, from which the archive is assembled.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from model_store.errors import ImageCode, ImageRejected
from training.attributes import polyp_mentioned
from training.errors import ArchiveRefused
from training.ingest.characters import even, visible
from training.ingest.config import IngestConfig, ProfileConfig
from training.ingest.dates import Dates, parse_births, parse_date
from training.ingest.deidentify import Deidentifier
from training.ingest.identities import Identities
from training.ingest.language import language_of
from training.ingest.ledger import Entry, Reason
from training.ingest.pathology import is_neoplastic, split_pathology
from training.ingest.pictures import prepare
from training.ingest.pseudonyms import Pseudonyms
from training.ingest.raw import PathOutside, RawFrame, Trouble, find_exam, raw_frames

__all__ = ["UNKNOWN_SOURCE", "ExamReader", "Task"]

UNKNOWN_SOURCE = "unknown"
# Patterns take time that grows with the square of a hostile text; this many take seconds at worst.
_MOST_CHARACTERS = 20_000
_BLANKS = re.compile(r"[ \t]{2,}")
_REASON_OF = {
    ImageCode.IMAGE_TRUNCATED: Reason.IMAGE_TRUNCATED,
    ImageCode.TOO_MANY_BYTES: Reason.IMAGE_SIZE,
    ImageCode.TOO_MANY_PIXELS: Reason.IMAGE_SIZE,
    ImageCode.TOO_SMALL: Reason.IMAGE_SIZE,
}


@dataclass(frozen=True)
class Task:
    """A row of the report table, and the labels that somebody gave to its frames.

    Attributes:
        record: Pseudonym of the exam.
        exam: Exam number.
        patient: Patient number.
        cells: Text by column.
        labels: By frame name: lesion, neoplastic, line of the labels table.
    """

    record: str
    exam: str
    patient: str
    cells: dict[str, str]
    labels: dict[str, tuple[bool, bool | None, int]] = field(default_factory=dict)


_deidentifier = cache(Deidentifier)


class ExamReader:
    """Reads exams; one per process."""

    def __init__(self, config: IngestConfig, key: bytes) -> None:
        """Load what all exams need.

        Args:
            config: With absolute paths.
            key: Of the pseudonyms.
        """
        self._config = config
        self._pseudonyms = Pseudonyms(key)
        self._deidentifier = _deidentifier()

    def read(self, task: Task, folder: Path) -> dict[str, Any]:
        """Read an exam and write its frames.

        Args:
            task: The exam.
            folder: Its frames go here; what lies here from a run that was cut off is deleted.

        Returns:
            The fragment: ``ledger`` (rows), and unless the exam is left out ``record`` (without
            groups), ``frames``, ``pathology`` and ``labels``.
        """
        shutil.rmtree(folder, ignore_errors=True)
        ledger: list[Entry] = []
        texts = self._texts(task, ledger)
        frames = self._frames(task, folder, ledger) if texts else None
        unmet = frames.unmet if frames and frames.stored else task.labels
        for _, _, line in unmet.values():
            ledger.append(Entry(Reason.LABEL_UNKNOWN, task.record, told={"line": line}))
        fragment: dict[str, Any] = {"ledger": [entry.row() for entry in ledger]}
        if texts is None or frames is None or not frames.stored:
            shutil.rmtree(folder, ignore_errors=True)
            return fragment
        report, pathology = texts
        fragment["record"] = {
            "record_id": task.record,
            "patient_id": self._pseudonyms.patient(task.patient),
            "report": report,
            "source": frames.source or UNKNOWN_SOURCE,
        }
        fragment["frames"] = frames.stored
        fragment["labels"] = frames.labels
        if pathology:
            told = {"text": pathology, "neoplastic": is_neoplastic(pathology)}
            fragment["pathology"] = {"record_id": task.record, **told}
        return fragment

    def _texts(self, task: Task, ledger: list[Entry]) -> tuple[str, str] | None:
        """Report and pathology, de-identified and apart; None where the exam is left out."""
        columns, cells = self._config.columns, task.cells
        # Runs of blanks say nothing, and patterns are slow on them.
        report = _BLANKS.sub(" ", cells[columns.report])
        if not re.search(r"\w", report):
            ledger.append(Entry(Reason.REPORT_EMPTY, task.record))
            return None
        pathology = _BLANKS.sub(" ", cells[columns.pathology]) if columns.pathology else ""
        if max(len(report), len(pathology)) > _MOST_CHARACTERS:
            ledger.append(Entry(Reason.REPORT_TOO_LONG, task.record))
            return None
        language = language_of(report)
        if language not in self._config.languages:
            left = self._config.other_language == "leave_out"
            fate = "left_out" if left else "marked"
            told = {"detail": language}
            ledger.append(Entry(Reason.REPORT_LANGUAGE, task.record, told=told, fate=fate))
            if left:
                return None
        identities, dates = self._known(task, ledger)
        # Before names go, since a header ("Befund:") may be taken for one.
        kept, stated = split_pathology(even(visible(report)))
        kept, removed = self._deidentifier.clean(kept, identities, dates)
        pathology = "\n".join(text for text in (pathology, stated) if text)
        pathology, more = self._deidentifier.clean(pathology, identities, dates)
        if not re.search(r"\w", kept):
            ledger.append(Entry(Reason.REPORT_EMPTY, task.record))
            return None
        if not polyp_mentioned(kept):
            ledger.append(Entry(Reason.REPORT_WITHOUT_LESION, task.record))
        if counts := dict(sorted((removed + more).items())):
            ledger.append(Entry(Reason.IDENTITIES_REMOVED, task.record, told={"removed": counts}))
        return kept, pathology

    def _known(self, task: Task, ledger: list[Entry]) -> tuple[Identities, Dates]:
        columns, cells, first = self._config.columns, task.cells, self._config.day_first
        identities = Identities(
            names=[cells[name] for name in columns.names],
            numbers=[task.exam, task.patient, *(cells[name] for name in columns.numbers)],
            deny=self._config.deny,
        )
        examined = parse_date(cells[columns.date], first) if columns.date else None
        told = [cells[name] for name in columns.birth_dates if cells[name].strip()]
        births = [parse_births(cell, first, examined) for cell in told]
        unread = births.count(frozenset())
        unread += bool(columns.date and cells[columns.date].strip() and examined is None)
        if unread:
            ledger.append(Entry(Reason.DATE_UNREAD, task.record, told={"count": unread}))
        shift = self._pseudonyms.shift_days(task.patient)
        return identities, Dates(shift, first, examined, frozenset().union(*births))

    def _frames(self, task: Task, folder: Path, ledger: list[Entry]) -> _Frames | None:
        name = self._config.columns.place(task.cells)
        try:
            base, files = find_exam(Path(self._config.data), name)
        except PathOutside:
            ledger.append(Entry(Reason.PATH_OUTSIDE, task.record))
            return None
        if not files:
            ledger.append(Entry(Reason.FRAMES_MISSING, task.record))
            return None
        frames = _Frames(self._config, task, folder, ledger)
        shown = raw_frames(files, base, self._config.kind, self._config.video_fps)
        for position, item in enumerate(shown):
            frames.take(position, item)
        frames.finish()
        return frames


class _Frames:
    """The frames of one exam on their way into its folder."""

    def __init__(self, config: IngestConfig, task: Task, folder: Path, ledger: list[Entry]) -> None:
        self.stored: list[dict[str, Any]] = []
        self.labels: list[dict[str, Any]] = []
        self.source = ""
        self._config, self._task, self._folder, self._ledger = config, task, folder, ledger
        self._seen: dict[str, str] = {}
        self._marks: Counter[Reason] = Counter()
        self.unmet = dict(task.labels)
        device = config.columns.device
        self._device = task.cells[device] if device else ""

    def take(self, position: int, item: RawFrame | Trouble) -> None:
        frame = f"{self._task.record}/{position:04d}"
        if isinstance(item, Trouble):
            told = {"detail": item.detail} if item.detail else None
            self._note(item.reason, frame, told)
            return
        profile = self._profile(item)
        if profile is None and self._config.require_profile:
            return
        try:
            picture = prepare(item.picture, profile.crop if profile else None, self._config.encode)
        except ImageRejected as error:
            self._note(_REASON_OF.get(error.code, Reason.IMAGE_UNDECODABLE), frame)
            return
        except ValueError:
            self._note(Reason.CROP_OUTSIDE, frame)
            return
        digest = hashlib.sha256(picture.data).hexdigest()
        name = f"{position:04d}{picture.suffix}"
        if digest in self._seen:
            first = f"{self._task.record}/{Path(self._seen[digest]).stem}"
            self._note(Reason.DUPLICATE_EXACT, frame, {"of": first})
        else:
            self._seen[digest] = name
            _write(self._folder / name, picture.data)
            self.stored.append(
                {"name": name, "sha256": digest, "phash": picture.phash}
                | {"width": picture.width, "height": picture.height, "bytes": len(picture.data)}
            )
        self._label(item.name, self._seen[digest])

    def finish(self) -> None:
        """Tell what is told once per exam."""
        for reason, count in self._marks.items():
            left = reason is Reason.CROP_PROFILE_MISSING and self._config.require_profile
            self._ledger.append(
                Entry(
                    reason,
                    self._task.record,
                    told={"count": count},
                    fate="left_out" if left else "marked",
                )
            )
        if not self.stored:
            self._note(Reason.FRAMES_NONE_LEFT, "")

    def _note(self, reason: Reason, frame: str, told: dict[str, Any] | None = None) -> None:
        self._ledger.append(Entry(reason, self._task.record, frame, told))

    def _profile(self, item: RawFrame) -> ProfileConfig | None:
        name = profile_of(self._config.profiles, f"{self._device} {item.device}")
        self.source = self.source or name
        if name:
            return self._config.profiles[name]
        self._marks[Reason.CROP_PROFILE_MISSING] += 1
        if item.burned_in:
            self._marks[Reason.BURNED_IN_TEXT] += 1
        return None

    def _label(self, raw_name: str, name: str) -> None:
        if found := self.unmet.pop(raw_name, None):
            lesion, neoplastic, _ = found
            if all(label["name"] != name for label in self.labels):
                self.labels.append({"name": name, "lesion": lesion, "neoplastic": neoplastic})


def profile_of(profiles: Mapping[str, ProfileConfig], device: str) -> str:
    """Name of the first profile that the device's description matches, "" where none does."""
    plain = device.casefold()
    for name, profile in profiles.items():
        if any(text.casefold() in plain for text in profile.match):
            return name
    return ""


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        # Not the error itself: it names paths.
        raise ArchiveRefused(f"a frame cannot be written: {error.strerror}") from None
