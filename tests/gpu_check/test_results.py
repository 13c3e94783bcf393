"""What follows from results: the rule for `--cuda-graphs`, the files that are kept, the section of docs/gpu.md."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from searcher.commands.options import graphs_option
from tests.gpu_check import __main__ as gpu_check
from tests.gpu_check import results as documents
from tests.gpu_check.render import BEGIN, END, NOTHING_YET, results_page, section, with_section
from tests.gpu_check.work.tests import files_with_gpu_tests, graph_tests, read_cases, run_and_show

PAGE = documents.ROOT / "docs" / "gpu.md"


def stage(name: str, *, status: str = "ended", **figures: Any) -> dict[str, Any]:
    checks = [{"name": f"stage {name}", "passed": status == "ended", "detail": ""}]
    fixed = {"reason": "", "exit_status": 0, "seconds": 1.0, "limit_s": 10}
    return {"name": name, "status": status, **fixed, "checks": checks, "figures": figures}


def row(*, graphs: bool, ms: float, **changes: Any) -> dict[str, Any]:
    return {
        **{"graphs": graphs, "update_unused": True, "precision": "auto", "ms": ms, "least_ms": ms, "most_ms": ms},
        **{"images_per_s": 1000, "kernel_ms": ms / 2, "busy": 0.5, "kernels": 3000, "launches": 2000},
        **{"peak_mib": 900, "policy_ms": 50.0, "hours": 0.9, "first_loss": 2.3, "top_kernels": [["wgrad", 0.4]]},
        **changes,
    }


def results(*, off: float = 100.0, on: float = 50.0, **tests: Any) -> dict[str, Any]:
    """Of a check in which a step takes so many ms without and with graphs."""
    unlike = row(graphs=True, ms=1.0, update_unused=False)
    probe = [row(graphs=False, ms=off), row(graphs=True, ms=on), unlike]
    outcomes = {
        "passed": 30,
        "failed": 0,
        "skipped": 2,
        "not collected": 0,
        "graph_tests": {"passed": 12, "skipped": 1},
    }
    stages = [
        stage("environment", gpu="NVIDIA H100 80GB HBM3", device="cuda (NVIDIA H100 80GB HBM3)", versions={}),
        stage("probe", dataset="noise", batch_size=160, epochs=150, probe=probe),
        stage("tests", **{**outcomes, **tests}),
    ]
    return documents.make(
        stages, date="2026-11-27T10:00:00+00:00", command="gpu-check", device="cuda", tiny=False, full=False
    )


@pytest.mark.parametrize(
    ("found", "default", "worthless", "reason"),
    [
        (results(on=50), "on", False, "2.00 times as fast with graphs, and all 12 tests of graphs pass"),
        (results(on=80), "on", False, "1.25 times as fast"),
        (results(on=90), "off", False, "1.11 times as fast with graphs, less than 1.2"),
        (results(on=125), "off", True, "0.80 times as fast"),
        (results(graph_tests={"passed": 11, "failed": 1}), "off", False, "not all tests of graphs pass"),
        (results(graph_tests={"passed": 11, "not collected": 1}), "off", False, "not all tests of graphs pass"),
        (results(graph_tests={"skipped": 12}), "off", False, "not all tests of graphs pass (12 skipped)"),
        (results(out_of_time=True), "off", False, "not all tests of graphs pass"),
        ({"stages": []}, "off", False, "not measured"),
    ],
)
def test_graphs_are_the_default_only_where_they_are_right_and_pay(
    found: dict[str, Any], default: str, worthless: bool, reason: str
) -> None:
    verdict = documents.graphs_verdict(found)
    assert (verdict.default, verdict.worthless) == (default, worthless)
    assert reason in verdict.reason


def test_tests_that_did_not_end_prove_nothing() -> None:
    found = results()
    found["stages"][-1]["status"] = "timed out"
    assert documents.graphs_verdict(found).default == "off"


def test_the_page_tells_the_rule_and_ends_with_the_counts() -> None:
    page = results_page(results(on=125))
    assert "`--cuda-graphs`: to be rebuilt or removed, since a step of the preset is 0.80 times as fast" in page
    assert page.splitlines()[-1] == "3 passed, 0 failed"
    assert "| off | on | auto | 100.0 (100.0 to 100.0) | 1,000 | 50.0 | 50% | 2,000 | 900 | 50 | 0.90 |" in page


def newest() -> dict[str, Any] | None:
    return json.loads(documents.kept()[-1].read_text()) if documents.kept() else None


def test_the_section_of_the_page_is_that_of_the_newest_results() -> None:
    page = PAGE.read_text()
    assert with_section(page, newest()) == page


def test_the_default_of_cuda_graphs_is_what_the_newest_results_say() -> None:
    (option,) = click.command()(graphs_option(lambda: None)).params
    found = newest()
    assert option.default is (found is not None and documents.graphs_verdict(found).default == "on")


def test_what_is_kept_is_small_and_can_be_read() -> None:
    for path in documents.kept():
        found = json.loads(path.read_text())
        assert path.stat().st_size < documents.MAX_BYTES
        assert path.name == documents.kept_name(found)
        assert results_page(found)


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and a folder of kept results that a test may write."""
    monkeypatch.setattr(documents, "ROOT", tmp_path)
    monkeypatch.setattr(documents, "KEPT", tmp_path / "gpu")
    monkeypatch.setattr(gpu_check, "_PAGE", tmp_path / "gpu.md")
    (tmp_path / "gpu.md").write_text(f"before\n{BEGIN}\n{NOTHING_YET}\n{END}\nafter\n")
    return tmp_path


