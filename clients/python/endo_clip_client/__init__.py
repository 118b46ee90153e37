"""Client of the Endo-CLIP service: `Client`, `AsyncClient`, and the command `endo-clip`."""

from endo_clip_client.aio import AsyncClient, AsyncExam
from endo_clip_client.archive import Archive
from endo_clip_client.client import Client, Exam
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
from endo_clip_client.exam_results import ExamFrame, ExamResult, ExamTask, Segment, Taken
from endo_clip_client.messages import Dropped, Full, Kept, Message, Opened, Result
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
from endo_clip_client.stream import Stream
from endo_clip_client.streaming import AsyncStream, Counts

__version__ = "0.1.0"

__all__ = [
    "AllFramesRejected",
    "Answer",
    "Archive",
    "ArchiveFailed",
    "AsyncClient",
    "AsyncExam",
    "AsyncStream",
    "Busy",
    "Client",
    "ClientError",
    "Counts",
    "Dropped",
    "Exam",
    "ExamFrame",
    "ExamResult",
    "ExamTask",
    "Frame",
    "FrameError",
    "FrameIn",
    "FrameLike",
    "FrameUnreadable",
    "Full",
    "Heatmap",
    "InvalidRequest",
    "Kept",
    "Label",
    "Message",
    "Model",
    "NeedsKey",
    "NotFound",
    "Opened",
    "OperatingPoint",
    "Patient",
    "PatientIn",
    "Progress",
    "Refused",
    "Result",
    "Retry",
    "Scored",
    "Segment",
    "ServiceFailed",
    "Stream",
    "Taken",
    "TimedOut",
    "TooLarge",
    "TooSlow",
    "UnexpectedAnswer",
    "Unreachable",
    "__version__",
]
