"""How many cores this process may use: its affinity, and the CPU quota of the containers that it is in."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(*, root: Path = Path("/")) -> int:
    """Cores that there is CPU time for, at least 1. A container's quota of 1.5 cores keeps two threads busy.

    Args: root: where `/proc` and `/sys` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *map(math.ceil, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of CPU time that each control group around this process is given; those without a limit say nothing.

    Source: the Linux kernel's `cgroup-v2` ("cpu.max") and `sched-bwc` ("cpu.cfs_quota_us").
    """
    for folder in _control_groups(root):
        try:
            if (folder / "cpu.max").exists():
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            # "max" in version 2, -1 in version 1: no limit.
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue


def _control_groups(root: Path) -> Iterator[Path]:
    """The folders of the groups that limit this process's CPU time: its own, and all that hold it.

    A container may see its own group as the root, under a path that is the host's: folders may be missing.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounts = root / "sys/fs/cgroup"
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if "cpu" in controllers.split(","):
            bases = [mounts / controllers, mounts / "cpu"]
        elif number == "0" and not controllers:
            bases = [mounts, mounts / "unified"]
        else:
            continue
        own = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath(path)
        for base in bases:
            yield from (base / group for group in (own, *own.parents))
