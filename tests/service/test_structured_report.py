"""What stands in structured reports: codes, identities, and whose header they take over."""

import struct
import time
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pydicom.sr._concepts_dict import concepts as pydicom_concepts

from model_store.images import ImageLimits
from service.concepts import TASKS
from service.forms import FrameIn
from service.frames import pictures_of
from service.logs import set_up_logging
from service.report_sources import read_sources
from tests.dicom_files import WHO, native
from tests.service.conftest import RED, Serve, as_form, problem_of
from tests.service.test_dialects import SR, asked, frames_of_a_study, groups_of
from tests.service.test_identity import keep_logging


def codes_in(part: pydicom.Dataset) -> set[tuple[str, str, str]]:
    """Every coded concept of a data set: code, scheme, meaning."""
    found = set()
    if "CodeValue" in part:
        found.add((part.CodeValue, part.CodingSchemeDesignator, part.CodeMeaning))
    for element in part:
        if element.VR == "SQ":
            found |= {code for item in element.value for code in codes_in(item)}
    return found


def in_dictionary(code: str, scheme: str) -> set[str]:
    """The meanings that pydicom's dictionary of concepts, made from PS3.16, has for a code."""
    known = pydicom_concepts.get(scheme, {}).values()
    return {by_code[code][0] for by_code in known if code in by_code}


def test_codes_are_those_of_the_standard(client: httpx.Client) -> None:
    import service.concepts as concepts

    found: set[tuple[str, str, str]] = set()
    for path in ("polyp-detection", "malignancy"):
        answer = client.post(f"/v1/{path}", headers=SR, **as_form(frames_of_a_study()))
        found |= codes_in(pydicom.dcmread(BytesIO(answer.content)))
    ours = {*concepts.DECISIONS.values(), *(one.finding for one in TASKS.values())}
    found |= {(one.code, one.scheme, one.meaning) for one in ours}
    unknown = {one for one in found if one[2] not in in_dictionary(one[0], one[1])}
    # In no context group of PS3.16; docs/dialects.md says where else they were looked up.
    assert {one for one in unknown if one[1] != concepts.OWN} == {
        ("73761001", "SCT", "Colonoscopy"),
        ("en", "RFC5646", "English"),
        # What highdicom writes by itself, for image sizes and why an image is referred to.
        ("{pixels}", "UCUM", "Pixels"),
        ("260753009", "SCT", "Source"),
    }
    group = pydicom.sr.codedict.codes.cid240
    answers = {group.Present, group.Absent, group.Undetermined}
    assert {(one.value, one.meaning) for one in answers} == {
        (one.code, one.meaning) for one in concepts.DECISIONS.values()
    }


def test_guard_of_codes_can_fail() -> None:
    assert in_dictionary("52101004", "SCT") == {"Present"}
    assert not in_dictionary("2667000", "SCT")


def test_report_by_another_device_profile_is_another(serve: Serve, tmp_path: Path) -> None:
    devices = tmp_path / "devices.json"
    devices.write_text('{"left": [0.0, 0.0, 0.5, 1.0]}')
    frames = frames_of_a_study()[:2]
    store = str(tmp_path / "exams.sqlite3")
    with serve(devices=devices, exam_store=store) as up:
        whole = pydicom.dcmread(BytesIO(asked(up.client, SR, frames).content))
        left = pydicom.dcmread(BytesIO(asked(up.client, SR, frames, device="left").content))
        up.client.post("/v1/exams", json={"exam_id": "e", "device": "left"})
        named = {"frames": [{"frame_id": "0"}, {"frame_id": "1"}]}
        up.client.post("/v1/exams/e/frames", **as_form(frames, named))
        up.client.post("/v1/exams/e/close")
        answer = up.client.post("/v1/exams/e/report/polyp_detection", **as_form(frames))
        exam = pydicom.dcmread(BytesIO(answer.content))
    assert whole.SOPInstanceUID != left.SOPInstanceUID == exam.SOPInstanceUID
    assert "device profile: left" in left.to_json()
    assert "device profile" not in whole.to_json()


def test_groups_of_two_reports_are_never_one(client: httpx.Client) -> None:
    def tracked(frames: list[bytes]) -> set[str]:
        head = {**SR, "X-Request-ID": "always-the-same"}
        answer = client.post("/v1/malignancy", headers=head, **as_form(frames))
        report = pydicom.dcmread(BytesIO(answer.content))
        return {one.tracking_uid for one in groups_of(report).values()}

    one, other = tracked(frames_of_a_study()[:1]), tracked(frames_of_a_study()[1:2])
    assert len(one) == len(other) == 2
    assert not one & other


