"""A container's CPU quota counts as the cores that it pays for, its memory limit as the memory there is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from foundation.allowance import group_cpu_seconds, usable_cores, usable_memory

GIB = 2**30


@pytest.fixture(autouse=True)
def _eight_cores_and_32_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(os, "sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 32 * GIB // 4096}.__getitem__)


def machine(root: Path, *, groups: str, files: dict[str, str]) -> Path:
    """A folder with the files of `/proc` and `/sys` that tell of control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_control_groups_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cores(root=tmp_path) == 8


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("50000 100000", 1),
        ("max 100000", 8),
        ("9900000 100000", 8),
        ("", 8),
    ],
)
def test_the_quota_of_version_2(tmp_path: Path, limit: str, cores: int) -> None:
    root = machine(tmp_path, groups="0::/\n", files={"sys/fs/cgroup/cpu.max": f"{limit}\n"})
    assert usable_cores(root=root) == cores


def test_the_least_quota_of_all_groups_around_a_process(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a.slice/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
    }
    root = machine(tmp_path, groups="0::/a.slice/b.scope\n", files=files)
    assert usable_cores(root=root) == 3


@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 8)])
@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu,cpuacct/docker/0123"])
def test_the_quota_of_version_1(tmp_path: Path, folder: str, quota: str, cores: int) -> None:
    """Of a container that sees its group under the host's path, and of one that sees it as the root."""
    files = {
        f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us": quota,
        f"sys/fs/cgroup/{folder}/cpu.cfs_period_us": "100000",
    }
    root = machine(tmp_path, groups="5:cpu,cpuacct:/docker/0123\n3:memory:/docker/0123\n", files=files)
    assert usable_cores(root=root) == cores


def test_the_cpu_time_of_the_group_that_has_the_quota(tmp_path: Path) -> None:
    assert group_cpu_seconds(root=tmp_path) is None
    usage = "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n"
    files = {
        "sys/fs/cgroup/a.slice/cpu.max": "300000 100000\n",
        "sys/fs/cgroup/a.slice/cpu.stat": usage,
        "sys/fs/cgroup/a.slice/b.scope/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a.slice/b.scope/cpu.stat": "usage_usec 7\n",
    }
    assert group_cpu_seconds(root=machine(tmp_path / "2", groups="0::/a.slice/b.scope\n", files=files)) == 2.5
    files = {
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "400000",
        "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
        "sys/fs/cgroup/cpu,cpuacct/cpuacct.usage": "2500000000\n",
    }
    assert group_cpu_seconds(root=machine(tmp_path / "1", groups="5:cpu,cpuacct:/\n", files=files)) == 2.5


def test_without_control_groups_all_memory_counts(tmp_path: Path) -> None:
    assert usable_memory(root=tmp_path) == 32 * GIB


@pytest.mark.parametrize(("limit", "gib"), [(str(4 * GIB), 4), ("max", 32), (str(64 * GIB), 32), ("", 32)])
def test_the_memory_limit_of_version_2(tmp_path: Path, limit: str, gib: int) -> None:
    files = {"sys/fs/cgroup/a/memory.max": f"{limit}\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}
    root = machine(tmp_path, groups="0::/a/b\n", files=files)
    assert usable_memory(root=root) == gib * GIB


@pytest.mark.parametrize(("limit", "gib"), [(4 * GIB, 4), (2**63 - 4096, 32)])
@pytest.mark.parametrize("folder", ["memory", "memory/docker/0123"])
def test_the_memory_limit_of_version_1(tmp_path: Path, folder: str, limit: int, gib: int) -> None:
    root = machine(
        tmp_path,
        groups="5:cpu,cpuacct:/docker/0123\n3:memory:/docker/0123\n0::/\n",
        files={f"sys/fs/cgroup/{folder}/memory.limit_in_bytes": f"{limit}\n"},
    )
    assert usable_memory(root=root) == gib * GIB


def test_memory_that_the_system_says_nothing_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sysconf")
    assert usable_memory(root=tmp_path) is None
