"""`python -m service` as an operator meets it: a process, its exit code, its first line."""

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.service.conftest import ROOT, command, image, refused


def test_it_says_where_it_listens_answers_and_stops_on_sigterm(bundle: Path) -> None:
    with subprocess.Popen(**command(bundle=bundle, port=0)) as process:  # type: ignore[call-overload]
        line = process.stdout.readline()
        assert "bundle=tiny 1.0.0" in line
        assert "provider=CPUExecutionProvider" in line
        url = re.search(r"http://127\.0\.0\.1:\d+", line)[0]  # type: ignore[index]
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/readyz").status_code == 200
            headers = {"Content-Type": "image/png"}
            answer = client.post("/v1/malignancy", content=image(), headers=headers)
            assert answer.json()["patients"][0]["decision"] == "positive"
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)
    assert "Traceback" not in log
    told = [json.loads(line) for line in log.splitlines()]
    assert {"event": "self_test", "result": "passed"}.items() <= told[0].items()
    # A request's line comes after its answer, and so perhaps after the signal's.
    assert [one["outcome"] for one in told[-2:] if one["event"] == "request"] == ["ok"]
    # What a killed process does not leave behind: docs/runbooks/alerts.md tells them apart by it.
    (stop,) = [one for one in told if one["event"] == "stopping"]
    assert stop["level"] == "warning"
    assert process.returncode == 0


def test_host_that_is_no_name_is_one_line_and_exit_code_2(bundle: Path) -> None:
    assert "cannot listen on" in refused(bundle=bundle, port=0, host="x" * 100)


def test_empty_variables_count_as_unset(bundle: Path) -> None:
    settings = {"bundle": bundle, "port": 0, "host": "", "max_frames": "", "log_level": ""}
    with subprocess.Popen(**command(**settings)) as process:  # type: ignore[call-overload]
        assert "listens on http://127.0.0.1:" in process.stdout.readline()
        process.terminate()


def test_missing_bundle_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    assert "expected a bundle folder" in refused(bundle=tmp_path / "nothing")


def test_flipped_byte_is_one_line_and_exit_code_2(bundle: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(bundle, broken)
    data = bytearray((broken / "unify.onnx").read_bytes())
    data[100] ^= 1
    (broken / "unify.onnx").write_bytes(data)
    line = refused(bundle=broken)
    assert "unify.onnx" in line
    assert "expected" in line
    assert "found" in line


def test_provider_that_cannot_be_had_ends_in_one_clear_line_and_exit_code_2(bundle: Path) -> None:
    settings = {"bundle": bundle, "provider": "CUDAExecutionProvider", "port": 0}
    with subprocess.Popen(**command(**settings)) as process:  # type: ignore[call-overload]
        first = process.stdout.readline()
        if "provider=CUDAExecutionProvider" in first:
            process.terminate()
            pytest.skip("CUDA can be had on this machine")
        _, log = process.communicate(timeout=60)
    assert process.returncode == 2
    # The runtime may say before it which of its libraries is missing.
    assert log.splitlines()[-1].startswith("endo-clip: expected execution provider CUDA")
    assert "Traceback" not in log


def test_typing_error_in_a_setting_is_one_line_and_exit_code_2(bundle: Path) -> None:
    assert "ENDOCLIP_PROT is not a setting" in refused(bundle=bundle, prot=1)


def test_port_in_use_is_one_line_and_exit_code_2(bundle: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen on" in refused(bundle=bundle, port=taken.getsockname()[1])


def test_service_answers_with_torch_absent(bundle: Path) -> None:
    script = """
import sys
for name in ("torch", "open_clip", "training"):
    sys.modules[name] = None
from tests.service.conftest import image, running
from service.settings import Settings
from pathlib import Path
with running(Settings(bundle=Path(sys.argv[1]))) as up:
    headers = {"Content-Type": "image/png"}
    answer = up.client.post("/v1/malignancy", content=image(), headers=headers)
    print(answer.json()["patients"][0]["decision"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(bundle)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == "positive\n", done.stderr
