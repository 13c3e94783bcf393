"""The CPU cores and the memory that this process may use, within the limits of its containers."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(*, root: Path = Path("/")) -> int:
    """Returns the number of cores with CPU time for this process, at least 1; a quota of 1.5 cores counts as 2.

    Args: root: where `/proc` and `/sys` are.
    """
    return max(1, min([len(allowed_cores()), *(math.ceil(quota) for quota, _ in _cpu_quotas(root))]))


def allowed_cores() -> set[int]:
    """Returns the numbers of the cores that this process may run on; a quota may leave it less CPU time than those."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def group_cpu_seconds(*, root: Path = Path("/")) -> float | None:
    """Returns the CPU time that the control group with the smallest quota around this process has used; None without.

    Source: the Linux kernel's `cgroup-v2` ("cpu.stat") and `cgroup-v1/cpuacct` ("cpuacct.usage").
    """
    quotas = list(_cpu_quotas(root))
    if not quotas:
        return None
    _, group = min(quotas)
    try:
        if (group / "cpu.max").exists():
            counters = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
            return int(counters["usage_usec"]) / 1e6
        return int((group / "cpuacct.usage").read_text()) / 1e9
    except (OSError, ValueError, KeyError):
        return None


def usable_memory(*, root: Path = Path("/")) -> int | None:
    """Returns the bytes of memory that the process can fill before it is killed; None if unknown.

    Args: root: where `/proc` and `/sys` are.
    """
    try:
        installed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        installed = []
    return min([*installed, *_memory_limits(root)], default=None)


def _cpu_quotas(root: Path) -> Iterator[tuple[float, Path]]:
    """Yields the CPU quota, in cores, and the folder of each control group around this process that has a limit.

    Source: the Linux kernel's `cgroup-v2` ("cpu.max") and `sched-bwc` ("cpu.cfs_quota_us").
    """
    for folder in _control_groups(root, "cpu"):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            # "max" in version 2, -1 in version 1: no limit.
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period), folder
        except (OSError, ValueError):
            continue


def _memory_limits(root: Path) -> Iterator[int]:
    """Yields the memory limit of each control group around this process, bytes; without one, nothing or a huge number.

    Source: the Linux kernel's `cgroup-v2` ("memory.max") and `cgroup-v1/memory` ("memory.limit_in_bytes").
    """
    for folder in _control_groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            try:
                limit = (folder / name).read_text().strip()
                if limit != "max" and int(limit) > 0:
                    yield int(limit)
            except (OSError, ValueError):
                continue


def _control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the folders of the groups that limit this process by a controller: its own group, and all parents of it.

    In a container, the path may be the host's while the own group is mounted as the root: folders may be missing.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            bases = [mounts / controllers, mounts / controller]
        elif number == "0" and not controllers:
            bases = [mounts, mounts / "unified"]
        else:
            continue
        own = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath(path)
        for base in bases:
            yield from (base / group for group in (own, *own.parents))
