"""DICOM frames: scored as the same pixels elsewhere are, or refused by name; nobody is named."""

import asyncio
import json
import logging
import struct
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.encaps import encapsulate
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from model_store.images import ImageLimits
from service.forms import FormLimits, FrameIn, PatientIn, RequestIn
from service.frames import pictures_of, unfold
from tests.dicom_files import (
    JPEG_LS,
    LOSSLESS_JPEG,
    PHOTOGRAPHIC,
    VIDEO_ENDOSCOPIC,
    WHO,
    by_gdcm,
    data_set,
    in_colours,
    jpeg_2000,
    jpegs,
    native,
    rle,
    stream,
    written,
)
from tests.service.conftest import (
    BLACK,
    PINK,
    RED,
    ROOT,
    Serve,
    as_form,
    image,
    patient,
    problem_of,
)

TYPE = {"Content-Type": "application/dicom"}
JPEG_BASELINE, NATIVE = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.1"


def frames_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code in (200, 422), answer.text
    frames: list[dict[str, Any]] = answer.json()["patients"][0]["frames"]
    return frames


def test_every_form_takes_dicom_and_scores_its_pixels(client: httpx.Client) -> None:
    file = native(RED)
    answers = [
        client.post("/v1/malignancy", **as_form([file])),
        client.post("/v1/malignancy", json={"patients": [patient(file)]}),
        client.post("/v1/malignancy", content=file, headers=TYPE),
    ]
    plain = client.post("/v1/malignancy", **as_form([image(RED)]))
    for answer in answers:
        assert frames_of(answer) == frames_of(plain)


@pytest.mark.parametrize("name", ["rle", "jpegs", "jpeg_2000", LOSSLESS_JPEG, JPEG_LS])
def test_common_transfer_syntaxes_are_read(client: httpx.Client, name: str, tmp_path: Path) -> None:
    writers = {"rle": rle, "jpegs": jpegs, "jpeg_2000": jpeg_2000}
    file = writers[name](RED) if name in writers else by_gdcm(RED, name, tmp_path)
    plain = frames_of(client.post("/v1/malignancy", **as_form([image(RED)])))
    (frame,) = frames_of(client.post("/v1/malignancy", **as_form([file])))
    assert frame["probability"] == pytest.approx(plain[0]["probability"], abs=1e-3)


@pytest.mark.parametrize(
    "name", ["MONOCHROME1", "MONOCHROME2 12 bit", "PALETTE COLOR", "YBR_FULL", "RGB planar"]
)
def test_colours_are_what_the_file_means(client: httpx.Client, name: str) -> None:
    def embedding(data: bytes) -> list[float]:
        (frame,) = frames_of(client.post("/v1/embeddings", **as_form([data])))
        values: list[float] = frame["embedding"]
        return values

    colour = (90, 90, 90) if "MONO" in name else RED
    assert embedding(in_colours(name, colour)) == pytest.approx(embedding(image(colour)), abs=0.02)


def test_multi_frame_file_is_as_many_frames_numbered_from_one(client: httpx.Client) -> None:
    told = {"SOPClassUID": VIDEO_ENDOSCOPIC}
    for file in (jpegs(RED, PINK, BLACK, **told), native(RED, PINK, BLACK, **told)):
        ids = {"frames": [{"frame_id": "film"}, {"frame_id": "still"}]}
        answer = client.post("/v1/malignancy", **as_form([file, image(PINK)], ids))
        frames = frames_of(answer)
        assert [one["frame_id"] for one in frames] == ["film.1", "film.2", "film.3", "still"]
        assert [one["status"] for one in frames] == ["scored", "scored", "abstained", "scored"]
        assert frames[0]["decision"] == "positive"
        assert frames[1]["decision"] == "negative"
    ids = {"frames": [{"frame_id": "a"}, {"frame_id": "a.1"}]}
    answer = client.post("/v1/malignancy", **as_form([native(RED, RED), image(RED)], ids))
    assert problem_of(answer, 422, "invalid_request")["pointer"] == "/frames"


def test_pictures_of_a_file_share_its_bytes() -> None:
    film = native(RED, PINK, SOPClassUID=VIDEO_ENDOSCOPIC)
    pictures = list(pictures_of(FrameIn("0", bytearray(film), len(film)), ImageLimits()))
    assert len(pictures) == 2
    assert isinstance(pictures[0].data, bytes)  # else each would be copied out of it
    assert pictures[0].data is pictures[1].data


