"""Lines of the contract about DICOM frames; the files are written here, header and all."""

import struct
from math import isclose
from typing import Any

from kit import FRAME, Kit, Skipped, line, need, png
from scoring import frames_of

ENDOSCOPIC = "1.2.840.10008.5.1.4.1.1.77.1.1"
REPORT = "1.2.840.10008.5.1.4.1.1.88.33"
NATIVE, JPEG, MPEG4 = (f"1.2.840.10008.1.2.{n}" for n in ("1", "4.50", "4.102"))
WHO = "Conformance^Zebrafink"
TASK = "malignancy"
RED, PALE = (180, 60, 50), (225, 170, 150)
SIDE = 96
# What another decoder, or another place in a batch, moves a probability by.
TOLERANCE = 1e-4


def of_file(
    pixels: bytes,
    size: tuple[int, int] = (SIDE, SIDE),
    *,
    syntax: str = NATIVE,
    sop_class: str = ENDOSCOPIC,
    frames: int = 1,
) -> bytes:
    """Write a DICOM file, explicit VR and little endian; no pixels make it one of no image."""
    meta = _element(0x0002, 0x0002, "UI", sop_class) + _element(0x0002, 0x0003, "UI", "1.2.3.4")
    meta += _element(0x0002, 0x0010, "UI", syntax)
    data = _element(0x0008, 0x0016, "UI", sop_class) + _element(0x0008, 0x0018, "UI", "1.2.3.4")
    data += _element(0x0010, 0x0010, "PN", WHO) + _element(0x0010, 0x0020, "LO", WHO)
    if pixels:
        colours = "RGB" if syntax == NATIVE else "YBR_FULL_422"
        data += _element(0x0028, 0x0002, "US", 3) + _element(0x0028, 0x0004, "CS", colours)
        data += _element(0x0028, 0x0006, "US", 0)
        data += _element(0x0028, 0x0008, "IS", str(frames)) if frames > 1 else b""
        numbers = {0x0010: size[1], 0x0011: size[0], 0x0100: 8, 0x0101: 8, 0x0102: 7, 0x0103: 0}
        for number, value in numbers.items():
            data += _element(0x0028, number, "US", value)
        data += _pixels(pixels, syntax)
    length = struct.pack("<HH2sHI", 0x0002, 0x0000, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + data


def flat(colour: tuple[int, int, int]) -> bytes:
    """The pixels of `png(colour)`."""
    return bytes(colour) * (SIDE * SIDE)


def offered(kit: Kit) -> None:
    """Skip where the deployment says that it reads no DICOM; it must then refuse it by name."""
    if "DICOM" in kit.get("/v1/limits").json()["formats"]:
        return
    answer = kit.form(TASK, [of_file(flat(RED)), FRAME])
    frame = frames_of(answer.json())[0]
    found = (frame["status"], frame.get("error", {}).get("code"))
    need(found == ("rejected", "unsupported_format"), f"expected it refused; found {found}")
    raise Skipped("not offered: GET /v1/limits names no DICOM among the formats")


@line("A DICOM frame is scored as the same picture in a JPEG or PNG file, in all three forms")
def twins(kit: Kit) -> None:
    """JPEG as the stream that the file holds, native pixels as those of a PNG."""
    offered(kit)
    pairs = {
        "JPEG": (of_file(FRAME, _size_of(FRAME), syntax=JPEG), FRAME),
        "native": (of_file(flat(RED)), png(RED)),
    }
    for name, (file, picture) in pairs.items():
        wanted = frames_of(kit.scored(TASK, [picture, FRAME]))[0]
        answers = [kit.form(TASK, [file, FRAME])]
        answers.append(kit.json(TASK, {"patients": [kit.patient(file, FRAME)]}))
        answers.append(kit.one(TASK, file, "application/dicom"))
        for answer in answers:
            need(answer.status_code == 200, f"{name}: expected 200; found {answer.status_code}")
            _same(name, wanted, frames_of(answer.json())[0])
        if name == "JPEG":
            need(wanted["status"] == "scored", f"expected the kit's frame scored; found {wanted}")


@line("A DICOM file of n frames is n frames, {frame_id}.1 to {frame_id}.n")
def films(kit: Kit) -> None:
    """Each as it is alone."""
    offered(kit)
    film = of_file(flat(RED) + flat(PALE), frames=2)
    told = {"frames": [{"frame_id": "film"}, {"frame_id": "b"}]}
    found = frames_of(kit.scored(TASK, [film, FRAME], told))
    names = [one["frame_id"] for one in found]
    need(names == ["film.1", "film.2", "b"], f"expected film.1, film.2, b; found {names}")
    wanted = frames_of(kit.scored(TASK, [png(RED), png(PALE), FRAME]))
    for one, other in zip(wanted, found, strict=True):
        _same(other["frame_id"], one, other)


@line("DICOM that is no such image, or is video, is rejected by name: unsupported_format")
def strangers(kit: Kit) -> None:
    """And costs no neighbour."""
    offered(kit)
    files = {
        "Comprehensive SR": of_file(b"", sop_class=REPORT),
        "CT": of_file(flat(RED), sop_class="1.2.840.10008.5.1.4.1.1.2"),
        "MPEG-4": of_file(FRAME, syntax=MPEG4),
    }
    *bad, good = frames_of(kit.scored(TASK, [*files.values(), FRAME]))
    for name, frame in zip(files, bad, strict=True):
        need(frame["status"] == "rejected", f"{name}: expected rejected; found {frame['status']}")
        error = frame["error"]
        need(error["code"] == "unsupported_format", f"{name}: found {error['code']}")
        need(name in error["message"], f"expected {name} in the message; found {error['message']}")
    need(good["status"] == "scored", "expected the good frame scored")


@line("Nothing of a DICOM header but what describes the pixels is in an answer")
def silent(kit: Kit) -> None:
    """Whether it is scored, rejected or a FHIR report."""
    offered(kit)
    good, bad = of_file(FRAME, _size_of(FRAME), syntax=JPEG), of_file(b"", sop_class=REPORT)
    answers = [kit.form(TASK, [good, bad]), kit.one(TASK, bad, "application/dicom")]
    answers.append(kit.form(TASK, [good], Accept="application/fhir+json"))
    wanted = (200, 422, 200)
    found = tuple(answer.status_code for answer in answers)
    need(found == wanted, f"expected {wanted}; found {found}")
    for answer in answers:
        text = answer.text + str(answer.headers)
        need(WHO.split("^")[1] not in text, "expected no word of the header; found the name")


def _same(name: str, wanted: dict[str, Any], found: dict[str, Any]) -> None:
    for key in ("status", "reason", "decision"):
        one, other = wanted.get(key), found.get(key)
        need(one == other, f"{name}: expected {key} {one}; found {other}")
    if wanted["status"] == "scored":
        one, other = wanted["probability"], found["probability"]
        need(isclose(one, other, abs_tol=TOLERANCE), f"{name}: expected {one}; found {other}")


def _element(group: int, number: int, vr: str, value: str | int) -> bytes:
    if isinstance(value, int):
        data = struct.pack("<H", value)
    else:
        data = value.encode() + (b"\0" if vr == "UI" else b" ") * (len(value) % 2)
    return struct.pack("<HH2sH", group, number, vr.encode(), len(data)) + data


def _pixels(pixels: bytes, syntax: str) -> bytes:
    if syntax == NATIVE:
        return struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", len(pixels)) + pixels
    stream = pixels + b"\0" * (len(pixels) % 2)
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0)  # no offsets
    items += struct.pack("<HHI", 0xFFFE, 0xE000, len(stream)) + stream
    items += struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    return struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF) + items


def _size_of(jpeg: bytes) -> tuple[int, int]:
    """Width and height, of the segment that begins the picture."""
    place = 2
    while jpeg[place + 1] not in (0xC0, 0xC1, 0xC2):
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    high, wide = struct.unpack(">HH", jpeg[place + 5 : place + 9])
    return wide, high
