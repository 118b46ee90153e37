"""What training reads of a record: its frames, its findings with attribute codes, its claims.

Everything here comes from the report text, read by the rules or by the extractor of a ledger
(``training.extract``); truth files are never opened. Pathology is stripped before anything else,
and an opinion on histology never stands in a lesion's morphology text, even inside of a sentence.

Whether a report names a lesion, and what the endoscopist thought of it, the rules say for every
source: they are the labels of cleansing and of the class sentences, and an ablation of attributes
must not move them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from training.attributes import (
    ATTRIBUTES,
    ORDINAL,
    PARIS_GROUPS,
    Finding,
    extract,
    polyp_mentioned,
    strip_pathology,
)
from training.claims import without_number
from training.config import AttributesConfig
from training.errors import ArchiveRefused, StaleInput
from training.extract.ledger import findings_of, read_ledger, report_digest
from training.records import Record
from training.runs import file_digest
from training.sentences import sentences

__all__ = [
    "IMPRESSIONS",
    "LEVELS",
    "Exam",
    "Lesion",
    "attributes_digest",
    "read_exams",
    "similarity_tables",
]

IMPRESSIONS = ("neoplastic", "non-neoplastic")
LEVELS = tuple(len(values) for values in ATTRIBUTES.values())


@dataclass(frozen=True)
class Lesion:
    """One finding as training uses it.

    Attributes:
        text: Its morphology sentences.
        codes: One level index per attribute, -1 = not mentioned.
        opinion: 0 neoplastic, 1 non-neoplastic, -1 no impression given.
        opinion_text: The impression sentence, or "".
    """

    text: str
    codes: tuple[int, ...]
    opinion: int
    opinion_text: str


@dataclass(frozen=True)
class Exam:
    """One record, read.

    Attributes:
        record_id: Of the record.
        patient_id: Of the record.
        frames: Paths in order.
        positive: The report found a lesion.
        lesions: One per finding; empty for polyp-free reports.
        normal_text: Sentences of a polyp-free report, "" otherwise.
        source: Data set or imaging system, "" where unknown.
        groups: Source groups.
        part: Of the split.
    """

    record_id: str
    patient_id: str
    frames: tuple[Path, ...]
    positive: bool
    lesions: tuple[Lesion, ...]
    normal_text: str
    source: str
    groups: frozenset[str]
    part: str

    @property
    def ties(self) -> frozenset[str]:
        """Patient and source groups; no batch of stage 3 holds two exams that share one."""
        return self.groups | {self.patient_id}


def read_exams(
    records: list[Record], config: AttributesConfig, archive: Path, size_words: bool = False
) -> list[Exam]:
    """Read every record's report, in order.

    Args:
        records: Of one archive.
        config: What reads the reports, and what of it is spoilt for an ablation.
        archive: The archive's folder.
        size_words: The rules read "small" and "large" as bands, as composed reports mean them.

    Raises:
        ArchiveRefused: There is no such ledger.
        StaleInput: The ledger lacks records, or holds other reports of them.
        RecordError: The ledger is damaged.
    """
    if config.source == "rules":
        exams = [_exam(record, extract(record.report, size_words)) for record in records]
    else:
        exams = _from_ledger(records, archive / config.source, archive)
    if config.corrupted or config.dropped:
        exams = [_spoilt(exam, config) for exam in exams]
    return exams


def attributes_digest(config: AttributesConfig, archive: Path) -> str:
    """What a stage's key holds of the attributes' origin: ``rules`` or the ledger's digest."""
    if config.source == "rules":
        return config.source
    path = archive / config.source
    if not path.is_file():
        raise ArchiveRefused(f"expected the ledger {config.source} in the archive, found none")
    return file_digest(path)


def similarity_tables() -> list[Tensor]:
    """One (levels, levels) similarity per attribute: identity, ranks, or Paris by group."""
    tables = []
    for name, values in ATTRIBUTES.items():
        table = torch.eye(len(values))
        if name in ORDINAL:
            rank = torch.arange(len(values)).float()
            table = 1.0 - (rank[:, None] - rank[None, :]).abs() / (len(values) - 1)
        if name == "paris":
            group = [PARIS_GROUPS[value] for value in values]
            same = torch.tensor([[a == b for b in group] for a in group])
            # Half agreement inside a group: experts tell its members apart in 3 of 4 only.
            table = torch.where(torch.eye(len(values)) > 0, 1.0, 0.5 * same.float())
        tables.append(table)
    return tables


def _from_ledger(records: list[Record], path: Path, archive: Path) -> list[Exam]:
    extractor, entries = read_ledger(path)
    missing = sum(record.record_id not in entries for record in records)
    other = sum(
        record.record_id in entries
        and entries[record.record_id].report != report_digest(record.report)
        for record in records
    )
    if missing or other:
        asked = f" --llm URL --model {extractor.model}" if extractor.prompt else ""
        raise StaleInput(
            f"{path.name} lacks {missing} of {len(records)} records and holds another report of "
            f"{other}; mend it: python -m training extract --archive {archive} --out {path}{asked}"
        )
    return [
        _exam(record, findings_of(entries[record.record_id], record.report)) for record in records
    ]


def _spoilt(exam: Exam, config: AttributesConfig) -> Exam:
    """Replace and drop shares of the mentioned values, for "do extraction errors hurt?".

    Only codes change: lesions and their texts are what cleansing counts and stages are keyed by.
    Each value is drawn by a keyed hash of record, lesion and attribute, so that a draw depends on
    no other record and a share of 0.3 spoils all that a share of 0.1 does.
    """
    lesions = []
    for number, lesion in enumerate(exam.lesions):
        codes = list(lesion.codes)
        for k, code in enumerate(codes):
            where = (exam.record_id, number, k)
            if code < 0:
                continue
            if _draw("dropped", where) < config.dropped:
                codes[k] = -1
            elif _draw("corrupted", where) < config.corrupted:
                others = [value for value in range(LEVELS[k]) if value != code]
                codes[k] = others[int(_draw("value", where) * len(others))]
        lesions.append(replace(lesion, codes=tuple(codes)))
    return replace(exam, lesions=tuple(lesions))


def _draw(what: str, where: tuple[str, int, int]) -> float:
    """Uniform in [0, 1), always the same for the same place."""
    name = "\0".join(map(str, where)).encode("utf-8", "surrogatepass")
    digest = hashlib.blake2b(name, key=what.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _exam(record: Record, told: list[Finding]) -> Exam:
    report = strip_pathology(record.report)
    positive = polyp_mentioned(report)
    findings = told if positive else []
    return Exam(
        record_id=record.record_id,
        patient_id=record.patient_id,
        frames=record.frames,
        positive=positive,
        lesions=tuple(_lesion(finding) for finding in findings),
        normal_text="" if positive else _normal_text(report),
        source=record.source,
        groups=frozenset(record.groups),
        part=record.part,
    )


def _lesion(finding: Finding) -> Lesion:
    codes = []
    for name, values in ATTRIBUTES.items():
        found = finding.attributes.get(name)
        codes.append(values.index(found.value) if found else -1)
    opinion = IMPRESSIONS.index(finding.impression) if finding.impression else -1
    return Lesion(
        text=without_number(finding.text),
        codes=tuple(codes),
        opinion=opinion,
        opinion_text=without_number(finding.impression_text),
    )


def _normal_text(report: str) -> str:
    told = [s.text for s in sentences(report) if s.section in ("findings", "impression")]
    return " ".join(told[:3]) or report[:300]
