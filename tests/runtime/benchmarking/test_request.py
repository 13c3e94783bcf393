"""What the options of a benchmark mean together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foundation.allowance import usable_cores
from foundation.options import OptionError
from runtime.benchmarking.benchmark import Plan
from runtime.benchmarking.request import BenchmarkRequest
from runtime.benchmarking.results import Goal
from runtime.benchmarking.scenarios import Load
from runtime.commands.benchmark import benchmark


def request_of(*arguments: str, model: str = "model.onnx") -> BenchmarkRequest:
    """The request that a command line makes."""
    options: dict[str, Any] = benchmark.make_context("benchmark", [model, *arguments]).params
    for name in ("as_json", "output", "export_markdown", "export_plots"):
        del options[name]
    return BenchmarkRequest(**options)


def test_without_a_word_single_calls_are_measured_with_all_cores() -> None:
    request = request_of()
    assert request.loads == [Load("single-stream", streams=8)]
    assert (request.grid.threads, request.grid.batch_sizes, request.goal) == ([usable_cores()], None, None)
    assert request.plan == Plan(duration_s=3.0, min_samples=64, warmup_s=2.0, sittings=10)


def test_what_is_given_twice_is_measured_once() -> None:
    request = request_of("-b", "1,8", "-b", "8,32", "--intra-op-threads", "2,1,2", "--shape", "time=5")
    assert request.grid.batch_sizes == [1, 8, 32]
    assert request.grid.threads == [2, 1]
    assert request.grid.sizes == {"time": 5}


def test_a_server_load_is_made_for_each_rate_and_each_number_of_calls_in_flight() -> None:
    request = request_of("--scenario", "server", "--request-rate", "10,20", "--concurrency", "1,4", "--seed", "3")
    assert [(load.rate_per_s, load.concurrency, load.seed) for load in request.loads] == [
        (10, 1, 3),
        (10, 4, 3),
        (20, 1, 3),
        (20, 4, 3),
    ]


def test_a_server_elsewhere_is_sent_more_at_a_time_and_has_no_threads_of_ours() -> None:
    options = ["--url", "http://localhost:1", "--scenario", "server", "--request-rate", "10", "--scenario", "offline"]
    request = request_of(*options)
    assert [load.concurrency for load in request.loads] == [64, 1]
    assert request.grid.threads == [None]
    assert request.run_path is None


def test_a_percentile_takes_as_many_samples_as_support_it() -> None:
    request = request_of("--latency-target", "5ms", "--percentile", "99")
    assert request.goal == Goal(5.0, 0.99)
    assert request.plan.min_samples > 64


def test_headers_carry_the_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("secret\n", encoding="utf-8")
    options = ["--url", "http://localhost:1", "--token-file", str(tmp_path / "token")]
    assert request_of(*options, "--header", "X-Of: me : you").request_headers == {
        "Authorization": "Bearer secret",
        "X-Of": "me : you",
    }


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("nothing", "must be NAME:VALUE"),
        (" :x", "must be NAME:VALUE"),
        ("X Y: 1", "a name is of letters, digits and"),
        ("Ä: 1", "a name is of letters, digits and"),
        ("X: €", "a value is of printable characters of Latin-1"),
        ("X: 1\r\nY: 2", "a value is of printable characters of Latin-1"),
    ],
)
def test_a_header_that_no_request_can_carry_is_refused(header: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        _ = request_of("--url", "http://localhost:1", "--header", header).request_headers
    assert request_of("--url", "http://localhost:1", "--header", "X: é").request_headers == {"X": "é"}


@pytest.mark.parametrize("content", [b"\xff\xfe\x00secret", b"", b"two\nlines"])
def test_a_file_that_holds_no_token_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    request = request_of("--url", "http://localhost:1", "--token-file", str(tmp_path / "token"))
    with pytest.raises(OptionError, match=r"^--token-file .*token: a token is a line of printable ASCII characters$"):
        _ = request.request_headers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--concurrency 4", "--concurrency belongs to"),
        ("--scenario offline --latency-target 5ms", "--latency-target belongs to"),
        ("--request-rate 5", "--request-rate belongs to"),
        ("--scenario server", "--scenario server takes --request-rate"),
        *(
            (f"--url http://localhost:1 {option}", f"^{option.split()[0]} is of models in this process, .* with --url$")
            for option in (
                "--compare-torch",
                "--intra-op-threads 2",
                "--provider cuda",
                "--no-spinning",
                "--io-binding",
                "--no-data-transfers",
                "--cuda-graph",
                "--conv-search default",
            )
        ),
        ("--header a:b", "they go with --url"),
        ("--no-data-transfers", "takes --io-binding"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        request_of(*arguments.split())
