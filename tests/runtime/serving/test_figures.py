"""Figures that several processes keep together."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import pytest

from runtime.serving.metrics import Metrics
from runtime.serving.processes.figures import Figures, Slot
from tests.runtime.serving.clients import REQUEST
from tests.runtime.serving.conftest import INFER, Server, serving

LABELS = (["model"], ["m"])


def values(slots: list[Slot], *, name: str = "n", typ: str = "counter", mode: str = "") -> list:
    """The same number in each of some workers."""
    return [
        Figures(slots, own).value_class()(typ, name, name, *LABELS, "help", multiprocess_mode=mode)
        for own in range(len(slots))
    ]


def test_every_worker_tells_the_sum_of_all() -> None:
    one, other = values([Slot.reserve(), Slot.reserve()])
    one.inc(2)
    other.inc(3)
    one.inc(0.5)
    assert (one.get(), other.get()) == (5.5, 5.5)


def test_of_some_figures_the_highest_is_told() -> None:
    one, other = values([Slot.reserve(), Slot.reserve()], typ="gauge", mode="max")
    one.set(2)
    other.set(7)
    assert one.get() == 7


def test_what_only_another_worker_counts_is_known_to_all() -> None:
    slots = [Slot.reserve(), Slot.reserve()]
    values(slots[1:], name="other")
    assert list(Figures(slots, 0).labels()) == [("other", ["m"])]


def test_a_new_worker_goes_on_counting_where_the_dead_one_was() -> None:
    slots = [Slot.reserve()]
    (dead,), (waiting,) = values(slots), values(slots, name="pending", typ="gauge", mode="livesum")
    dead.inc(5)
    waiting.inc(3)
    slots[0].forget_what_is_under_way()
    (new,), (pending,) = values(slots), values(slots, name="pending", typ="gauge", mode="livesum")
    new.inc(1)
    assert (new.get(), pending.get()) == (6, 0)


def test_figures_without_room_are_the_workers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = [Slot.reserve(), Slot.reserve()]
    for number in range(2_000):
        (value, _) = values(slots, name=f"{'a-rather-long-name-' * 40}{number}")
        if value._place is None:
            break
    value.inc(2)
    assert value.get() == 2


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
@pytest.mark.parametrize("is_possible", [True, False])
def test_workers_serve_whatever_becomes_of_the_file_system(model_path: Path, tmp_path: Path, is_possible: bool) -> None:
    """No folder for temporary files; and no room for any file at all, where figures are each worker's own."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    soft, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if not is_possible:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with serving(model_path, "--workers", "2", environment={"TMPDIR": str(tmp_path / "none")}) as server:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            for _ in range(20):
                assert server.ask("POST", INFER, *REQUEST).status == 200
            counted = {_count(server) for _ in range(6)}
            assert counted == {20} if is_possible else sum(counted) <= 40
            for _ in range(4 if is_possible else 0):
                assert '\nnv_inference_count{model="tiny",version="1"} 20.0\n' in server.get("/metrics").body.decode()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def _count(server: Server) -> int:
    (entry,) = server.get("/v2/models/tiny/stats").json()["model_stats"]
    return entry["inference_count"]


def test_many_times_are_counted_as_each_alone() -> None:
    one, many = Metrics().of_models["request_s"], Metrics().of_models["request_s"]
    times = [0.0, 1e-4, 1.0001e-4, 3e-3, 3e-3, 0.7, 10.0, 11.0]
    for time in times:
        one.labels("m", "1").observe(time)
    many.labels("m", "1").observe_all(times)

    def samples(histogram: Any) -> list[tuple[str, Any, float]]:
        (metric,) = histogram.collect()
        return [(s.name, s.labels, s.value) for s in metric.samples if not s.name.endswith("_created")]

    assert samples(many) == samples(one)
