import json
import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from foundation.machine import Activity, Machine
from foundation.statistics import Estimate, Interval
from runtime.benchmarking import report
from runtime.benchmarking.benchmark import Plan
from runtime.benchmarking.results import Answer, Goal, Point, Sweep
from runtime.benchmarking.samples import Series, Sitting, Traffic, WarmUp
from runtime.benchmarking.scenarios import Load
from runtime.benchmarking.targets import OnnxTarget, Transfer
from runtime.models.providers import DEFAULT_TUNING

MACHINE = Machine(
    "Test CPU", cores=4, usable_cores=2, memory_bytes=8 * 2**30, system="TestOS", versions={"python": "3"}
)
QUIET = Activity(1.0, 0.0, 0.0, 0, 0.1, 0.1)
ONE_BY_ONE = Load()


def _series(name: str, *, milliseconds: float, count: int, is_steady: bool = True) -> Series:
    """Half of the samples in each of two sittings, the second on a session that has seen another shape."""
    turns = [[int(milliseconds * 1e6)] * 5 for _ in range(count // 10)]
    warm_up = WarmUp(30, 0.2, is_steady)
    cold = Sitting(40.0, cold_ms=milliseconds * 10, warm_up=warm_up, turns=turns)
    reshaped = Sitting(50.0, new_shape_ms=milliseconds * 3, warm_up=warm_up, turns=turns)
    return Series(name, [cold, reshaped])


def _target(path: Path, name: str = "tiny.onnx") -> OnnxTarget:
    return OnnxTarget.load(name, path, provider="cpu", threads=2, tuning=DEFAULT_TUNING, transfer=Transfer())


@pytest.fixture
def sweep(model_path: Path) -> Sweep:
    slow, fast = _series("torch eager", milliseconds=2, count=70), _series("tiny.onnx", milliseconds=0.5, count=700)
    speed = Estimate(4.0, Interval(3.9, 4.1))
    return Sweep(
        started=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        targets={"tiny.onnx": _target(model_path)},
        baseline="torch eager",
        plan=Plan(),
        seed=0,
        machine=MACHINE,
        points=[Point(8, 2, ONE_BY_ONE, fast, speed), Point(8, 2, ONE_BY_ONE, slow, None)],
        activity=QUIET,
    )


def _table(text: str, title: str) -> list[str]:
    """The rows of the table under `title`, blanks made single."""
    lines = text.splitlines()
    start = lines.index(title) + 1
    return [" ".join(line.split()) for line in lines[start : lines.index("", start)]]


def test_the_table_states_what_the_samples_support(sweep: Sweep) -> None:
    text = report.text(sweep)
    assert _table(text, "single-stream") == [
        "batch open ms first ms new shape ms median ms (95 %) p90 ms (95 %) p99 ms (95 %) images/s samples "
        "speed vs torch eager",
        "tiny.onnx 8 45.0 5.00 1.50 0.500 (0.500 – 0.500) 0.500 (0.500 – 0.500) 0.500 (0.500 – 0.500) 16,000 700 "
        "4.000× (3.900 – 4.100)",
        "torch eager 8 45.0 20.0 6.00 2.00 (2.00 – 2.00) 2.00 (2.00 – 2.00) – 4,000 70 1",
    ]
    assert text.splitlines()[-1] == "– too few samples (p90 takes 64, p99 takes 662): a longer --duration gives more."


def test_the_table_comes_with_its_conditions(sweep: Sweep) -> None:
    text = report.text(sweep)
    sha256 = sweep.targets["tiny.onnx"].facts.sha256 or ""
    assert f"tiny.onnx: 1 kB · sha256 {sha256[:12]} · fp32 · accuracy 91.25% (test, 2,000 images) · runs on CPU" in text
    assert "Test CPU, 2 of 4 cores, 8.0 GiB · TestOS · python 3" in text
    assert "idle threads spin, copies of inputs and outputs included" in text
    assert "random inputs (seed 0), 3 s a point in up to 10 sittings" in text
    assert "NOISY" not in text
    assert "PARTIAL" not in text


def test_what_was_asked_of_a_session_is_said(model_path: Path, sweep: Sweep) -> None:
    target = _target(model_path)
    settings = {"spinning": False, "io_binding": True, "copies": False, "cuda_graph": True, "conv_search": "heuristic"}
    bound = replace(target, facts=replace(target.facts, settings=settings))
    assert (
        "idle threads sleep, IO binding, copies of inputs and outputs left out, CUDA graph, "
        "convolution search heuristic" in report.text(replace(sweep, targets={"tiny.onnx": bound}))
    )


def test_a_noisy_run_says_why(sweep: Sweep) -> None:
    unsteady = _series("tiny.onnx", milliseconds=1, count=70, is_steady=False)
    restless = Series("tiny.onnx", [Sitting(turns=[[9, 10, 11, 20] * 20])])
    noisy = replace(
        sweep,
        points=[Point(1, 2, ONE_BY_ONE, unsteady, None), Point(8, 2, ONE_BY_ONE, restless, None)],
        activity=replace(QUIET, others_share=0.4),
        calibration_ms=[2.0, 3.0],
    )
    assert (
        "NOISY: other processes took 40% of the cores; a fixed loop took between 2.00 and 3.00 ms; "
        "tiny.onnx at batch 1: not steady at the end of its warm-up; "
        "tiny.onnx at batch 8: the middle half of its samples spans 33% of the median."
    ) in report.text(noisy)
    assert "compare with --intra-op-threads 1." in report.text(noisy)
    alone = replace(noisy, points=[replace(point, threads=1) for point in noisy.points])
    for other in (alone, replace(noisy, activity=QUIET), sweep):
        assert "--intra-op-threads" not in report.text(other)


def test_an_interrupted_run_is_marked_and_may_hold_no_sample(sweep: Sweep) -> None:
    points = [Point(8, 2, ONE_BY_ONE, Series("tiny.onnx"), None)]
    partial = replace(sweep, points=points, is_partial=True)
    text = report.text(partial)
    assert "PARTIAL: interrupted" in text
    assert _table(text, "single-stream")[1] == "tiny.onnx 8 – – – – – – – 0 –"
    document = report.document(partial, command=["enas"])
    assert document["is_partial"]
    assert document["points"][0]["count"] == 0


def _refused(*, calls: int) -> Series:
    """One call was answered, the others were not."""
    traffic = Traffic(by_schedule=False, seconds=1.0, failures={"503": calls})
    return Series("busy.onnx", [Sitting(turns=[[1_000_000, *[math.inf] * calls]], traffic=traffic)])


def test_what_failed_and_what_is_odd_is_said(sweep: Sweep) -> None:
    failed = Series("big.onnx", failure="out of memory")
    odd = replace(_series("odd.onnx", milliseconds=1, count=70), remark="returns NaN for random inputs")
    points = [
        Point(32, 2, ONE_BY_ONE, failed, None),
        Point(1, 2, ONE_BY_ONE, odd, None),
        *(Point(size, 2, Load("offline"), _refused(calls=calls), None) for size, calls in ((1, 5), (8, 1000))),
    ]
    text = report.text(replace(sweep, points=points))
    assert "FAILED: big.onnx at batch 32: out of memory; busy.onnx at batch 1, 8: 503 (1,005 calls)." in text
    assert "CAUTION: odd.onnx returns NaN for random inputs." in text


def test_every_scenario_has_a_table_of_its_own(sweep: Sweep) -> None:
    traffic = Traffic(by_schedule=True, seconds=1.0, unserved=40, failures={"503": 10})
    server = Series("tiny.onnx", [Sitting(turns=[[*[1_000_000] * 950, *[math.inf] * 10]], traffic=traffic)])
    offline = Series(
        "tiny.onnx", [Sitting(turns=[[*[1_000_000] * 1000, math.inf]], traffic=Traffic(False, seconds=0.5))]
    )
    queries = Series("tiny.onnx", [Sitting(turns=[[4_000_000] * 100])])
    points = [
        Point(1, 2, Load("server", rate_per_s=1000, concurrency=4), server, None),
        Point(2, 2, Load("offline", concurrency=4), offline, None),
        Point(1, 1, Load("multi-stream", streams=8), queries, None),
    ]
    text = report.text(replace(sweep, points=points, baseline=None))
    assert _table(text, "server")[0].startswith("batch threads in flight calls/s due lost median ms (95 %)")
    # 50 of 1,000 calls are lost: the p99 is none of the latencies that were seen.
    assert _table(text, "server")[1].startswith("tiny.onnx 1 2 4 1,000 50 1.00 (1.00 – 1.00)")
    assert "∞" in _table(text, "server")[1]
    assert _table(text, "offline")[1].startswith("tiny.onnx 2 2 4 1 1.00 (1.00 – 1.00)")
    assert "4,000 1,001" in _table(text, "offline")[1]
    # Eight calls a query: 2,000 images a second.
    assert _table(text, "multi-stream")[1].startswith("tiny.onnx 1 1 8 4.00")
    assert "2,000 100" in _table(text, "multi-stream")[1]
    assert "Infinity" not in json.dumps(report.document(replace(sweep, points=points), command=["enas"]))


def test_the_most_that_meets_a_latency_is_told(sweep: Sweep) -> None:
    answers = [
        Answer("tiny.onnx", 2, "batch", 16),
        Answer("tiny.onnx", 2, "rate", 412.0, batch_size=1, concurrency=4),
        Answer("big.onnx", 2, "batch", None),
        Answer("remote", None, "rate", None, batch_size=1, concurrency=64),
        Answer("remote", None, "rate", None, batch_size=8, concurrency=1, doubt="too few samples"),
        Answer("remote", None, "batch", 8, doubt="too few samples"),
        Answer("remote", None, "rate", None, batch_size=1, concurrency=1, doubt="unsettled"),
        Answer("remote", None, "batch", 8, doubt="unsettled"),
    ]
    lines = report.text(replace(sweep, goal=Goal(5.0), answers=answers)).splitlines()
    start = lines.index("tiny.onnx, 2 intra-op threads: batches of up to 16 for a p99 of 5 ms or less")
    assert lines[start + 1 : start + 8] == [
        "tiny.onnx, 2 intra-op threads, batch 1, 4 in flight: up to 412 calls/s for a p99 of 5 ms or less",
        "big.onnx, 2 intra-op threads: no batch that was tried for a p99 of 5 ms or less",
        "remote, batch 1, 64 in flight: no rate that was tried for a p99 of 5 ms or less",
        "remote, batch 8, 1 in flight: too few samples to tell which rate has a p99 of 5 ms or less (p99 takes 662)",
        "remote: batches of up to 8 for a p99 of 5 ms or less; "
        "too few samples to tell whether a larger one has it (p99 takes 662)",
        "remote, batch 1, 1 in flight: the samples do not settle which rate has a p99 of 5 ms or less",
        "remote: batches of up to 8 for a p99 of 5 ms or less; the samples do not settle whether a larger one has it",
    ]


def test_the_percentile_of_a_target_has_a_column(sweep: Sweep) -> None:
    assert (
        "p90 ms (95 %) p95 ms (95 %) p99 ms"
        in _table(report.text(replace(sweep, goal=Goal(5, 0.95))), "single-stream")[0]
    )


def test_why_cuda_was_not_taken_is_said_once(model_path: Path, sweep: Sweep) -> None:
    target = _target(model_path)
    elsewhere = replace(target, facts=replace(target.facts, provider_remark="CUDA cannot be used: no driver"))
    assert report.text(replace(sweep, targets={"a": elsewhere, "b": elsewhere})).count("no driver") == 1


def test_the_document_holds_every_sample_and_what_they_hang_on(sweep: Sweep) -> None:
    document = json.loads(json.dumps(report.document(sweep, command=["enas", "benchmark", "tiny.onnx"])))
    fast, slow = document["points"]
    assert document["schema"] == 2
    assert document["command"] == ["enas", "benchmark", "tiny.onnx"]
    assert document["started"] == "2026-01-02T03:04:05+00:00"
    assert document["percentile_rule"]["fewest_samples"] == {"p90": 64, "p95": 130, "p99": 662, "p99.9": 6636}
    assert document["machine"]["cpu"] == "Test CPU"
    (model,) = document["models"]
    assert model["sha256"] == sweep.targets["tiny.onnx"].facts.sha256
    assert model["providers"] == ["CPUExecutionProvider"]
    assert model["nodes"] == {"CPUExecutionProvider": 7}
    assert model["accuracy"]["count"] == 2000
    assert model["inputs"] == [{"name": "images", "dtype": "uint8", "shape": ["batch", 6, 8, 1]}]
    assert model["settings"]["spinning"] is True
    assert [sitting["samples_ms"] for sitting in fast["sittings"]] == [[[0.5] * 5] * 70] * 2
    assert fast["sittings"][0]["warm_up"] == {"calls": 30, "seconds": 0.2, "is_steady": True}
    assert (fast["open_ms"], fast["first_ms"], fast["new_shape_ms"]) == (45.0, 5.0, 1.5)
    assert (fast["scenario"], fast["intra_op_threads"], fast["count"]) == ("single-stream", 2, 700)
    assert fast["median_ms"] == {"value": 0.5, "interval": {"low": 0.5, "high": 0.5}}
    assert fast["speed"] == {"value": 4.0, "interval": {"low": 3.9, "high": 4.1}}
    assert slow["percentiles_ms"]["p90"]["value"] == 2.0
    assert slow["percentiles_ms"]["p99"] is None


def test_the_markdown_is_a_table_with_its_conditions_below(sweep: Sweep) -> None:
    lines = report.markdown(sweep).splitlines()
    assert lines[0] == "**single-stream**"
    assert lines[2].startswith("|  | batch | open ms | first ms |")
    assert len({line.count("|") for line in lines[2:6]}) == 1
    assert lines[6] == ""
    assert all(line.startswith("- ") for line in lines[7:])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (0.0, "0"),
        (0.001234, "0.00123"),
        (0.5, "0.500"),
        (9.876, "9.88"),
        (1234.5, "1,234"),
        (math.inf, "∞"),
    ],
)
def test_numbers_have_three_significant_digits(value: float | None, text: str) -> None:
    assert report._number(value) == text
