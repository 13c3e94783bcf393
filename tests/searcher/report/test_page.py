import hashlib
import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from foundation.document import DocumentError
from searcher.arch import catalog
from searcher.arch.spec import write_spec
from searcher.report.page import write_report
from tests.searcher.report.test_graph import make_spec, published_spec

VOID = {"meta", "link", "br", "img"}
EPOCHS = range(1, 4)
SEARCH_METRICS = [
    {
        "epoch": epoch,
        "loss": 2 / epoch,
        "train_accuracy": 0.2 * epoch,
        "reward": 0.3 * epoch,
        "random_reward": 0.2 * epoch,
        "entropy": 50.0 - epoch,
        "baseline": 0.1,
        "learning_rate": 0.1,
    }
    for epoch in EPOCHS
]
SEARCH_SUMMARY = {
    "reward": 0.81,
    "sampled_rewards": [0.8, 0.82, 0.79],
    "finalist_rewards": [0.81, 0.78],
    "seconds": 125.0,
    "device": "cpu",
    "versions": {"torch": "2.13.0"},
}
RETRAIN_METRICS = [
    {"epoch": epoch, "loss": 1 / epoch, "train_accuracy": 0.3 * epoch, "valid_accuracy": 0.29 * epoch}
    for epoch in EPOCHS
]
RETRAIN_SUMMARY = {
    "test_accuracy": 0.9123,
    "test_count": 2000,
    "valid_accuracy": 0.92,
    "best_epoch": 3,
    "parameters": 212345,
    "seconds": 3725,
}
VERIFICATION = {
    "passed": True,
    "model_sha256": "0123456789abcdef" * 4,
    "tolerance": {"absolute": 1e-4, "relative": 1e-4},
    "comparisons": [{"inputs": "test", "batch_size": size, "count": 2000, "passed": True} for size in (1, 2, 7, 64)],
}
BENCHMARK = {
    "points": [
        {
            "name": "model.onnx",
            "scenario": "single-stream",
            "batch_size": 8,
            "count": 700,
            "median_ms": {"value": 1.25, "interval": {"low": 1.2, "high": 1.3}},
            "percentiles_ms": {"p90": {"value": 1.5, "interval": None}, "p99": None},
            "items_per_s": 6400.0,
        }
    ],
    "machine": {"cpu": "A <fast> one", "usable_cores": 2, "versions": {"onnxruntime": "1.27"}},
    "disturbances": ["load 3.1"],
}


def _write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, list):
        path.write_text("".join(json.dumps(record) + "\n" for record in content))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def _begin_search(run: Path) -> None:
    _write(run / "search" / "config.toml", 'preset = "quick"\nseed = 7\nnum_epochs = 3\n[policy]\nkind = "lstm"\n')
    _write(run / "search" / "metrics.jsonl", SEARCH_METRICS[:2])


def _finish(run: Path) -> None:
    _begin_search(run)
    _write(run / "search" / "metrics.jsonl", SEARCH_METRICS)
    _write(run / "search" / "summary.json", SEARCH_SUMMARY)
    write_spec(run / "spec.json", published_spec())
    _write(run / "retrain" / "config.toml", "num_epochs = 3\n")
    _write(run / "retrain" / "metrics.jsonl", RETRAIN_METRICS)
    _write(run / "retrain" / "summary.json", RETRAIN_SUMMARY)
    _write(run / "verification.json", VERIFICATION)
    _write(run / "benchmark.json", BENCHMARK)


def _begin_text_search(run: Path) -> None:
    _write(run / "search" / "config.toml", 'space = "recurrent"\nnum_epochs = 3\n[training]\nreward_constant = 60.0\n')
    keys = {"train_accuracy": "train_perplexity"}
    metrics = [{keys.get(key, key): 10 * value for key, value in record.items()} for record in SEARCH_METRICS]
    _write(run / "search" / "metrics.jsonl", [record | {"epoch": epoch} for epoch, record in enumerate(metrics, 1)])


def _finish_text(run: Path) -> None:
    _begin_text_search(run)
    _write(run / "search" / "summary.json", {"reward": 7.5, "sampled_rewards": [7.4, 7.5]})
    write_spec(run / "spec.json", catalog.published_spec("enas-recurrent-published"))
    for stage, perplexity, parameters in (("retrain", 91.25, 2720), ("retrain-lstm", 95.5, 2618)):
        metrics = [
            {"epoch": e, "loss": 5.0, "train_perplexity": 300 / e, "valid_perplexity": 3 * perplexity / e}
            for e in EPOCHS
        ]
        summary = {"test_perplexity": perplexity, "valid_perplexity": perplexity + 1, "parameters": parameters}
        _write(run / stage / "config.toml", "num_epochs = 3\n")
        _write(run / stage / "metrics.jsonl", metrics)
        _write(run / stage / "summary.json", {**summary, "test_count": 4321, "best_epoch": 3, "seconds": 61})
    rows = [{"inputs": "steps of test", "batch_size": 1, "accuracy": None, "passed": True}]
    _write(run / "verification.json", {"passed": True, "comparisons": rows})


