import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from foundation.machine import Machine
from runtime.benchmarking.benchmark import Plan
from runtime.benchmarking.plots import accuracy_plot, batch_plot, write_plots
from runtime.benchmarking.results import Point, Sweep
from runtime.benchmarking.samples import Series, Sitting
from runtime.benchmarking.scenarios import Load
from runtime.benchmarking.targets import Facts


def _target(name: str, accuracy: float | None) -> Any:
    stated = None if accuracy is None else {"split": "test", "value": accuracy, "count": 2000}
    return SimpleNamespace(name=name, inputs=(), facts=Facts(accuracy=stated))


def _point(name: str, batch_size: int, milliseconds: float, *, threads: int = 2) -> Point:
    return Point(batch_size, threads, Load(), Series(name, [Sitting(turns=[[int(milliseconds * 1e6)] * 20])]), None)


@pytest.fixture
def sweep() -> Sweep:
    return Sweep(
        started=datetime(2026, 1, 2, tzinfo=UTC),
        targets={"small": _target("small", 0.9), "large": _target("large", 0.93), "other": _target("other", None)},
        baseline="small",
        plan=Plan(),
        seed=0,
        machine=Machine("CPU", cores=1, usable_cores=1, memory_bytes=None, system="OS", versions={}),
        points=[
            _point(name, size, size * ms) for size in (1, 8) for name, ms in (("small", 1), ("large", 3), ("other", 2))
        ],
    )


def _texts(picture: str | None) -> list[str]:
    assert picture is not None
    return [element.text or "" for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]


def test_latency_is_drawn_over_the_batch_sizes_that_were_measured(sweep: Sweep) -> None:
    texts = _texts(batch_plot(sweep))
    assert {"1", "8", "small", "large", "other", "Latency by batch size"} <= set(texts)


def test_accuracy_is_drawn_for_the_models_that_state_one(sweep: Sweep) -> None:
    texts = _texts(accuracy_plot(sweep))
    assert {"small", "large", "median ms at batch 1, with its 95 % interval"} <= set(texts)
    assert "other" not in texts


def test_several_numbers_of_threads_have_a_line_each(sweep: Sweep) -> None:
    more = [_point("small", size, size / 2, threads=4) for size in (1, 8)]
    texts = _texts(batch_plot(replace(sweep, points=[*sweep.points, *more])))
    assert {"small, 2 threads", "small, 4 threads"} <= set(texts)


def test_what_was_not_measured_is_not_drawn(sweep: Sweep, tmp_path: Path) -> None:
    one_size = replace(sweep, points=[_point("other", 1, 2)])
    assert batch_plot(one_size) is None
    assert accuracy_plot(one_size) is None
    assert write_plots(one_size, tmp_path) == []
    assert [path.name for path in write_plots(sweep, tmp_path)] == ["benchmark-batches.svg", "benchmark-accuracy.svg"]
    assert write_plots(one_size, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_perplexity_is_no_accuracy(sweep: Sweep) -> None:
    target = _target("small", None)
    target.facts = Facts(accuracy={"metric": "perplexity", "split": "test", "value": 0.9, "count": 10})
    assert accuracy_plot(replace(sweep, targets={**sweep.targets, "small": target})) is None