def test_frames_of_a_file_count_against_the_limit(serve: Serve) -> None:
    many = native(RED, RED, RED)
    lying = native(RED, NumberOfFrames=2_000_000_000)
    with serve(max_frames=2) as up:
        for file in (many, lying):
            problem_of(
                up.client.post("/v1/malignancy", **as_form([file])), 413, "payload_too_large"
            )


@pytest.mark.parametrize("why", [TimeoutError, ClientDisconnect])
def test_files_of_a_request_that_was_dropped_are_not_read_on(why: type[Exception]) -> None:
    whole, count = native(RED), 60
    pixels = whole.index(b"\xe0\x7f\x10\x00")
    unknown = b"".join(struct.pack("<HH2sH", 0x3000, n, b"LO", 0) for n in range(1, 60_000))
    file = whole[:pixels] + unknown + whole[pixels:]
    frames = tuple(FrameIn(str(n), file, len(file)) for n in range(count))
    list(pictures_of(frames[0], ImageLimits()))  # what is loaded at the first one
    began = time.process_time()
    list(pictures_of(frames[0], ImageLimits()))
    one_s = time.process_time() - began

    async def receive() -> Message:
        await asyncio.sleep(one_s if why is ClientDisconnect else 3600)
        return {"type": "http.disconnect"}

    async def drop() -> None:
        sent = RequestIn((PatientIn("0", None, frames),))
        async with asyncio.timeout(one_s if why is TimeoutError else 3600):
            await unfold(
                Request({"type": "http"}, receive),
                sent,
                limits=FormLimits(count, 1, len(file)),
                image_limits=ImageLimits(),
            )

    began = time.process_time()
    with pytest.raises(why):
        asyncio.run(drop())  # which waits for its threads
    assert time.process_time() - began < one_s * count / 3


def test_crop_box_of_the_device_applies(client: httpx.Client) -> None:
    from PIL import Image

    half = Image.new("RGB", (96, 80), PINK)
    half.paste(RED, (0, 0, 48, 80))
    file = written(data_set(half.tobytes(), NATIVE, SOPClassUID=PHOTOGRAPHIC))
    (cropped,) = frames_of(
        client.post("/v1/malignancy", **as_form([file], {"device": "left-half"}))
    )
    (red,) = frames_of(client.post("/v1/malignancy", **as_form([native(RED)])))
    assert cropped["probability"] == pytest.approx(red["probability"], abs=1e-6)


