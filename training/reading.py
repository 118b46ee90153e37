"""What training reads of a record: its frames, its findings with attribute codes, its claims.

Everything here comes from the report text through the rule-based extractor; truth files are never
opened. Pathology is stripped before anything else.
"""

from __future__ import annotations

from dataclasses import dataclass
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
        frames: Paths in order.
        positive: The report found a lesion.
        lesions: One per finding; empty for polyp-free reports.
        normal_text: Sentences of a polyp-free report, "" otherwise.
        source: Data set or imaging system, "" where unknown.
        groups: Source groups; no batch of stage 3 holds two exams that share one.
        part: Of the split.
    """

    record_id: str
    frames: tuple[Path, ...]
    positive: bool
    lesions: tuple[Lesion, ...]
    normal_text: str
    source: str
    groups: frozenset[str]
    part: str


def read_exams(records: list[Record], config: AttributesConfig, archive: Path) -> list[Exam]:
    """Read every record's report, in order.

    Args:
        records: Of one archive.
        config: What reads the reports.
        archive: The archive's folder.
    """
    del config, archive  # the rules, until a ledger can be read
    return [_exam(record) for record in records]


def attributes_digest(config: AttributesConfig, archive: Path) -> str:
    """What a stage's key holds of the attributes' origin: ``rules`` or the ledger's digest."""
    if config.source == "rules":
        return config.source
    return file_digest(archive / config.source)


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


def _exam(record: Record) -> Exam:
    report = strip_pathology(record.report)
    positive = polyp_mentioned(report)
    findings = extract(report) if positive else []
    return Exam(
        record_id=record.record_id,
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
