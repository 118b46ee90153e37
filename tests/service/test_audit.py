"""The audit log: what is in it, that a change is found, and that scores can be had again."""

import hashlib
import json
import resource
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.live import Stream
from service.__main__ import main
from service.audit import AuditBroken, AuditLog, read_log
from service.errors import SettingsInvalid
from tests.dicom_files import VIDEO_ENDOSCOPIC, native
from tests.service.conftest import BLACK, Serve, as_form, edited, image, problem_of
from tests.tiny_bundle import PINK, RED

FRAMES = {"mueller-1": image(RED), "mueller-2": image(PINK), "mueller-3": image(BLACK)}


@pytest.fixture(scope="module")
def log(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("audit")
    path = folder / "audit.jsonl"
    with serve(exam_store=str(folder / "e.db"), audit_log=path) as up:
        options = {"exam_id": "exam-mueller", "patient_id": "mueller"}
        assert up.client.post("/v1/exams", json=options).status_code == 201
        told = {"frames": [{"frame_id": name} for name in FRAMES]}
        for _ in range(2):  # what comes again is not scored again
            form = as_form(list(FRAMES.values()), told)
            assert up.client.post("/v1/exams/exam-mueller/frames", **form).status_code == 200
        assert up.client.post("/v1/exams/exam-mueller/close").status_code == 200
    return path


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """The command, in this process: starting one takes longer than all it does."""

    def run(*arguments: object) -> tuple[int, str]:
        code = main(["audit", *map(str, arguments)])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def test_each_frame_and_the_close_are_entries_without_any_id(log: Path) -> None:
    entries = list(read_log(log))
    assert [entry["event"] for entry in entries] == ["frame", "frame", "frame", "closed"]
    assert [entry["status"] for entry in entries[:3]] == ["scored", "scored", "abstained"]
    assert set(entries[0]["probabilities"]) == {"polyp_detection", "malignancy"}
    assert "mueller" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def lines_of(log: Path) -> list[str]:
    return log.read_text().splitlines(keepends=True)


def other_score(lines: list[str]) -> list[str]:
    entry = json.loads(lines[0])
    entry["probabilities"]["malignancy"] = 0.5
    return [json.dumps(entry) + "\n", *lines[1:]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (other_score, 1),
        (lambda lines: lines[1:], 1),
        (lambda lines: [lines[0], *lines[2:]], 2),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
        (lambda lines: [lines[0], "{}\n", *lines[1:]], 2),
        (lambda lines: [*lines, lines[-1]], 5),
    ],
)
def test_a_change_is_found(
    log: Path, tmp_path: Path, change: Callable[[list[str]], list[str]], line: int
) -> None:
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(change(lines_of(log))))
    with pytest.raises(AuditBroken, match=f"line {line} "):
        list(read_log(changed))


def test_the_command_verifies_and_sees_a_log_cut_short(
    log: Path, tmp_path: Path, audit: Callable[..., tuple[int, str]]
) -> None:
    code, said = audit("verify", log)
    assert (code, said.split()[0]) == (0, "whole:")
    last = said.split()[-1]
    short = tmp_path / "short.jsonl"
    short.write_text("".join(lines_of(log)[:-1]))
    assert audit("verify", short)[0] == 0
    assert audit("verify", short, "--last", last)[0] == 1


def test_the_command_scores_again_and_tells_the_deviation(
    log: Path, bundle: Path, tmp_path: Path, audit: Callable[..., tuple[int, str]]
) -> None:
    for name, data in FRAMES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "another").write_bytes(b"no image")
    code, said = audit("replay", log, "--frames", tmp_path, "--bundle", bundle)
    assert code == 0, said
    assert "as recorded: 3 of 3 frames found" in said
    assert audit("replay", log, "--frames", tmp_path)[0] == 2  # the shipped bundle is another
    empty = tmp_path / "empty"
    empty.mkdir()
    assert audit("replay", log, "--frames", empty, "--bundle", bundle)[0] == 1


