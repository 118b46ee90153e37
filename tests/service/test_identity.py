"""A planted identity, sent wherever a client can put text, is in no log line, metric or trace.

Nor in an error, but where the contract gives the caller its own words back: `patients` of
`all_frames_rejected`, and a pointer to a key or parameter that it named itself.
"""

import json
import logging
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO, StringIO
from typing import Any

import httpx
import pytest
from PIL import Image, PngImagePlugin

from service.logs import LogFormat, set_up_logging
from service.middleware import log_failure
from tests.service.collector import Collector, collecting
from tests.service.conftest import Running, Serve, as_form, b64, patient
from tests.service.test_wire import sent
from tests.waiting import wait_until

WHO = "Zebrafink"
TASKS = ("polyp-detection", "malignancy", "zero-shot", "embeddings")
LABELS = [{"label": f"{WHO} polyp", "prompts": [f"{WHO} red"]}, {"label": "b", "prompts": ["c"]}]
PNG = {"Content-Type": "image/png"}
JSON = {"Content-Type": "application/json"}
HEADERS = {
    "User-Agent": WHO,
    "Referer": f"http://{WHO}/",
    "Cookie": f"name={WHO}",
    "From": WHO,
    "X-Forwarded-For": WHO,
    "X-Request-ID": f"{WHO} is not an id",
    "Authorization": f"Bearer {WHO}",
    "traceparent": f"00-{WHO}-{WHO}-01",
    "tracestate": f"vendor={WHO}",
    "baggage": f"name={WHO}",
}


@contextmanager
def keep_logging() -> Iterator[None]:
    """Put back afterwards what `set_up_logging` changes."""
    hooks = warnings.showwarning, threading.excepthook, sys.unraisablehook
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    warnings.showwarning, threading.excepthook, sys.unraisablehook = hooks
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(params=["json", "text"])
def log(request: pytest.FixtureRequest) -> Iterator[StringIO]:
    """Everything that logging, warnings and dying threads write, at `debug`."""
    stream = StringIO()
    style: LogFormat = request.param
    with keep_logging():
        set_up_logging("debug", style, stream)
        logging.root.setLevel(logging.DEBUG)
        yield stream


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def up(serve: Serve, collector: Collector) -> Iterator[Running]:
    with serve(traces_endpoint=collector.url, max_frames=4, max_body_bytes=200_000) as running:
        yield running


