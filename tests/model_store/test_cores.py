"""Cores: what affinity and quotas leave, on drawn trees of control groups."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.cores import usable_cores

ROOT = Path(__file__).parents[2]
ALLOWED = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
V2 = "30 23 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 {mounted} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture(autouse=True)
def many_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system allows 64 cores; what the trees say is then the only limit."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: range(64), raising=False)


def tree(root: Path, groups: str, mounts: str, **quotas: str) -> Path:
    """Draw a system's files; a quota is named by the folder below /sys/fs/cgroup."""
    files = {"proc/self/cgroup": groups, "proc/self/mountinfo": mounts}
    files |= {f"sys/fs/cgroup/{name}": text for name, text in quotas.items()}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")
    return root


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("100000 100000", 1),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 64),
        ("9900000 100000", 64),
        ("nonsense", 64),
    ],
)
def test_quota_of_version_2_counts_in_whole_cores_and_at_least_one(
    tmp_path: Path, quota: str, cores: int
) -> None:
    root = tree(tmp_path, "0::/", V2, **{"cpu.max": quota})
    assert usable_cores(root) == cores


def test_smallest_quota_around_the_process_counts(tmp_path: Path) -> None:
    quotas = {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000", "cpu.max": "max 100000"}
    quotas["other/cpu.max"] = "100000 100000"
    assert usable_cores(tree(tmp_path, "0::/a/b", V2, **quotas)) == 3


@pytest.mark.parametrize(("quota", "cores"), [("200000", 2), ("-1", 64), ("0", 64)])
@pytest.mark.parametrize("mounted", ["/", "/docker/c1", "/elsewhere"])
def test_quota_of_version_1_counts_however_much_of_the_tree_is_mounted(
    tmp_path: Path, quota: str, cores: int, mounted: str
) -> None:
    inside = "docker/c1/" if mounted == "/" else ""
    files = {"quota": quota, "period": "100000"}
    quotas = {f"cpu,cpuacct/{inside}cpu.cfs_{name}_us": text for name, text in files.items()}
    groups = "9:name=systemd:/x\n4:cpu,cpuacct:/docker/c1\n0::/"
    assert usable_cores(tree(tmp_path, groups, V1.format(mounted=mounted), **quotas)) == cores


def test_system_without_control_groups_leaves_the_affinity(tmp_path: Path) -> None:
    assert usable_cores(tmp_path) == 64


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_of_the_process_counts() -> None:
    code = "import os; from model_store.cores import usable_cores; os.sched_setaffinity(0, {%d})"
    code = f"{code % min(ALLOWED)}; print(usable_cores())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "1\n"
