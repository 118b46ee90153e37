"""Lines of the contract about live streams; each with an exam of its own."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from math import isclose
from typing import Any

from exams import TASK, TIMES, Exam, exam_of
from kit import FRAME, Kit, Skipped, line, need
from wire import Stream, streaming

BURST = 24
PATIENCE_S = 60.0


@contextmanager
def stream_of(exam: Exam, query: str = "") -> Iterator[Stream]:
    """Open the stream of an exam."""
    kit = exam.kit
    path = f"/v1/{exam.path}/stream{query}"
    with streaming(kit.url, kit.key, path, PATIENCE_S) as stream:
        yield stream


def opened(stream: Stream) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Give the first message, which must be `open`, and those after it."""
    refused = stream.refused
    if refused is not None and refused.status_code == 503:
        raise Skipped(f"no stream is free here: {refused.json().get('code')}")
    need(refused is None, f"expected 101; found {refused and refused.status_code}")
    messages = stream.messages()
    hello = next(messages, {})
    need(hello.get("type") == "open", f"expected the message open; found {hello.get('type')!r}")
    return hello, messages


def taken(text: str, image: bytes = FRAME, later_us: int = 0) -> bytes:
    """A frame as a stream takes it: when it was captured, and its file."""
    moment = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return struct.pack(">q", moment // timedelta(microseconds=1) + later_us) + image


def instant(text: str) -> datetime:
    """Read a time of an answer."""
    return datetime.fromisoformat(text)


@line("GET /v1/exams/{id}/stream: the first message is `open`, with what is kept and the limits")
def opening(kit: Kit) -> None:
    """What is no stream is refused before the handshake, as a problem document."""
    with exam_of(kit) as exam:
        with stream_of(exam, "?keep_every_ms=250") as stream:
            hello, _ = opened(stream)
            need(hello["exam_id"] == exam.exam_id, "expected the exam named")
            found = (hello["revision"], hello["last_captured_at"], hello["keep_every_ms"])
            need(found == (0, None, 250), f"expected an empty exam and 250 ms; found {found}")
            need(hello["max_message_bytes"] >= 1024 * 1024, "expected room for a frame")
            need("research use" in hello["intended_use"].lower(), "expected the intended use")
        with stream_of(exam, "?keep_every_ms=soon") as stream:
            need(stream.refused, "expected a wrong parameter to be refused")
            kit.problem(stream.refused, 422, "invalid_request")
        exam.result("close")
        with stream_of(exam) as stream:
            need(stream.refused, "expected a closed exam's stream to be refused")
            kit.problem(stream.refused, 409, "exam_closed")
    with stream_of(exam) as stream:
        need(stream.refused, "expected the stream of an exam that is gone to be refused")
        kit.problem(stream.refused, 404, "not_found")


@line("A stream answers a frame with its capture time and the figures of POST, then it is `kept`")
def answering(kit: Kit) -> None:
    """And the exam holds it."""
    with exam_of(kit) as exam, exam_of(kit) as other:
        answer = other.send({"0": FRAME}).json()["frames"][0]
        wanted = answer["results"][TASK]
        with stream_of(exam) as stream:
            _, messages = opened(stream)
            stream.send(taken(TIMES[0]))
            told = {one["type"]: one for one in _until(messages, "frame", "kept")}
        frame, kept = told["frame"], told["kept"]
        need(frame["status"] == "scored", f"expected the kit's frame scored; found {frame}")
        found = instant(frame["captured_at"])
        need(found == instant(TIMES[0]), f"expected its capture time; found {found}")
        value = frame["results"][TASK]["probability"]
        need(
            isclose(value, wanted["probability"], abs_tol=1e-5), f"expected {wanted}; found {value}"
        )
        need(frame["results"][TASK]["decision"] == wanted["decision"], "expected one decision")
        need(frame["ms"] > 0, "expected the time it took")
        need(kept["frame_id"] == frame["frame_id"], "expected the frame to be kept under its id")
        need((kept["revision"], exam.result()["revision"]) == (1, 1), "expected one frame kept")


@line("While a stream works on a frame the newest waits; the others are dropped, and counted")
def dropping(kit: Kit) -> None:
    """Results keep their order, the last frame has one, none is unaccounted for."""
    with exam_of(kit) as exam, stream_of(exam) as stream:
        _, messages = opened(stream)
        stream.send(*(taken(TIMES[0], later_us=number * 40_000) for number in range(BURST)))
        told = []
        for one in messages:
            told += [one] if one["type"] in ("frame", "dropped") else []
            if told and told[-1]["received"] == BURST and _number(told[-1]) == BURST - 1:
                break
        need(told and _number(told[-1]) == BURST - 1, "expected the last frame's result")
        numbers = [_number(one) for one in told]
        need(numbers == sorted(set(numbers)), f"expected results in order; found {numbers}")
        answered = sum(one["type"] == "frame" for one in told)
        dropped = told[-1]["dropped"]
        need(set(dropped) == {"newer", "overloaded", "rate_limited"}, "expected drops by reason")
        found = answered + sum(dropped.values())
        need(found == BURST, f"expected {BURST} frames accounted for; found {found}")


@line("A message that is no frame ends a stream: `problem` malformed_request, close code 1008")
def malformed(kit: Kit) -> None:
    """Too short, a text, a time outside of the calendar."""
    with exam_of(kit) as exam:
        for message in (b"short", "text", struct.pack(">q", 2**62) + FRAME):
            with stream_of(exam) as stream:
                _, messages = opened(stream)
                stream.send(message)
                *_, last = [{"type": "nothing"}, *messages]
                found = (last["type"], last.get("code"), stream.code)
                need(
                    found == ("problem", "malformed_request", 1008),
                    f"expected problem, malformed_request, 1008; found {found}",
                )
                for name in ("title", "status", "detail", "request_id"):
                    need(name in last, f"expected the member {name}")
        need(exam.result()["revision"] == 0, "expected nothing kept")


@line("A stream that broke is opened again: nothing kept is lost, a frame sent again is the same")
def resuming(kit: Kit) -> None:
    """`open` says up to when frames are kept."""
    with exam_of(kit) as exam:
        with stream_of(exam) as stream:
            _, messages = opened(stream)
            stream.send(taken(TIMES[0]))
            first = {one["type"]: one for one in _until(messages, "frame", "kept")}
        with stream_of(exam) as stream:  # the first one was cut off without a word
            hello, messages = opened(stream)
            need(hello["revision"] == 1, f"expected one frame kept; found {hello['revision']}")
            last = hello["last_captured_at"]
            need(last and instant(last) == instant(TIMES[0]), f"expected its time; found {last}")
            stream.send(taken(TIMES[0]))
            again = {one["type"]: one for one in _until(messages, "frame", "kept")}
        need(again["frame"]["frame_id"] == first["frame"]["frame_id"], "expected the same id")
        need(again["kept"]["revision"] == 1, "expected a frame sent again to be no new one")


def _until(messages: Iterator[dict[str, Any]], *types: str) -> list[dict[str, Any]]:
    """Read until each of the types has come; a stream that ends before is at fault."""
    found: list[dict[str, Any]] = []
    for one in messages:
        found.append(one)
        if set(types) <= {each["type"] for each in found}:
            return found
    last = found[-1] if found else {}
    raise AssertionError(f"expected {', '.join(types)}; the stream ended with {last.get('code')}")


def _number(told: dict[str, Any]) -> int:
    """Which of the burst a result is of, by its capture time."""
    past = instant(told["captured_at"]) - instant(TIMES[0])
    return round(past / timedelta(milliseconds=40))