def test_rendering_keeps_the_results_and_writes_the_section(elsewhere: Path) -> None:
    found = results()
    (elsewhere / "results.json").write_text(json.dumps(found))
    assert gpu_check.main(["--render", str(elsewhere / "results.json")]) == 0
    page = (elsewhere / "gpu.md").read_text()
    assert page == f"before\n{BEGIN}\n{section(found)}\n{END}\nafter\n"
    assert NOTHING_YET not in page
    kept = elsewhere / "gpu" / "2026-11-27-nvidia-h100-80gb-hbm3.json"
    assert json.loads(kept.read_text()) == found
    assert documents.kept() == [kept]
    assert with_section(page, None) != page  # so a page that lags behind is found out


@pytest.mark.parametrize("text", ["{", "[]", "{}"])
def test_what_is_no_result_is_refused_in_one_line(
    elsewhere: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    before = (elsewhere / "gpu.md").read_text()
    (elsewhere / "results.json").write_text(text)
    with pytest.raises(SystemExit) as caught:
        gpu_check.main(["--render", str(elsewhere / "results.json")])
    assert caught.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert (elsewhere / "gpu.md").read_text() == before


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one pair of markers"):
        with_section("nothing", None)


def test_results_too_large_to_keep_are_refused() -> None:
    found = results()
    found["stages"][0]["figures"]["noise"] = "x" * documents.MAX_BYTES
    with pytest.raises(ValueError, match="at most 100,000 are kept"):
        documents.to_json(found)


def test_outcomes_of_tests_come_from_the_xml(tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.searcher.nn.test_graphs" name="test_a[cuda]" />'
        '<testcase classname="tests.searcher.nn.test_graphs" name="test_b[cuda]">'
        '<failure message="not alike">…</failure></testcase>'
        '<testcase classname="tests.runtime.test_providers" name="test_c"><skipped message="needs CUDA" />'
        '</testcase><testcase classname="" name="tests.end_to_end.test_whole_run"><error message="collection failure">'
        "E   ModuleNotFoundError: No module named 'tomli_w'</error></testcase></testsuite></testsuites>"
    )
    cases = read_cases(tmp_path / "tests.xml")
    assert [(case["outcome"], case["reason"]) for case in cases] == [
        ("passed", ""),
        ("failed", "not alike"),
        ("skipped", "needs CUDA"),
        ("not collected", "needs tomli_w"),
    ]
    assert graph_tests(cases) == {"passed": 1, "failed": 1}


def test_a_session_of_tests_that_ran_out_of_time_is_told_from_one_that_ended() -> None:
    for said, out_of_time in (("session-timeout: 85.0 sec exceeded", True), ("session timeout: 85.0s", False)):
        assert run_and_show([sys.executable, "-c", f"print({said!r}); raise SystemExit(1)"]) == (1, out_of_time)


def test_gpu_tests_begin_with_those_of_the_searcher_and_end_with_whole_runs() -> None:
    files = [path.relative_to(documents.ROOT / "tests") for path in files_with_gpu_tests(documents.ROOT / "tests")]
    assert files[0].parts[0] == "searcher"
    assert files[-1] == Path("end_to_end/test_whole_run.py")
    assert Path("searcher/nn/test_graphs.py") in files


def test_the_section_says_that_nothing_has_run_until_something_has() -> None:
    assert section(None) == NOTHING_YET
    assert re.search("^Nothing yet", NOTHING_YET)
