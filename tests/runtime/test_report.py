import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from runtime import report
from runtime.benchmark import Plan, Series, WarmUp
from runtime.machine import Activity, Machine
from runtime.model import Model
from runtime.statistics import Estimate, Interval
from runtime.sweep import Point, Sweep

MACHINE = Machine(
    "Test CPU", cores=4, usable_cores=2, memory_bytes=8 * 2**30, system="TestOS", versions={"python": "3"}
)
QUIET = Activity(1.0, 0.0, 0.0, 0, 0.1, 0.1)


def _series(name: str, *, milliseconds: float, count: int, is_steady: bool = True) -> Series:
    turns = [[int(milliseconds * 1e6)] * 10 for _ in range(count // 10)]
    return Series(name, first_ms=milliseconds * 10, warm_up=WarmUp(30, 0.2, is_steady), turns=turns)


@pytest.fixture
def sweep(model_path: Path) -> Sweep:
    slow, fast = _series("torch eager", milliseconds=2, count=70), _series("tiny.onnx", milliseconds=0.5, count=700)
    return Sweep(
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        models={"tiny.onnx": Model.open(model_path, provider="cpu")},
        baseline="torch eager",
        points=[Point(8, fast, Estimate(4.0, Interval(3.9, 4.1))), Point(8, slow, None)],
        plan=Plan(),
        threads=2,
        seed=0,
        machine=MACHINE,
        activity=QUIET,
        is_partial=False,
    )


def test_the_table_states_what_the_samples_support(sweep: Sweep) -> None:
    lines = report.text(sweep).splitlines()
    table = lines[lines.index("") + 1 : -2]
    assert [" ".join(line.split()) for line in table] == [
        "batch first ms median ms 95 % interval p90 ms p99 ms images/s samples speed vs torch eager",
        "tiny.onnx 8 5.00 0.500 0.500 – 0.500 0.500 0.500 16,000 700 4.00× (3.90 – 4.10)",
        "torch eager 8 20.0 2.00 2.00 – 2.00 2.00 – 4,000 70 1",
    ]
    assert len({len(line) for line in table}) == 1
    assert lines[-1] == "– too few samples (p90 takes 64, p99 takes 662): a longer --duration gives more."


def test_the_table_comes_with_its_conditions(sweep: Sweep) -> None:
    text = report.text(sweep)
    model = sweep.models["tiny.onnx"]
    assert f"tiny.onnx: 1 kB · sha256 {model.sha256[:12]} · fp32 · accuracy 91.25% (test, 2,000 images)" in text
    assert "runs on CPU" in text
    assert "Test CPU, 2 of 4 cores, 8.0 GiB · TestOS · python 3" in text
    assert "2 intra-op threads" in text
    assert "NOISY" not in text
    assert "PARTIAL" not in text


def test_a_noisy_run_says_why(sweep: Sweep) -> None:
    unsteady = Point(1, _series("tiny.onnx", milliseconds=1, count=70, is_steady=False), None)
    restless = Point(8, replace(_series("tiny.onnx", milliseconds=1, count=0), turns=[[9, 10, 11, 20] * 20]), None)
    noisy = replace(sweep, points=[unsteady, restless], activity=replace(QUIET, others_share=0.4))
    assert (
        "NOISY: other processes took 40% of the cores; tiny.onnx at batch 1: not steady after 0.2 s of warm-up; "
        "tiny.onnx at batch 8: the middle half of its samples spans 33% of the median."
    ) in report.text(noisy)


def test_an_interrupted_run_is_marked_and_may_hold_no_sample(sweep: Sweep) -> None:
    partial = replace(sweep, points=[Point(8, Series("tiny.onnx"), None)], is_partial=True)
    text = report.text(partial)
    assert "PARTIAL: interrupted" in text
    assert " ".join(text.splitlines()[5].split()) == "tiny.onnx 8 – – – – – – 0 –"
    document = report.document(partial, command=["enas"])
    assert document["is_partial"]
    assert document["points"][0]["count"] == 0


def test_why_cuda_was_not_taken_is_said_once(sweep: Sweep) -> None:
    model = sweep.models["tiny.onnx"]
    elsewhere = replace(model, session=replace(model.session, remark="CUDA cannot be used: no driver"))
    assert report.text(replace(sweep, models={"a": elsewhere, "b": elsewhere})).count("no driver") == 1


def test_the_document_holds_every_sample_and_what_they_hang_on(sweep: Sweep) -> None:
    document = json.loads(json.dumps(report.document(sweep, command=["enas", "benchmark", "tiny.onnx"])))
    model, (fast, slow) = sweep.models["tiny.onnx"], document["points"]
    assert document["schema"] == 1
    assert document["command"] == ["enas", "benchmark", "tiny.onnx"]
    assert document["started"] == "2026-01-02T03:04:05+00:00"
    assert document["percentile_rule"]["fewest_samples"] == {"p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}
    assert document["machine"]["cpu"] == "Test CPU"
    assert document["models"][0]["sha256"] == model.sha256
    assert document["models"][0]["providers"] == ["CPUExecutionProvider"]
    assert document["models"][0]["accuracy"]["count"] == 2000
    assert fast["samples_ms"] == [[0.5] * 10] * 70
    assert fast["median_ms"] == {"value": 0.5, "interval": {"low": 0.5, "high": 0.5}}
    assert fast["speed"] == {"value": 4.0, "interval": {"low": 3.9, "high": 4.1}}
    assert slow["percentiles_ms"]["p90"]["value"] == 2.0
    assert slow["percentiles_ms"]["p99"] is None
    assert slow["warm_up"] == {"calls": 30, "seconds": 0.2, "is_steady": True}


def test_the_markdown_is_a_table_with_its_conditions_below(sweep: Sweep) -> None:
    lines = report.markdown(sweep).splitlines()
    assert lines[0].startswith("|  | batch | first ms |")
    assert {line.count("|") for line in lines[:4]} == {11}
    assert lines[4] == ""
    assert all(line.startswith("- ") for line in lines[5:])


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0.0, "0"), (0.001234, "0.00123"), (0.5, "0.500"), (9.876, "9.88"), (1234.5, "1,234")],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert report._number(value) == text