def _page(run: Path) -> str:
    return write_report(run).read_text(encoding="utf-8")


def _commands(page: str) -> list[str]:
    return re.findall("<code>(.*?)</code>", page)


class _Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "a run"
    path.mkdir()
    return path


def test_figures_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    _finish(tmp_path)
    nothing = {"valid_accuracy": None, "test_accuracy": None}
    _write(tmp_path / "retrain" / "metrics.jsonl", [*RETRAIN_METRICS, RETRAIN_METRICS[-1] | {"epoch": 4} | nothing])
    _write(tmp_path / "retrain" / "summary.json", RETRAIN_SUMMARY | nothing)
    _write(tmp_path / "search" / "summary.json", SEARCH_SUMMARY | {"reward": None, "sampled_rewards": [0.8, None]})
    page = _page(tmp_path)
    assert "None" not in page
    assert "212,345" in page


@pytest.mark.parametrize(("chance", "says_so"), [(0.82, True), (0.81, True), (0.5, False)])
def test_a_search_within_chance_is_called_so(tmp_path: Path, chance: float, says_so: bool) -> None:
    _finish(tmp_path)
    _write(tmp_path / "search" / "summary.json", SEARCH_SUMMARY | {"chance_reward": chance})
    assert (f"81.0 %, is within chance ({100 * chance:.1f} %)" in _page(tmp_path)) is says_so


def test_a_finished_run_misses_nothing_and_tells_its_results(run: Path) -> None:
    _finish(run)
    page = _page(run)
    assert "makes it" not in page
    for words in (
        "91.23 %",
        "212,345",
        "1 h 2 min",
        "2 min 5 s",
        "✓ passed",
        "6,400",
        "A &lt;fast&gt; one",
        "load 3.1",
    ):
        assert words in page
    assert "in epoch 3 the policy&#x27;s architectures score 90.0 % on average" in page
    assert "uniformly random ones 60.0 %: +30.0 points." in page


def test_an_empty_run_names_the_command_for_each_part(run: Path) -> None:
    quoted = f"&#x27;{run}&#x27;"
    assert [command.replace("'", "&#x27;") for command in _commands(_page(run))] == [
        f"enas search --run {quoted} --resume",
        f"enas search --run {quoted}",
        f"enas retrain {quoted}",
        f"enas export {quoted}",
        f"enas benchmark {quoted}",
    ]


def test_an_unfinished_search_shows_its_curves_so_far(run: Path) -> None:
    _begin_search(run)
    page = _page(run)
    assert "2 of 3" in page
    assert "The search is not finished" in page
    assert "controller 60.0 %" in page


def test_a_language_models_figures_are_perplexities_beside_the_lstms(run: Path) -> None:
    _finish_text(run)
    page = _page(run)
    for words in (
        "<dt>test perplexity</dt><dd>91.25</dd>",
        "<dt>test perplexity of the LSTM</dt><dd>95.50</dd>",
        "<dt>validation perplexity</dt><dd>92.25</dd>",
        "<dt>reward in the search</dt><dd>7.5</dd>",
        "<dt>test tokens</dt><dd>4,321</dd>",
        "<td>the cell</td><td>91.25</td><td>92.25</td><td>2,720</td>",
        "<td>LSTM</td><td>95.50</td><td>96.50</td><td>2,618</td>",
        "LSTM, validation 95.5",
        "60 / perplexity",
        "nats per token",
        "in epoch 3 the policy&#x27;s architectures score 9 on average, uniformly random ones 6: +3.",
        "onnxruntime against torch on the same inputs",
    ):
        assert words in page
    found = page.partition("<section>\n<h2>Search")[2]
    assert "accuracy" not in found
    assert "image" not in found
    assert " %" not in found


def test_a_text_search_without_a_spec_yet_knows_what_its_rewards_are(run: Path) -> None:
    _begin_text_search(run)
    page = _page(run)
    assert "60 / perplexity, both on the same minibatches" in page
    assert "Training perplexity of the shared weights" in page


def test_an_lstm_that_is_not_trained_to_its_end_is_named_with_its_command(run: Path) -> None:
    _finish_text(run)
    (run / "retrain-lstm" / "summary.json").unlink()
    assert "The LSTM to compare with is not trained to its end" in _page(run)
    assert f"enas retrain &#x27;{run}&#x27; --resume" in _page(run)


def test_an_lstm_of_an_earlier_retraining_is_not_told_beside_this_one(run: Path) -> None:
    _finish_text(run)
    _write(run / "retrain-lstm" / "config.toml", "num_epochs = 2\n")
    assert "LSTM" not in _page(run)


def test_a_network_trained_without_the_lstm_misses_nothing(run: Path) -> None:
    _finish_text(run)
    shutil.rmtree(run / "retrain-lstm")
    assert "LSTM" not in _page(run)