def test_elements_that_no_report_has_cost_next_to_nothing() -> None:
    file = native(RED)
    pixels = file.index(b"\xe0\x7f\x10\x00")
    unknown = b"".join(struct.pack("<HH2sH", 0x3000, n, b"LO", 0) for n in range(1, 60_000))
    file = file[:pixels] + unknown + file[pixels:]
    [frame] = pictures_of(FrameIn("0", file, len(file)), ImageLimits())
    read_sources([frame])  # what is loaded at the first one
    began = time.thread_time()
    [source] = read_sources([frame])
    assert time.thread_time() - began < 2
    assert source.PatientName


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("StudyDate", "2026.01.02x"),
        ("StudyDate", "20260101-20260201"),
        ("StudyDate", ["20260101", "20260102"]),
        ("StudyTime", "25:61"),
        ("PatientBirthDate", "1950"),
        ("PatientSex", "W"),
    ],
)
def test_report_leaves_out_what_is_no_date_time_or_sex(
    client: httpx.Client, name: str, value: Any
) -> None:
    answer = asked(client, SR, [native(RED, **{name: value})])
    report = pydicom.dcmread(BytesIO(answer.content))
    assert not report[name].value
    assert str(report.PatientName) == f"{WHO}^Jörg"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PatientName", ["A^B", "C^D"]),
        ("PatientID", ["A", "B"]),
        ("SeriesInstanceUID", ["1.2", "1.3"]),
        ("SOPInstanceUID", ["1.2", "1.3"]),
    ],
)
def test_identity_that_cannot_be_taken_over_is_the_callers_error(
    client: httpx.Client, name: str, value: Any
) -> None:
    frames = [native(RED, **{name: value})]
    answer = client.post("/v1/malignancy", headers=SR, **as_form(frames))
    assert problem_of(answer, 422, "invalid_request")["pointer"] == "/frames"
    assert WHO not in answer.text


# As in the service, where a library's warnings are logged and no errors.
@pytest.mark.filterwarnings("ignore:.*Unknown encoding")
def test_character_set_that_nobody_knows_is_the_callers_error(client: httpx.Client) -> None:
    """Whoever guesses it files a report under another name."""
    frame = native(RED).replace(b"ISO_IR 192", b"ISO_IR 999")
    answer = client.post("/v1/malignancy", headers=SR, **as_form([frame]))
    assert "character set" in problem_of(answer, 422, "invalid_request")["detail"]


LONG = (b"OB", b"OW", b"SQ", b"UN", b"UT")


def with_element(file: bytes, tag: int, vr: bytes, value: bytes) -> bytes:
    """Put an element into a file as it stands, in its place; what pydicom would not write, too."""
    kind = "<HH2s2xI" if vr in LONG else "<HH2sH"
    element = struct.pack(kind, tag >> 16, tag & 0xFFFF, vr, len(value)) + value
    place = 132
    while True:
        group, number = struct.unpack_from("<HH", file, place)
        long = file[place + 4 : place + 6] in LONG
        length = struct.unpack_from("<I" if long else "<H", file, place + (8 if long else 6))[0]
        after = place + (12 if long else 8) + length
        if (group << 16 | number) >= tag:
            there = (group << 16 | number) == tag
            return file[:place] + element + file[after if there else place :]
        place = after


SEX, ID, NAME, UID_, WEIGHT = 0x00100040, 0x00100020, 0x00100010, 0x00080018, 0x00101030
BIRTH, ALIASES, PHYSICIAN, STUDY_ID = 0x00100030, 0x00101002, 0x00080090, 0x00200010


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (WEIGHT, b"DS", b"abc "),  # no number
        (WEIGHT, b"FD", b"abcd"),  # half a number
        (SEX, b"US", b"\1\0"),
        (BIRTH, b"ZZ", b"1950"),  # no VR
        (ALIASES, b"SQ", b"no items"),
        (ALIASES, b"LO", b"1\\2 "),
        (PHYSICIAN, b"PN", b"A^B\\C^D "),
        (STUDY_ID, b"DS", b"7 "),
        (STUDY_ID, b"SH", b"7\\8 "),
    ],
)
# As in the service, where a library's warnings are logged and no errors.
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_taken_over_is_left_out(
    client: httpx.Client, tag: int, vr: bytes, value: bytes
) -> None:
    answer = asked(client, SR, [with_element(native(RED), tag, vr, value)])
    report = pydicom.dcmread(BytesIO(answer.content))
    assert str(report.PatientName) == f"{WHO}^Jörg"
    assert report.PatientID == f"{WHO}-4711"
    for element in report.iterall():
        assert element.value is not NotImplemented  # each can be read


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [
        (NAME, b"US", b"\1\0"),
        (NAME, b"ZZ", b"A^B "),
        (ID, b"FD", b"abcd"),
        (ID, b"DS", b"7 "),
        (UID_, b"UI", b"1.2a"),
        (UID_, b"UI", b"1." * 33),
        (UID_, b"US", b"\1\0"),
        (0x00080005, b"US", b"\1\0"),
        (0x00080005, b"CS", b"ISO_IR 192\\ISO_IR 100 "),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_identity_that_cannot_be_read_is_the_callers_error(
    client: httpx.Client, tag: int, vr: bytes, value: bytes
) -> None:
    frame = with_element(native(RED), tag, vr, value)
    answer = client.post("/v1/malignancy", headers=SR, **as_form([frame]))
    assert problem_of(answer, 422, "invalid_request")["pointer"] == "/frames"
    assert WHO not in answer.text


@pytest.mark.parametrize("error", [ValueError(WHO), TypeError(WHO), KeyError(WHO)])
@pytest.mark.parametrize("place", ["_algorithm", "_observer", "_coded", "_written"])
def test_error_while_building_is_our_own_and_logged(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, error: Exception, place: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    stream = StringIO()
    with keep_logging():
        set_up_logging("info", "json", stream)
        monkeypatch.setattr(f"service.structured_report.{place}", fail)
        answer = client.post("/v1/malignancy", headers=SR, **as_form([native(RED)]))
        problem = problem_of(answer, 500, "internal")
    assert WHO not in answer.text + stream.getvalue()
    lines = [line for line in stream.getvalue().splitlines() if problem["request_id"] in line]
    assert any(type(error).__name__ in line and "test_structured_report" in line for line in lines)
