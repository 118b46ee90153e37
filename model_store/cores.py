"""How many cores this process may use: what its affinity and its control groups leave of them.

A container's share is often a quota of processor time (`cpus: 2` of Compose, `limits.cpu` of
Kubernetes), which neither `os.cpu_count` nor the affinity shows: a thread per core of the machine
then uses up a period's quota at once, and all of them stand still until the next.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

__all__ = ["usable_cores"]


def usable_cores(root: Path = Path("/")) -> int:
    """Count the cores that this process may use.

    Args:
        root: where `proc` and the control groups' file systems are found.

    Returns:
        The smallest of: the affinity (without one, the machine's cores) and the quota of every
        control group around the process, version 1 or 2. Part of a core does not count, so that
        threads are not throttled, but there is always one.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, int(min([cores, *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """Give the quotas, in cores, of the process's control groups and of those around them."""
    process = root / "proc" / "self"
    with suppress(OSError):  # another system, or one without control groups
        groups = _groups((process / "cgroup").read_text(encoding="utf-8"))
        mounts = (process / "mountinfo").read_text(encoding="utf-8")
        for controller, mounted, point in _mounts(mounts):
            top = root / point.lstrip("/")
            folder = top / _below(groups.get(controller, "/"), mounted)
            for group in (folder, *folder.parents):
                yield from _quota(group)
                if group == top:
                    break


def _groups(text: str) -> dict[str, str]:
    """Read /proc/self/cgroup: controller → path of the group; that of version 2 is ""."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return {name: path for _, names, path in lines for name in names.split(",")}


def _mounts(text: str) -> Iterator[tuple[str, str, str]]:
    """Read /proc/self/mountinfo: controller ("" or cpu), its group that is mounted, and where."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        mounted, point = before.split()[3:5]
        kind, *_, options = after.split()
        if kind == "cgroup2":
            yield "", mounted, point
        elif kind == "cgroup" and "cpu" in options.split(","):
            yield "cpu", mounted, point


def _below(group: str, mounted: str) -> str:
    """Give a group's path inside a mount that shows only a part of the tree, as a container's."""
    path = PurePosixPath(group)
    return str(path.relative_to(mounted)) if path.is_relative_to(mounted) else ""


def _quota(group: Path) -> Iterator[float]:
    """Give a group's quota, if it has one: `max 100000` and -1 are none."""
    with suppress(OSError, ValueError):
        quota, period = (group / "cpu.max").read_text(encoding="ascii").split()
        yield int(quota) / int(period)
    with suppress(OSError, ValueError):
        quota, period = (
            (group / f"cpu.cfs_{name}_us").read_text(encoding="ascii")
            for name in ("quota", "period")
        )
        if int(quota) > 0:
            yield int(quota) / int(period)