def test_a_spec_that_was_not_searched_for_tells_where_it_comes_from(run: Path) -> None:
    write_spec(run / "spec.json", replace(published_spec(), provenance={"source": "by hand", "seed": 41}))
    page = _page(run)
    assert "The architecture does not come from a search of this run." in page
    assert "<dt>source</dt><dd>by hand</dd>" in page


def test_a_search_without_control_samples_has_no_comparison(run: Path) -> None:
    _finish(run)
    _write(
        run / "search" / "metrics.jsonl",
        [{key: value for key, value in record.items() if key != "random_reward"} for record in SEARCH_METRICS],
    )
    page = _page(run)
    assert "uniformly random ones" not in page
    assert "controller 90.0 %" in page


def test_a_last_line_cut_short_is_left_out(run: Path) -> None:
    _begin_search(run)
    with open(run / "search" / "metrics.jsonl", "a") as file:
        file.write('{"epoch": 3, "rew')
    assert "2 of 3" in _page(run)


def test_a_refused_export_is_shown_as_failed(run: Path) -> None:
    _write(run / "verification-failed.json", {**VERIFICATION, "passed": False})
    assert "✗ failed" in _page(run)


def test_the_page_needs_nothing_from_outside_and_runs_nothing(run: Path) -> None:
    _finish(run)
    page = _page(run)
    assert set(re.findall(r"https?://[^\s\"'<)]*", page)) == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"url\(|@import|\bsrc=|\bhref=", page)
    balance = _Balance()
    balance.feed(page)
    assert balance.open == []
    assert "script" not in balance.tags


def test_words_of_a_spec_cannot_become_markup(run: Path) -> None:
    spec = published_spec()
    write_spec(run / "spec.json", make_spec(spec.architecture, spec.network, dataset="<script>alert(1)</script>"))
    balance = _Balance()
    balance.feed(_page(run))
    assert "script" not in balance.tags


def test_equal_runs_give_equal_bytes(run: Path) -> None:
    _finish(run)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


@pytest.mark.parametrize("document", [{}, {"points": []}, {"points": [{}]}, {"points": [{"median_ms": 3.0}]}])
def test_a_benchmark_of_another_shape_is_shown_as_far_as_it_goes(run: Path, document: dict[str, Any]) -> None:
    _write(run / "benchmark.json", document)
    assert "Benchmark" in _page(run)


def test_a_benchmark_of_an_earlier_model_is_not_shown_as_this_ones(run: Path) -> None:
    (run / "model.onnx").write_bytes(b"model")
    digest = hashlib.sha256(b"model").hexdigest()
    document = {**BENCHMARK, "models": [{"sha256": digest}], "failures": ["batch 512: out of memory"]}
    _write(run / "benchmark.json", document)
    assert "Failed: batch 512: out of memory." in _page(run)
    (run / "model.onnx").write_bytes(b"another")
    page = _page(run)
    assert "The benchmark here is of an earlier model" in page
    assert "out of memory" not in page


def test_a_run_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(DocumentError, match=f"^{path}: no such run directory; `enas search --run {path}` makes it$"):
        write_report(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("search/summary.json", "{", "not valid JSON: Expecting property name enclosed in double quotes"),
        ("benchmark.json", "[]", "expected a JSON object"),
        ("retrain/config.toml", "a = ", "not valid TOML: "),
    ],
)
def test_a_damaged_file_is_named_and_no_page_is_written(run: Path, name: str, content: str, message: str) -> None:
    _write(run / name, content)
    with pytest.raises(DocumentError, match=f"^{re.escape(str(run / name))}: {re.escape(message)}"):
        write_report(run)
    assert not (run / "report.html").exists()


def test_the_forms_that_were_tried_are_shown_with_the_reason(tmp_path: Path) -> None:
    _finish(tmp_path)
    assert "Other forms" not in _page(tmp_path)
    trial = {
        "name": "int8",
        "settings": "minmax, per channel",
        "accuracy": 0.805,
        "base_accuracy": 0.803,
        "num_bytes": 283946,
        "ms": 0.113,
        "base_ms": 0.148,
        "kept": False,
        "test_accuracy": None,
        "reason": "1.02 times as fast here; 1.05 is asked",
    }
    (tmp_path / "model.onnx").write_bytes(b"a model")
    model_sha256 = hashlib.sha256(b"a model").hexdigest()
    _write(tmp_path / "verification.json", {**VERIFICATION, "model_sha256": model_sha256})
    listed = {"model_sha256": model_sha256, "trials": [trial, "not a trial"]}
    _write(tmp_path / "variants.json", listed)
    page = _page(tmp_path)
    for text in ("Other forms", "minmax, per channel", "80.50 %", "1.02 times as fast here; 1.05 is asked"):
        assert text in page
    _write(tmp_path / "variants.json", {**listed, "model_sha256": "of another"})
    assert "Other forms" not in _page(tmp_path)
