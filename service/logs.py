"""Log lines: JSON for machines or text for people, and nothing in them that a client sent.

Our own lines are `Event`s: a name and fields, of counts, times, ids and words from closed lists. Of
everything else, a library's message or a failure, only where it came from is written, never what it
says: `ValueError("... 'Mueller' ...")` quotes its input, and so do many messages. An internal error
is told by the types of the exceptions along its chain and the places of its traceback.
"""

import errno
import json
import logging
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from model_store.errors import BundleError, EncodeFailed

__all__ = ["Event", "LogFormat", "cause_of", "failure_fields", "set_up_logging"]

LogFormat = Literal["json", "text"]
_OURS = ("service", "model_store")
_MAX_PLACES = 12
_logger = logging.getLogger(__name__)


class Event:
    """The message of a log record: a name and fields, as `name key=value ...` where it is text."""

    __slots__ = ("fields", "name")

    def __init__(self, name: str, **fields: Any) -> None:
        """Describe what happened.

        Args:
            name: one word.
            fields: numbers, ids, words from closed lists; never what a client sent.
        """
        self.name = name
        self.fields: Mapping[str, Any] = fields

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.fields.items())])


def set_up_logging(level: str, style: LogFormat, stream: TextIO | None = None) -> None:
    """Send every log line, warning and unforeseen end of a thread to one place, in one form.

    Args:
        level: least severe of our own lines that is written. Libraries' begin at `warning`: at
            `debug`, Pillow's would write out image metadata.
        style: of the lines.
        stream: stderr when None.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_Formatter(style))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    # Its warnings count bytes of a body that is refused anyway.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # A damaged frame may be worth thousands of Pillow's, no two alike, and each that has been shown
    # is kept for good; what became of the frame is in its answer.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Three ways past logging, all of which print an exception's text.
    warnings.showwarning = _log_warning
    threading.excepthook = lambda args: _log_end(args.exc_value)
    sys.unraisablehook = lambda args: _log_end(args.exc_value)


def failure_fields(error: BaseException) -> dict[str, Any]:
    """Tell where an error came from, without its text.

    Returns:
        `error`: the exceptions along the chain, the last raised first; two kinds with their text,
        which is ours and of numbers and names inside a bundle. `at`: places, the innermost first.
    """
    chain = list(_chain(error))
    places = [
        f"{Path(place.filename).parent.name}/{Path(place.filename).name}:{place.lineno}"
        for one in reversed(chain)
        for place in reversed(traceback.extract_tb(one.__traceback__))
    ]
    return {"error": " <- ".join(map(_told, chain)), "at": " < ".join(places[:_MAX_PLACES]) or "-"}


def cause_of(error: BaseException) -> str:
    """Name what went wrong as the system or SQLite does (ENOSPC, SQLITE_FULL), else by its type."""
    named: str | None = getattr(error, "sqlite_errorname", None)
    if named is None and isinstance(error, OSError) and error.errno is not None:
        named = errno.errorcode.get(error.errno)
    return named or type(error).__name__


class _Formatter(logging.Formatter):
    def __init__(self, style: LogFormat) -> None:
        super().__init__()
        self._form = style

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        name, fields = _content(record)
        now = datetime.fromtimestamp(record.created, UTC)
        level = record.levelname.lower()
        if self._form == "text":
            shown = " ".join(f"{key}={value}" for key, value in fields.items())
            return f"{now:%Y-%m-%d %H:%M:%S}.{now.microsecond // 1000:03} {level:7} {name} {shown}"
        time = now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        head = {"time": time, "level": level, "logger": record.name, "event": name}
        return json.dumps(head | fields, default=str)


def _content(record: logging.LogRecord) -> tuple[str, dict[str, Any]]:
    if isinstance(record.msg, Event):
        name, fields = record.msg.name, dict(record.msg.fields)
    elif record.name.partition(".")[0] in _OURS:
        name, fields = "message", {"text": record.getMessage()}
    else:
        place = Path(record.pathname)
        said_at = f"{place.parent.name}/{place.name}:{record.lineno}"
        name, fields = "library", {"library": record.name, "said_at": said_at}
    if record.exc_info and record.exc_info[1] is not None:
        fields |= failure_fields(record.exc_info[1])
    return name, fields


def _log_warning(
    message: Warning | str,  # noqa: ARG001 - the signature is Python's
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    place = Path(filename)
    said_at = f"{place.parent.name}/{place.name}:{lineno}"
    _logger.warning(Event("warning", kind=category.__name__, said_at=said_at))


def _log_end(error: BaseException | None) -> None:
    if error is not None and not isinstance(error, SystemExit):
        _logger.error(Event("unforeseen", **failure_fields(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _told(error: BaseException) -> str:
    kind = type(error).__name__
    return f"{kind}: {error}" if isinstance(error, BundleError | EncodeFailed) else kind
