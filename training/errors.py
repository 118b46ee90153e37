"""Errors of the training side, one branch of the common tree.

EndoClipError                       (model_store.errors)
└── TrainingError                   anything a person who trains can put right
    ├── ConfigError                 a recipe key is unknown, missing or out of range
    ├── RecordError                 one bad line of an archive, with file and line
    ├── ArchiveRefused              an archive that must not be used as a whole
    ├── Diverged                    a loss is no longer a number
    ├── EndpointError               a language model's endpoint cannot be used
    ├── FrameUnreadable             a frame that is missing or no usable image
    ├── LabelsRefused               labelled frames that nothing can be fitted to or measured on
    ├── ParityError                 an exported graph differs from torch beyond tolerance
    ├── ScoringStopped              scoring cannot go on here; what is scored stays
    └── StaleInput                  a stage's input is not the one it was made from
"""

from pathlib import Path

from model_store.errors import EndoClipError

__all__ = [
    "ArchiveRefused",
    "ConfigError",
    "Diverged",
    "EndpointError",
    "FrameUnreadable",
    "LabelsRefused",
    "ParityError",
    "RecordError",
    "ScoringStopped",
    "StaleInput",
    "TrainingError",
]


class TrainingError(EndoClipError):
    """Base of every error raised by the training package."""


class ConfigError(TrainingError):
    """A recipe cannot be used; the message lists every bad key at once."""


class RecordError(TrainingError):
    """One line of an archive is bad.

    Attributes:
        path: the file that holds the line.
        line: line number, counted from 1; 0 when the file as a whole is meant.
        reason: what was expected and what was found.
    """

    def __init__(self, path: Path, line: int, reason: str) -> None:
        super().__init__(f"{path.name}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


class ArchiveRefused(TrainingError):
    """An archive breaks a rule that no single line can answer for."""


class EndpointError(TrainingError):
    """A language model's endpoint cannot be used, or stopped answering."""


class Diverged(TrainingError):
    """A stage's loss is not finite; its checkpoint is from before."""


class FrameUnreadable(TrainingError):
    """A frame of an archive is missing or no usable image; its neighbours are not concerned.

    Attributes:
        path: the frame's.
        reason: what was found.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path.parent.name}/{path.name}: {reason}")
        self.path = path
        self.reason = reason


class LabelsRefused(TrainingError):
    """Labelled frames are too few, of one class, or not apart; no single line is at fault."""


class ParityError(TrainingError):
    """An exported graph and torch disagree beyond the tolerance.

    Attributes:
        difference: largest difference measured.
        tolerance: largest difference allowed, in the same norm.
    """

    def __init__(self, difference: float, tolerance: float, what: str = "export") -> None:
        super().__init__(
            f"{what}: expected a difference of at most {tolerance:g}, found {difference:g}"
        )
        self.difference = difference
        self.tolerance = tolerance


class ScoringStopped(TrainingError):
    """Scoring cannot go on here: disk full, no permission, a worker killed, another run at it."""


class StaleInput(TrainingError):
    """An input folder changed after the output that names it was made."""
