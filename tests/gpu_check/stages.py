"""The stages of the check, and the running of one: a process of its own, with a limit and a log.

A stage that fails, crashes, hangs or says nothing is reported as such; it stops no other. Needs only the standard
library, so that a machine without torch is told what it lacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

USERS_MISTAKE = 2
_TORCH = ("torch", "numpy", "h5py")
_SEARCH = (*_TORCH, "tomli_w", "tqdm")
_DISTRIBUTIONS = {"tomli_w": "tomli-w", "pytest_timeout": "pytest-timeout"}
# Between what a stage is told of its limit and its end: to write down what it has.
_GRACE_S = 5.0


@dataclass(frozen=True)
class Stage:
    """A part of the check."""

    name: str
    share_s: float
    """Its share of the time, in seconds where there are as many as all shares together."""
    needs: tuple[str, ...] = ()
    """Modules it imports."""
    full_share_s: float | None = None
    """Its share with --full, where that is another one."""


STAGES = (
    Stage("environment", 20, _TORCH),
    Stage("smoke", 60, _TORCH),  # seconds of which load CUDA's libraries, where nothing has used them before
    Stage("probe", 190, _SEARCH),
    Stage("kernels", 30, _TORCH),
    Stage("levers", 100, _SEARCH, full_share_s=600),
    # Last, for it measures nothing: it has what the others have left.
    Stage("tests", 150, (*_SEARCH, "pytest", "pytest_timeout", "onnx", "onnxruntime", "onnxscript")),
)


def limit_of(stages: Sequence[Stage], left_s: float, *, full: bool) -> float:
    """How long the first of the stages may take of the seconds that are left for them all."""
    shares = [(stage.full_share_s if full else None) or stage.share_s for stage in stages]
    return left_s * shares[0] / sum(shares)


def missing_packages(stage: Stage) -> list[str]:
    """The distributions that a stage needs and this Python has not."""
    return [_DISTRIBUTIONS.get(name, name) for name in stage.needs if find_spec(name) is None]


def command(stage: Stage, *, device: str, folder: Path, limit_s: float, tiny: bool, full: bool) -> list[str]:
    """What does a stage: its process reads these words in `worker`."""
    words = [sys.executable, "-m", "tests.gpu_check.worker", stage.name, "--device", device, "--folder", str(folder)]
    return [*words, "--seconds", f"{limit_s - _GRACE_S:.0f}", *["--tiny"] * tiny, *["--full"] * full]


def run_stage(
    name: str, words: Sequence[str], *, folder: Path, limit_s: float, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a stage's command and tell what became of it.

    Returns: name, status ("ended", "failed", "crashed", "timed out" or "said nothing"), reason, seconds, limit_s, and
    the checks and figures that the stage left. Its first check is whether it came to its end.
    """
    log_path, record_path = folder / f"{name}.log", folder / f"{name}.json"
    record_path.unlink(missing_ok=True)
    started = time.monotonic()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            process.wait(timeout=limit_s)
            timed_out = False
        except subprocess.TimeoutExpired:
            timed_out = True
        finally:
            _end(process)
    seconds = time.monotonic() - started
    record = _read(record_path)
    status, reason = _outcome(process.returncode, timed_out=timed_out, record=record, log=log_path, limit_s=limit_s)
    own = {"name": f"stage {name}", "passed": status == "ended", "detail": reason}
    return {
        "name": name,
        "status": status,
        "reason": reason,
        "exit_status": process.returncode,
        "seconds": round(seconds, 1),
        "limit_s": round(limit_s, 1),
        "checks": [own, *record.get("checks", [])],
        "figures": record.get("figures", {}),
    }


def not_run(stage: Stage, reason: str) -> dict[str, Any]:
    """As `run_stage` tells of a stage that could not begin."""
    return {
        "name": stage.name,
        "status": "not run",
        "reason": reason,
        "exit_status": None,
        "seconds": 0.0,
        "limit_s": stage.share_s,
        "checks": [{"name": f"stage {stage.name}", "passed": False, "detail": reason}],
        "figures": {},
    }


def last_line(log: Path) -> str:
    """The last line of a log that says anything, at most 300 characters of it."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:300] if lines else ""


def _outcome(
    exit_status: int, *, timed_out: bool, record: dict[str, Any], log: Path, limit_s: float
) -> tuple[str, str]:
    said = last_line(log)
    after = f"; the last line of its log: {said}" if said else "; its log is empty"
    if timed_out:
        return "timed out", f"stopped after {limit_s:.0f} s{after}"
    if exit_status < 0:
        return "crashed", f"ended by {signal.Signals(-exit_status).name}{after}"
    if exit_status > 0:
        return "failed", f"exit status {exit_status}{after}"
    if not record.get("checks") and not record.get("figures"):
        return "said nothing", f"exit status 0, but no result{after}"
    return "ended", ""


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return {}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a stage and whatever it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
