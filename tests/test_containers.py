"""Images and Compose: valid, and as tight as the documents say; .ci/service-image runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
COMPOSE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text("utf-8"))["services"]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


def validated(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    return subprocess.run([*command, path], capture_output=True, text=True, check=False)


def test_compose_file_is_valid():
    done = validated(COMPOSE)
    assert done.returncode == 0, done.stdout


def test_compose_guard_can_fail(tmp_path: Path):
    wrong = tmp_path / "docker-compose.yml"
    wrong.write_text(COMPOSE.read_text("utf-8").replace("read_only:", "readonly:"))
    assert validated(wrong).returncode != 0


def loose(service: dict[str, Any]) -> list[str]:
    """Say what is not as tight as it should be."""
    faults = [] if service.get("read_only") is True else ["its root can be written"]
    if service.get("cap_drop") != ["ALL"] or "cap_add" in service or service.get("privileged"):
        faults.append("it has capabilities")
    if "no-new-privileges:true" not in service.get("security_opt", ()):
        faults.append("it may gain privileges")
    if not {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]):
        faults.append("memory or processes are not limited")
    faults += [f"open port {port}" for port in service.get("ports", ()) if "127.0.0.1" not in port]
    if re.search(r"password|secret|token", json.dumps(service.get("environment", {})).lower()):
        faults.append("a password stands in it")
    tag = service["image"].partition(":")[2]
    if "build" not in service and not re.fullmatch(r"v?\d+\.\d+\.\d+", tag):
        faults.append(f"image of another maker without a version: {service['image']}")
    return faults


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_service_of_compose_is_locked_down(name: str):
    assert loose(SERVICES[name]) == []


def test_lock_down_guard_can_fail():
    bad = SERVICES["grafana"] | {
        "ports": ["3000:3000"],
        "image": "grafana",
        "read_only": False,
        "cap_add": ["SYS_ADMIN"],
        "environment": {"GF_SECURITY_ADMIN_PASSWORD": "admin"},
        "security_opt": [],
        "deploy": {"resources": {"limits": {}}},
    }
    assert len(loose(bad)) == 7


def test_a_stop_waits_as_long_as_the_service_may_take():
    for name in ("endo-clip", "endo-clip-gpu", "endo-clip-dicom"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > Settings().grace_s


def test_profiles_are_those_of_the_documents():
    profiles = {name: service.get("profiles", []) for name, service in SERVICES.items()}
    assert {name for name, own in profiles.items() if not own} == {
        "endo-clip",
        "prometheus",
        "grafana",
    }
    assert profiles["endo-clip-gpu"] == ["gpu"]
    assert profiles["endo-clip-dicom"] == profiles["orthanc"] == ["pacs"]
    assert profiles["training"] == ["train"]


def test_files_that_compose_mounts_and_builds_from_are_there():
    for service in SERVICES.values():
        places = [volume.split(":")[0] for volume in service.get("volumes", ())]
        places += [service["build"]["dockerfile"]] if "build" in service else []
        for place in places:
            assert not place.startswith(("./", "docker/")) or (ROOT / place).exists(), place


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_image_is_made_from_a_base_by_tag_and_runs_as_a_number(path: Path):
    text = path.read_text("utf-8")
    assert "\nARG BASE=python:3.11-slim-bookworm\n" in text
    assert set(re.findall(r"^FROM (\S+)", text, flags=re.MULTILINE)) == {"${BASE}"}
    last = text[text.rindex("\nFROM ") :]
    assert re.findall(r"^USER (.+)$", last, flags=re.MULTILINE) == ["10001:10001"]
    assert "--require-hashes" in text


def test_nothing_enters_a_build_that_no_image_copies():
    allowed = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text("utf-8"), re.MULTILINE)
    copied = {
        source.partition("/")[0]
        for path in DOCKERFILES
        for line in re.findall(r"^COPY (?!--from)(.+) \S+$", path.read_text("utf-8"), re.MULTILINE)
        for source in line.split()
    }
    assert set(allowed) == copied
    assert (ROOT / ".dockerignore").read_text("utf-8").splitlines()[1] == "*"


def test_the_images_requirements_agree():
    pins = {}
    for name in ("service", "gpu", "dicom", "postgres"):
        text = (ROOT / "requirements" / f"{name}.txt").read_text("utf-8")
        pins[name] = set(re.findall(r"^([\w.-]+==\S+)", text, flags=re.MULTILINE))
    assert pins["service"] < pins["gpu"]
    assert pins["service"] < pins["dicom"]
    assert pins["service"] < pins["postgres"]
    assert any(pin.startswith("psycopg==") for pin in pins["postgres"])
    # They may be installed over one another.
    names = [pin.partition("==")[0] for pin in set().union(*pins.values())]
    assert len(names) == len(set(names))
    assert all(pin.startswith("nvidia-") for pin in pins["gpu"] - pins["service"])


@pytest.mark.parametrize(
    ("linter", "name", "bad", "rule"),
    [
        ("hadolint", "Dockerfile", "FROM debian\nRUN cd /tmp && sudo make\n", "DL3004"),
        ("shellcheck", "run", "#!/bin/sh\nrm -rf $1/*\n", "SC2086"),
    ],
)
def test_linters_of_make_check_find_faults(
    linter: str, name: str, bad: str, rule: str, tmp_path: Path
):
    program = Path(sys.executable).with_name(linter)
    if not program.exists():
        pytest.skip(f"{linter} has no wheel for this platform")
    (tmp_path / name).write_text(bad)
    command = [program, tmp_path / name]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert rule in done.stdout
