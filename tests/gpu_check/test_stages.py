"""A stage that goes wrong is reported as what it is, and keeps none of the others from running."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.gpu_check import __main__ as gpu_check
from tests.gpu_check import results, stages
from tests.gpu_check.job import Record
from tests.gpu_check.stages import Stage, missing_packages, run_stage

_RECORD = "from pathlib import Path; from tests.gpu_check.job import Record; r = Record(Path({path!r}))\n"


def run_script(folder: Path, script: str, *, name: str = "it", limit_s: float = 60) -> dict[str, Any]:
    prelude = _RECORD.format(path=str(folder / f"{name}.json"))
    return run_stage(name, [sys.executable, "-c", prelude + script], folder=folder, limit_s=limit_s)


def test_a_stage_that_ends_has_passed_and_keeps_its_figures(tmp_path: Path) -> None:
    found = run_script(tmp_path, "r.note(ms=1.5); r.check('it works', True, 'well')")
    assert (found["status"], found["reason"]) == ("ended", "")
    assert found["figures"] == {"ms": 1.5}
    assert found["checks"] == [
        {"name": "stage it", "passed": True, "detail": ""},
        {"name": "it works", "passed": True, "detail": "well"},
    ]


def test_a_stage_that_crashes_is_reported_with_its_signal(tmp_path: Path) -> None:
    found = run_script(tmp_path, "import os; print('before', flush=True); os.abort()")
    assert found["status"] == "crashed"
    assert found["reason"] == "ended by SIGABRT; the last line of its log: before"
    assert found["checks"] == [{"name": "stage it", "passed": False, "detail": found["reason"]}]


def test_a_stage_that_raises_is_reported_with_its_last_line(tmp_path: Path) -> None:
    found = run_script(tmp_path, "raise ValueError('no such kernel')")
    assert found["status"] == "failed"
    assert found["reason"] == "exit status 1; the last line of its log: ValueError: no such kernel"


def test_a_stage_that_hangs_is_stopped_with_what_it_started_and_keeps_what_it_measured(tmp_path: Path) -> None:
    script = (
        "import subprocess, sys, time; r.row('probe', {'ms': 2})\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid)); time.sleep(600)"
    )
    found = run_script(tmp_path, script, limit_s=5)
    assert found["status"] == "timed out"
    assert found["reason"].startswith("stopped after 5 s")
    assert found["figures"] == {"probe": [{"ms": 2}]}
    status = Path(f"/proc/{(tmp_path / 'child').read_text()}/status")
    for _ in range(100):  # init may take a moment to collect it
        if not status.exists() or "State:\tZ" in status.read_text():
            break
        time.sleep(0.05)
    else:
        pytest.fail("what the stage has started still runs")


def test_a_stage_that_says_nothing_has_not_passed(tmp_path: Path) -> None:
    found = run_stage("it", [sys.executable, "-c", "pass"], folder=tmp_path, limit_s=60)
    assert found["status"] == "said nothing"
    assert found["reason"] == "exit status 0, but no result; its log is empty"
    assert not found["checks"][0]["passed"]


def test_what_an_earlier_run_left_is_not_taken_for_a_result(tmp_path: Path) -> None:
    Record(tmp_path / "it.json").check("it works", True)
    assert run_stage("it", [sys.executable, "-c", "pass"], folder=tmp_path, limit_s=60)["status"] == "said nothing"


def test_missing_packages_are_named() -> None:
    assert missing_packages(Stage("it", 1, ("json", "no_such_package"))) == ["no_such_package"]


def test_one_bad_stage_stops_no_other_and_results_stand_after_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripts = {
        "crash": "import os; os.abort()",
        "hang": "import time; time.sleep(600)",
        "silence": "pass",
        "sound": "r.check('it works', True)",
        "unsound": "r.check('it works', False, 'not at all')",
    }
    written: list[int] = []

    def command(stage: Stage, **_: object) -> list[str]:
        path = tmp_path / "results.json"
        written.append(path.read_text().count('"status"') if path.exists() else 0)
        return [sys.executable, "-c", _RECORD.format(path=str(tmp_path / f"{stage.name}.json")) + scripts[stage.name]]

    monkeypatch.setattr(gpu_check, "command", command)
    chosen = [Stage(name, 4 if name == "hang" else 60) for name in scripts]
    lacking = Stage("lacking", 1, ("no_such_package",))
    options: dict[str, Any] = {"device": "cuda", "seconds": 300, "tiny": False, "full": False}
    found = gpu_check.check(tmp_path, "gpu-check", stages=[*chosen, lacking], **options)
    statuses = {stage["name"]: stage["status"] for stage in found["stages"]}
    assert statuses == {
        "crash": "crashed",
        "hang": "timed out",
        "silence": "said nothing",
        "sound": "ended",
        "unsound": "ended",
        "lacking": "not run",
    }
    assert results.counts(found) == (3, 5)
    assert written == [0, 1, 2, 3, 4]
    page = (tmp_path / "results.md").read_text()
    assert page.splitlines()[-1] == "3 passed, 5 failed"
    assert "- FAILED: it works: not at all" in page
    assert "| lacking | 1 | 0 | not run: needs no_such_package |" in page


def test_a_stage_without_time_left_is_not_begun(tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": "cuda", "tiny": False, "full": False}
    found = gpu_check.check(tmp_path, "gpu-check", seconds=0.5, stages=stages.STAGES[:1], **options)
    assert found["stages"][0]["reason"] == "no time left of the 0 s"
