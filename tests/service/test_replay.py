"""`endo-clip-audit`: frames come out of their files as recorded, and what does not is said."""

import copy
import hashlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from model_store.bundle import Bundle
from model_store.profile import write_profile
from service.__main__ import audit as run_audit
from service.__main__ import main
from service.audit import AuditLog, read_log
from tests.dicom_files import VIDEO_ENDOSCOPIC, native
from tests.service.conftest import BETWEEN, BLACK, ROOT, Serve, as_form, image
from tests.tiny_bundle import PINK, RED
from tests.tiny_profile import tiny_profile

Entry = dict[str, Any]
Command = Callable[..., tuple[int, str]]
POINTS = ("balanced", "sensitivity_first", "specificity_first")
FILES = {"between": image(BETWEEN), "black": image(BLACK), "pink": image(PINK), "red": image(RED)}


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, in this process: starting one takes longer than all it does."""

    def run(*arguments: object) -> tuple[int, str]:
        code = run_audit([str(one) for one in arguments])
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


@pytest.fixture(scope="module")
def stills(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stills")
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
    return folder


def record(serve: Serve, folder: Path, **settings: Any) -> list[Entry]:
    """Let a service take the files into an exam at each operating point."""
    log = folder / "audit.jsonl"
    with serve(exam_store=str(folder / "e.db"), audit_log=log, **settings) as up:
        for point in POINTS:
            exam = up.client.post("/v1/exams", json={"operating_point": point}).json()["exam_id"]
            form = as_form(list(FILES.values()))
            assert up.client.post(f"/v1/exams/{exam}/frames", **form).status_code == 200
    return list(read_log(log))


@pytest.fixture(scope="module")
def recorded(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    return record(serve, tmp_path_factory.mktemp("log"))


def forged(path: Path, entries: list[Entry], *changes: Callable[[Entry], object]) -> Path:
    """Write a log anew, chain and all, its first entry changed: nothing that `verify` can see."""
    entries = copy.deepcopy(entries)
    for change in changes:
        change(entries[0])
    log = AuditLog(path)
    chain = ("number", "at", "before", "digest")
    log.write([{key: one[key] for key in one if key not in chain} for one in entries])
    log.close()
    return path


def test_installed_command_is_the_subcommand_of_the_service(
    recorded: list[Entry], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    target = EntryPoint("it", project["scripts"]["endo-clip-audit"], "console_scripts").load()
    log = forged(tmp_path / "log.jsonl", recorded)
    assert target(["verify", str(log)]) == main(["audit", "verify", str(log)]) == 0
    mine, other = capsys.readouterr().out.splitlines()
    assert mine == other
    told = []
    for words in (["replay"], ["verify"], []):
        for program in (target, lambda given: main(["audit", *given])):
            with pytest.raises(SystemExit, match="0"):
                program([*words, "--help"])
            told.append(capsys.readouterr().out)
        mine, other = (" ".join(one.split()) for one in told[-2:])
        assert mine == other.replace("python -m service audit", "endo-clip-audit")


def test_command_runs_as_a_program_and_fails_in_one_line(tmp_path: Path) -> None:
    # As an installer writes a console script.
    script = "import sys; from service.__main__ import audit; sys.exit(audit())"
    done = subprocess.run(
        [sys.executable, "-c", script, "verify", str(tmp_path / "none.jsonl")],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("endo-clip-audit: ")
    assert done.stderr.count("\n") == 1


def test_log_holds_decisions_and_reasons(recorded: list[Entry]) -> None:
    decided = [
        [entry["decisions"].get("malignancy", entry["reason"]) for entry in recorded[at : at + 4]]
        for at in (0, 4, 8)
    ]
    assert decided == [
        ["abstained", "dark", "negative", "positive"],
        ["positive", "dark", "negative", "positive"],
        ["negative", "dark", "negative", "positive"],
    ]


def test_each_entry_is_decided_at_its_own_operating_point(
    recorded: list[Entry], stills: Path, bundle: Path, tmp_path: Path, audit: Command
) -> None:
    log = forged(tmp_path / "log.jsonl", recorded)
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 0, said
    assert "as recorded: 12 of 12 frames found, 0 of them differ" in said
    assert "black  recorded abstained (dark)  again abstained (dark)" in said
    assert said.count(" abstained  again ") == 2  # between, at the balanced point, for two tasks
    assert "DIFFERS" not in said


def swap(entry: Entry, name: str, value: Any) -> None:
    entry[name] = value


DIFFERENCES: list[tuple[Callable[[Entry], object], str]] = [
    (
        lambda one: one["decisions"].update(malignancy="negative"),
        "malignancy: recorded negative, but a probability of 0.5",
    ),
    (lambda one: one["decisions"].pop("malignancy"), "malignancy: recorded no decision, but"),
    (
        lambda one: swap(one, "operating_point", "sensitivity_first"),
        "is positive at the operating point sensitivity_first",
    ),
    (
        lambda one: swap(one, "operating_point", "reckless"),
        "the bundle has no operating point reckless",
    ),
    (
        lambda one: one["probabilities"].update(malignancy=0.4501),
        "malignancy: recorded the probability 0.450100, again 0.5",
    ),
    (lambda one: one["probabilities"].pop("malignancy"), "no probability is recorded"),
    (
        lambda one: one.update(status="abstained", reason="dark", probabilities={}, decisions={}),
        "recorded abstained (dark), again scored",
    ),
    (lambda one: one["input"].update(size=65), "the recorded input contract is not the bundle's"),
    (
        lambda one: one["prompts"].update(malignancy="0" * 64),
        "malignancy: the recorded prompts are not the bundle's",
    ),
]


@pytest.mark.parametrize(("change", "words"), DIFFERENCES)
def test_what_is_not_as_recorded_is_said_in_words(
    recorded: list[Entry],
    stills: Path,
    bundle: Path,
    tmp_path: Path,
    audit: Command,
    change: Callable[[Entry], object],
    words: str,
) -> None:
    log = forged(tmp_path / "log.jsonl", recorded, change)
    assert audit("verify", log)[0] == 0
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 1
    differences = [line for line in said.splitlines() if "DIFFERS" in line]
    assert differences
    assert all("between  DIFFERS (line 1 of the log): " in line for line in differences)
    assert words in said
    assert "NOT as recorded: 12 of 12 frames found, 1 of them differ" in said


@pytest.mark.parametrize(
    ("at", "told", "again"),
    [(1, "scored", "abstained (dark)"), (2, "abstained (blurred)", "scored")],
)
def test_another_verdict_of_the_quality_gate_is_said(
    recorded: list[Entry],
    stills: Path,
    bundle: Path,
    tmp_path: Path,
    audit: Command,
    at: int,
    told: str,
    again: str,
) -> None:
    entries = copy.deepcopy(recorded)
    reason = "blurred" if "blurred" in told else None
    entries[at] |= {"status": told.split()[0], "reason": reason}
    log = forged(tmp_path / "log.jsonl", entries)
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 1
    assert f"DIFFERS (line {at + 1} of the log): recorded {told}, again {again}" in said


def test_a_line_changed_without_its_chain_is_refused_before_any_replay(
    recorded: list[Entry], stills: Path, bundle: Path, tmp_path: Path, audit: Command
) -> None:
    log = forged(tmp_path / "log.jsonl", recorded)
    text = log.read_text()
    log.write_text(text.replace('"malignancy":"abstained"', '"malignancy":"positive"', 1))
    for command in (["verify"], ["replay", "--frames", stills, "--bundle", bundle]):
        code, said = audit(command[0], log, *command[1:])
        assert (code, said.strip()) == (
            1,
            f"broken: {log}: line 1 was changed after it was written",
        )


def test_logs_that_hold_no_decisions_are_compared_as_far_as_they_go(
    recorded: list[Entry], stills: Path, bundle: Path, tmp_path: Path, audit: Command
) -> None:
    old = [{key: one[key] for key in one if key not in ("decisions", "reason")} for one in recorded]
    log = forged(tmp_path / "log.jsonl", old)
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 0, said
    assert "12 frames are of a log that held no decisions yet" in said
    old[1]["status"] = "scored"
    log = forged(tmp_path / "forged.jsonl", old)
    assert audit("replay", log, "--frames", stills, "--bundle", bundle)[0] == 1


def test_frames_are_read_under_the_limits_that_they_were_taken_under(
    serve: Serve, bundle: Path, tmp_path: Path, audit: Command
) -> None:
    stills, log = tmp_path / "stills", tmp_path / "audit.jsonl"
    stills.mkdir()
    small = {"red.png": image(RED, (40, 40)), "film.dcm": native(RED, PINK, Rows=60, Columns=128)}
    for name, data in small.items():
        (stills / name).write_bytes(data)
    with serve(exam_store=str(tmp_path / "e.db"), audit_log=log, min_side_px=32) as up:
        exam = up.client.post("/v1/exams", json={}).json()["exam_id"]
        form = as_form(list(small.values()))
        assert up.client.post(f"/v1/exams/{exam}/frames", **form).json()["revision"] == 3
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 0, said
    assert "as recorded: 3 of 3 frames found" in said
    # A log of before names none.
    old = [{key: one[key] for key in one if key != "limits"} for one in read_log(log)]
    told = forged(tmp_path / "old.jsonl", old)
    code, said = audit("replay", told, "--frames", stills, "--bundle", bundle)
    assert code == 1
    assert "recorded scored, again rejected (too_small)" in said


def test_a_film_is_read_through_once_to_be_found(
    recorded: list[Entry],
    bundle: Path,
    tmp_path: Path,
    audit: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    film, log = native(*[RED] * 8, SOPClassUID=VIDEO_ENDOSCOPIC), forged(tmp_path / "l", recorded)
    (tmp_path / "stills").mkdir()
    (tmp_path / "stills" / "film.dcm").write_bytes(film)
    hashed, sha256 = list[int](), hashlib.sha256

    def counting(data: bytes = b"") -> Any:
        hashed.append(len(data))
        return sha256(data)

    monkeypatch.setattr(hashlib, "sha256", counting)
    audit("replay", log, "--frames", tmp_path / "stills", "--bundle", bundle)
    assert hashed.count(len(film)) == 1


def test_what_was_scored_under_a_site_profile_is_replayed_with_it(
    serve: Serve, stills: Path, bundle: Path, tmp_path: Path, audit: Command
) -> None:
    profile = tmp_path / "site-profile.json"
    profile.write_bytes(write_profile(tiny_profile(Bundle.open(bundle))))
    entries = record(serve, tmp_path, site_profile=profile)
    log = tmp_path / "audit.jsonl"
    given = ("replay", log, "--frames", stills, "--bundle", bundle)
    code, said = audit(*given, "--site-profile", profile)
    assert code == 0, said
    assert "as recorded: 12 of 12 frames found" in said
    code, said = audit(*given)
    assert (code, "rest on the site profile sha256:" in said) == (2, True)
    # The same numbers, said to be the bundle's own.
    log = forged(tmp_path / "f.jsonl", [one | {"site_profile": None} for one in entries])
    code, said = audit("replay", log, "--frames", stills, "--bundle", bundle)
    assert code == 1
    assert "polyp_detection: recorded the probability" in said
