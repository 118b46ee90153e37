"""Client of the Endo-CLIP service: `Client`, `AsyncClient`, and the command `endo-clip`."""

from endo_clip_client.aio import AsyncClient
from endo_clip_client.archive import Archive
from endo_clip_client.client import Client
from endo_clip_client.conversations import Label, Progress, Scored
from endo_clip_client.errors import (
    AllFramesRejected,
    ArchiveFailed,
    Busy,
    ClientError,
    FrameUnreadable,
    InvalidRequest,
    NeedsKey,
    NotFound,
    Refused,
    ServiceFailed,
    TimedOut,
    TooLarge,
    TooSlow,
    UnexpectedAnswer,
    Unreachable,
)
from endo_clip_client.results import (
    Answer,
    Frame,
    FrameError,
    Heatmap,
    Model,
    OperatingPoint,
    Patient,
)
from endo_clip_client.retrying import Retry
from endo_clip_client.sending import FrameIn, FrameLike, PatientIn

__version__ = "0.1.0"

__all__ = [
    "AllFramesRejected",
    "Answer",
    "Archive",
    "ArchiveFailed",
    "AsyncClient",
    "Busy",
    "Client",
    "ClientError",
    "Frame",
    "FrameError",
    "FrameIn",
    "FrameLike",
    "FrameUnreadable",
    "Heatmap",
    "InvalidRequest",
    "Label",
    "Model",
    "NeedsKey",
    "NotFound",
    "OperatingPoint",
    "Patient",
    "PatientIn",
    "Progress",
    "Refused",
    "Retry",
    "Scored",
    "ServiceFailed",
    "TimedOut",
    "TooLarge",
    "TooSlow",
    "UnexpectedAnswer",
    "Unreachable",
    "__version__",
]