def tagged() -> bytes:
    """A red PNG with the identity in a text chunk and in EXIF."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Patient", WHO)
    out, exif = BytesIO(), Image.Exif()
    exif[0x010E] = WHO
    Image.new("RGB", (96, 80), (220, 20, 20)).save(out, "PNG", pnginfo=info, exif=exif)
    return out.getvalue()


def broken() -> list[bytes]:
    """Frames that cannot be read, each saying the identity."""
    good = tagged()
    text = struct.pack(">I", 4000) + b"tEXt" + WHO.encode() + b"\0" * 3996
    chunk = text + struct.pack(">I", zlib.crc32(text[4:]))
    return [WHO.encode(), good[:-40], good[:33] + chunk, b"BM" + WHO.encode() * 20, b""]


def requests(task: str) -> Iterator[dict[str, Any]]:
    """All forms with the identity in every field, sound and broken in every way."""
    options: dict[str, Any] = {"embeddings": {"texts": [WHO]}, "zero-shot": {"labels": LABELS}}
    more = options.get(task, {})
    for frame in (tagged(), *broken()):
        sent = patient(frame, patient_id=WHO)
        sent["frames"][0]["frame_id"] = WHO
        yield {"json": {"patients": [sent], **more}}
        form = as_form([], {"patient_id": WHO, "frames": [{"frame_id": WHO}], **more})
        form["files"].append(("frames", (f"{WHO}.png", frame, f"image/{WHO}")))
        yield form
        params = {"patient_id": WHO, "frame_id": WHO}
        if task == "zero-shot":
            params["labels"] = "malignancy"
        yield {"content": frame, "headers": PNG, "params": params}
    yield from faulty(more)


def faulty(more: dict[str, Any]) -> Iterator[dict[str, Any]]:
    one = patient(tagged(), patient_id=WHO)
    for edit in (
        {"device": WHO},
        {"operating_point": WHO},
        {"labels": WHO},
        {"labels": [LABELS[0], LABELS[0]]},
        {"labels": [{"label": WHO, "prompts": []}, LABELS[1]]},
        {"labels": [{"label": WHO * 50, "prompts": [WHO * 500]}, LABELS[1]]},
        {"texts": [WHO * 5000]},
        {"patients": [one, one]},
        {"patients": [patient(tagged(), patient_id=f"{WHO} {WHO}")]},
        {"patients": [{"patient_id": WHO, "frames": [{"image": WHO}]}]},
        {"patients": [{"frames": [{"image": b64(tagged()), "captured_at": WHO}]}]},
        {"patients": [patient(*[tagged()] * 9)]},
        {"patients": WHO},
        {"explain": WHO},
        {"patients": [one], WHO: 1},
    ):
        yield {"json": {"patients": [one], **more, **edit}}
    for body in (f'{{"{WHO}"', f'["{WHO}", "{WHO}]', f'{{"{WHO}": 1, "{WHO}": 2}}', WHO, ""):
        yield {"content": body.encode(), "headers": JSON}
    yield {"content": WHO.encode() * 30_000, "headers": JSON}
    for kind in (WHO, f"image/{WHO}", f"application/json; charset={WHO}"):
        yield {"content": WHO.encode(), "headers": {"Content-Type": kind}}
    for params in ({"device": WHO}, {"operating_point": WHO}, {WHO: WHO}, {"labels": WHO}):
        yield {"content": tagged(), "headers": PNG, "params": params}
        yield {"json": {"patients": [one]}, "params": params}
    for body in (f"--{WHO}\r\n{WHO}", f'--{WHO}\r\nContent-Disposition: {WHO}; name="{WHO}'):
        kind = f"multipart/form-data; boundary={WHO}"
        yield {"content": body.encode(), "headers": {"Content-Type": kind}}
    yield {"files": [(WHO, (f"{WHO}.png", tagged()))]}
    yield {"files": [("request", (WHO, f'{{"patient_id": "{WHO} "}}')), ("frames", (WHO, WHO))]}


def owed(answer: httpx.Response) -> str:
    """The answer without what the contract gives back to its caller."""
    document = answer.json()
    if document.get("code") == "all_frames_rejected":
        del document["patients"]
    for fault in document.get("errors", ()):
        del fault["pointer"]
    document.pop("pointer", None)
    detail = document.get("detail", "")
    if "not a key that this request takes here" in detail:
        document["detail"] = ""  # holds the pointer
    return json.dumps(document)


def hold_nothing(up: Running, log: StringIO, collector: Collector) -> None:
    assert WHO.lower() not in log.getvalue().lower()
    assert WHO.lower() not in up.client.get("/metrics").text.lower()
    assert WHO.lower().encode() not in collector.raw().lower()


@pytest.mark.parametrize("task", TASKS)
def test_identity_in_any_field_of_any_form_is_nowhere(
    up: Running, log: StringIO, collector: Collector, task: str
) -> None:
    statuses = []
    for request in requests(task):
        request["headers"] = {**HEADERS, **request.get("headers", {})}
        answer = up.client.post(f"/v1/{task}", **request)
        statuses.append(answer.status_code)
        if answer.status_code != 200:
            assert WHO.lower() not in owed(answer).lower(), (request, answer.text)
    assert {200, 400, 413, 415, 422} <= set(statuses)
    assert 500 not in statuses
    # A request's line is written once it is answered.
    wait_until(lambda: log.getvalue().count(f"/v1/{task}") >= len(statuses))
    hold_nothing(up, log, collector)


def test_identity_in_paths_methods_and_broken_http_is_nowhere(
    up: Running, log: StringIO, collector: Collector
) -> None:
    for path in (f"/{WHO}", f"/v1/models/{WHO}", f"/v1/{WHO}?{WHO}={WHO}", f"/v1/admin/{WHO}"):
        for method in ("GET", "POST", "HEAD", WHO.upper()):
            answer = up.client.request(method, path, headers=HEADERS)
            # Without keys whoever names a proxy, as HEADERS does, administers nothing.
            assert answer.status_code == (403 if "/admin/" in path else 404)
            assert WHO.lower() not in answer.text.lower()
    for wire in (
        f"{WHO}\r\n\r\n",
        f"GET /{WHO} HTTP/1.1\r\n{WHO}\r\n\r\n",
        f"POST /v1/malignancy HTTP/1.1\r\nHost: {WHO}\r\nContent-Length: {WHO}\r\n\r\n",
        f"POST /v1/malignancy HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{WHO}\r\n",
    ):
        assert WHO.encode() not in sent(up.port, wire.encode())
    hold_nothing(up, log, collector)


def fail(*_: object) -> None:
    try:
        raise KeyError(WHO)
    except KeyError as error:
        raise ValueError(f"expected {WHO}") from error


def test_internal_error_is_told_by_types_and_places_alone(
    up: Running, log: StringIO, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.scoring._head", fail)
    for request in requests("malignancy"):
        answer = up.client.post("/v1/malignancy", **request)
        if answer.status_code != 422:
            assert WHO.lower() not in answer.text.lower()
        if answer.status_code == 500:
            break
    assert answer.status_code == 500
    assert "ValueError <- KeyError" in log.getvalue()  # written before the answer
    assert "test_identity.py:" in log.getvalue()
    hold_nothing(up, log, collector)


def test_graph_that_fails_is_told_by_types_and_places_alone(
    serve: Serve, log: StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve() as up:
        up.client.get("/readyz")
        monkeypatch.setattr(up.app.state.engine.encoder, "encode_images", fail)
        request = {"patients": [patient(tagged(), patient_id=WHO)]}
        answer = up.client.post("/v1/malignancy", json=request)
        assert answer.status_code == 500
        wait_until(lambda: up.client.get("/readyz").status_code != 200)
        for text in (answer.text, up.client.get("/readyz").text, up.client.get("/metrics").text):
            assert WHO not in text
    assert "EncodeFailed: ValueError <- ValueError <- KeyError" in log.getvalue()
    assert WHO not in log.getvalue()


def test_what_libraries_threads_and_warnings_say_is_not_written(log: StringIO) -> None:
    def die() -> None:
        raise RuntimeError(WHO)

    class Dying:
        def __del__(self) -> None:
            raise RuntimeError(WHO)

    for name in ("uvicorn.error", "asyncio", "PIL.PngImagePlugin", "opentelemetry.sdk"):
        logging.getLogger(name).error("%s said", WHO)
        try:
            die()
        except RuntimeError:
            logging.getLogger(name).exception("It failed\n%s", WHO)
    warnings.showwarning(UserWarning(WHO), UserWarning, "a/b.py", 7)
    thread = threading.Thread(target=die)
    thread.start()
    thread.join()
    sys.unraisablehook(type("Args", (), {"exc_value": RuntimeError(WHO)}))  # type: ignore[arg-type]
    log_failure(RuntimeError(WHO), "id-1")
    text = log.getvalue()
    assert WHO not in text
    assert text.count("\n") == 12
    assert "uvicorn.error" in text
    assert "test_identity.py" in text


def test_guard_can_fail(log: StringIO) -> None:
    logging.getLogger("service").error("what we say ourselves is written: %s", WHO)
    assert WHO in log.getvalue()
