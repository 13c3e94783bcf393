"""The machine of a measurement: its hardware and software, and the other work that ran on it meanwhile."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence, Set
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from foundation.allowance import allowed_cores, group_cpu_seconds, usable_cores, usable_memory

# A run is noisy if other processes, or the hypervisor, took more than this share of the cores it may run on.
_NOISY_OTHERS = 0.05
_NOISY_STEAL = 0.01
# A run is also noisy above this rate of involuntary context switches, or this spread of the times of a fixed loop.
_NOISY_SWITCHES_PER_S = 100.0
_NOISY_CALIBRATION = 0.10
_CALIBRATION_LOOPS = 50_000


@dataclass(frozen=True)
class Machine:
    """The properties of a machine that do not change during a run."""

    cpu: str
    cores: int
    usable_cores: int
    """The cores that this process may run on and has CPU time for."""
    memory_bytes: int | None
    """The memory that this process may fill; None if the system does not report it."""
    system: str
    versions: dict[str, str]

    @classmethod
    def inspect(cls, *, root: Path = Path("/")) -> Machine:
        """Args: root: where `/proc` and `/sys` are."""
        # torch only if it is loaded: otherwise it has no influence on the figures.
        packages = ["numpy", "onnxruntime", *(["torch"] if "torch" in sys.modules else []), "enas-toolchain"]
        return cls(
            cpu=_cpu_model(root),
            cores=os.cpu_count() or 1,
            usable_cores=usable_cores(root=root),
            memory_bytes=usable_memory(root=root),
            system=platform.platform(),
            versions={"python": platform.python_version(), **_versions(*packages)},
        )

    def describe(self) -> str:
        cores = f"{self.usable_cores} of {self.cores}" if self.usable_cores != self.cores else f"{self.cores}"
        memory = f", {self.memory_bytes / 2**30:.1f} GiB" if self.memory_bytes else ""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items() if name != "enas-toolchain")
        return f"{self.cpu}, {cores} cores{memory} · {self.system} · {versions}"


@dataclass(frozen=True)
class Reading:
    """Counters at one moment; `Activity.between` computes what happened between two readings."""

    time_s: float
    own_cpu_s: float
    cores: int
    """Number of cores that this process may run on; `busy_cpu_s` and `stolen_cpu_s` are sums over these cores."""
    busy_cpu_s: float | None
    """CPU time of all processes, including this one; None if the system does not report it."""
    stolen_cpu_s: float | None
    """CPU time that the hypervisor gave to other virtual machines."""
    involuntary_switches: int | None
    load_average: float | None
    """Over the last minute."""
    group_cpu_s: float | None = None
    """CPU time of all processes that share this one's quota; None without a quota."""

    @classmethod
    def take(cls, *, root: Path = Path("/")) -> Reading:
        """Args: root: where `/proc` is."""
        own = os.times()
        allowed = allowed_cores()
        busy, stolen = _cpu_seconds(allowed, root)
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
        switches, group = _involuntary_switches(), group_cpu_seconds(root=root)
        return cls(time.monotonic(), own.user + own.system, len(allowed), busy, stolen, switches, load, group)


@dataclass(frozen=True)
class Activity:
    """Other work of the machine between two readings."""

    seconds: float
    others_share: float | None
    """CPU time of all other processes, as a share of the time of the cores this one may run on."""
    steal_share: float | None
    involuntary_switches: int | None
    load_average_before: float | None
    load_average_after: float | None
    others_in_group: float = 0.0
    """Cores that other processes took of the quota that this one shares with them; 0 without a quota."""

    @classmethod
    def between(cls, before: Reading, after: Reading) -> Activity:
        seconds = max(after.time_s - before.time_s, 1e-9)
        capacity_s, own_s = seconds * after.cores, after.own_cpu_s - before.own_cpu_s
        others = steal = switches = None
        in_group = 0.0
        if before.busy_cpu_s is not None and after.busy_cpu_s is not None:
            others = max(0.0, after.busy_cpu_s - before.busy_cpu_s - own_s) / capacity_s
        if before.group_cpu_s is not None and after.group_cpu_s is not None:
            in_group = max(0.0, after.group_cpu_s - before.group_cpu_s - own_s) / seconds
        if before.stolen_cpu_s is not None and after.stolen_cpu_s is not None:
            steal = (after.stolen_cpu_s - before.stolen_cpu_s) / capacity_s
        if before.involuntary_switches is not None and after.involuntary_switches is not None:
            switches = after.involuntary_switches - before.involuntary_switches
        return cls(seconds, others, steal, switches, before.load_average, after.load_average, in_group)

    @property
    def is_shared(self) -> bool:
        """Whether other processes took a large enough share of the cores to disturb a measurement."""
        return self.others_share is not None and self.others_share > _NOISY_OTHERS

    def disturbances(self, *, has_many_threads: bool = False) -> list[str]:
        """Returns the reasons why a run in this time was noisy; empty if the machine was quiet.

        Args: has_many_threads: this process may have had more threads than cores, which then interrupt each other.
        """
        reasons = []
        if self.is_shared:
            reasons.append(f"other processes took {self.others_share:.0%} of the cores")
        if self.steal_share is not None and self.steal_share > _NOISY_STEAL:
            reasons.append(f"the hypervisor took {self.steal_share:.1%} of the cores")
        rate = (self.involuntary_switches or 0) / max(self.seconds, 1e-9)
        if rate > _NOISY_SWITCHES_PER_S and not has_many_threads:
            reasons.append(f"it was interrupted by other work {rate:,.0f} times a second")
        return reasons