def test_every_entry_of_a_file_is_scored_again_and_dicom_is_read(
    serve: Serve, bundle: Path, tmp_path: Path, audit: Callable[..., tuple[int, str]]
) -> None:
    (tmp_path / "devices.json").write_text('{"left": [0.0, 0.0, 0.5, 1.0]}')
    film = native(RED, PINK, SOPClassUID=VIDEO_ENDOSCOPIC)
    files = {"a.png": halves(RED, PINK), "b.dcm": native(PINK), "c.dcm": film}
    path, folder = tmp_path / "audit.jsonl", tmp_path / "files"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    store = str(tmp_path / "e.db")

    def exams(served: Path, *devices: str) -> None:
        with serve(
            exam_store=store, audit_log=path, devices=tmp_path / "devices.json", bundle=served
        ) as up:
            for device in devices:
                exam = up.client.post("/v1/exams", json={"device": device}).json()["exam_id"]
                form = as_form(list(files.values()))
                assert up.client.post(f"/v1/exams/{exam}/frames", **form).status_code == 200

    # The same files by two crop boxes, which give one of them other scores.
    exams(bundle, "full_frame", "left")
    code, said = audit("replay", path, "--frames", folder, "--bundle", bundle)
    assert code == 0, said
    assert "as recorded: 8 of 8 frames found" in said

    def other_threshold(document: dict[str, Any]) -> None:
        document["malignancy"]["operating_points"]["balanced"]["frame_threshold"] = 0.6

    another = edited(bundle, tmp_path / "another", "calibration.json", other_threshold)
    exams(another, "full_frame")
    for served, found in ((bundle, 8), (another, 4)):
        code, said = audit("replay", path, "--frames", folder, "--bundle", served)
        assert code == 0, said
        assert f"as recorded: {found} of {found} frames found" in said
        assert f"left out: {12 - found} frames by the bundle sha256:" in said


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> bytes:
    picture = Image.new("RGB", (192, 160), right)
    picture.paste(left, (0, 0, 96, 160))
    out = BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def test_what_a_full_disk_cut_off_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    log.write([{"event": "closed", "frames": 1}])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Files may grow by half an entry more, as on a disk that is full.
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, before[1]))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                log.write([{"event": "closed", "frames": 2}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    log.write([{"event": "closed", "frames": 3}])
    log.close()
    assert [entry["frames"] for entry in read_log(path)] == [1, 3]


def test_where_the_log_cannot_be_written_nothing_is_kept_and_the_operator_told(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "audit.jsonl"
    with serve(exam_store=str(tmp_path / "e.db"), audit_log=path) as up:
        up.client.post("/v1/exams", json={"exam_id": "e"})
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
        try:
            answer = up.client.post("/v1/exams/e/frames", **as_form([image()]))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert problem_of(answer, 503, "not_ready")["reason"] == "exam_store"
        assert "audit_log state=unwritable reason=EFBIG" in caplog.messages
        assert up.client.get("/v1/exams/e").json()["revision"] == 0
        again = up.client.post("/v1/exams/e/frames", **as_form([image()]))
        assert again.json()["revision"] == 1
    assert [entry["event"] for entry in read_log(path)] == ["frame"]


def test_what_does_not_become_part_of_an_exam_is_no_entry(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    first, second, third = (image(RED, (96, 80 + place)) for place in range(3))
    with serve(exam_store=str(tmp_path / "e.db"), audit_log=path, max_exam_frames=2) as up:
        up.client.post("/v1/exams", json={"exam_id": "e"})
        answer = up.client.post("/v1/exams/e/frames", **as_form([first, second, third]))
        problem_of(answer, 413, "payload_too_large")
        live = Stream(f"http://127.0.0.1:{up.port}", "e", "?keep_every_ms=0", [])
        expected = ["kept", "kept", "kept", "full", "full"]
        for time, (file, word) in enumerate(
            zip((first, first, second, third, third), expected, strict=True)
        ):
            live.send(file, 0 if file is first else time)  # the first one is sent again
            while (message := live.receive() or {})["type"] in ("open", "frame"):
                pass
            assert message["type"] == word
        live.close()
        up.client.post("/v1/exams/e/close")
    entries = list(read_log(path))
    assert [entry["event"] for entry in entries] == ["frame", "frame", "closed"]
    files = [hashlib.sha256(file).hexdigest() for file in (first, second)]
    assert [entry["file"] for entry in entries[:2]] == files


def test_a_line_cut_off_by_a_crash_goes_and_the_chain_goes_on(log: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    cut.write_text("".join(lines_of(log)[:2]) + lines_of(log)[2][:50])
    writing = AuditLog(cut)
    with pytest.raises(SettingsInvalid, match="ENDOCLIP_AUDIT_LOG"):
        AuditLog(cut)
    writing.write([{"event": "closed"}])
    writing.close()
    (tmp_path / "none.jsonl").write_text("no entry\n")
    with pytest.raises(AuditBroken):
        AuditLog(tmp_path / "none.jsonl")
    assert [entry["event"] for entry in read_log(cut)] == ["frame", "frame", "closed"]
