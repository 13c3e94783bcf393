"""What this process may use of the machine: the cores and the memory that its containers leave it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(*, root: Path = Path("/")) -> int:
    """Cores that there is CPU time for, at least 1. A container's quota of 1.5 cores keeps two threads busy.

    Args: root: where `/proc` and `/sys` are.
    """
    return max(1, min([len(allowed_cores()), *map(math.ceil, _cpu_quotas(root))]))


def allowed_cores() -> set[int]:
    """The numbers of the cores this process may run on, whatever CPU time it has there."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def usable_memory(*, root: Path = Path("/")) -> int | None:
    """Bytes of memory that the process can fill before it is killed; None where the system does not say.

    Args: root: where `/proc` and `/sys` are.
    """
    try:
        installed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        installed = []
    return min([*installed, *_memory_limits(root)], default=None)


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Cores' worth of CPU time that each control group around this process is given; those without a limit say nothing.

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
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue


def _memory_limits(root: Path) -> Iterator[int]:
    """Bytes that each control group around this process may hold; those without a limit say nothing, or a huge number.

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
    """The folders of the groups that limit this process by a controller: its own, and all that hold it.

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
        if controller in controllers.split(","):
            bases = [mounts / controllers, mounts / controller]
        elif number == "0" and not controllers:
            bases = [mounts, mounts / "unified"]
        else:
            continue
        own = PurePosixPath(path).relative_to("/") if path.startswith("/") else PurePosixPath(path)
        for base in bases:
            yield from (base / group for group in (own, *own.parents))