def calibrate() -> float:
    """Returns the time of a fixed loop, ms, best of three: constant on a machine without other work."""
    best_ns = 0
    for _ in range(3):
        start = time.perf_counter_ns()
        total = 0
        for number in range(_CALIBRATION_LOOPS):
            total += number
        elapsed_ns = time.perf_counter_ns() - start
        best_ns = min(best_ns or elapsed_ns, elapsed_ns)
    return best_ns / 1e6


def drift(calibration_ms: Sequence[float]) -> list[str]:
    """Returns a reason to doubt the measurement if the times of the fixed loop differ by over 10 %, else no reason."""
    if not calibration_ms or max(calibration_ms) <= (1 + _NOISY_CALIBRATION) * min(calibration_ms):
        return []
    return [f"a fixed loop took between {min(calibration_ms):.2f} and {max(calibration_ms):.2f} ms"]


def _cpu_model(root: Path) -> str:
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    values: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), []).append(value.strip())
    if models := values.get("model name"):
        return models[0]
    if "CPU part" in values:  # ARM; its cores may be of several kinds
        keys = ("implementer", "variant", "part")
        kinds = (f"{key} {'/'.join(dict.fromkeys(values.get(f'CPU {key}', [])))}" for key in keys)
        return " ".join([platform.machine(), *kinds])
    return _macos_cpu_model() or platform.processor() or platform.machine()


def is_this_cpu(recorded: str) -> bool:
    """Whether a recorded `Machine.cpu` matches this machine; earlier versions recorded only the architecture on ARM and
    macOS."""
    return recorded in (_cpu_model(Path("/")), platform.processor() or platform.machine())


def _macos_cpu_model() -> str:
    """Returns the CPU model on macOS, such as "Apple M2"; empty on other systems."""
    if sys.platform != "darwin":
        return ""
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def toolchain_version() -> str:
    """This program's version, or "unknown" in a checkout that is not installed."""
    return _versions("enas-toolchain").get("enas-toolchain", "unknown")


def _versions(*packages: str) -> dict[str, str]:
    """Returns the versions of installed packages; onnxruntime may be installed with or without the suffix `-gpu`."""
    found = {}
    for package in packages:
        for name in (package, f"{package}-gpu"):
            try:
                found[name] = version(name)
                break
            except PackageNotFoundError:
                continue
    return found


def _cpu_seconds(cores: Set[int], root: Path) -> tuple[float | None, float | None]:
    """Returns the seconds since boot that `cores` were busy, and that the hypervisor took. Source: proc_stat(5)."""
    names = {f"cpu{number}" for number in cores}
    busy = stolen = 0
    try:
        for line in (root / "proc/stat").read_text(encoding="utf-8").splitlines():
            name, _, counts = line.partition(" ")
            if name in names:
                user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, counts.split()[:8])
                busy += user + nice + system + irq + softirq
                stolen += steal
    except (OSError, ValueError):
        return None, None
    ticks_per_s = os.sysconf("SC_CLK_TCK")
    return busy / ticks_per_s, stolen / ticks_per_s


def _involuntary_switches() -> int | None:
    try:
        import resource
    except ModuleNotFoundError:
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
