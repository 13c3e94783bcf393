"""The tests marked `gpu`, in a pytest of their own, read from its JUnit XML."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from tests.gpu_check.job import Job, Record

_ROOT = Path(__file__).parents[3]
_TEST_LIMIT_S = 60
# For the test that runs when the session's time is over, and for the report.
_LAST_TEST_S = 50


def main(job: Job, record: Record, device: torch.device) -> None:
    report = job.folder / "tests.xml"
    report.unlink(missing_ok=True)
    limit_s = max(job.seconds_left - _LAST_TEST_S, 5)
    options = [
        "-m",
        "gpu",
        "-q",
        "-p",
        "no:cacheprovider",
        f"--timeout={_TEST_LIMIT_S}",
        f"--session-timeout={limit_s:.0f}",
    ]
    options += ["--run-gpu"] if device.type == "cuda" else []
    files = [_ROOT / "tests/searcher/nn/test_graphs.py"] if job.tiny else files_with_gpu_tests(_ROOT / "tests")
    words = [sys.executable, "-m", "pytest", *options, "--continue-on-collection-errors", f"--junitxml={report}"]
    exit_status, out_of_time = run_and_show([*words, *map(str, files)])
    if not report.exists():
        record.check("pytest wrote its report", False, f"exit status {exit_status}")
        return
    cases = read_cases(report)
    counts = Counter(case["outcome"] for case in cases)
    record.note(**{outcome: counts[outcome] for outcome in ("passed", "failed", "skipped", "not collected")})
    record.note(
        failures=[case for case in cases if case["outcome"] == "failed"],
        reasons=dict(Counter(case["reason"] for case in cases if case["outcome"] in ("skipped", "not collected"))),
        graph_tests=graph_tests(cases),
        out_of_time=out_of_time,
    )
    record.check("all GPU tests had time", not out_of_time)
    record.check("no GPU test fails", counts["failed"] == 0, f"{counts['failed']} of {len(cases)} fail")
    if device.type == "cuda":
        record.check("GPU tests ran", counts["passed"] > 0, f"{counts['passed']} passed, {counts['skipped']} skipped")


def run_and_show(words: list[str]) -> tuple[int, bool]:
    """Run pytest, showing what it says at once: its exit status, and whether its session ran out of time."""
    out_of_time = False
    with subprocess.Popen(words, cwd=_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            out_of_time |= "session-timeout: " in line
    return process.returncode, out_of_time


def files_with_gpu_tests(folder: Path) -> list[Path]:
    """The test files in which the mark occurs, those of whole runs last."""
    files = [path for path in folder.rglob("test_*.py") if "mark.gpu" in path.read_text(encoding="utf-8")]
    return sorted(files, key=lambda path: ("searcher" not in path.parts, "end_to_end" in path.parts, path))


def read_cases(report: Path) -> list[dict[str, Any]]:
    """From JUnit XML: every test's name, outcome (passed, failed, skipped, or not collected) and reason."""
    cases = []
    for element in ElementTree.parse(report).iter("testcase"):
        case = {"name": f"{element.get('classname')}::{element.get('name')}", "outcome": "passed", "reason": ""}
        for child in element:
            if child.tag in ("failure", "error", "skipped"):
                case["outcome"] = "skipped" if child.tag == "skipped" else "failed"
                case["reason"] = (child.get("message") or "").strip()[:300]
                missing = re.search(r"No module named '([\w.]+)'", child.text or "")
                if child.get("message") == "collection failure" and missing:
                    case |= {"outcome": "not collected", "reason": f"needs {missing[1]}"}
        cases.append(case)
    return cases


def graph_tests(cases: list[dict[str, Any]]) -> dict[str, int]:
    """How many of the tests of CUDA graphs had which outcome."""
    about = [case for case in cases if re.search("graph|replay|record", case["name"])]
    return dict(Counter(case["outcome"] for case in about))
