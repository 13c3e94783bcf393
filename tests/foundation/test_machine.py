import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import pytest

from foundation.machine import Activity, Machine, Reading, calibrate, drift

BEFORE = Reading(
    time_s=0, own_cpu_s=0, cores=2, busy_cpu_s=100, stolen_cpu_s=0, involuntary_switches=5, load_average=0.5
)


def test_the_machine_says_what_it_is() -> None:
    machine = Machine.inspect()
    assert 1 <= machine.usable_cores <= machine.cores
    assert machine.versions.keys() >= {"python", "numpy"}
    assert machine.cpu in machine.describe()


def cpu_of(root: Path, *lines: str) -> str:
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc" / "cpuinfo").write_text("\n".join([*lines, ""]))
    return Machine.inspect(root=root).cpu


def test_a_cpu_of_x86_has_its_models_name(tmp_path: Path) -> None:
    lines = ["processor\t: 0", "model\t\t: 85", "model name\t: Intel(R) Xeon(R) @ 2.00GHz", "model name\t: another"]
    assert cpu_of(tmp_path, *lines) == "Intel(R) Xeon(R) @ 2.00GHz"


def test_cpus_of_arm_have_different_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")

    def core(part: str) -> list[str]:
        return ["CPU implementer\t: 0x41", "CPU architecture: 8", "CPU variant\t: 0x3", f"CPU part\t: {part}"]

    assert cpu_of(tmp_path, *core("0xd0c"), *core("0xd0c")) == "aarch64 implementer 0x41 variant 0x3 part 0xd0c"
    assert cpu_of(tmp_path, *core("0xd05"), *core("0xd0a")) == "aarch64 implementer 0x41 variant 0x3 part 0xd05/0xd0a"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs a settable affinity")
def test_only_the_cores_this_process_may_use_count() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Machine.inspect().usable_cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_a_quiet_machine_gives_no_reason_for_doubt() -> None:
    after = replace(BEFORE, time_s=10, own_cpu_s=9, busy_cpu_s=109.5)
    assert Activity.between(BEFORE, after).disturbances() == []


def test_others_that_take_the_cores_are_told() -> None:
    after = replace(BEFORE, time_s=10, own_cpu_s=10, busy_cpu_s=116)
    assert Activity.between(BEFORE, after).disturbances() == ["other processes took 30% of the cores"]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs an affinity")
def test_only_what_happens_on_the_cores_this_process_may_use_disturbs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 10})

    def reading(ticks: dict[int, tuple[int, int]]) -> Reading:
        """Of a host whose cores, by number, were busy and stolen for so many ticks."""
        lines = [f"cpu{core} {busy} 0 0 0 0 0 0 {stolen} 0 0" for core, (busy, stolen) in ticks.items()]
        (tmp_path / "proc").mkdir(exist_ok=True)
        (tmp_path / "proc" / "stat").write_text("\n".join(["cpu  9999 0 0 0 0 0 0 9999 0 0", *lines, "intr 7", ""]))
        return Reading.take(root=tmp_path)

    second = os.sysconf("SC_CLK_TCK")
    before = reading({0: (0, 0), 1: (0, 0), 10: (0, 0)})
    # The loads on core 1 are no concern of a process on the cores 0 and 10.
    after = reading({0: (second, 0), 1: (10 * second, 10 * second), 10: (2 * second, second)})
    after = replace(after, time_s=before.time_s + 10, own_cpu_s=before.own_cpu_s + 1)
    activity = Activity.between(before, after)
    assert (activity.others_share, activity.steal_share) == (pytest.approx(0.1), pytest.approx(0.05))


def test_a_hypervisor_that_takes_the_cores_is_told() -> None:
    after = replace(BEFORE, time_s=10, own_cpu_s=10, busy_cpu_s=110, stolen_cpu_s=1)
    assert Activity.between(BEFORE, after).disturbances() == ["the hypervisor took 5.0% of the cores"]


def test_a_machine_that_interrupts_is_told() -> None:
    after = replace(BEFORE, time_s=10, own_cpu_s=10, busy_cpu_s=110, involuntary_switches=2005)
    reasons = Activity.between(BEFORE, after).disturbances()
    assert reasons == ["it was interrupted by other work 200 times a second"]


def test_a_fixed_loop_that_takes_longer_at_times_is_told() -> None:
    assert drift([2.0, 2.1, 2.15]) == []
    assert drift([]) == []
    assert drift([2.0, 2.5, 2.1]) == ["a fixed loop took between 2.00 and 2.50 ms"]


def test_the_fixed_loop_takes_milliseconds() -> None:
    assert 0.1 < calibrate() < 1000


def test_a_system_that_keeps_its_counters_to_itself_is_not_called_noisy() -> None:
    before, after = (
        replace(BEFORE, time_s=time_s, busy_cpu_s=None, stolen_cpu_s=None, involuntary_switches=None)
        for time_s in (0, 10)
    )
    activity = Activity.between(before, after)
    assert (activity.others_share, activity.steal_share, activity.involuntary_switches) == (None, None, None)
    assert activity.disturbances() == []


def test_the_systems_own_figures_tell_of_this_process() -> None:
    before = Reading.take()
    if before.busy_cpu_s is None:
        pytest.skip("this system has no /proc/stat")
    started = time.process_time()
    while time.process_time() < started + 0.2:
        pass
    after = Reading.take()
    assert after.busy_cpu_s is not None
    assert after.own_cpu_s - before.own_cpu_s >= 0.15  # in ticks of a hundredth
    assert after.busy_cpu_s - before.busy_cpu_s >= 0.15


def test_two_readings_follow_each_other() -> None:
    first, second = Reading.take(), Reading.take()
    activity = Activity.between(first, second)
    assert activity.seconds >= 0
    assert activity.involuntary_switches is None or activity.involuntary_switches >= 0
