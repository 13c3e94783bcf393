"""The whole check at tiny sizes on the CPU, as `make gpu-check` starts it; and what it says without CUDA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.gpu_check.results import ROOT, counts, figures
from tests.gpu_check.stages import STAGES
from tests.gpu_check.work.probe import WAYS

# Seconds of computing; a machine with much else to do takes its time over starting so many processes.
pytestmark = pytest.mark.timeout(1500)


def gpu_check(*words: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.gpu_check", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment, check=False)


def test_every_stage_runs_in_tiny_form(tmp_path: Path) -> None:
    done = gpu_check("--device", "cpu", "--tiny", "--seconds", "1400", "--out", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads((tmp_path / "results.json").read_text())
    assert [(stage["name"], stage["status"]) for stage in results["stages"]] == [(s.name, "ended") for s in STAGES]
    assert counts(results)[1] == 0
    probe = figures(results, "probe")["probe"]
    assert [(row["graphs"], row["update_unused"], row["precision"]) for row in probe] == [
        (way.graphs, way.update_unused, way.precision) for way in WAYS
    ]
    assert all(row["ms"] > 0 and row["policy_ms"] > 0 and row["kernel_ms"] > 0 for row in probe)
    assert [row["recordings"] > 0 for row in probe] == [way.graphs for way in WAYS]
    assert len(list(tmp_path.glob("kernels, *.txt"))) == len(WAYS)
    assert len(figures(results, "kernels")["kernels"]) == 36
    assert {row["levers"] for row in figures(results, "levers")["levers"]} == {"all", "graphs left out"}
    assert figures(results, "tests")["skipped"] > 0
    page = (tmp_path / "results.md").read_text()
    assert page.splitlines()[-1] == f"{counts(results)[0]} passed, 0 failed"
    assert "the figures mean nothing" in page


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA works here")
def test_without_cuda_it_ends_with_2_and_one_line(tmp_path: Path) -> None:
    done = gpu_check("--out", tmp_path)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: --device cuda: ")