def report() -> bytes:
    """No image at all: a structured report."""
    data = data_set(b"", NATIVE, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.33")
    for name in ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PixelData"):
        delattr(data, name)
    return written(data)


def damaged() -> dict[str, tuple[bytes, str, str]]:
    """Name → file, frame error code, word of the message."""
    video = data_set(encapsulate([b"xx"]), JPEG_BASELINE)
    video.file_meta.TransferSyntaxUID = pydicom.uid.MPEG4HP41
    private = data_set(encapsulate([b"xx"]), JPEG_BASELINE)
    private.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.3.4.5")
    deflated = data_set(bytes(96 * 80 * 3), NATIVE)
    deflated.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian
    bomb = encapsulate([stream(RED, "JPEG2000", no_jp2=True, size=(4000, 4000))])
    ct = native(RED, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    whole = native(RED)
    pixels = whole.index(b"\xe0\x7f\x10\x00")
    return {
        "video": (written(video), "unsupported_format", "MPEG-4"),
        "private": (written(private), "unsupported_format", "unknown"),
        "deflated": (written(deflated), "unsupported_format", "Deflated"),
        "ct": (ct, "unsupported_format", "CT Image Storage"),
        "report": (report(), "unsupported_format", "Comprehensive SR Storage"),
        "own": (native(RED, SOPClassUID="1.2.3.4"), "unsupported_format", "an unknown SOP class"),
        "cut": (whole[:-9000], "image_undecodable", "damaged"),
        "head": (whole[:300], "image_undecodable", "within the first"),
        "mark": (bytes(128) + b"DICM", "image_undecodable", "damaged"),
        "endless": (
            whole[:pixels] + b"\x09\x00\x10\x10UT\0\0\0\0\0\0" * 200_000 + whole[pixels:],
            "image_undecodable",
            "within the first",
        ),
        "items": (
            whole[:pixels]
            + b"\x09\x00\x10\x10SQ\0\0\xff\xff\xff\xff"
            + b"\xfe\xff\x00\xe0\0\0\0\0" * 120_000
            + b"\xfe\xff\x0d\xe0\0\0\0\0"
            + whole[pixels:],
            "image_undecodable",
            "at most 2000 items",
        ),
        "group": (
            whole[:132] + whole[132:144] + b"\x02\x00\x13\x00SH\0\0" * 120_000 + whole[144:],
            "image_undecodable",
            "own group",
        ),
        "small": (native(RED, Rows=40), "too_small", "64 px"),
        "huge": (native(RED, Rows=60000, Columns=60000), "too_many_pixels", "60000"),
        "bomb": (
            written(data_set(bomb, "1.2.840.10008.1.2.4.90", PhotometricInterpretation="YBR_RCT")),
            "image_undecodable",
            "4000 x 4000",
        ),
    }


DAMAGED = damaged()


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_what_cannot_be_read_is_named_and_costs_no_neighbour(
    client: httpx.Client, name: str
) -> None:
    file, code, word = DAMAGED[name]
    bad, good = frames_of(client.post("/v1/malignancy", **as_form([file, image(RED)])))
    assert (bad["status"], bad["error"]["code"]) == ("rejected", code)
    assert word in bad["error"]["message"]
    assert good["status"] == "scored"
    problem_of(
        client.post("/v1/malignancy", content=file, headers=TYPE), 422, "all_frames_rejected"
    )


def test_identity_in_a_file_is_nowhere(serve: Serve, tmp_path: Path) -> None:
    from service.logs import set_up_logging
    from tests.service.test_identity import keep_logging

    log = StringIO()
    files = [native(RED), jpegs(RED, PINK), rle(RED), *(one for one, _, _ in DAMAGED.values())]
    with keep_logging(), serve(exam_store=str(tmp_path / "exams.sqlite3")) as up:
        set_up_logging("debug", "json", log)
        logging.root.setLevel(logging.DEBUG)
        for file in files:
            for request in (
                as_form([file]),
                {"json": {"patients": [patient(file)]}},
                {"content": file, "headers": TYPE},
            ):
                answer = up.client.post("/v1/malignancy", **request)
                assert answer.status_code in (200, 422)
                assert WHO not in answer.text
                assert WHO not in json.dumps(dict(answer.headers))
        exam = up.client.post("/v1/exams", json={"exam_id": "e"}).json()["exam_id"]
        answer = up.client.post(f"/v1/exams/{exam}/frames", **as_form([files[1]]))
        assert WHO not in answer.text
        assert WHO not in up.client.get("/metrics").text
    assert "/v1/malignancy" in log.getvalue()
    assert WHO not in log.getvalue()


def test_exam_keeps_each_frame_of_a_file(serve: Serve, tmp_path: Path) -> None:
    with serve(exam_store=str(tmp_path / "exams.sqlite3")) as up:
        up.client.post("/v1/exams", json={"exam_id": "e-1", "tasks": ["malignancy"]})
        file = native(RED, PINK)
        for _ in range(2):
            answer = up.client.post("/v1/exams/e-1/frames", **as_form([file]))
            assert answer.status_code == 200, answer.text
        exam = up.client.get("/v1/exams/e-1").json()
        assert exam["revision"] == 2


WITHOUT = """
import sys
sys.modules["pydicom"] = None
sys.path.insert(0, ".")
from pathlib import Path
from fastapi.testclient import TestClient
from service.app import create_app
from service.settings import read_settings
with TestClient(create_app(read_settings({"ENDOCLIP_BUNDLE": sys.argv[1]}))) as client:
    body = Path(sys.argv[2]).read_bytes()
    kind = {"Content-Type": "application/dicom"}
    answer = client.post("/v1/malignancy", content=body, headers=kind)
    print(answer.text)
"""


def test_without_the_extra_the_frame_is_refused_by_name(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_bytes(native(RED))
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(bundle), str(tmp_path / "a.dcm")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    frame = json.loads(done.stdout)["patients"][0]["frames"][0]
    assert frame["error"]["code"] == "unsupported_format"
    assert "extra `dicom`" in frame["error"]["message"]


def test_guard_against_identities_can_fail() -> None:
    assert WHO.encode() in native(RED)
